//! What was quantized to what: bits, bytes, error, layer by layer.

use std::string::{String, ToString};
use std::vec::Vec;

use multibit::PackedWeight;
use serde::{Deserialize, Serialize};

pub use crate::quantize::table;

use crate::file::{PackedModel, PackedProduct, products};
use crate::weight::relative_error;

mod kernel_map;

pub use self::kernel_map::KernelMap;

/// One packed weight, or two of which one is the product, `[inputs, outputs]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

/// A packed model, layer by layer and in total.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The report of a packed model. `float` gives the float weight of a path in its own row-major
    /// layout, where it is known.
    pub fn new(model: &PackedModel, float: impl Fn(&str) -> Option<Vec<f32>>) -> Self {
        let products: Vec<_> = products(model).collect();
        let mut layers = Vec::new();
        let mut weights = 0;
        let (mut bits, mut paper) = (0.0, 0);
        let [mut bases, mut coordinates, mut widths] = [0; 3];
        for (path, weight) in &model.weights {
            if products.iter().any(|product| product.second.0 == path) {
                continue;
            }
            let product = products.iter().find(|product| product.first.0 == path);
            let layer = match product {
                Some(product) => of_product(model, product),
                None => LayerReport {
                    bias_bytes: bias_bytes(model, path),
                    relative_error: float(path)
                        .map(|float| relative_error(&float, &weight.unpack())),
                    ..of_weight(path, weight)
                },
            };
            let count: usize = layer.shape.iter().product();
            weights += count;
            bits += layer.average_bits * count as f64;
            paper += match product {
                Some(product) => product.paper_bits_total(),
                None => weight.paper_bits_total(),
            };
            bases += layer.base_bytes;
            coordinates += layer.coordinate_bytes;
            widths += layer.width_bytes;
            layers.push(layer);
        }
        let is_scale = |path: &str| products.iter().any(|product| product.scale.0 == path);
        let total = (bases + coordinates + widths) as f64;
        let per_weight = 1.0 / weights.max(1) as f64;
        Self {
            layers,
            weights,
            paper_bits: bits * per_weight,
            paper_bytes: paper as f64 / 8.0,
            effective_bits: total * 8.0 * per_weight,
            base_bytes: bases,
            coordinate_bytes: coordinates,
            width_bytes: widths,
            other_bytes: model
                .tensors
                .iter()
                .filter(|(path, _)| !is_scale(path))
                .map(|(_, data)| data.as_bytes().len())
                .sum(),
        }
    }

    /// Bytes of all packed weights as stored.
    pub fn weight_bytes(&self) -> usize {
        self.base_bytes + self.coordinate_bytes + self.width_bytes
    }

    /// The layers as a Markdown table.
    pub fn to_markdown(&self) -> String {
        let mut rows = std::vec![
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
            .map(ToString::to_string)
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

/// A packed weight by itself.
fn of_weight(path: &str, weight: &PackedWeight) -> LayerReport {
    let bytes = weight.encoded_bytes();
    let widths = weight.widths();
    let group_bits = group_bits(widths);
    LayerReport {
        path: path.into(),
        shape: weight.shape().to_vec(),
        grouping: weight.grouping().describe(weight.shape()),
        groups: widths.len(),
        average_bits: weight.average_bits(),
        empty_groups: group_bits[0] as f64 / widths.len() as f64,
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
fn of_product(model: &PackedModel, product: &PackedProduct<'_>) -> LayerReport {
    let [first, second] =
        [product.first, product.second].map(|(path, weight)| of_weight(path, weight));
    let groups = first.groups + second.groups;
    let mut group_bits = first.group_bits;
    group_bits.resize(group_bits.len().max(second.group_bits.len()), 0);
    for (sum, count) in group_bits.iter_mut().zip(&second.group_bits) {
        *sum += count;
    }
    let scales = product.scale.1.as_bytes().len();
    let coordinate_bytes = first.coordinate_bytes + second.coordinate_bytes + scales;
    LayerReport {
        path: product.path.into(),
        shape: [product.inputs(), product.outputs()].into(),
        grouping: format!("product, rank {}", product.rank()),
        groups,
        average_bits: product.average_bits(),
        empty_groups: group_bits[0] as f64 / groups as f64,
        group_bits,
        bytes: first.bytes + second.bytes + scales,
        base_bytes: first.base_bytes + second.base_bytes,
        coordinate_bytes,
        width_bytes: first.width_bytes + second.width_bytes,
        bias_bytes: bias_bytes(model, product.path),
        relative_error: None,
    }
}

/// Number of groups of each bitwidth, from 0 to the widest.
fn group_bits(widths: &[u8]) -> Vec<usize> {
    let widest = widths.iter().copied().max().unwrap_or(0);
    let mut counts = std::vec![0; usize::from(widest) + 1];
    for &width in widths {
        counts[usize::from(width)] += 1;
    }
    counts
}

/// Bytes of the tensor `bias` in the module that holds the weight at `path`.
fn bias_bytes(model: &PackedModel, path: &str) -> usize {
    let module = path.strip_suffix("weight").unwrap_or(path);
    let mut tensors = model.tensors.iter();
    let bias = tensors.find(|(other, _)| other.strip_prefix(module) == Some("bias"));
    bias.map_or(0, |(_, data)| data.as_bytes().len())
}
