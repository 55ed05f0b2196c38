//! How the outputs of a model bend along the weights of each layer, measured by gradients alone.

use std::collections::BTreeMap;
use std::vec::Vec;

use burn_core::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn_core::tensor::{DType, Tensor};
use burn_optim::GradientsParams;
use multibit::Grouping;

use super::CalibrateError;
use super::random::Random;
use crate::quantize::{Hessians, Measured, PlannedWeight};
use crate::train::evaluating;

/// Weights of an output up to which all pairs of them are measured; of more, each by itself.
const PAIRS: usize = 6144;

/// Numbers of curvatures that are held together: half a gigabyte.
const NUMBERS: usize = 1 << 27;

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
/// If outputs are without gradients, or `progress` says so.
pub(super) fn measure<M: Module, I, const D: usize>(
    model: &M,
    planned: &[PlannedWeight],
    samples: &[&I],
    forward: impl Fn(&M, &I) -> Tensor<D>,
    seed: u64,
    mut progress: impl FnMut() -> Result<(), CalibrateError>,
) -> Result<Hessians, CalibrateError> {
    let weights = planned
        .iter()
        .map(|weight| (weight.id, weight.grouping.clone()));
    let groupings: BTreeMap<ParamId, Grouping> = weights.collect();
    let model = evaluating(model.clone()).map(&mut Alone(&groupings));
    let mut hessians = Hessians::default();
    let mut random = Random::new(seed);
    for sample in samples {
        let outputs = forward(&model, sample);
        if !outputs.is_autodiff() {
            return Err(CalibrateError::NoGradients);
        }
        let signs = random.signs_like(&outputs);
        let grads = (outputs * signs).sum().backward();
        let grads = GradientsParams::from_grads(grads, &model);
        model.visit(&mut Add {
            grads: &grads,
            groupings: &groupings,
            sums: &mut hessians.0,
        });
        progress()?;
    }
    Ok(hessians)
}

/// Parts of planned weights whose curvatures fit into memory together.
pub(super) fn parts(planned: Vec<PlannedWeight>) -> Vec<Vec<PlannedWeight>> {
    let mut parts: Vec<Vec<PlannedWeight>> = Vec::new();
    // The first weight starts the first part.
    let mut numbers = NUMBERS + 1;
    for weight in planned {
        let outputs = weight.shape[weight.grouping.axes()[0]];
        let inputs = weight.shape.iter().product::<usize>() / outputs.max(1);
        let own = if inputs <= PAIRS {
            inputs * inputs
        } else {
            inputs
        };
        numbers = numbers.saturating_add(own);
        if numbers > NUMBERS {
            numbers = own;
            parts.push(Vec::new());
        }
        parts.last_mut().expect("the first starts one").push(weight);
    }
    parts
}

/// Takes gradients from all but the weights that are measured.
struct Alone<'a>(&'a BTreeMap<ParamId, Grouping>);

impl ModuleMapper for Alone<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let measured = self.0.contains_key(&param.id);
        param.set_require_grad(measured)
    }
}

/// Adds the gradients of one sample.
struct Add<'a> {
    grads: &'a GradientsParams,
    groupings: &'a BTreeMap<ParamId, Grouping>,
    sums: &'a mut BTreeMap<ParamId, Measured>,
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
        let products = match self.sums.remove(&param.id) {
            Some(sum) => sum.products + products,
            None => products,
        };
        let lacking = None;
        self.sums.insert(param.id, Measured { products, lacking });
    }
}
