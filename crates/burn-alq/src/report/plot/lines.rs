//! Curves over steps, on bands of the phases.

use std::string::{String, ToString};
use std::vec::Vec;

use plotters::prelude::{ChartBuilder, Circle, LineSeries, Rectangle};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, RGBColor};

use super::axes::{Axis, Scale, round_ticks};
use super::canvas::{Area, IN_MEMORY, LINE, Legend, rectangle, svg, text, text_style, text_width};
use super::palette::{BLUE, Color, GRAY, GREEN, GRID, INK, MUTED, ORANGE, PINK};
use super::{Figure, grouped, short};
use crate::schedule::PhaseKind;
use crate::train::Point;

fn color(phase: PhaseKind) -> Color {
    match phase {
        PhaseKind::Fixed => GRAY,
        PhaseKind::Basis => BLUE,
        PhaseKind::Coordinate => GREEN,
        PhaseKind::Prune => ORANGE,
        PhaseKind::Ste => PINK,
    }
}

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
        let legend = kinds.iter().map(|&kind| (color(kind), kind.to_string()));
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
                let shade = RGBColor::from(color(*kind)).mix(0.12);
                let band = Rectangle::new([(*from, high), (*to, low)], shade.filled());
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
                rectangle(area, from, to, color(*kind));
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
