//! Curves over steps, on bands of the phases.

use burn_alq::optim::PhaseKind;
use burn_alq::train::Point;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, LINE, Legend, rectangle, svg, text, text_width};
use super::chart::{Axis, Chart, Scale, curve, range, round_ticks};
use super::palette::{BLUE, Color, GRAY, GREEN, INK, MUTED, ORANGE, PINK};
use super::{Figure, grouped, row, short};

fn color(phase: PhaseKind) -> Color {
    match phase {
        PhaseKind::Fixed => GRAY,
        PhaseKind::Basis => BLUE,
        PhaseKind::Coordinate => GREEN,
        PhaseKind::Prune => ORANGE,
        PhaseKind::Ste => PINK,
    }
}

/// Over steps: the figure of merit, taken as an accuracy in percent; the average bitwidth, from where
/// the weights have one; the loss.
pub fn training(history: &[Point]) -> [Figure; 3] {
    [
        Curve {
            name: "accuracy",
            title: "Validation accuracy, %",
            caption: "After each epoch. The axis is logarithmic in the error.",
            scale: Scale::Percent,
            mark: 6,
            value: |point| point.metric,
        },
        Curve {
            name: "bits",
            title: "Average bits per weight",
            caption: "The paper's average bitwidth, Σ n·I / Σ n; logarithmic.",
            scale: Scale::Log,
            mark: 0,
            value: |point| Some(point.bits).filter(|&bits| bits > 0.0),
        },
        Curve {
            name: "loss",
            title: "Training loss",
            caption: "Mean over the steps between two points; logarithmic.",
            scale: Scale::Log,
            mark: 0,
            value: |point| Some(point.loss),
        },
    ]
    .map(|curve| curve.draw(history))
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
    /// Radius of the points' marks, 0 for none.
    mark: i32,
    value: fn(&Point) -> Option<f64>,
}

impl Curve {
    fn draw(&self, history: &[Point]) -> Figure {
        let values: Vec<(&Point, f64)> = history
            .iter()
            .filter_map(|point| Some((point, (self.value)(point)?)))
            .filter(|(_, value)| value.is_finite())
            .collect();
        let mut numbers = vec![row("step", ["phase", self.name].map(String::from))];
        numbers.extend(values.iter().map(|(point, value)| {
            let mut phase = vec![period(point), point.phase.to_string()];
            phase.dedup();
            row(&point.step.to_string(), [phase.join(", "), short(*value)])
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
        let places = values
            .iter()
            .map(|&(step, value)| (step, scale.place(value)));
        let places: Vec<(f64, f64)> = places.collect();
        let ends = range(places.iter().map(|(_, place)| *place), 0.06, 0.01);
        let last = history.last().map_or(1.0, |point| point.step as f64);

        let phases = spans(history, |point| (point.round, point.phase));
        let mut kinds: Vec<PhaseKind> = phases.iter().map(|((_, kind), ..)| *kind).collect();
        kinds.sort();
        kinds.dedup();
        let legend = kinds.iter().map(|&kind| (color(kind), kind.to_string()));
        let legend = Legend::new(legend);
        let top = legend.height + LINE + STRIP + 8;
        let bands = phases
            .iter()
            .map(|((_, kind), from, to)| (color(*kind), *from, *to));
        let bands: Vec<(Color, f64, f64)> = bands.collect();
        svg(top + 540, |area| {
            legend.draw(area);
            let steps = Axis {
                ends: [0.0, last],
                ticks: round_ticks(0.0, last, 5),
            };
            let chart = Chart {
                top,
                axes: [steps, scale.axis(ends)],
                labels: [&|step| grouped(*step as usize), &|place| {
                    short(scale.value(*place))
                }],
                unit: "steps",
                bands: bands.clone(),
            };
            let mut chart = chart.draw(area);
            curve(&mut chart, places, INK, self.mark);

            let x = |step: f64| chart.backend_coord(&(step, ends[1])).0;
            for (color, from, to) in bands {
                rectangle(area, (x(from), top - STRIP), (x(to), top), color);
            }
            let bottom = chart.backend_coord(&(0.0, ends[0])).1;
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
