//! What accuracy is left at which size.

use plotters::style::text_anchor::HPos;
use serde::{Deserialize, Serialize};

use super::canvas::{LINE, Legend, WIDTH, rectangle, svg, text, text_width};
use super::chart::{Axis, Chart, LEFT, RIGHT, Scale, curve, range};
use super::palette::{BLUE, Color, GRAY, GREEN, INK, MUTED, ORANGE, PINK, YELLOW};
use super::{Figure, row, short, size};

/// One network of a frontier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FrontierPoint {
    /// Average bitwidth of its weights.
    pub bits: f64,
    /// Bytes of its file, or of its weights: the same for all points of a picture.
    pub bytes: f64,
    /// Accuracy in percent.
    pub accuracy: f64,
}

/// Networks that belong together, joined by a line if there are several.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What they are called in the legend.
    pub name: String,
    /// The networks.
    pub points: Vec<FrontierPoint>,
}

/// Accuracy against bits, and against bytes; both axes are logarithmic, accuracy in the error. The
/// float network's accuracy in percent is a line.
pub fn frontier(series: &[Series], float: Option<f64>, caption: &str) -> [Figure; 2] {
    [
        Frame {
            name: "frontier-bits",
            title: "Accuracy against bits per weight",
            x: "average bits per weight",
            of: |point| point.bits,
            show: short,
        },
        Frame {
            name: "frontier-bytes",
            title: "Accuracy against bytes",
            x: "bytes",
            of: |point| point.bytes,
            show: |bytes| size(bytes.round() as usize),
        },
    ]
    .map(|frame| frame.draw(series, float, caption))
}

const COLORS: [Color; 5] = [BLUE, ORANGE, GREEN, PINK, YELLOW];

struct Frame {
    name: &'static str,
    title: &'static str,
    x: &'static str,
    of: fn(&FrontierPoint) -> f64,
    show: fn(f64) -> String,
}

impl Frame {
    fn draw(&self, all: &[Series], float: Option<f64>, caption: &str) -> Figure {
        let accuracy = |accuracy: f64| format!("{accuracy:.2}");
        let mut numbers = vec![row("series", [self.x, "accuracy"].map(String::from))];
        for series in all {
            numbers.extend(series.points.iter().map(|point| {
                let size = (self.show)((self.of)(point));
                row(&series.name, [size, accuracy(point.accuracy)])
            }));
        }
        if let Some(float) = float {
            numbers.push(row("float", [String::new(), accuracy(float)]));
        }
        Figure {
            name: self.name.into(),
            title: self.title.into(),
            caption: caption.into(),
            svg: self.svg(all, float),
            numbers,
        }
    }

    /// The label of a tick; the axis says what it counts.
    fn tick(&self, place: f64) -> String {
        let label = (self.show)(Scale::Log.value(place));
        label.strip_suffix(" B").map_or(label.clone(), String::from)
    }

    fn svg(&self, all: &[Series], float: Option<f64>) -> String {
        let points = || all.iter().flat_map(|series| &series.points);
        let place = |point: &FrontierPoint| {
            let x = Scale::Log.place((self.of)(point));
            (x, Scale::Percent.place(point.accuracy))
        };
        let float = float.map(|float| (float, Scale::Percent.place(float)));
        let across = range(points().map(|point| place(point).0), 0.12, 0.05);
        let up = points().map(|point| place(point).1);
        let up = range(up.chain(float.map(|(_, y)| y)), 0.15, 0.05);
        let mut x_axis = Scale::Log.axis(across);
        keep_apart(&mut x_axis, |place| self.tick(place));
        let series = || all.iter().zip(COLORS.iter().cycle());
        let names = series().map(|(series, color)| (*color, series.name.clone()));
        let legend = Legend::new(names.chain(float.map(|_| (GRAY, "float".to_string()))));
        svg(legend.height + 560, |area| {
            legend.draw(area);
            let chart = Chart {
                top: legend.height + 12,
                axes: [x_axis, Scale::Percent.axis(up)],
                labels: [&|place| self.tick(*place), &|place| {
                    short(Scale::Percent.value(*place))
                }],
                unit: self.x,
                bands: Vec::new(),
            };
            let mut chart = chart.draw(area);
            for (series, color) in series() {
                let points = series.points.iter().map(place).collect();
                curve(&mut chart, points, *color, 9);
            }
            if let Some((float, y)) = float {
                let [from, to] = across.map(|x| chart.backend_coord(&(x, y)));
                rectangle(area, (from.0, from.1 - 2), (to.0, to.1 + 1), GRAY);
                let at = (to.0 - 8, to.1 - LINE / 2);
                text(area, &format!("{float:.2}"), at, HPos::Right, MUTED);
            }
            for point in points() {
                let (x, y) = chart.backend_coord(&place(point));
                let label = format!("{:.2}", point.accuracy);
                // Where a line that rises to the right is not.
                let x = (x + 8).min(WIDTH - text_width(&label));
                text(area, &label, (x, y + LINE * 2 / 3), HPos::Left, INK);
            }
        })
    }
}

/// Leaves out the ticks of the axis below whose labels touch the one before.
fn keep_apart(axis: &mut Axis, label: impl Fn(f64) -> String) {
    let [low, high] = axis.ends;
    let width = (WIDTH - LEFT - RIGHT) as f64;
    let mut end = f64::NEG_INFINITY;
    axis.ticks.retain(|&tick| {
        let center = (tick - low) / (high - low) * width;
        let half = f64::from(text_width(&label(tick))) / 2.0;
        let fits = center - half > end;
        if fits {
            end = center + half + f64::from(LINE) / 2.0;
        }
        fits
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(bits: f64, accuracy: f64) -> FrontierPoint {
        let bytes = 40_000.0 * bits;
        FrontierPoint {
            bits,
            bytes,
            accuracy,
        }
    }

    #[test]
    fn every_point_is_drawn_and_listed() {
        let series = |name: &str, points: &[(f64, f64)]| Series {
            name: name.into(),
            points: points
                .iter()
                .map(|&(bits, accuracy)| point(bits, accuracy))
                .collect(),
        };
        let drawn = [
            series("ours", &[(0.4, 99.31), (0.2, 99.17), (0.1, 98.85)]),
            series("paper", &[(0.41, 99.1)]),
        ];
        let figures = frontier(&drawn, Some(99.38), "where from");
        assert_eq!(figures[0].numbers[1], ["ours", "0.4", "99.31"]);
        assert_eq!(figures[1].numbers[4], ["paper", "16,400 B", "99.10"]);
        for figure in &figures {
            assert_eq!(figure.numbers.len(), 6, "{:?}", figure.numbers);
            assert_eq!(figure.numbers[5], ["float", "", "99.38"]);
            assert_eq!(figure.svg.matches("<circle").count(), 4);
            // Plotters puts text on lines of its own.
            let lines: Vec<&str> = figure.svg.lines().map(str::trim).collect();
            for text in [
                "99.31", "99.17", "98.85", "99.10", "99.38", "ours", "paper", "float",
            ] {
                assert!(lines.contains(&text), "{text} in {}", figure.svg);
            }
        }
    }

    #[test]
    fn nothing_and_one_point_are_drawn_too() {
        let all_hold = |drawn: &[Series], part: &str| {
            let mut figures = frontier(drawn, None, "").into_iter();
            figures.all(|figure| figure.svg.contains(part))
        };
        assert!(all_hold(&[], "<svg"));
        let (name, points) = ("one".to_string(), vec![point(0.5, 100.0)]);
        assert!(all_hold(&[Series { name, points }], "<circle"));
    }
}
