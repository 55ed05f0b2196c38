//! Float → multi-bit: structured sketching of one weight or of a whole module by path rules
//! (structured sketching, Qu et al., CVPR 2020).

mod conversion_report;
mod convert;
mod error;
mod rules;

pub use conversion_report::{ConversionReport, Converted, Outcome};
#[cfg(feature = "train")]
pub(crate) use convert::survey;
pub use convert::{Quantizer, load_float};
pub use error::{QuantizeError, RuleError};
pub use rules::{Action, ActivationRule, PathPattern, Rules, Selector, WeightRule};

use alloc::string::ToString;

use burn_core::module::{Module, Param};
use burn_core::tensor::Tensor;
use multibit::fit;
use multibit::{Grouping, GroupingError, MAX_BITS};
use serde::{Deserialize, Serialize};

use crate::multibit::{Attach, MultiBit, MultiBitData, Replacement, read_f32};
use crate::report::relative_error;

/// How a weight is cut into groups, before its shape is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupingRule {
    /// All weights of one output; for a linear layer the same as `Subchannelwise(1)`.
    Channelwise,
    /// One 2-D kernel of a convolution.
    Kernelwise,
    /// One kernel position of a convolution, across its input channels.
    Pixelwise,
    /// One of `s` equal runs of an output's inputs, of a linear layer `[d_in, d_out]`; of a row of
    /// an embedding.
    Subchannelwise(usize),
}

/// What the first two axes of a weight mean.
///
/// Rules know it from the layer that holds the weight: `Embedding` and the transposed convolutions
/// of Burn, and the multi-bit layers for them, have their outputs on another axis than the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A linear layer `[d_in, d_out]` or a convolution `[out, in, k…]`.
    Direct,
    /// An embedding `[n_embedding, d_model]`, whose outputs are its rows, or a transposed
    /// convolution `[in, out, k…]`.
    Transposed,
}

impl Layout {
    /// The layout of a weight in a module of the given type.
    fn of(container: &str) -> Self {
        match container.strip_prefix("Struct:") {
            Some("Embedding" | "MultiBitEmbedding") => Self::Transposed,
            Some(name) if name.contains("ConvTranspose") => Self::Transposed,
            _ => Self::Direct,
        }
    }
}

impl GroupingRule {
    /// The grouping of a weight of the given shape.
    ///
    /// A weight of rank 2 is taken as Burn's `Linear`, `[d_in, d_out]`; of rank 3 and more as a
    /// convolution, `[out, in, k…]`.
    ///
    /// # Errors
    /// If the rule does not fit the shape, for example if `s` does not divide `d_in`.
    pub fn grouping(&self, shape: &[usize]) -> Result<Grouping, GroupingError> {
        match (self, shape.len()) {
            (Self::Channelwise, 2) => Grouping::subchannelwise(shape, 1),
            (Self::Channelwise, _) => Grouping::channelwise(shape),
            (Self::Kernelwise, _) => Grouping::kernelwise(shape),
            (Self::Pixelwise, _) => Grouping::pixelwise(shape),
            (Self::Subchannelwise(s), _) => Grouping::subchannelwise(shape, *s),
        }
    }

    /// The grouping of a weight whose axes mean what `layout` says.
    ///
    /// # Errors
    /// As [`grouping`](Self::grouping).
    pub fn grouping_in(&self, layout: Layout, shape: &[usize]) -> Result<Grouping, GroupingError> {
        if layout == Layout::Direct || shape.len() < 2 {
            return self.grouping(shape);
        }
        let mut direct = shape.to_vec();
        direct.swap(0, 1);
        Ok(self.grouping(&direct)?.transposed())
    }
}

/// Sketches one weight.
///
/// # Arguments
/// - `weight`: the values in row-major order
/// - `shape`: of the weight
///
/// # Errors
/// If the grouping does not fit the shape, or a value is not finite.
pub fn sketch(
    path: &str,
    weight: &[f32],
    shape: &[usize],
    rule: GroupingRule,
    max_bits: usize,
) -> Result<MultiBitData, QuantizeError> {
    let plan = Plan::new(path, shape, rule, Layout::of(""), max_bits)?;
    plan.sketch(path, weight, shape)
}

/// How one weight is sketched, checked against its shape.
#[derive(Debug, Clone)]
struct Plan {
    grouping: Grouping,
    max_bits: usize,
}

impl Plan {
    fn new(
        path: &str,
        shape: &[usize],
        rule: GroupingRule,
        layout: Layout,
        max_bits: usize,
    ) -> Result<Self, QuantizeError> {
        let path = || path.to_string();
        if !(1..=MAX_BITS).contains(&max_bits) {
            return Err(QuantizeError::MaxBits {
                path: path(),
                max_bits,
            });
        }
        match rule.grouping_in(layout, shape) {
            Ok(grouping) => Ok(Self { grouping, max_bits }),
            Err(source) => Err(QuantizeError::Grouping {
                path: path(),
                source,
            }),
        }
    }

    fn sketch(
        &self,
        path: &str,
        weight: &[f32],
        shape: &[usize],
    ) -> Result<MultiBitData, QuantizeError> {
        let mut grouped = alloc::vec![0.0; weight.len()];
        self.grouping.gather(shape, weight, &mut grouped);
        let sketch = fit::sketch(&grouped, self.grouping.len(), self.max_bits);
        let sketch = sketch.map_err(|source| QuantizeError::Weight {
            path: path.to_string(),
            source,
        })?;
        Ok(MultiBitData {
            shape: shape.to_vec(),
            grouping: self.grouping.clone(),
            max_bits: self.max_bits,
            codes: sketch.codes,
            coordinates: sketch.coordinates,
            widths: sketch.widths,
        })
    }
}

/// The parameter at its sketch's value, and what became of it.
struct Sketched<const D: usize> {
    param: Param<Tensor<D>>,
    state: MultiBit,
    average_bits: f64,
    relative_error: f64,
}

fn sketch_param<const D: usize>(
    path: &str,
    param: Param<Tensor<D>>,
    plan: &Plan,
) -> Result<Sketched<D>, QuantizeError> {
    let value = param.val();
    let (device, shape) = (value.device(), value.dims());
    let float = read_f32(value);
    let data = plan.sketch(path, &float, &shape)?;
    let state = data.to_device(&device);
    let reconstructed = data.reconstruct();
    let bits: usize = data.widths.iter().map(|&width| usize::from(width)).sum();
    let average_bits = bits as f64 / data.widths.len() as f64;
    let relative_error = relative_error(&float, &reconstructed);
    drop((data, float));
    let len = reconstructed.len();
    let flat = burn_core::tensor::TensorData::new(reconstructed, [len]);
    let flat = Tensor::<1>::from_data(flat, &device.without_autodiff());
    let mut replacement = Replacement::default();
    replacement.floats.insert(param.id, flat);
    Ok(Sketched {
        param: Module::map(param, &mut replacement),
        state,
        average_bits,
        relative_error,
    })
}

/// Sketches one parameter and attaches its state.
pub(crate) fn attach<const D: usize>(
    path: &str,
    param: Param<Tensor<D>>,
    rule: GroupingRule,
    layout: Layout,
    max_bits: usize,
) -> Result<Param<Tensor<D>>, QuantizeError> {
    let plan = Plan::new(path, &param.val().dims(), rule, layout, max_bits)?;
    let Sketched { param, state, .. } = sketch_param(path, param, &plan)?;
    Ok(param.apply_reparameterization(Attach(Some(state))))
}
