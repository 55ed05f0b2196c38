//! Where the bits and the bytes of a file go.

use multibit::report::{ModelReport, table};
use serde::Serialize;

use crate::file::{Error, File, sizes};
use crate::text::{coding, shown};

/// Bits and bytes of a file.
#[derive(Debug, Serialize)]
pub struct Sizes {
    /// Bytes of the file.
    pub file_bytes: usize,
    /// How it holds the model: `plain` or `deflate`.
    pub coding: &'static str,
    /// Bytes of the model's parameters in f32.
    pub float_bytes: usize,
    /// How many times smaller the file is.
    pub times_smaller: f64,
    /// Bytes of each weight as the file stores them, in the order of `layers`.
    pub stored_layers: Vec<usize>,
    /// Bytes of all other tensors as the file stores them.
    pub stored_others: usize,
    /// Bytes of container, directory and alignment.
    pub frame_bytes: usize,
    /// Groups of each bitwidth in all weights, from 0 to the widest.
    pub group_bits: Vec<usize>,
    /// Layer by layer, before DEFLATE.
    #[serde(flatten)]
    pub model: ModelReport,
}

impl Sizes {
    /// The sizes of a file.
    ///
    /// # Errors
    /// If it is no packed file, damaged or of a newer version.
    pub fn of(file: &File) -> Result<Self, Error> {
        let packed = file.packed()?;
        let model = sizes(&packed);
        let weights = packed.weights().iter();
        let weights = weights.map(|weight| (weight.path(), weight.stored_bytes()));
        let tensors = packed.tensors().iter();
        let tensors = tensors.map(|tensor| (tensor.path(), tensor.stored_bytes()));
        let stored: Vec<(&str, usize)> = weights.chain(tensors).collect();
        let data: usize = stored.iter().map(|(_, bytes)| bytes).sum();
        let stored_layers = model.layers.iter().map(|layer| {
            let own = stored.iter().filter(|(path, _)| layer.holds(path));
            own.map(|(_, bytes)| bytes).sum()
        });
        let stored_layers: Vec<usize> = stored_layers.collect();
        let stored_others = data - stored_layers.iter().sum::<usize>();
        let file_bytes = file.bytes().len();
        let float_bytes = model.float_bytes();
        Ok(Self {
            file_bytes,
            coding: coding(packed.coding()),
            float_bytes,
            times_smaller: float_bytes as f64 / file_bytes as f64,
            stored_layers,
            stored_others,
            frame_bytes: file_bytes - data,
            group_bits: group_bits(&model),
            model,
        })
    }

    /// Two tables: the layers, and totals.
    pub fn to_text(&self) -> String {
        let head = [
            "weight",
            "groups",
            "average bits",
            "groups of 0, 1, 2 … bits",
            "bases",
            "coordinates",
            "widths",
            "in the file",
            "smaller than f32",
        ];
        let mut rows = vec![head.map(String::from)];
        for (layer, stored) in self.model.layers.iter().zip(&self.stored_layers) {
            let weights: f64 = layer.shape.iter().map(|&size| size as f64).product();
            rows.push([
                shown(&layer.path),
                layer.groups.to_string(),
                format!("{:.3}", layer.average_bits),
                counts(&layer.group_bits),
                layer.base_bytes.to_string(),
                layer.coordinate_bytes.to_string(),
                layer.width_bytes.to_string(),
                stored.to_string(),
                format!("{:.1}x", 4.0 * weights / *stored as f64),
            ]);
        }
        let layers = table(&rows);
        let stored: usize = self.stored_layers.iter().sum();
        let mut totals = vec![["total", ""].map(String::from)];
        totals.extend(self.model.totals(self.file_bytes));
        let mut row = |name: &str, value: String| totals.push([name.to_string(), value]);
        row("groups of 0, 1, 2 … bits", counts(&self.group_bits));
        row("coding", self.coding.to_string());
        row("weights as the file stores them", bytes(stored));
        row("others as the file stores them", bytes(self.stored_others));
        row("container, directory, alignment", bytes(self.frame_bytes));
        format!("{layers}\n{}", table(&totals))
    }
}

fn bytes(bytes: usize) -> String {
    format!("{bytes} bytes")
}

fn counts(group_bits: &[usize]) -> String {
    let counts: Vec<String> = group_bits.iter().map(ToString::to_string).collect();
    counts.join(", ")
}

/// Groups of each bitwidth in all weights.
fn group_bits(model: &ModelReport) -> Vec<usize> {
    let mut all = Vec::new();
    for layer in &model.layers {
        all.resize(all.len().max(layer.group_bits.len()), 0);
        for (all, count) in all.iter_mut().zip(&layer.group_bits) {
            *all += count;
        }
    }
    all
}
