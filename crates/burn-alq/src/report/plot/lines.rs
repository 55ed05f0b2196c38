//! Curves over steps, on bands of the phases.

use std::ops::Range;
use std::string::{String, ToString};
use std::vec::Vec;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{ChartBuilder, Circle, LineSeries, Ranged, Rectangle};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, RGBColor};

use super::canvas::{Area, IN_MEMORY, LINE, Legend, rectangle, svg, text, text_style, text_width};
use super::palette::{self, GRID, INK, MUTED};
use super::{Figure, grouped, short};
use crate::schedule::PhaseKind;
use crate::train::Point;

/// The loss over steps.
pub fn loss(history: &[Point]) -> Figure {
    Curve {
        name: "loss",
        title: "Training loss",
        caption: "Mean over the steps between two points; logarithmic.",
        scale: Scale::Log,
        marks: false,
    }
    .draw(history, |point| Some(point.loss))
}

/// The figure of merit over steps, taken as an accuracy in percent.
pub fn accuracy(history: &[Point]) -> Figure {
    Curve {
        name: "accuracy",
        title: "Validation accuracy, %",
        caption: "After each epoch. The axis is logarithmic in the error.",
        scale: Scale::Percent,
        marks: true,
    }
    .draw(history, |point| point.metric)
}

/// The average bitwidth over steps, from where the weights have one.
pub fn bits(history: &[Point]) -> Figure {
    Curve {
        name: "bits",
        title: "Average bits per weight",
        caption: "The paper's average bitwidth, Σ n·I / Σ n; logarithmic.",
        scale: Scale::Log,
        marks: false,
    }
    .draw(history, |point| Some(point.bits).filter(|&bits| bits > 0.0))
}

/// How an axis is stretched.
#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Log,
    /// Logarithmic in what is missing to 100.
    Percent,
}

impl Scale {
    /// What is missing to 100 at the far end, where the logarithm would not end.
    const LEAST_ERROR: f64 = 0.01;
    const LEAST: f64 = 1e-6;

    /// Where a value is on the axis.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Log => value.max(Self::LEAST).log10(),
            Self::Percent => -(100.0 - value).max(Self::LEAST_ERROR).log10(),
        }
    }

    /// The value at a place.
    fn value(self, place: f64) -> f64 {
        match self {
            Self::Log => 10f64.powf(place),
            Self::Percent => 100.0 - 10f64.powf(-place),
        }
    }

    /// Round values between two.
    fn ticks(self, from: f64, to: f64) -> Vec<f64> {
        let inside = |values: Vec<f64>| -> Vec<f64> {
            let inside = values.into_iter().filter(|v| (from..=to).contains(v));
            inside.collect()
        };
        let decades = (-6..=6).map(|exponent| 10f64.powi(exponent));
        let coarse = match self {
            Self::Log => inside(decades.clone().collect()),
            Self::Percent => inside(decades.clone().map(|error| 100.0 - error).collect()),
        };
        let steps = |decade: f64| [1.0, 2.0, 5.0].map(|step| step * decade);
        let fine = decades.flat_map(steps);
        let fine = match self {
            Self::Log => inside(fine.collect()),
            Self::Percent => inside(fine.map(|error| 100.0 - error).collect()),
        };
        match (coarse.len(), fine.len()) {
            (5.., _) => coarse,
            (_, 3..) => fine,
            _ => round_ticks(from, to, 8),
        }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, at most `most` and some, between two values.
fn round_ticks(from: f64, to: f64, most: usize) -> Vec<f64> {
    let least = ((to - from) / most as f64).max(f64::MIN_POSITIVE);
    let decade = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let step = steps.into_iter().find(|&step| step >= least);
    let step = step.unwrap_or(10.0 * decade);
    let first = (from / step).ceil() as i64;
    let last = (to / step).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// The part of a schedule that a point is in.
fn period(point: &Point) -> String {
    match (point.round, point.phase) {
        (Some(round), _) => format!("round {}", round + 1),
        (None, PhaseKind::Fixed) => PhaseKind::Fixed.to_string(),
        (None, _) => "fine-tuning".into(),
    }
}

/// Runs of points that are alike: what they share, the steps at which they start and end.
fn spans<T: PartialEq>(history: &[Point], of: impl Fn(&Point) -> T) -> Vec<(T, f64, f64)> {
    let mut spans: Vec<(T, f64, f64)> = Vec::new();
    let mut before = 0.0;
    for point in history {
        let (now, step) = (of(point), point.step as f64);
        match spans.last_mut() {
            Some((last, _, to)) if *last == now => *to = step,
            _ => spans.push((now, before, step)),
        }
        before = step;
    }
    spans
}

/// A linear axis with ticks of one's own.
struct Axis {
    ends: [f64; 2],
    ticks: Vec<f64>,
}

impl Axis {
    fn new(from: f64, to: f64, ticks: Vec<f64>) -> Self {
        Self {
            ends: [from, to],
            ticks,
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.clone(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.ends[0]..self.ends[1]
    }
}

/// Height of the strip that marks the phases above a curve.
const STRIP: i32 = 16;

struct Curve {
    name: &'static str,
    title: &'static str,
    caption: &'static str,
    scale: Scale,
    /// Whether points are marked.
    marks: bool,
}

impl Curve {
    fn draw(&self, history: &[Point], value: impl Fn(&Point) -> Option<f64>) -> Figure {
        let values: Vec<(&Point, f64)> = history
            .iter()
            .filter_map(|point| Some((point, value(point)?)))
            .filter(|(_, value)| value.is_finite())
            .collect();
        let mut numbers: Vec<Vec<String>> =
            Vec::from([["step", "phase", self.name].map(ToString::to_string).into()]);
        numbers.extend(values.iter().map(|(point, value)| {
            let phase = [period(point), point.phase.to_string()];
            let phase = match phase[0] == phase[1] {
                true => phase[0].clone(),
                false => phase.join(", "),
            };
            Vec::from([point.step.to_string(), phase, short(*value)])
        }));
        let values: Vec<(f64, f64)> = values
            .iter()
            .map(|(point, value)| (point.step as f64, *value))
            .collect();
        Figure {
            name: self.name.into(),
            title: self.title.into(),
            caption: self.caption.into(),
            svg: self.svg(history, &values),
            numbers,
        }
    }

    fn svg(&self, history: &[Point], values: &[(f64, f64)]) -> String {
        let scale = self.scale;
        let placed = values
            .iter()
            .map(|&(step, value)| (step, scale.place(value)));
        let extremes = placed.clone().map(|(_, place)| (place, place));
        let extremes = extremes.reduce(|(low, high), (place, _)| (low.min(place), high.max(place)));
        let (low, high) = extremes.unwrap_or((0.0, 1.0));
        let room = (0.06 * (high - low)).max(0.01);
        let (low, high) = (low - room, high + room);
        let last = history.last().map_or(1.0, |point| point.step as f64);

        let phases = spans(history, |point| (point.round, point.phase));
        let mut kinds: Vec<PhaseKind> = phases.iter().map(|((_, kind), ..)| *kind).collect();
        kinds.sort();
        kinds.dedup();
        let legend = kinds
            .iter()
            .map(|&kind| (palette::phase(kind), kind.to_string()));
        let legend = Legend::new(legend);
        let top = legend.height + LINE + STRIP + 8;
        svg(top + 540, |area| {
            legend.draw(area);
            let places = scale.ticks(scale.value(low), scale.value(high));
            let places = places.into_iter().map(|value| scale.place(value)).collect();
            let steps = round_ticks(0.0, last, 5);
            let mut chart = ChartBuilder::on(area)
                .margin_top(top)
                .margin_right(36)
                .x_label_area_size(2 * LINE)
                .y_label_area_size(130)
                .build_cartesian_2d(Axis::new(0.0, last, steps), Axis::new(low, high, places))
                .expect(IN_MEMORY);
            for ((_, kind), from, to) in &phases {
                let color = RGBColor::from(palette::phase(*kind));
                let band = Rectangle::new([(*from, high), (*to, low)], color.mix(0.12).filled());
                chart.draw_series([band]).expect(IN_MEMORY);
            }
            chart
                .configure_mesh()
                .disable_x_mesh()
                .bold_line_style(RGBColor::from(GRID).stroke_width(2))
                .axis_style(RGBColor::from(MUTED).stroke_width(2))
                .label_style(text_style(MUTED, HPos::Left))
                .x_label_formatter(&|step| grouped(*step as usize))
                .y_label_formatter(&|place| short(scale.value(*place)))
                .x_desc("steps")
                .axis_desc_style(text_style(MUTED, HPos::Center))
                .draw()
                .expect(IN_MEMORY);
            let ink = RGBColor::from(INK);
            chart
                .draw_series(LineSeries::new(placed.clone(), ink.stroke_width(4)))
                .expect(IN_MEMORY);
            if self.marks {
                let marks = placed.map(|at| Circle::new(at, 6, ink.filled()));
                chart.draw_series(marks).expect(IN_MEMORY);
            }

            let x = |step: f64| chart.backend_coord(&(step, high)).0;
            for ((_, kind), from, to) in &phases {
                let (from, to) = ((x(*from), top - STRIP), (x(*to), top));
                rectangle(area, from, to, palette::phase(*kind));
            }
            let bottom = chart.backend_coord(&(0.0, low)).1;
            for (name, from, to) in spans(history, period) {
                name_period(area, &name, (x(from), x(to)), top - STRIP);
                if from > 0.0 {
                    let from = x(from);
                    rectangle(area, (from - 1, top - STRIP), (from + 1, bottom), MUTED);
                }
            }
        })
    }
}

/// Writes as much of the name as fits above its part of the axis.
fn name_period(area: &Area, name: &str, (from, to): (i32, i32), top: i32) {
    let last_word = name.rsplit([' ', '-']).next().unwrap_or_default();
    let fits = |name: &&str| text_width(name) + 16 < to - from;
    if let Some(name) = [name, last_word].into_iter().find(fits) {
        let at = ((from + to) / 2, top - LINE / 2);
        text(area, name, at, HPos::Center, MUTED);
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
        for error in Scale::Percent
            .ticks(94.5, 99.3)
            .iter()
            .map(|tick| 100.0 - tick)
        {
            assert!(
                [1.0, 2.0, 5.0]
                    .iter()
                    .any(|round| (error - round).abs() < 1e-9),
                "{error}"
            );
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
