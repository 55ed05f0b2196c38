//! Refinement without labels: the float model is the teacher of the multi-bit one.

use std::vec::Vec;

use burn_core::module::{Module, ModuleMapper, Param, ParamId};
use burn_core::tensor::Tensor;
use burn_optim::GradientsParams;
use multibit::fit::SketchError;
use serde::{Deserialize, Serialize};

use super::CalibrateError;
use super::random::Random;
use crate::optim::{AlqOptimizer, Phase};
use crate::train::evaluating;
use crate::weight::{Found, QuantizeError, multi_bit_weights, read_f32, walk};

/// One sample of so many is held out, to see what helps.
const HELD_OUT: usize = 8;

/// Epochs without a better one after which a refinement is over.
const PATIENCE: usize = 3;

/// Bits up to which a weight moves: of more, a sketch leaves less than steps would.
const MOVING: u8 = 5;

/// The share of the epochs, at the end, in which coordinates move alone.
const COORDINATES: f64 = 0.25;

/// A multi-bit model that follows its float one.
pub(super) struct Refinement<'a, I, F, const D: usize> {
    samples: &'a [I],
    forward: F,
    /// What the float model gives, and the square of its norm, of each sample.
    taught: Vec<(Tensor<D>, f64)>,
    /// Samples that nothing is learnt from, to see what helps.
    held_out: Vec<usize>,
    /// The others.
    learnt: Vec<usize>,
}

/// Where a refinement is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Refined {
    /// The epoch that is over, from 1; 0 before the first.
    pub epoch: usize,
    /// `Σ ‖ŷ − y‖² / Σ ‖y‖²` over the samples that are held out; of fewer than eight, over all.
    pub error: f64,
}

/// A refined model, and how it came to be.
pub(super) struct Course<M> {
    pub model: M,
    pub optimizer: AlqOptimizer,
    /// What [`freeze`] froze.
    pub frozen: Vec<ParamId>,
    pub now: Refined,
    /// The best so far, which may be the model that it began with.
    pub best: (M, Refined),
}

impl<'a, I, F, const D: usize> Refinement<'a, I, F, D> {
    /// Asks the float model, without gradients.
    ///
    /// # Errors
    /// If there are no samples, or outputs are not finite, which names a parameter that is not either.
    pub fn new<M: Module>(float: &M, samples: &'a [I], forward: F) -> Result<Self, CalibrateError>
    where
        F: Fn(&M, &I) -> Tensor<D>,
    {
        if samples.is_empty() {
            return Err(CalibrateError::NoSamples);
        }
        let mut taught = Vec::with_capacity(samples.len());
        for (sample, input) in samples.iter().enumerate() {
            let outputs = forward(float, input).without_autodiff();
            let norm = square(outputs.clone());
            if !norm.is_finite() {
                let mut floats = walk(float).into_iter().filter(|found| found.is_float);
                let broken = floats.find_map(|found| broken(&found));
                let shape = outputs.dims().to_vec();
                return Err(broken.map_or(
                    CalibrateError::NotFinite { sample, shape },
                    CalibrateError::Quantize,
                ));
            }
            taught.push((outputs, norm));
        }
        // Spread: samples may come in an order.
        let (mut held_out, learnt): (Vec<usize>, Vec<usize>) =
            (0..samples.len()).partition(|index| index % HELD_OUT == HELD_OUT - 1);
        if held_out.is_empty() {
            held_out.clone_from(&learnt);
        }
        Ok(Self {
            samples,
            forward,
            taught,
            held_out,
            learnt,
        })
    }

    /// Samples that are not held out.
    pub fn learnt(&self) -> impl ExactSizeIterator<Item = &'a I> {
        self.learnt.iter().map(|&index| &self.samples[index])
    }

    /// A number that depends on all that the float model gives.
    pub fn fingerprint(&self) -> f64 {
        self.taught.iter().map(|(_, norm)| norm).sum()
    }

    /// The course of a model that has been converted; it must be on an autodiff device.
    pub fn begin<M: Module>(&self, model: M, optimizer: AlqOptimizer) -> Course<M>
    where
        F: Fn(&M, &I) -> Tensor<D>,
    {
        let (model, frozen) = freeze(model);
        let error = self.error(&model);
        let now = Refined { epoch: 0, error };
        Course {
            best: (model.clone(), now),
            model,
            optimizer,
            now,
            frozen,
        }
    }

    /// One of `epochs` epochs: weights move by straight-through estimation, in the last epochs coordinates
    /// alone, towards the least mean `‖ŷ − y‖² / ‖y‖²` of a sample; biases and norms move with them.
    ///
    /// # Errors
    /// If `progress` says so.
    pub fn epoch<M: Module>(
        &self,
        mut course: Course<M>,
        epochs: usize,
        lr: f64,
        seed: u64,
        mut progress: impl FnMut() -> Result<(), CalibrateError>,
    ) -> Result<Course<M>, CalibrateError>
    where
        F: Fn(&M, &I) -> Tensor<D>,
    {
        let epoch = course.now.epoch + 1;
        let last = epoch as f64 > epochs as f64 * (1.0 - COORDINATES);
        let optimizer = &mut course.optimizer;
        optimizer.set_phase(if last { Phase::Coordinate } else { Phase::Ste });
        let mut order = self.learnt.clone();
        // The same order whether a checkpoint was read before or not.
        Random::new(seed.wrapping_add(epoch as u64)).shuffle(&mut order);
        for (step, &index) in order.iter().enumerate() {
            // A cosine from the whole rate to none.
            let done = (epoch - 1) as f64 + step as f64 / order.len() as f64;
            let rate = lr * 0.5 * (1.0 + (core::f64::consts::PI * done / epochs as f64).cos());
            let (taught, norm) = &self.taught[index];
            let outputs = (self.forward)(&course.model, &self.samples[index]);
            if !outputs.is_autodiff() {
                return Err(CalibrateError::NoGradients);
            }
            let loss = (outputs - taught.clone()).square().sum() / norm.max(f64::MIN_POSITIVE);
            let grads = GradientsParams::from_grads(loss.backward(), &course.model);
            course.model = optimizer.step(rate, course.model, grads);
            progress()?;
        }
        let error = self.error(&course.model);
        course.now = Refined { epoch, error };
        if error < course.best.1.error {
            course.best = (course.model.clone(), course.now);
        }
        Ok(course)
    }

    /// `Σ ‖ŷ − y‖² / Σ ‖y‖²` over the samples that are held out.
    fn error<M: Module>(&self, model: &M) -> f64
    where
        F: Fn(&M, &I) -> Tensor<D>,
    {
        let model = model.valid();
        let [mut error, mut norm] = [0.0; 2];
        for &index in &self.held_out {
            let (taught, size) = &self.taught[index];
            let outputs = (self.forward)(&model, &self.samples[index]).without_autodiff();
            error += square(outputs - taught.clone());
            norm += size;
        }
        error / norm
    }
}

impl<M> Course<M> {
    /// Whether the last epochs have brought nothing.
    pub fn is_stuck(&self) -> bool {
        self.now.epoch >= self.best.1.epoch + PATIENCE
    }
}

fn square<const D: usize>(x: Tensor<D>) -> f64 {
    f64::from(read_f32(x.square().sum())[0])
}

/// What is wrong with a parameter that is not finite.
fn broken(found: &Found) -> Option<QuantizeError> {
    let values: Vec<f32> = found.read().iter().collect();
    let index = values.iter().position(|value| !value.is_finite())?;
    let source = SketchError::NotFinite { index };
    let (path, shape) = (&found.path, &found.shape);
    Some(QuantizeError::of_sketch(path, shape, &values, source))
}

/// A model as in evaluation in which few-bit weights, biases and norms move alone, and what does not move
/// that would otherwise.
pub(super) fn freeze<M: Module>(model: M) -> (M, Vec<ParamId>) {
    struct Freeze {
        moving: Vec<ParamId>,
        frozen: Vec<ParamId>,
    }

    impl ModuleMapper for Freeze {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if D < 2 || self.moving.contains(&param.id) || !param.is_require_grad() {
                return param;
            }
            self.frozen.push(param.id);
            param.set_require_grad(false)
        }
    }

    let weights = multi_bit_weights(&model).into_iter();
    let moving = weights.filter(|weight| weight.size().widest <= MOVING);
    let mut freeze = Freeze {
        moving: moving.map(|weight| weight.id).collect(),
        frozen: Vec::new(),
    };
    let model = evaluating(model).map(&mut freeze);
    (model, freeze.frozen)
}

/// Lets what [`freeze`] froze move again.
pub(super) fn thaw<M: Module>(model: M, frozen: &[ParamId]) -> M {
    struct Thaw<'a>(&'a [ParamId]);

    impl ModuleMapper for Thaw<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.0.contains(&param.id) {
                true => param.set_require_grad(true),
                false => param,
            }
        }
    }

    model.map(&mut Thaw(frozen))
}
