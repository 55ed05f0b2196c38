//! How the outputs of a model bend along the weights of each layer, measured by gradients alone.

use std::collections::BTreeMap;

use burn_core::module::{Module, ModuleVisitor, Param, ParamId};
use burn_core::tensor::Tensor;
use burn_optim::GradientsParams;
use multibit::Grouping;
use multibit::fit::{Hessian, HessianError};

use super::CalibrateError;
use super::random::Random;
use crate::quantize::PlannedWeight;
use crate::train::evaluating;
use crate::weight::read_f32;

/// Weights of an output up to which all pairs of them are measured; of more, each by itself.
const PAIRS: usize = 6144;

/// The share of the mean curvature that is added to all: directions that no sample showed still count.
const DAMPING: f64 = 0.01;

/// The curvature of each weight that a quantizer would convert: `H = Σ gᵀg` over samples and over the
/// outputs of the layer, where `g`, `[outputs, weights of an output]`, is the gradient of `Σ ±y` with a
/// random sign for each number `y` that the model gives.
///
/// Over all signs its mean is the Gauss-Newton matrix of `‖ŷ − y‖²`, what moving the weights does to the
/// model's outputs, with one block for all outputs of a layer. It needs no labels, and nothing of a layer
/// but its weight's gradient. For a single linear layer it is `Σ x xᵀ` of its inputs.
#[derive(Debug)]
pub(crate) struct Curvature {
    weights: BTreeMap<ParamId, Measured>,
}

/// What was measured of one weight.
#[derive(Debug)]
struct Measured {
    grouping: Grouping,
    /// `[inputs, inputs]` or, of too many, their squares `[1, inputs]`.
    sum: Option<Tensor<2>>,
}

impl Curvature {
    /// Measures over all samples. Layers behave as in evaluation; the model must be on an autodiff device.
    ///
    /// # Errors
    /// If there are no samples, or an output or a gradient is not finite.
    pub fn measure<M: Module, I, const D: usize>(
        model: &M,
        planned: Vec<PlannedWeight>,
        samples: &[I],
        forward: impl Fn(&M, &I) -> Tensor<D>,
        seed: u64,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, CalibrateError> {
        if samples.is_empty() {
            return Err(CalibrateError::NoSamples);
        }
        let model = evaluating(model.clone());
        let weights = planned.into_iter().map(|weight| {
            let (grouping, sum) = (weight.grouping, None);
            (weight.id, Measured { grouping, sum })
        });
        let mut curvature = Self {
            weights: weights.collect(),
        };
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
                return Err(CalibrateError::NotFinite {
                    sample: index,
                    shape: shape.to_vec(),
                });
            }
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            model.visit(&mut Add {
                grads: &grads,
                weights: &mut curvature.weights,
            });
            progress(index + 1);
        }
        Ok(curvature)
    }
}

/// Hessians of weights by their id, made where they are asked for: a factor takes as much memory again.
#[derive(Debug)]
pub(crate) struct Hessians(Curvature);

impl From<Curvature> for Hessians {
    fn from(curvature: Curvature) -> Self {
        Self(curvature)
    }
}

impl Hessians {
    /// That of a weight, which there is once; none if no gradient has reached it.
    ///
    /// # Errors
    /// If what was measured is not finite.
    pub fn take(&mut self, id: ParamId) -> Result<Option<Hessian>, HessianError> {
        let Some(sum) = self.0.weights.remove(&id).and_then(|weight| weight.sum) else {
            return Ok(None);
        };
        let [rows, inputs] = sum.dims();
        let values = read_f32(sum);
        match rows == inputs {
            true => Hessian::new(&values, inputs, DAMPING).map(Some),
            false => Hessian::diagonal(&values, DAMPING).map(Some),
        }
    }
}

/// Adds the gradients of one sample.
struct Add<'a> {
    grads: &'a GradientsParams,
    weights: &'a mut BTreeMap<ParamId, Measured>,
}

impl ModuleVisitor for Add<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(weight) = self.weights.get_mut(&param.id) else {
            return;
        };
        let Some(grad) = self.grads.get::<D>(param.id) else {
            return;
        };
        let shape = grad.dims();
        let axes = weight.grouping.axes();
        let outputs = shape[axes[0]];
        let inputs = grad.shape().num_elements() / outputs;
        let axes: [isize; D] = core::array::from_fn(|axis| axes[axis] as isize);
        let rows = grad.permute(axes).reshape([outputs, inputs]);
        let products = if inputs <= PAIRS {
            rows.clone().transpose().matmul(rows)
        } else {
            (rows.clone() * rows).sum_dim(0)
        };
        weight.sum = Some(match weight.sum.take() {
            Some(sum) => sum + products,
            None => products,
        });
    }
}
