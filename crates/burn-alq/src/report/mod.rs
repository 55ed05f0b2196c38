//! What was quantized to what: bits, bytes, error, layer by layer.

use std::vec::Vec;

pub use multibit::report::{LayerReport, ModelReport, table};

use crate::file::PackedModel;
use crate::weight::relative_error;

mod kernel_map;

pub use self::kernel_map::KernelMap;

impl PackedModel {
    /// What the model takes, layer by layer. `float` gives the float weight of a path in its own
    /// row-major layout, where it is known.
    pub fn report(&self, float: impl Fn(&str) -> Option<Vec<f32>>) -> ModelReport {
        let weights = self.weights.iter();
        let weights = weights.map(|(path, weight)| (path.as_str(), &**weight));
        let tensors = self.tensors.iter();
        let tensors = tensors.map(|(path, data)| (path.as_str(), data.as_bytes().len()));
        ModelReport::new(weights, &tensors.collect::<Vec<_>>(), |path, weight| {
            float(path).map(|float| relative_error(&float, &weight.unpack()))
        })
    }
}
