//! What a model of packed weights takes: bits and bytes, layer by layer and in total.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::borrow::Borrow;
use core::fmt::Write as _;

use crate::PackedWeight;

/// What follows the path of a weight in those of the parts that it is the product of: two packed weights,
/// `[inputs, rank]` and `[rank, outputs]`, and the scales of the inputs.
const PRODUCT: [&str; 3] = [".product.first", ".product.second", ".product.scale"];

/// One packed weight, or two of which one is the product, `[inputs, outputs]`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LayerReport {
    /// Path of the weight.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// How it is cut into groups.
    pub grouping: String,
    /// Number of groups.
    pub groups: usize,
    /// Average bitwidth `I_W`.
    pub average_bits: f64,
    /// Share of groups without any basis.
    pub empty_groups: f64,
    /// Number of groups of each bitwidth, from 0 to the widest.
    pub group_bits: Vec<usize>,
    /// Bytes of bases, coordinates and widths as stored.
    pub bytes: usize,
    /// Bytes of bases.
    pub base_bytes: usize,
    /// Bytes of coordinates, and of the scales of a product's inputs.
    pub coordinate_bytes: usize,
    /// Bytes of widths.
    pub width_bytes: usize,
    /// Bytes of the bias beside the weight, which is not quantized; 0 without one.
    pub bias_bytes: usize,
    /// `‖w − ŵ‖ / ‖w‖` against the float weight, if that is known; it is not of a product.
    pub relative_error: Option<f64>,
}

impl LayerReport {
    /// Whether what a file holds at a path is this weight, or a part of the product that it is.
    pub fn holds(&self, path: &str) -> bool {
        let part = path.strip_prefix(self.path.as_str());
        part.is_some_and(|part| part.is_empty() || PRODUCT.contains(&part))
    }
}

/// A packed model, layer by layer and in total. Bytes are those of plain sections, before DEFLATE.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ModelReport {
    /// Multi-bit weights in the order of the module tree.
    pub layers: Vec<LayerReport>,
    /// Number of quantized weights.
    pub weights: usize,
    /// Average bitwidth `I_W = Σ n·I / Σ n` over all quantized weights.
    pub paper_bits: f64,
    /// `Σ I·(n + 32)` in bytes, the paper's storage.
    pub paper_bytes: f64,
    /// Bits a weight really takes: bases, coordinates, widths and their padding.
    pub effective_bits: f64,
    /// Bytes of bases.
    pub base_bytes: usize,
    /// Bytes of coordinates, and of the scales of products' inputs.
    pub coordinate_bytes: usize,
    /// Bytes of widths.
    pub width_bytes: usize,
    /// Bytes of everything that is not quantized (biases, norms).
    pub other_bytes: usize,
}

impl ModelReport {
    /// The report of some weights by path, beside other tensors by path and bytes. `error` gives
    /// [`LayerReport::relative_error`] where the float weight is known.
    pub fn new<'a, W: Borrow<PackedWeight>>(
        weights: impl IntoIterator<Item = (&'a str, W)>,
        tensors: &[(&str, usize)],
        error: impl Fn(&str, &PackedWeight) -> Option<f64>,
    ) -> Self {
        let weights: Vec<(&str, W)> = weights.into_iter().collect();
        let parts = products(&weights, tensors);
        let mut layers = Vec::new();
        let mut count = 0usize;
        let (mut bits, mut paper) = (0.0, 0);
        let [mut bases, mut coordinates, mut widths] = [0; 3];
        let mut other_bytes: usize = tensors.iter().map(|(_, bytes)| bytes).sum();
        for (place, (path, weight)) in weights.iter().enumerate() {
            let weight = weight.borrow();
            paper += weight.paper_bits_total();
            bits += weight.average_bits() * weight.weights() as f64;
            let product = parts.iter().find(|product| product.places.contains(&place));
            let layer = match product {
                None => LayerReport {
                    bias_bytes: bias_bytes(tensors, path),
                    relative_error: error(path, weight),
                    ..of_weight(path, weight)
                },
                Some(product) if product.places[0] == place => {
                    let [first, second] = product.places.map(|place| weights[place].1.borrow());
                    other_bytes -= product.scale_bytes;
                    // A scale is another coordinate.
                    paper += 32 * first.shape()[0] as u64;
                    of_product(product, [first, second], tensors)
                }
                // With its first factor.
                Some(_) => continue,
            };
            let weights = layer.shape.iter().copied().fold(1, usize::saturating_mul);
            // A few bytes may claim more weights than there are numbers, if these have no bits.
            count = count.saturating_add(weights);
            bases += layer.base_bytes;
            coordinates += layer.coordinate_bytes;
            widths += layer.width_bytes;
            layers.push(layer);
        }
        let total = (bases + coordinates + widths) as f64;
        let per_weight = 1.0 / count.max(1) as f64;
        Self {
            layers,
            weights: count,
            paper_bits: bits * per_weight,
            paper_bytes: paper as f64 / 8.0,
            effective_bits: total * 8.0 * per_weight,
            base_bytes: bases,
            coordinate_bytes: coordinates,
            width_bytes: widths,
            other_bytes,
        }
    }

    /// Bytes of all packed weights as stored.
    pub fn weight_bytes(&self) -> usize {
        self.base_bytes + self.coordinate_bytes + self.width_bytes
    }

    /// Bytes of the float model's parameters: 4 a weight, and what is not quantized.
    pub fn float_bytes(&self) -> usize {
        self.weights
            .saturating_mul(4)
            .saturating_add(self.other_bytes)
    }

    /// The totals as rows of a [`table`], of a model in a file of so many bytes.
    pub fn totals(&self, file_bytes: usize) -> Vec<[String; 2]> {
        let [bases, coordinates] = [self.base_bytes, self.coordinate_bytes];
        let (widths, stored) = (self.width_bytes, self.weight_bytes());
        let weights = 4.0 * self.weights as f64 / stored.max(1) as f64;
        let file = self.float_bytes() as f64 / file_bytes.max(1) as f64;
        let kib = self.paper_bytes / 1024.0;
        let rows = [
            ("paper bits per weight", format!("{:.4}", self.paper_bits)),
            ("paper storage, Σ I·(n+32)", format!("{kib:.1} KiB")),
            (
                "effective bits per weight",
                format!("{:.4}", self.effective_bits),
            ),
            (
                "weights in the file",
                format!(
                    "{stored} bytes (bases {bases}, coordinates {coordinates}, widths {widths})"
                ),
            ),
            ("biases", format!("{} bytes", self.other_bytes)),
            ("file", format!("{file_bytes} bytes")),
            (
                "compression against f32",
                format!("{weights:.1}x the weights, {file:.1}x the file"),
            ),
        ];
        rows.map(|(name, value)| [name.to_string(), value]).into()
    }

    /// The layers as a Markdown table.
    pub fn to_markdown(&self) -> String {
        let mut rows = vec![
            [
                "weight",
                "shape",
                "grouping",
                "groups",
                "average bits",
                "at 0 bits",
                "bytes",
                "error",
            ]
            .map(ToString::to_string),
        ];
        for layer in &self.layers {
            rows.push([
                layer.path.clone(),
                format!("{:?}", layer.shape),
                layer.grouping.clone(),
                layer.groups.to_string(),
                format!("{:.3}", layer.average_bits),
                format!("{:.1} %", 100.0 * layer.empty_groups),
                layer.bytes.to_string(),
                layer
                    .relative_error
                    .map_or("-".into(), |error| format!("{error:.3}")),
            ]);
        }
        table(&rows)
    }
}

/// Two factors and the scales of a weight that is their product.
struct Product<'a> {
    path: &'a str,
    /// Of the factors, among the weights.
    places: [usize; 2],
    scale_bytes: usize,
}

/// The products among some weights: parts by their names, whose shapes fit.
fn products<'a, W: Borrow<PackedWeight>>(
    weights: &[(&'a str, W)],
    tensors: &[(&str, usize)],
) -> Vec<Product<'a>> {
    let [first, second, scale] = PRODUCT;
    let is = |found: &str, path: &str, part: &str| found.strip_prefix(path) == Some(part);
    let found = weights
        .iter()
        .enumerate()
        .filter_map(|(place, (path, weight))| {
            let path = path.strip_suffix(first)?;
            let other = weights
                .iter()
                .position(|(found, _)| is(found, path, second))?;
            let (_, scale_bytes) = tensors.iter().find(|(found, _)| is(found, path, scale))?;
            let [weight, with] = [weight, &weights[other].1].map(|weight| weight.borrow().shape());
            let (&[_, rank], &[of_rank, _]) = (weight, with) else {
                return None;
            };
            (rank == of_rank).then_some(Product {
                path,
                places: [place, other],
                scale_bytes: *scale_bytes,
            })
        });
    found.collect()
}

/// A packed weight by itself.
fn of_weight(path: &str, weight: &PackedWeight) -> LayerReport {
    let bytes = weight.encoded_bytes();
    let widths = weight.widths();
    let group_bits = group_bits(widths);
    LayerReport {
        path: path.to_string(),
        shape: weight.shape().to_vec(),
        grouping: weight.grouping().describe(weight.shape()),
        groups: widths.len(),
        average_bits: weight.average_bits(),
        empty_groups: group_bits[0] as f64 / widths.len().max(1) as f64,
        group_bits,
        bytes: bytes.total(),
        base_bytes: bytes.bases,
        coordinate_bytes: bytes.coordinates,
        width_bytes: bytes.widths,
        bias_bytes: 0,
        relative_error: None,
    }
}

/// Two packed weights and the scales of inputs as the weight that is their product.
fn of_product(
    product: &Product<'_>,
    factors: [&PackedWeight; 2],
    tensors: &[(&str, usize)],
) -> LayerReport {
    let bits = factors.map(|factor| factor.average_bits() * factor.weights() as f64);
    let [first, second] = factors.map(|factor| of_weight(product.path, factor));
    let shape = vec![first.shape[0], second.shape[1]];
    let groups = first.groups + second.groups;
    let mut group_bits = first.group_bits;
    group_bits.resize(group_bits.len().max(second.group_bits.len()), 0);
    for (sum, count) in group_bits.iter_mut().zip(&second.group_bits) {
        *sum += count;
    }
    let weights = shape.iter().map(|&size| size as f64).product::<f64>();
    LayerReport {
        path: product.path.to_string(),
        grouping: format!("product, rank {}", first.shape[1]),
        groups,
        average_bits: bits.iter().sum::<f64>() / weights.max(1.0),
        empty_groups: group_bits[0] as f64 / groups.max(1) as f64,
        group_bits,
        bytes: first.bytes + second.bytes + product.scale_bytes,
        base_bytes: first.base_bytes + second.base_bytes,
        coordinate_bytes: first.coordinate_bytes + second.coordinate_bytes + product.scale_bytes,
        width_bytes: first.width_bytes + second.width_bytes,
        bias_bytes: bias_bytes(tensors, product.path),
        relative_error: None,
        shape,
    }
}

/// Number of groups of each bitwidth, from 0 to the widest.
fn group_bits(widths: &[u8]) -> Vec<usize> {
    let widest = widths.iter().copied().max().unwrap_or(0);
    let mut counts = vec![0; usize::from(widest) + 1];
    for &width in widths {
        counts[usize::from(width)] += 1;
    }
    counts
}

/// Bytes of the tensor `bias` in the module that holds the weight at `path`.
fn bias_bytes(tensors: &[(&str, usize)], path: &str) -> usize {
    let module = path.strip_suffix("weight").unwrap_or(path);
    let mut tensors = tensors.iter();
    let bias = tensors.find(|(other, _)| other.strip_prefix(module) == Some("bias"));
    bias.map_or(0, |(_, bytes)| *bytes)
}

/// A Markdown table with aligned columns; the first row is the head, numbers stand right.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = core::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            let number = index > 0 && cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            let _ = if number {
                write!(text, "| {cell:>width$} ")
            } else {
                write!(text, "| {cell:<width$} ")
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for width in widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}
