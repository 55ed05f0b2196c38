//! Charts of curves, on axes with scales and ticks of their own.

use std::ops::Range;

use plotters::chart::ChartContext;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{ChartBuilder, Circle, LineSeries, Ranged, Rectangle, SVGBackend};
use plotters::style::Color as _;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, IN_MEMORY, LINE, text_style};
use super::palette::{Color, GRID, MUTED};

/// What a chart leaves free beside it for labels, and for what of them reaches beyond its end.
pub(super) const LEFT: i32 = 130;
pub(super) const RIGHT: i32 = 36;

/// How an axis is stretched.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    Log,
    /// Logarithmic in what is missing to 100.
    Percent,
}

impl Scale {
    /// What is missing to 100 at the far end, where the logarithm would not end.
    const LEAST_ERROR: f64 = 0.01;
    const LEAST: f64 = 1e-6;

    /// Where a value is on the axis.
    pub(super) fn place(self, value: f64) -> f64 {
        match self {
            Self::Log => value.max(Self::LEAST).log10(),
            Self::Percent => -(100.0 - value).max(Self::LEAST_ERROR).log10(),
        }
    }

    /// The value at a place.
    pub(super) fn value(self, place: f64) -> f64 {
        match self {
            Self::Log => 10f64.powf(place),
            Self::Percent => 100.0 - 10f64.powf(-place),
        }
    }

    /// Round values between two.
    fn ticks(self, from: f64, to: f64) -> Vec<f64> {
        let inside = |steps: &[f64]| -> Vec<f64> {
            let decades = (-6..=6).map(|exponent| 10f64.powi(exponent));
            let values = decades.flat_map(|decade| steps.iter().map(move |step| step * decade));
            let values = values.map(|value| match self {
                Self::Log => value,
                Self::Percent => 100.0 - value,
            });
            values.filter(|value| (from..=to).contains(value)).collect()
        };
        let (coarse, fine) = (inside(&[1.0]), inside(&[1.0, 2.0, 5.0]));
        match (coarse.len(), fine.len()) {
            (5.., _) => coarse,
            (_, 3..) => fine,
            _ => round_ticks(from, to, 8),
        }
    }

    /// An axis between two places, with round values on it.
    pub(super) fn axis(self, ends: [f64; 2]) -> Axis {
        let [from, to] = ends.map(|place| self.value(place));
        let ticks = self.ticks(from, to).into_iter();
        Axis {
            ends,
            ticks: ticks.map(|value| self.place(value)).collect(),
        }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, at most `most` and some, between two values.
pub(super) fn round_ticks(from: f64, to: f64, most: usize) -> Vec<f64> {
    let least = ((to - from) / most as f64).max(f64::MIN_POSITIVE);
    let decade = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let step = steps.into_iter().find(|&step| step >= least);
    let step = step.unwrap_or(10.0 * decade);
    let first = (from / step).ceil() as i64;
    let last = (to / step).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// The range from the least to the most place, or from 0 to 1 if there is none, with room at both
/// ends: a share of the distance, and not less than `least`.
pub(super) fn range(places: impl Iterator<Item = f64>, share: f64, least: f64) -> [f64; 2] {
    let ends = places.map(|place| [place, place]);
    let ends = ends.reduce(|[low, high], [place, _]| [low.min(place), high.max(place)]);
    let [low, high] = ends.unwrap_or([0.0, 1.0]);
    let room = (share * (high - low)).max(least);
    [low - room, high + room]
}

/// A linear axis with ticks of one's own.
pub(super) struct Axis {
    pub(super) ends: [f64; 2],
    pub(super) ticks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            Vec::new()
        } else {
            self.ticks.clone()
        }
    }

    fn range(&self) -> Range<f64> {
        self.ends[0]..self.ends[1]
    }
}

/// A chart before it is drawn.
pub(super) struct Chart<'a> {
    /// The height at which it begins.
    pub(super) top: i32,
    /// The axis below, and the one beside.
    pub(super) axes: [Axis; 2],
    /// How their ticks are written.
    pub(super) labels: [&'a dyn Fn(&f64) -> String; 2],
    /// What the axis below counts.
    pub(super) unit: &'a str,
    /// Parts of the axis below, in the place of lines at its ticks: colour, start and end.
    pub(super) bands: Vec<(Color, f64, f64)>,
}

/// A chart with its axes.
pub(super) type Drawn<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

impl Chart<'_> {
    pub(super) fn draw<'a, 'b>(self, area: &'a Area<'b>) -> Drawn<'a, 'b> {
        let [x, y] = self.axes;
        let [low, high] = y.ends;
        let mut chart = ChartBuilder::on(area)
            .margin_top(self.top)
            .margin_right(RIGHT)
            .x_label_area_size(2 * LINE)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(x, y)
            .expect(IN_MEMORY);
        for (color, from, to) in &self.bands {
            let shade = color.light.mix(0.12);
            let band = Rectangle::new([(*from, high), (*to, low)], shade.filled());
            chart.draw_series([band]).expect(IN_MEMORY);
        }
        let mut mesh = chart.configure_mesh();
        if !self.bands.is_empty() {
            mesh.disable_x_mesh();
        }
        mesh.bold_line_style(GRID.light.stroke_width(2))
            .axis_style(MUTED.light.stroke_width(2))
            .label_style(text_style(MUTED, HPos::Left))
            .x_label_formatter(&self.labels[0])
            .y_label_formatter(&self.labels[1])
            .x_desc(self.unit)
            .axis_desc_style(text_style(MUTED, HPos::Center))
            .draw()
            .expect(IN_MEMORY);
        chart
    }
}

/// Draws a line through points, which are marked by discs; none with a radius of 0.
pub(super) fn curve(chart: &mut Drawn, points: Vec<(f64, f64)>, color: Color, radius: i32) {
    let color = color.light;
    chart
        .draw_series(LineSeries::new(points.clone(), color.stroke_width(4)))
        .expect(IN_MEMORY);
    if radius > 0 {
        let marks = points
            .into_iter()
            .map(|at| Circle::new(at, radius, color.filled()));
        chart.draw_series(marks).expect(IN_MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            round_ticks(0.0, 480.0, 5),
            [0.0, 100.0, 200.0, 300.0, 400.0]
        );
        assert_eq!(Scale::Log.ticks(0.36, 5.8), [0.5, 1.0, 2.0, 5.0]);
        let narrow = Scale::Log.ticks(0.31, 0.425);
        assert!(narrow.len() > 2 && narrow.iter().all(|tick| (0.31..0.425).contains(tick)));
        for tick in Scale::Percent.ticks(94.5, 99.3) {
            let error = 100.0 - tick;
            let rounds = [1.0, 2.0, 5.0].iter();
            let mut distances = rounds.map(|round| (error - round).abs());
            assert!(distances.any(|distance| distance < 1e-9), "{error}");
        }
    }

    #[test]
    fn scales_are_undone() {
        for value in [0.01, 0.3, 4.0, 99.0] {
            for scale in [Scale::Log, Scale::Percent] {
                // A logarithm and a power in f64.
                assert!((scale.value(scale.place(value)) - value).abs() < 1e-9);
            }
        }
        assert!(Scale::Percent.place(100.0).is_finite() && Scale::Log.place(0.0).is_finite());
    }
}
