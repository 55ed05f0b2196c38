//! What accuracy is left at which size.

use std::string::{String, ToString};
use std::vec::Vec;

use plotters::prelude::{ChartBuilder, Circle, LineSeries};
use plotters::style::text_anchor::HPos;
use plotters::style::{Color as _, RGBColor};

use super::axes::{Axis, Scale};
use super::canvas::{IN_MEMORY, LINE, Legend, WIDTH, rectangle, svg, text, text_style, text_width};
use super::palette::{BLUE, Color, GRAY, GREEN, GRID, INK, MUTED, ORANGE, PINK, YELLOW};
use super::{Figure, short, size};

/// One network of a frontier.
#[derive(Debug, Clone, Copy, PartialEq)]
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

/// What is drawn.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Frontier {
    /// Ours, others'.
    pub series: Vec<Series>,
    /// Accuracy of the float network in percent, a line.
    pub float: Option<f64>,
    /// What one must know to read it, for example where others' numbers are from.
    pub caption: String,
}

/// Accuracy against bits, and against bytes; both axes are logarithmic, accuracy in the error.
pub fn frontier(frontier: &Frontier) -> [Figure; 2] {
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
    .map(|frame| frame.draw(frontier))
}

const COLORS: [Color; 5] = [BLUE, ORANGE, GREEN, PINK, YELLOW];

/// Beside the plot: labels, and what of them reaches beyond its end.
const LEFT: i32 = 130;
const RIGHT: i32 = 36;

struct Frame {
    name: &'static str,
    title: &'static str,
    x: &'static str,
    of: fn(&FrontierPoint) -> f64,
    show: fn(f64) -> String,
}

impl Frame {
    fn draw(&self, frontier: &Frontier) -> Figure {
        let head = ["series", self.x, "accuracy"];
        let mut numbers = Vec::from([head.map(String::from).to_vec()]);
        for series in &frontier.series {
            numbers.extend(series.points.iter().map(|point| {
                let numbers = [
                    (self.show)((self.of)(point)),
                    std::format!("{:.2}", point.accuracy),
                ];
                std::iter::once(series.name.clone())
                    .chain(numbers)
                    .collect()
            }));
        }
        if let Some(float) = frontier.float {
            let row = ["float", "", &std::format!("{float:.2}")];
            numbers.push(row.map(String::from).to_vec());
        }
        Figure {
            name: self.name.into(),
            title: self.title.into(),
            caption: frontier.caption.clone(),
            svg: self.svg(frontier),
            numbers,
        }
    }

    /// The label of a tick; the axis says what it counts.
    fn tick(&self, place: f64) -> String {
        let label = (self.show)(Scale::Log.value(place));
        label.strip_suffix(" B").map_or(label.clone(), String::from)
    }

    fn svg(&self, frontier: &Frontier) -> String {
        let points = || frontier.series.iter().flat_map(|series| &series.points);
        let across = range(
            points().map(|point| Scale::Log.place((self.of)(point))),
            0.12,
        );
        let up = points().map(|point| point.accuracy).chain(frontier.float);
        let up = range(up.map(|accuracy| Scale::Percent.place(accuracy)), 0.15);
        let ticks = |scale: Scale, [low, high]: [f64; 2]| -> Vec<f64> {
            let ticks = scale.ticks(scale.value(low), scale.value(high)).into_iter();
            ticks.map(|value| scale.place(value)).collect()
        };
        let label = |place: f64| self.tick(place);
        let axes = [
            Axis::new(
                across[0],
                across[1],
                apart(ticks(Scale::Log, across), across, label),
            ),
            Axis::new(up[0], up[1], ticks(Scale::Percent, up)),
        ];
        let names = frontier.series.iter().zip(COLORS.iter().cycle());
        let names = names.map(|(series, color)| (*color, series.name.clone()));
        let float = frontier.float.map(|_| (GRAY, "float".to_string()));
        let legend = Legend::new(names.chain(float));
        let [x_axis, y_axis] = axes;
        svg(legend.height + 560, |area| {
            legend.draw(area);
            let mut chart = ChartBuilder::on(area)
                .margin_top(legend.height + 12)
                .margin_right(RIGHT)
                .x_label_area_size(2 * LINE)
                .y_label_area_size(LEFT)
                .build_cartesian_2d(x_axis, y_axis)
                .expect(IN_MEMORY);
            chart
                .configure_mesh()
                .bold_line_style(RGBColor::from(GRID).stroke_width(2))
                .axis_style(RGBColor::from(MUTED).stroke_width(2))
                .label_style(text_style(MUTED, HPos::Left))
                .x_label_formatter(&|place| self.tick(*place))
                .y_label_formatter(&|place| short(Scale::Percent.value(*place)))
                .x_desc(self.x)
                .axis_desc_style(text_style(MUTED, HPos::Center))
                .draw()
                .expect(IN_MEMORY);
            let place = |point: &FrontierPoint| {
                let x = Scale::Log.place((self.of)(point));
                (x, Scale::Percent.place(point.accuracy))
            };
            for (series, color) in frontier.series.iter().zip(COLORS.iter().cycle()) {
                let color = RGBColor::from(*color);
                let at = series.points.iter().map(place);
                chart
                    .draw_series(LineSeries::new(at.clone(), color.stroke_width(4)))
                    .expect(IN_MEMORY);
                let marks = at.map(|at| Circle::new(at, 9, color.filled()));
                chart.draw_series(marks).expect(IN_MEMORY);
            }
            let pixel = |at: (f64, f64)| chart.backend_coord(&at);
            if let Some(float) = frontier.float {
                let y = Scale::Percent.place(float);
                let (from, to) = (pixel((across[0], y)), pixel((across[1], y)));
                rectangle(area, (from.0, from.1 - 2), (to.0, to.1 + 1), GRAY);
                let at = (to.0 - 8, to.1 - LINE / 2);
                text(area, &std::format!("{float:.2}"), at, HPos::Right, MUTED);
            }
            for point in points() {
                let (x, y) = pixel(place(point));
                let label = std::format!("{:.2}", point.accuracy);
                // Where a line that rises to the right is not.
                let x = (x + 8).min(WIDTH - text_width(&label));
                text(area, &label, (x, y + LINE * 2 / 3), HPos::Left, INK);
            }
        })
    }
}

/// Of the ticks of the axis below, those whose labels do not touch the one before.
fn apart(ticks: Vec<f64>, [low, high]: [f64; 2], label: impl Fn(f64) -> String) -> Vec<f64> {
    let width = (WIDTH - LEFT - RIGHT) as f64;
    let mut kept = Vec::new();
    let mut end = f64::NEG_INFINITY;
    for tick in ticks {
        let center = (tick - low) / (high - low) * width;
        let half = f64::from(text_width(&label(tick))) / 2.0;
        if center - half > end {
            end = center + half + f64::from(LINE) / 2.0;
            kept.push(tick);
        }
    }
    kept
}

/// From the least to the most, with room at both ends.
fn range(places: impl Iterator<Item = f64>, room: f64) -> [f64; 2] {
    let ends = places.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], place| {
        [low.min(place), high.max(place)]
    });
    let [low, high] = match ends[0].is_finite() {
        true => ends,
        false => [0.0, 1.0],
    };
    let room = (room * (high - low)).max(0.05);
    [low - room, high + room]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_and_listed() {
        let point = |bits, accuracy| FrontierPoint {
            bits,
            bytes: 40_000.0 * bits,
            accuracy,
        };
        let series = |name: &str, points: &[FrontierPoint]| Series {
            name: name.into(),
            points: points.to_vec(),
        };
        let drawn = Frontier {
            series: Vec::from([
                series(
                    "ours",
                    &[point(0.4, 99.31), point(0.2, 99.17), point(0.1, 98.85)],
                ),
                series("paper", &[point(0.41, 99.1)]),
            ]),
            float: Some(99.38),
            caption: "where from".into(),
        };
        let figures = frontier(&drawn);
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
        let mut empty = Frontier::default();
        assert!(
            frontier(&empty)
                .iter()
                .all(|figure| figure.svg.starts_with("<svg"))
        );
        let point = FrontierPoint {
            bits: 0.5,
            bytes: 9.0,
            accuracy: 100.0,
        };
        let (name, points) = ("one".to_string(), Vec::from([point]));
        empty.series.push(Series { name, points });
        assert!(
            frontier(&empty)
                .iter()
                .all(|figure| figure.svg.contains("<circle"))
        );
    }
}
