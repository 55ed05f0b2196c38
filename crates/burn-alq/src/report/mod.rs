//! What was quantized to what: bits, bytes, error, layer by layer.

use std::string::{String, ToString};
use std::vec::Vec;

use serde::{Deserialize, Serialize};

pub use crate::quantize::table;

use crate::file::PackedModel;
use crate::weight::relative_error;

mod kernel_map;

pub use self::kernel_map::KernelMap;

/// One packed weight.
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
    /// Bytes of coordinates.
    pub coordinate_bytes: usize,
    /// Bytes of widths.
    pub width_bytes: usize,
    /// Bytes of the bias beside the weight, which is not quantized; 0 without one.
    pub bias_bytes: usize,
    /// `‖w − ŵ‖ / ‖w‖` against the float weight, if that is known.
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
    /// Bytes of coordinates.
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
        let mut layers = Vec::new();
        let mut weights = 0;
        let (mut bits, mut paper) = (0.0, 0);
        let [mut bases, mut coordinates, mut widths] = [0; 3];
        for (path, weight) in &model.weights {
            let count: usize = weight.shape().iter().product();
            let bytes = weight.encoded_bytes();
            let layer_widths = weight.widths();
            let group_bits = group_bits(layer_widths);
            layers.push(LayerReport {
                path: path.clone(),
                shape: weight.shape().to_vec(),
                grouping: weight.grouping().describe(weight.shape()),
                groups: layer_widths.len(),
                average_bits: weight.average_bits(),
                empty_groups: group_bits[0] as f64 / layer_widths.len() as f64,
                group_bits,
                bytes: bytes.total(),
                base_bytes: bytes.bases,
                coordinate_bytes: bytes.coordinates,
                width_bytes: bytes.widths,
                bias_bytes: bias_bytes(model, path),
                relative_error: float(path).map(|float| relative_error(&float, &weight.unpack())),
            });
            weights += count;
            bits += weight.average_bits() * count as f64;
            paper += weight.paper_bits_total();
            bases += bytes.bases;
            coordinates += bytes.coordinates;
            widths += bytes.widths;
        }
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
