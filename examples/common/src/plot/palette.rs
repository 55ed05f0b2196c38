//! Colours, each for light and for dark pages: Okabe and Ito's series, which the colour-blind tell
//! apart, and a ramp of blue.

use std::fmt::Write as _;

use plotters::style::RGBColor;

/// A colour on a light page, which is what the SVG holds, and its stand-in on a dark one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Color {
    pub(super) light: RGBColor,
    dark: RGBColor,
}

const fn color(light: u32, dark: u32) -> Color {
    const fn parts(rgb: u32) -> RGBColor {
        RGBColor((rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8)
    }
    Color {
        light: parts(light),
        dark: parts(dark),
    }
}

pub(super) const INK: Color = color(0x1B1F24, 0xE6E8EB);
pub(super) const PAPER: Color = color(0xFFFFFF, 0x14171B);
pub(super) const MUTED: Color = color(0x5A6472, 0x9AA4B2);
pub(super) const GRID: Color = color(0xDDE1E6, 0x343A43);
pub(super) const GRAY: Color = color(0x8A939E, 0x7D8793);
pub(super) const BLUE: Color = color(0x0072B2, 0x56A8E0);
pub(super) const GREEN: Color = color(0x009E73, 0x2FC39A);
pub(super) const ORANGE: Color = color(0xD55E00, 0xF08A3C);
pub(super) const PINK: Color = color(0xC06A9B, 0xE394C4);
pub(super) const YELLOW: Color = color(0xE0A100, 0xF0C04A);
/// Groups without a basis: no blue at all.
pub(super) const PRUNED: Color = color(0xEADFCF, 0x4A4034);

const NAMED: [Color; 11] = [
    INK, PAPER, MUTED, GRID, GRAY, BLUE, GREEN, ORANGE, PINK, YELLOW, PRUNED,
];

/// Steps of the ramp. A page holds a rule for each, so they are few.
pub(super) const STEPS: usize = 12;
const RAMP_ENDS: [Color; 2] = [color(0xA9CFE8, 0x2C5A7A), color(0x08306B, 0xD8ECFF)];

/// The colour of a bitwidth where the widest is `widest`.
pub(super) fn bitwidth(bits: f64, widest: usize) -> Color {
    if bits <= 0.0 {
        return PRUNED;
    }
    let step = (bits / widest.max(1) as f64 * STEPS as f64).ceil() as usize;
    ramp(step.clamp(1, STEPS) - 1)
}

pub(super) fn ramp(step: usize) -> Color {
    let share = step as f64 / (STEPS - 1) as f64;
    let [from, to] = RAMP_ENDS;
    let part = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    let mix = |a: RGBColor, b: RGBColor| RGBColor(part(a.0, b.0), part(a.1, b.1), part(a.2, b.2));
    Color {
        light: mix(from.light, to.light),
        dark: mix(from.dark, to.dark),
    }
}

fn colors() -> Vec<Color> {
    NAMED.into_iter().chain((0..STEPS).map(ramp)).collect()
}

/// A style sheet that gives figures inside a page the page's scheme, light or dark: a CSS variable
/// for each colour. Alone, a figure is drawn for light paper; so is print.
pub fn style() -> String {
    let hex = |RGBColor(r, g, b)| format!("{r:02X}{g:02X}{b:02X}");
    let colors = colors();
    let variables = |side: fn(&Color) -> RGBColor| {
        colors.iter().fold(String::new(), |mut text, color| {
            let _ = write!(text, "--c{}:#{};", hex(color.light), hex(side(color)));
            text
        })
    };
    let mut text = format!(
        ":root{{{}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{}}}}}\n",
        variables(|color| color.light),
        variables(|color| color.dark)
    );
    for color in &colors {
        let name = hex(color.light);
        for attribute in ["fill", "stroke"] {
            let _ = writeln!(
                text,
                "svg [{attribute}=\"#{name}\"]{{{attribute}:var(--c{name})}}"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bitwidth_has_a_colour_and_only_zero_looks_pruned() {
        assert_eq!(bitwidth(0.0, 3), PRUNED);
        let steps: Vec<Color> = (1..=100)
            .map(|part| bitwidth(f64::from(part) / 25.0, 4))
            .collect();
        assert!(!steps.contains(&PRUNED));
        assert_eq!(steps.last(), Some(&ramp(STEPS - 1)));
        assert_eq!(bitwidth(9.0, 4), ramp(STEPS - 1), "beyond the widest");
        assert_ne!(bitwidth(1.0, 4), bitwidth(2.0, 4));
    }

    #[test]
    fn colours_are_told_apart_by_their_light_side() {
        let colors = colors();
        for (i, a) in colors.iter().enumerate() {
            assert!(colors[..i].iter().all(|b| a.light != b.light), "{a:?}");
        }
    }
}
