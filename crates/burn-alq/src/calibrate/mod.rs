//! Post-training quantization: a float model and inputs without labels → a multi-bit model.

mod budget;
mod checkpoint;
mod curvature;
mod inputs;
mod random;
mod refine;

use core::ops::ControlFlow;
use std::format;
use std::path::PathBuf;
use std::string::String;
use std::vec::Vec;

use burn_core::module::Module;
use burn_core::tensor::Tensor;
use thiserror::Error;

pub use self::budget::Budget;
pub use self::refine::Refined;

use self::budget::Shares;
use self::checkpoint::{Position, Store};
use self::curvature::{measure, parts};
use self::inputs::{Stage, View, in_order, observe};
use self::refine::{Course, Refinement, freeze, thaw};
use crate::optim::AlqOptimizerConfig;
use crate::quantize::{Hessians, PlannedWeight, QuantizeReport, Quantizer};
use crate::train::CheckpointError;
use crate::weight::QuantizeError;

/// Bits from which on a weight is as good without its inputs, if they cannot be seen.
const BLIND: usize = 7;

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
    /// The budget is not enough for a bit of each weight.
    #[error(
        "{budget:?} cannot be kept: one bit for each weight takes {least:.2}; make groups longer, or \
         store coordinates in two bytes"
    )]
    OutOfReach {
        /// What was asked for.
        budget: Budget,
        /// The least in its unit.
        least: f64,
    },
    /// Who was told how far it is has asked to stop.
    #[error("the calibration was stopped")]
    Stopped,
    /// The folder of checkpoints cannot be written, or is of another calibration.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
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
    budget: Option<Budget>,
    one_pass: bool,
    epochs: usize,
    lr: f64,
    seed: u64,
    folder: Option<PathBuf>,
}

/// How far a calibration is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Progress {
    /// Of so many passes of a sample through the model, so many are done.
    Passes {
        /// Done.
        done: usize,
        /// Of all.
        of: usize,
    },
    /// An epoch of the refinement is over.
    Refined(Refined),
}

impl Calibrator {
    /// Converts what a quantizer's rules say, with as many bases, groups and coordinates as they say.
    pub fn new(quantizer: Quantizer) -> Self {
        Self {
            quantizer,
            budget: None,
            one_pass: false,
            epochs: 0,
            lr: 1e-4,
            seed: 0,
            folder: None,
        }
    }

    /// Chooses the bits of each weight whose rule says none of its own, from one to the quantizer's most, so
    /// that together they store no more than this: as many as all can have, and one more where the model's
    /// outputs bend most.
    pub fn budget(self, budget: Budget) -> Self {
        let budget = Some(budget);
        Self { budget, ..self }
    }

    /// Measures all weights at once by the gradients of the model's outputs, as those are whose inputs cannot
    /// be seen, instead of one layer after the other: faster, and less good below four bits.
    pub fn one_pass(self) -> Self {
        Self {
            one_pass: true,
            ..self
        }
    }

    /// Goes over the samples so many times more at most [default: 0], with the float model as the teacher:
    /// bases and coordinates, biases and norms move until the outputs are nearest. It ends where three
    /// epochs have brought nothing on the samples that are held out, one of eight.
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

    /// Keeps checkpoints in a folder, and goes on from the one that is there, to the same bits. It is the
    /// caller's to remove it when the model is safe.
    pub fn checkpoints(self, folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: Some(folder.into()),
            ..self
        }
    }

    /// Converts a float model, which comes back in validation mode.
    ///
    /// Each sample is an input of one forward pass: a batch of what `forward` takes. `forward` gives all
    /// outputs that shall be kept, of any shape, from the model that it is given; inputs need no gradients.
    ///
    /// # Errors
    /// As [`Quantizer::quantize`]; if there are no samples, outputs are not finite, or a budget cannot be
    /// kept; if gradients are asked for and there are none.
    pub fn quantize<M: Module, I, const D: usize>(
        &self,
        model: M,
        samples: &[I],
        forward: impl Fn(&M, &I) -> Tensor<D>,
    ) -> Result<(M, QuantizeReport), CalibrateError> {
        self.quantize_with(model, samples, forward, |_| ControlFlow::Continue(()))
    }

    /// [`quantize`](Self::quantize), saying how far it is to who may break it off.
    ///
    /// # Errors
    /// As [`quantize`](Self::quantize); if it was broken off; if a checkpoint cannot be written, or is of another
    /// calibration.
    pub fn quantize_with<M: Module, I, const D: usize>(
        &self,
        model: M,
        samples: &[I],
        forward: impl Fn(&M, &I) -> Tensor<D>,
        progress: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(M, QuantizeReport), CalibrateError> {
        let float = model.valid();
        drop(model);
        let mut conversion = self.quantizer.begin(&float)?;
        let refinement = Refinement::new(&float, samples, &forward)?;
        let used: Vec<&I> = match self.epochs {
            0 => samples.iter().collect(),
            _ => refinement.learnt().collect(),
        };
        let planned = self.quantizer.planned(&float)?;
        let free = planned.iter().filter(|weight| !weight.has_own_bits);
        let free: Vec<PlannedWeight> = free.cloned().collect();
        let shares = self
            .budget
            .map(|budget| Shares::new(budget, &conversion, &free));
        let shares = shares.transpose()?;
        let to_compare = shares.iter().filter(|shares| !shares.are_equal());
        let to_compare: Vec<_> = to_compare.flat_map(|_| parts(free.clone())).collect();
        let (stages, unseen) = match self.one_pass {
            true => (Vec::new(), planned),
            false => in_order(&float, planned, &samples[0], &forward),
        };
        let (fine, coarse) = unseen
            .into_iter()
            .partition(|weight| weight.max_bits >= BLIND);
        let blind = Stage {
            weights: fine,
            view: View::Blind,
        };
        let by_gradients = parts(coarse).into_iter().map(|weights| Stage {
            weights,
            view: View::Gradients,
        });
        let stages: Vec<Stage> = core::iter::once(blind)
            .chain(by_gradients)
            .chain(stages)
            .collect();
        let passes = stages.iter().filter(|stage| stage.view != View::Blind);
        let passes = (to_compare.len() + passes.count()) * used.len();
        let mut told = Told {
            of: passes + self.epochs * refinement.learnt().len(),
            done: 0,
            progress,
        };

        let mut fresh = AlqOptimizerConfig::new().init();
        fresh.set_coordinate_type(self.quantizer.coordinates());
        let store = self.folder.as_deref().map(|folder| {
            let conversion = self.described(used.len(), refinement.fingerprint());
            let (epochs, lr) = (self.epochs, self.lr);
            Store {
                folder,
                refinement: format!("{conversion}, {epochs} epochs, learning rate {lr}"),
                conversion,
            }
        });
        let resumed = match &store {
            Some(store) => store.resume(&mut conversion, &float, &fresh)?,
            None => None,
        };
        let is_resumed = resumed.is_some();
        let begin = || (float.clone(), fresh.clone(), Position::default());
        let (mut current, optimizer, mut at) = resumed.unwrap_or_else(begin);

        if let Some(mut shares) = shares.filter(|_| !is_resumed) {
            let training = float.clone().train();
            for part in &to_compare {
                let pass = || told.pass();
                let hessians = measure(&training, part, &used, &forward, self.seed, pass)?;
                shares.add(&float, &conversion, part, hessians)?;
            }
            at.bits = shares.choose(&free);
            conversion.set_bits(&at.bits);
            at.report.clone_from(conversion.report());
            if let Some(store) = &store {
                store.save(&current, &fresh, &at)?;
            }
        } else {
            told.skip(to_compare.len() * used.len());
        }
        for stage in stages {
            if at.has(&stage) {
                if stage.view != View::Blind {
                    told.skip(used.len());
                }
                continue;
            }
            let pass = || told.pass();
            let hessians = match stage.view {
                View::Blind => Hessians::default(),
                View::Gradients => {
                    let training = current.clone().train();
                    let weights = stage.in_model(&training);
                    measure(&training, &weights, &used, &forward, self.seed, pass)?
                }
                View::Inputs { .. } => observe([&float, &current], &stage, &used, &forward, pass)?,
            };
            current = conversion.convert(current, |path| stage.has(path), hessians)?;
            at.add(&stage, conversion.report());
            if let Some(store) = &store {
                store.save(&current, &fresh, &at)?;
            }
        }
        if self.epochs == 0 {
            return Ok((conversion.finish(current), conversion.into_report()));
        }

        let mut course = match at.refined {
            Some([now, best]) => {
                told.skip(now.epoch * refinement.learnt().len());
                let store = store.as_ref().expect("it was resumed from there");
                let kept = store.best(&conversion, &float, &fresh)?;
                let (model, frozen) = freeze(current.train());
                Course {
                    model,
                    optimizer,
                    frozen,
                    now,
                    best: (freeze(kept.train()).0, best),
                }
            }
            None => refinement.begin(conversion.finish(current).train(), fresh.clone()),
        };
        drop(float);
        loop {
            at.refined = Some([course.now, course.best.1]);
            if let Some(store) = &store {
                store.save_course(&course, &at)?;
            }
            told.refined(course.now)?;
            if course.now.epoch == self.epochs || course.is_stuck() {
                break;
            }
            let (lr, seed) = (self.lr, self.seed);
            course = refinement.epoch(course, self.epochs, lr, seed, || told.pass())?;
        }
        let model = thaw(course.best.0, &course.frozen).valid();
        Ok((model, conversion.into_report()))
    }

    /// All that decides what a conversion gives; the float model by what it gives itself.
    fn described(&self, samples: usize, given: f64) -> String {
        let Self {
            quantizer,
            budget,
            one_pass,
            seed,
            ..
        } = self;
        format!(
            "{quantizer:?}, budget {budget:?}, one pass {one_pass}, seed {seed}, {samples} samples, \
             outputs {given:e}"
        )
    }
}

/// Who is told how far it is.
struct Told<P> {
    progress: P,
    done: usize,
    of: usize,
}

impl<P: FnMut(Progress) -> ControlFlow<()>> Told<P> {
    fn tell(&mut self, what: Progress) -> Result<(), CalibrateError> {
        match (self.progress)(what) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(CalibrateError::Stopped),
        }
    }

    fn pass(&mut self) -> Result<(), CalibrateError> {
        self.done += 1;
        let Self { done, of, .. } = *self;
        self.tell(Progress::Passes { done, of })
    }

    /// These were done before.
    fn skip(&mut self, passes: usize) {
        self.done += passes;
    }

    fn refined(&mut self, now: Refined) -> Result<(), CalibrateError> {
        self.tell(Progress::Refined(now))
    }
}
