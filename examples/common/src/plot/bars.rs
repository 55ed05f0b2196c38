//! Bars from left to right, in parts, with what they add up to at their ends.

use burn_alq::report::{LayerReport, ModelReport};
use burn_alq::train::Timing;
use plotters::style::text_anchor::HPos;

use super::canvas::{LINE, Legend, WIDTH, rectangle, svg, text, text_width};
use super::palette::{BLUE, Color, GRAY, GREEN, GRID, INK, ORANGE, PINK, YELLOW, bitwidth};
use super::{Figure, grouped, layer_name, row, short, size, widest};

/// A bar: its name, its parts, what stands at its end.
type Bar = (String, Vec<f64>, String);

struct Bars {
    name: &'static str,
    title: &'static str,
    caption: String,
    /// What a bar is, the first head of its numbers.
    of: &'static str,
    /// The parts of a bar. A single one needs no legend.
    parts: Vec<(Color, String)>,
    bars: Vec<Bar>,
    /// How a part is written in the table of numbers.
    number: fn(f64) -> String,
}

/// Average bitwidth of each weight; groups by bitwidth, of all layers and of each.
pub fn bitwidths(model: &ModelReport) -> [Figure; 3] {
    [layer_bits, group_bits, layer_group_bits].map(|figure| figure(model))
}

/// Average bitwidth of each weight.
fn layer_bits(model: &ModelReport) -> Figure {
    Bars {
        name: "layer-bits",
        title: "Average bits of each layer",
        caption: format!("All together {} bits per weight.", short(model.paper_bits)),
        of: "layer",
        parts: named([(BLUE, "average bits")]),
        bars: layers(model, |layer| {
            let bits = layer.average_bits;
            (vec![bits], short(bits))
        }),
        number: short,
    }
    .figure()
}

/// How many groups have which bitwidth, over all weights.
fn group_bits(model: &ModelReport) -> Figure {
    let mut counts = vec![0; widest(model) + 1];
    for layer in &model.layers {
        for (sum, count) in counts.iter_mut().zip(&layer.group_bits) {
            *sum += count;
        }
    }
    let all = counts.iter().sum::<usize>().max(1) as f64;
    let bar = |(bits, &count): (usize, &usize)| -> Bar {
        let share = 100.0 * count as f64 / all;
        let end = format!("{} ({share:.1} %)", grouped(count));
        (bits_name(bits), vec![count as f64], end)
    };
    Bars {
        name: "group-bits",
        title: "Groups by bitwidth",
        caption: "Groups of all layers; their sizes differ.".into(),
        of: "bits",
        parts: named([(BLUE, "groups")]),
        bars: counts.iter().enumerate().map(bar).collect(),
        number: |count| format!("{count:.0}"),
    }
    .figure()
}

/// Shares of each layer's groups by bitwidth, in percent.
fn layer_group_bits(model: &ModelReport) -> Figure {
    let widest = widest(model);
    let parts = (0..=widest).map(|bits| (bitwidth(bits as f64, widest), bits_name(bits)));
    Bars {
        name: "layer-group-bits",
        title: "Groups of each layer by bitwidth",
        caption: "Shares of the layer's groups.".into(),
        of: "layer",
        parts: parts.collect(),
        bars: layers(model, |layer| {
            let share = |&count: &usize| 100.0 * count as f64 / layer.groups as f64;
            let mut shares: Vec<f64> = layer.group_bits.iter().map(share).collect();
            shares.resize(widest + 1, 0.0);
            (shares, String::new())
        }),
        number: |share| format!("{share:.2} %"),
    }
    .figure()
}

/// Where the bytes of a packed file are: in each layer, in other tensors, in the container
/// (its header, names and checksums), which is what is left of `file_bytes`.
pub fn file_bytes(model: &ModelReport, file_bytes: u64) -> Figure {
    let bar = |parts: [usize; 5]| {
        let bytes = size(parts.iter().sum());
        (parts.map(|part| part as f64).into(), bytes)
    };
    let mut bars = layers(model, |layer| {
        let [bases, coordinates] = [layer.base_bytes, layer.coordinate_bytes];
        bar([bases, coordinates, layer.width_bytes, layer.bias_bytes, 0])
    });
    let mut push = |name: &str, parts| {
        let (parts, end) = bar(parts);
        bars.push((name.into(), parts, end));
    };
    let biases: usize = model.layers.iter().map(|layer| layer.bias_bytes).sum();
    if model.other_bytes > biases {
        push("others", [0, 0, 0, model.other_bytes - biases, 0]);
    }
    let content = model.weight_bytes() + model.other_bytes;
    let file_bytes = file_bytes as usize;
    let mut caption = format!("The file has {} bytes.", grouped(file_bytes));
    match file_bytes.checked_sub(content) {
        Some(container) => push("container", [0, 0, 0, 0, container]),
        None => {
            let before = grouped(content);
            caption += &format!(" Its parts are shown before it was deflated: {before} bytes.");
        }
    }
    Bars {
        name: "bytes",
        title: "Where the bytes are",
        caption,
        of: "layer",
        parts: named([
            (BLUE, "bases"),
            (GREEN, "coordinates"),
            (YELLOW, "widths"),
            (PINK, "biases and others"),
            (GRAY, "container"),
        ]),
        bars,
        number: |bytes| format!("{bytes:.0}"),
    }
    .figure()
}

/// Where the time of a training went, phase by phase.
pub fn timings(timings: Vec<(&String, &Timing)>) -> Figure {
    let bar = |(phase, timing): (&String, &Timing)| -> Bar {
        let seconds = [timing.forward_backward, timing.optimizer, timing.evaluation];
        let end = format!("{:.1} s", timing.seconds());
        (phase.clone(), seconds.into(), end)
    };
    Bars {
        name: "timings",
        title: "Where the time went",
        caption: String::new(),
        of: "phase",
        parts: named([
            (BLUE, "forward, backward"),
            (ORANGE, "optimizer"),
            (GRAY, "validation"),
        ]),
        bars: timings.into_iter().map(bar).collect(),
        number: |seconds| format!("{seconds:.1} s"),
    }
    .figure()
}

fn named<const N: usize>(parts: [(Color, &str); N]) -> Vec<(Color, String)> {
    parts.map(|(color, name)| (color, name.to_string())).into()
}

/// A bar for each layer.
fn layers(model: &ModelReport, bar: impl Fn(&LayerReport) -> (Vec<f64>, String)) -> Vec<Bar> {
    let bars = model.layers.iter().map(|layer| {
        let (parts, end) = bar(layer);
        (layer_name(&layer.path).to_string(), parts, end)
    });
    bars.collect()
}

fn bits_name(bits: usize) -> String {
    match bits {
        0 => "0 (pruned)".into(),
        1 => "1 bit".into(),
        bits => format!("{bits} bits"),
    }
}

impl Bars {
    fn figure(self) -> Figure {
        let head = row(self.of, self.parts.iter().map(|(_, name)| name.clone()));
        let numbers = self.bars.iter().map(|(name, parts, _)| {
            let parts = parts.iter().map(|&part| (self.number)(part));
            row(name, parts)
        });
        Figure {
            name: self.name.into(),
            title: self.title.into(),
            svg: self.svg(),
            numbers: std::iter::once(head).chain(numbers).collect(),
            caption: self.caption,
        }
    }

    fn svg(&self) -> String {
        let legend = match self.parts.as_slice() {
            [_] => Legend::new([]),
            parts => Legend::new(parts.iter().cloned()),
        };
        let names: Vec<String> = self.bars.iter().map(|(name, ..)| shortened(name)).collect();
        let widest = |texts: &mut dyn Iterator<Item = &String>| {
            texts.map(|text| text_width(text)).max().unwrap_or(0)
        };
        let left = widest(&mut names.iter()) + 16;
        let right = WIDTH - widest(&mut self.bars.iter().map(|(.., end)| end)) - 16;
        let longest = self.bars.iter().map(|(_, parts, _)| parts.iter().sum());
        let longest = longest.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        let x = |value: f64| left + (f64::from(right - left) * value / longest).round() as i32;
        let top = legend.height + if legend.height > 0 { 12 } else { 0 };
        let height = top + LINE * self.bars.len() as i32 + 8;
        svg(height, |area| {
            legend.draw(area);
            rectangle(area, (left - 2, top), (left, height - 8), GRID);
            for (index, (name, (_, parts, end))) in names.iter().zip(&self.bars).enumerate() {
                let upper = top + LINE * index as i32 + 5;
                let (lower, middle) = (upper + LINE - 10, upper + LINE / 2 - 5);
                text(area, name, (left - 14, middle), HPos::Right, INK);
                let mut sum = 0.0;
                for ((color, _), part) in self.parts.iter().zip(parts) {
                    let from = x(sum);
                    sum += part;
                    if *part > 0.0 {
                        rectangle(area, (from, upper), (x(sum), lower), *color);
                    }
                }
                text(area, end, (x(sum) + 12, middle), HPos::Left, INK);
            }
        })
    }
}

/// A name that leaves room for its bar: its end tells more than its middle.
fn shortened(name: &str) -> String {
    const LONGEST: usize = 20;
    let count = name.chars().count();
    if count <= LONGEST {
        return name.to_string();
    }
    let end: String = name.chars().skip(count - (LONGEST - 1)).collect();
    format!("…{end}")
}
