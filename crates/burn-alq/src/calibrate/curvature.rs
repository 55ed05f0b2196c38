//! How the outputs of a model bend along the weights of each layer, measured by gradients alone.

use std::collections::BTreeMap;
use std::vec::Vec;

use burn_core::module::{Module, ModuleVisitor, Param, ParamId};
use burn_core::tensor::{DType, Tensor};
use burn_optim::GradientsParams;
use multibit::Grouping;
use multibit::fit::SketchError;

use super::CalibrateError;
use super::random::Random;
use crate::quantize::{Hessians, PlannedWeight};
use crate::train::evaluating;
use crate::weight::{Found, QuantizeError, read_f32, walk};

/// Weights of an output up to which all pairs of them are measured; of more, each by itself.
const PAIRS: usize = 6144;

/// Measures the curvature of each planned weight: `H = Σ gᵀg` over samples and over the outputs of its
/// layer, where `g`, `[outputs, weights of an output]`, is the gradient of `Σ ±y` with a random sign for
/// each number `y` that the model gives.
///
/// Over all signs its mean is the Gauss-Newton matrix of `‖ŷ − y‖²`, what moving the weights does to the
/// model's outputs, with one block for all outputs of a layer. It needs no labels, and nothing of a layer
/// but its weight's gradient; of a single linear layer it is `Σ x xᵀ` of its inputs, up to a
/// factor.
///
/// Layers behave as in evaluation; the model must be on an autodiff device.
///
/// # Errors
/// If there are no samples, or outputs are not finite, which names a parameter that is not either, or
/// without gradients.
pub(super) fn measure<M: Module, I, const D: usize>(
    model: &M,
    planned: Vec<PlannedWeight>,
    samples: &[I],
    forward: impl Fn(&M, &I) -> Tensor<D>,
    seed: u64,
    mut progress: impl FnMut(usize),
) -> Result<Hessians, CalibrateError> {
    if samples.is_empty() {
        return Err(CalibrateError::NoSamples);
    }
    let model = evaluating(model.clone());
    let weights = planned
        .into_iter()
        .map(|weight| (weight.id, weight.grouping));
    let groupings: BTreeMap<ParamId, Grouping> = weights.collect();
    let mut hessians = Hessians::default();
    let mut random = Random::new(seed);
    for (index, sample) in samples.iter().enumerate() {
        let outputs = forward(&model, sample);
        if !outputs.is_autodiff() {
            return Err(CalibrateError::NoGradients);
        }
        let shape = outputs.dims();
        let signs = random.signs_like(&outputs);
        let loss = (outputs * signs).sum();
        if !read_f32(loss.clone().without_autodiff())[0].is_finite() {
            let mut floats = walk(&model).into_iter().filter(|found| found.is_float);
            let broken = floats.find_map(|found| broken(&found));
            return Err(broken.map_or(
                CalibrateError::NotFinite {
                    sample: index,
                    shape: shape.to_vec(),
                },
                CalibrateError::Quantize,
            ));
        }
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model.visit(&mut Add {
            grads: &grads,
            groupings: &groupings,
            sums: &mut hessians.0,
        });
        progress(index + 1);
    }
    Ok(hessians)
}

/// What is wrong with a parameter that is not finite.
fn broken(found: &Found) -> Option<QuantizeError> {
    let values: Vec<f32> = found.read().iter().collect();
    let index = values.iter().position(|value| !value.is_finite())?;
    let source = SketchError::NotFinite { index };
    let (path, shape) = (&found.path, &found.shape);
    Some(QuantizeError::of_sketch(path, shape, &values, source))
}

/// Adds the gradients of one sample.
struct Add<'a> {
    grads: &'a GradientsParams,
    groupings: &'a BTreeMap<ParamId, Grouping>,
    sums: &'a mut BTreeMap<ParamId, Tensor<2>>,
}

impl ModuleVisitor for Add<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grouping) = self.groupings.get(&param.id) else {
            return;
        };
        let Some(grad) = self.grads.get::<D>(param.id) else {
            return;
        };
        let shape = grad.dims();
        let axes = grouping.axes();
        let outputs = shape[axes[0]];
        let inputs = grad.shape().num_elements() / outputs;
        // A group of several outputs has no one of their curvature.
        if !inputs.is_multiple_of(grouping.len()) {
            return;
        }
        let axes: [isize; D] = core::array::from_fn(|axis| axes[axis] as isize);
        let rows = grad
            .cast(DType::F32)
            .permute(axes)
            .reshape([outputs, inputs]);
        let products = if inputs <= PAIRS {
            rows.clone().transpose().matmul(rows)
        } else {
            (rows.clone() * rows).sum_dim(0)
        };
        let sum = match self.sums.remove(&param.id) {
            Some(sum) => sum + products,
            None => products,
        };
        self.sums.insert(param.id, sum);
    }
}
