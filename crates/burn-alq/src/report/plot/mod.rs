//! Figures of a packed model and of a training, as SVG (feature `plot`).
//!
//! A [`Figure`] is drawn for light paper; inside a page, [`style`] lets it follow the page's scheme.

mod axes;
mod bars;
mod canvas;
mod cells;
mod frontier;
#[cfg(feature = "train")]
mod heat;
#[cfg(feature = "train")]
mod lines;
mod palette;

use std::string::{String, ToString};
use std::vec::Vec;

use self::bars::Bars;
use self::palette::{BLUE, Color, GRAY, GREEN, PINK, YELLOW, bitwidth};
use super::ModelReport;
#[cfg(feature = "train")]
use crate::train::Timing;

pub use self::cells::kernel_map;
pub use self::frontier::{Frontier, FrontierPoint, Series, frontier};
#[cfg(feature = "train")]
pub use self::heat::sensitivity;
#[cfg(feature = "train")]
pub use self::lines::{accuracy, bits, loss};
pub use self::palette::style;

/// A picture, and the numbers in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// A name for a file, without its ending; of the figures of one model, no two share it.
    pub name: String,
    /// What it shows.
    pub title: String,
    /// What one must know to read it; may be empty.
    pub caption: String,
    /// The picture: 960 units wide, text in the font family `sans-serif`, no reference to
    /// anything outside.
    pub svg: String,
    /// The numbers drawn, as a table whose first row is the head.
    pub numbers: Vec<Vec<String>>,
}

/// Average bitwidth of each weight.
pub fn layer_bits(model: &ModelReport) -> Figure {
    let bars = Bars {
        row: "layer",
        parts: Vec::from([(BLUE, "average bits".to_string())]),
        rows: model
            .layers
            .iter()
            .map(|layer| {
                let bits = layer.average_bits;
                (
                    layer_name(&layer.path).into(),
                    Vec::from([bits]),
                    short(bits),
                )
            })
            .collect(),
        number: short,
    };
    Figure {
        name: "layer-bits".into(),
        title: "Average bits of each layer".into(),
        caption: format!("All together {} bits per weight.", short(model.paper_bits)),
        svg: bars.draw(),
        numbers: bars.numbers(),
    }
}

/// How many groups have which bitwidth, over all weights.
pub fn group_bits(model: &ModelReport) -> Figure {
    let widest = widest(model);
    let mut counts = std::vec![0; widest + 1];
    for layer in &model.layers {
        for (sum, count) in counts.iter_mut().zip(&layer.group_bits) {
            *sum += count;
        }
    }
    let all = counts.iter().sum::<usize>().max(1) as f64;
    let bars = Bars {
        row: "bits",
        parts: Vec::from([(BLUE, "groups".to_string())]),
        rows: counts
            .iter()
            .enumerate()
            .map(|(bits, &count)| {
                let share = 100.0 * count as f64 / all;
                let end = format!("{} ({share:.1} %)", grouped(count));
                (bits_name(bits), Vec::from([count as f64]), end)
            })
            .collect(),
        number: |count| format!("{count:.0}"),
    };
    Figure {
        name: "group-bits".into(),
        title: "Groups by bitwidth".into(),
        caption: "Groups of all layers; their sizes differ.".into(),
        svg: bars.draw(),
        numbers: bars.numbers(),
    }
}

/// Shares of each layer's groups by bitwidth, in percent.
pub fn layer_group_bits(model: &ModelReport) -> Figure {
    let widest = widest(model);
    let parts = (0..=widest).map(|bits| (bitwidth(bits as f64, widest), bits_name(bits)));
    let bars = Bars {
        row: "layer",
        parts: parts.collect(),
        rows: model
            .layers
            .iter()
            .map(|layer| {
                let share = |&count: &usize| 100.0 * count as f64 / layer.groups as f64;
                let mut shares: Vec<f64> = layer.group_bits.iter().map(share).collect();
                shares.resize(widest + 1, 0.0);
                (layer_name(&layer.path).into(), shares, String::new())
            })
            .collect(),
        number: |share| format!("{share:.2} %"),
    };
    Figure {
        name: "layer-group-bits".into(),
        title: "Groups of each layer by bitwidth".into(),
        caption: "Shares of the layer's groups.".into(),
        svg: bars.draw(),
        numbers: bars.numbers(),
    }
}

/// Where the bytes of a packed file are: in each layer, in other tensors, in the container
/// (its header, names and checksums), which is what is left of `file_bytes`.
pub fn file_bytes(model: &ModelReport, file_bytes: u64) -> Figure {
    const PARTS: [(Color, &str); 5] = [
        (BLUE, "bases"),
        (GREEN, "coordinates"),
        (YELLOW, "widths"),
        (PINK, "biases and others"),
        (GRAY, "container"),
    ];
    let row = |name: &str, parts: [usize; PARTS.len()]| {
        let bytes = size(parts.iter().sum());
        (
            name.to_string(),
            parts.map(|part| part as f64).into(),
            bytes,
        )
    };
    let mut rows: Vec<_> = model
        .layers
        .iter()
        .map(|layer| {
            let [bases, coordinates, widths] =
                [layer.base_bytes, layer.coordinate_bytes, layer.width_bytes];
            let parts = [bases, coordinates, widths, layer.bias_bytes, 0];
            row(layer_name(&layer.path), parts)
        })
        .collect();
    let biases: usize = model.layers.iter().map(|layer| layer.bias_bytes).sum();
    if model.other_bytes > biases {
        rows.push(row("others", [0, 0, 0, model.other_bytes - biases, 0]));
    }
    let content = model.weight_bytes() + model.other_bytes;
    let file_bytes = file_bytes as usize;
    let mut caption = format!("The file has {} bytes.", grouped(file_bytes));
    match file_bytes.checked_sub(content) {
        Some(container) => rows.push(row("container", [0, 0, 0, 0, container])),
        None => {
            let before = grouped(content);
            caption += &format!(" Its parts are shown before it was deflated: {before} bytes.");
        }
    }
    let bars = Bars {
        row: "layer",
        parts: PARTS.map(|(color, name)| (color, name.to_string())).into(),
        rows,
        number: |bytes| format!("{bytes:.0}"),
    };
    Figure {
        name: "bytes".into(),
        title: "Where the bytes are".into(),
        caption,
        svg: bars.draw(),
        numbers: bars.numbers(),
    }
}

/// Where the time of a training went, phase by phase.
#[cfg(feature = "train")]
pub fn timings<'a>(timings: impl IntoIterator<Item = (&'a str, &'a Timing)>) -> Figure {
    let parts = [
        (BLUE, "forward, backward"),
        (palette::ORANGE, "optimizer"),
        (GRAY, "validation"),
    ];
    let bars = Bars {
        row: "phase",
        parts: parts.map(|(color, name)| (color, name.to_string())).into(),
        rows: timings
            .into_iter()
            .map(|(phase, timing)| {
                let seconds = [timing.forward_backward, timing.optimizer, timing.evaluation];
                let end = format!("{:.1} s", timing.seconds());
                (phase.to_string(), seconds.into(), end)
            })
            .collect(),
        number: |seconds| format!("{seconds:.1} s"),
    };
    Figure {
        name: "timings".into(),
        title: "Where the time went".into(),
        caption: String::new(),
        svg: bars.draw(),
        numbers: bars.numbers(),
    }
}

/// The largest bitwidth of a group, the scale of colours.
pub fn widest(model: &ModelReport) -> usize {
    let layers = model.layers.iter();
    let widest = layers.map(|layer| layer.group_bits.len().saturating_sub(1));
    widest.max().unwrap_or(0)
}

/// A weight's path without what all share.
fn layer_name(path: &str) -> &str {
    path.strip_suffix(".weight").unwrap_or(path)
}

fn bits_name(bits: usize) -> String {
    match bits {
        0 => "0 (pruned)".into(),
        1 => "1 bit".into(),
        bits => format!("{bits} bits"),
    }
}

/// Four digits of a number, without zeros at its end.
fn short(value: f64) -> String {
    let magnitude = if value == 0.0 {
        0.0
    } else {
        value.abs().log10().floor()
    };
    let digits = (3.0 - magnitude).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes: exact while that is short.
fn size(bytes: usize) -> String {
    const KIB: f64 = 1024.0;
    match bytes as f64 {
        few if few < 100.0 * KIB => format!("{} B", grouped(bytes)),
        some if some < 1000.0 * KIB => format!("{:.1} KiB", some / KIB),
        many => format!("{:.1} MiB", many / (KIB * KIB)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact_where_they_can_be() {
        let cases = [
            (0.0, "0"),
            (0.5, "0.5"),
            (1.0 / 3.0, "0.3333"),
            (99.126, "99.13"),
            (0.000_123_44, "0.0001234"),
            (123_456.0, "123456"),
        ];
        for (value, expected) in cases {
            assert_eq!(short(value), expected);
        }
        assert_eq!(
            [0, 999, 1000, 1234567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(size(22_700), "22,700 B");
        assert_eq!(size(5 << 20), "5.0 MiB");
    }
}
