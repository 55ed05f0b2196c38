//! Figures of a packed model and of a training, as SVG.
//!
//! A [`Figure`] is drawn for light paper; inside a page, [`style`] lets it follow the page's scheme.

mod bars;
mod canvas;
mod cells;
mod chart;
mod frontier;
mod heat;
mod lines;
mod palette;

use burn_alq::report::ModelReport;
use indicatif::HumanCount;

pub use self::bars::{bitwidths, file_bytes, timings};
pub use self::cells::kernel_map;
pub use self::frontier::{FrontierPoint, Series, frontier};
pub use self::heat::sensitivity;
pub use self::lines::training;
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

/// The largest bitwidth of a group, the scale of colours.
pub fn widest(model: &ModelReport) -> usize {
    let layers = model.layers.iter();
    let widest = layers.map(|layer| layer.group_bits.len().saturating_sub(1));
    widest.max().unwrap_or(0)
}

/// A row of a table.
fn row(first: &str, others: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(first.to_string()).chain(others).collect()
}

/// A weight's path without what all share.
fn layer_name(path: &str) -> &str {
    path.strip_suffix(".weight").unwrap_or(path)
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
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        text
    }
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    HumanCount(number as u64).to_string()
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
