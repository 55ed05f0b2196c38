//! Post-training quantization: a float model and inputs without labels → a multi-bit model.

mod curvature;
mod random;
mod refine;

use std::vec::Vec;

use burn_core::module::Module;
use burn_core::tensor::Tensor;
use thiserror::Error;

pub use self::refine::Refined;

use self::curvature::measure;
use self::refine::Refinement;
use crate::optim::AlqOptimizerConfig;
use crate::quantize::{QuantizeReport, Quantizer};
use crate::weight::QuantizeError;

/// Why a model could not be calibrated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// The model cannot be converted.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// There is nothing to calibrate with.
    #[error(
        "there are no samples to calibrate with; some hundred inputs without labels are enough"
    )]
    NoSamples,
    /// An output is NaN or infinite.
    #[error(
        "the model's outputs {shape:?} of sample {sample} are not all finite; check the inputs and the \
         float weights"
    )]
    NotFinite {
        /// The sample, from 0.
        sample: usize,
        /// The shape of the outputs.
        shape: Vec<usize>,
    },
    /// No gradient flows through the outputs.
    #[error(
        "the outputs of `forward` carry no gradients: compute them with the model that it is given, and \
         without `valid`, `detach` or `without_autodiff`"
    )]
    NoGradients,
}

/// Converts a float model with the help of some hundred inputs, without labels and without training.
///
/// Where [`Quantizer::quantize`] brings each weight as near as it can, this one brings the model's
/// *outputs* as near as it can: it measures how much they bend along each weight, from gradients alone,
/// and lets later weights of an output make up for the errors of the earlier ones ([`fit::calibrate`]).
/// So it works for any module whose outputs have gradients.
///
/// ```no_run
/// # use burn_alq::nn::Linear;
/// # use burn::tensor::Tensor;
/// use burn_alq::{Calibrator, CoordinateType, GroupingRule, PathPattern, Quantizer};
///
/// # fn run(float: Linear, batches: Vec<Tensor<2>>) -> Result<(), Box<dyn std::error::Error>> {
/// let quantizer = Quantizer::new(4)
///     .rule(PathPattern::glob("**"), GroupingRule::Groupwise(64))
///     .coordinate_type(CoordinateType::F16);
/// let calibrator = Calibrator::new(quantizer);
/// let (model, report) = calibrator.quantize(float, &batches, |model, x| model.forward(x.clone()))?;
/// println!("{}", report.to_markdown());
/// # Ok(())
/// # }
/// ```
///
/// [`fit::calibrate`]: multibit::fit::calibrate
#[derive(Debug, Clone)]
pub struct Calibrator {
    quantizer: Quantizer,
    epochs: usize,
    lr: f64,
    seed: u64,
}

/// What a calibration has just done.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// So many samples have been measured.
    Measured(usize),
    /// An epoch of the refinement is over.
    Refined(Refined),
}

impl Calibrator {
    /// Converts what a quantizer's rules say, with as many bases, groups and coordinates as they say.
    pub fn new(quantizer: Quantizer) -> Self {
        Self {
            quantizer,
            epochs: 0,
            lr: 1e-4,
            seed: 0,
        }
    }

    /// Goes over the samples so many times more [default: 0], with the float model as the teacher: bases
    /// and coordinates, biases and norms move until the outputs are nearest.
    pub fn epochs(self, epochs: usize) -> Self {
        Self { epochs, ..self }
    }

    /// The largest learning rate of these [default: 1e-4].
    ///
    /// # Panics
    /// If it is not positive and finite.
    pub fn learning_rate(self, lr: f64) -> Self {
        assert!(
            lr > 0.0 && lr.is_finite(),
            "the learning rate must be positive, not {lr}"
        );
        Self { lr, ..self }
    }

    /// What random signs and orders are drawn from [default: 0].
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Converts a float model, which comes back in validation mode.
    ///
    /// Each sample is an input of one forward and one backward pass: a batch of what `forward` takes.
    /// `forward` gives all outputs that shall be kept, of any shape, from the model that it is given;
    /// inputs need no gradients.
    ///
    /// # Errors
    /// As [`Quantizer::quantize`]; if there are no samples, or outputs are not finite or without
    /// gradients.
    pub fn quantize<M: Module, I, const D: usize>(
        &self,
        model: M,
        samples: &[I],
        forward: impl Fn(&M, &I) -> Tensor<D>,
    ) -> Result<(M, QuantizeReport), CalibrateError> {
        self.quantize_with(model, samples, forward, |_| {})
    }

    /// [`quantize`](Self::quantize), saying how far it is.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize).
    pub fn quantize_with<M: Module, I, const D: usize>(
        &self,
        model: M,
        samples: &[I],
        forward: impl Fn(&M, &I) -> Tensor<D>,
        mut progress: impl FnMut(Progress),
    ) -> Result<(M, QuantizeReport), CalibrateError> {
        let planned = self.quantizer.planned(&model)?;
        let float = model.valid();
        let training = model.train();
        let seen = |samples| progress(Progress::Measured(samples));
        let hessians = measure(&training, planned, samples, &forward, self.seed, seen)?;
        drop(training);
        let (model, report) = self.quantizer.quantize_by(float.clone(), hessians)?;
        if self.epochs == 0 {
            return Ok((model, report));
        }
        let mut optimizer = AlqOptimizerConfig::new().init();
        optimizer.set_coordinate_type(self.quantizer.coordinates());
        let refinement = Refinement::new(&float, samples, forward);
        drop(float);
        let seen = |refined| progress(Progress::Refined(refined));
        let (epochs, lr) = (self.epochs, self.lr);
        let model = refinement.run(model.train(), optimizer, epochs, lr, self.seed, seen);
        Ok((model.valid(), report))
    }
}
