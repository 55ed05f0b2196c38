//! Refinement without labels: the float model is the teacher of the multi-bit one.

use std::vec::Vec;

use burn_core::module::{Module, ModuleVisitor, Param, ParamId};
use burn_core::tensor::Tensor;
use burn_optim::GradientsParams;

use super::random::Random;
use crate::optim::{AlqOptimizer, Phase};
use crate::train::evaluating;
use crate::weight::{multi_bit_weights, read_f32};

/// One sample of so many is held out, to see what helps.
const HELD_OUT: usize = 8;

/// The share of the epochs, at the end, in which coordinates move alone.
const COORDINATES: f64 = 0.25;

/// A multi-bit model that follows its float one.
pub(super) struct Refinement<'a, I, F, const D: usize> {
    samples: &'a [I],
    forward: F,
    /// What the float model gives, and the square of its norm, of each sample.
    taught: Vec<(Tensor<D>, f64)>,
}

/// Where a refinement is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refined {
    /// The epoch that is over, from 1; 0 before the first.
    pub epoch: usize,
    /// `Σ ‖ŷ − y‖² / Σ ‖y‖²` over the samples that are held out; of fewer than eight, over all.
    pub error: f64,
}

impl<'a, I, F, const D: usize> Refinement<'a, I, F, D> {
    /// Asks the float model, without gradients.
    pub fn new<M: Module>(float: &M, samples: &'a [I], forward: F) -> Self
    where
        F: Fn(&M, &I) -> Tensor<D>,
    {
        let taught = samples.iter().map(|sample| {
            let outputs = forward(float, sample).without_autodiff();
            let norm = square(outputs.clone());
            (outputs, norm)
        });
        Self {
            taught: taught.collect(),
            samples,
            forward,
        }
    }

    /// Moves weights by straight-through estimation, then coordinates alone, towards the least mean
    /// `‖ŷ − y‖² / ‖y‖²` of a sample; biases and norms move with them. Returns the model with the least
    /// error on samples that are held out, which is the one given if no step helps. The model must be on an
    /// autodiff device.
    pub fn run<M: Module>(
        &self,
        model: M,
        mut optimizer: AlqOptimizer,
        epochs: usize,
        lr: f64,
        seed: u64,
        mut progress: impl FnMut(Refined),
    ) -> M
    where
        F: Fn(&M, &I) -> Tensor<D>,
    {
        let count = self.samples.len();
        // Spread: samples may come in an order.
        let (mut held_out, mut order): (Vec<usize>, Vec<usize>) =
            (0..count).partition(|index| index % HELD_OUT == HELD_OUT - 1);
        if held_out.is_empty() {
            held_out.clone_from(&order);
        }
        let mut random = Random::new(seed);
        let mut model = evaluating(model);
        let weights = multi_bit_weights(&model).into_iter();
        let multi_bit: Vec<ParamId> = weights.map(|weight| weight.id).collect();
        let mut error = self.error(&model, &held_out);
        progress(Refined { epoch: 0, error });
        let mut best = model.clone();
        let steps = (epochs * order.len()) as f64;
        let mut step = 0;
        for epoch in 1..=epochs {
            let last = epoch as f64 > epochs as f64 * (1.0 - COORDINATES);
            optimizer.set_phase(if last { Phase::Coordinate } else { Phase::Ste });
            random.shuffle(&mut order);
            for &index in &order {
                // A cosine from the whole rate to none.
                let angle = core::f64::consts::PI * f64::from(step) / steps;
                let rate = lr * 0.5 * (1.0 + angle.cos());
                step += 1;
                let (taught, norm) = &self.taught[index];
                let outputs = (self.forward)(&model, &self.samples[index]);
                let loss = (outputs - taught.clone()).square().sum() / norm.max(f64::MIN_POSITIVE);
                let mut grads = GradientsParams::from_grads(loss.backward(), &model);
                model.visit(&mut Freeze {
                    multi_bit: &multi_bit,
                    grads: &mut grads,
                });
                model = optimizer.step(rate, model, grads);
            }
            let now = self.error(&model, &held_out);
            progress(Refined { epoch, error: now });
            if now < error {
                (error, best) = (now, model.clone());
            }
        }
        best
    }

    /// `Σ ‖ŷ − y‖² / Σ ‖y‖²` over some samples.
    fn error<M: Module>(&self, model: &M, samples: &[usize]) -> f64
    where
        F: Fn(&M, &I) -> Tensor<D>,
    {
        let model = model.valid();
        let [mut error, mut norm] = [0.0; 2];
        for &index in samples {
            let (taught, size) = &self.taught[index];
            let outputs = (self.forward)(&model, &self.samples[index]).without_autodiff();
            error += square(outputs - taught.clone());
            norm += size;
        }
        error / norm
    }
}

fn square<const D: usize>(x: Tensor<D>) -> f64 {
    f64::from(read_f32(x.square().sum())[0])
}

/// Takes the gradients of large float weights away: what stays float stays as it is, but for biases and
/// norms.
struct Freeze<'a> {
    multi_bit: &'a [ParamId],
    grads: &'a mut GradientsParams,
}

impl ModuleVisitor for Freeze<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D > 1 && !self.multi_bit.contains(&param.id) {
            self.grads.remove::<D>(param.id);
        }
    }
}
