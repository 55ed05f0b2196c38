//! What every figure is drawn with. Units are those of the view box, 960 wide: a page shows it at
//! 360 to 400 pixels, so that text is legible on a phone too.

use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea, IntoFont, Rectangle, SVGBackend, TextStyle};
use plotters::style::Color as _;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::palette::{Color, INK};

pub(super) const WIDTH: i32 = 960;
/// Height of letters.
pub(super) const TEXT: i32 = 30;
/// Height of a line of them.
pub(super) const LINE: i32 = 44;

/// Why results of drawing are unwrapped.
pub(super) const IN_MEMORY: &str = "an SVG in memory takes everything";

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// An SVG of the given height.
pub(super) fn svg(height: i32, draw: impl FnOnce(&Area)) -> String {
    let mut text = String::new();
    {
        let size = (WIDTH as u32, height as u32);
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        draw(&area);
        area.present().expect(IN_MEMORY);
    }
    text
}

pub(super) fn text_style(color: Color, anchor: HPos) -> TextStyle<'static> {
    // The SVG back end divides sizes by this.
    let size = f64::from(TEXT) * 1.24;
    let mut style = TextStyle::from(("sans-serif", size).into_font());
    style.color = color.light.to_backend_color();
    style.pos(Pos::new(anchor, VPos::Center))
}

/// Text beside a point, at its height.
pub(super) fn text(area: &Area, text: &str, at: (i32, i32), anchor: HPos, color: Color) {
    let style = text_style(color, anchor);
    area.draw_text(text, &style, at).expect(IN_MEMORY);
}

/// About as wide as text gets in usual fonts without serifs.
pub(super) fn text_width(text: &str) -> i32 {
    text.chars().count() as i32 * TEXT * 58 / 100
}

pub(super) fn rectangle(area: &Area, from: (i32, i32), to: (i32, i32), color: Color) {
    let style = color.light.filled();
    area.draw(&Rectangle::new([from, to], style))
        .expect(IN_MEMORY);
}

/// Swatches with names, in as many lines as they need.
pub(super) struct Legend {
    /// (left, top, colour, name)
    entries: Vec<(i32, i32, Color, String)>,
    pub(super) height: i32,
}

impl Legend {
    const SWATCH: i32 = 26;

    pub(super) fn new(entries: impl IntoIterator<Item = (Color, String)>) -> Self {
        let (mut left, mut top) = (0, 0);
        let mut placed = Vec::new();
        for (color, name) in entries {
            let width = Self::SWATCH + 10 + text_width(&name) + 24;
            if left > 0 && left + width > WIDTH {
                (left, top) = (0, top + LINE);
            }
            placed.push((left, top, color, name));
            left += width;
        }
        Self {
            height: if placed.is_empty() { 0 } else { top + LINE },
            entries: placed,
        }
    }

    pub(super) fn draw(&self, area: &Area) {
        for (left, top, color, name) in &self.entries {
            let (upper, lower) = (top + 8, top + 8 + Self::SWATCH);
            rectangle(area, (*left, upper), (left + Self::SWATCH, lower), *color);
            let at = (left + Self::SWATCH + 10, top + LINE / 2);
            text(area, name, at, HPos::Left, INK);
        }
    }
}
