//! A schedule, run: steps, epochs, timings, and checkpoints that resume to the same bits.
//!
//! [`Run`] is the loop turned inside out: the caller asks for one batch at a time with
//! [`Run::advance`], and so decides what to print, when to save and when to stop.

use std::collections::BTreeMap;
use std::format;
use std::path::Path;
use std::string::{String, ToString};
use std::time::Instant;
use std::vec::Vec;

use burn_core::module::Module;
use burn_core::tensor::{Bytes, Device, Tensor};
use burn_optim::{GradientsAccumulator, GradientsParams};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::checkpoint::{Checkpoint, CheckpointError, encode, in_file, other_model};
use super::schedule::{Epoch, OtherModel, Schedule};
use super::statistics;
use crate::optim::{AlqOptimizer, PhaseKind, Shortfall, average_bits, sizes};
use crate::weight::{DeviceLost, in_rows, load_record, try_read};

/// What a run trains on.
pub trait Task: Sync {
    /// The model's type.
    type Model: Module;

    /// Batches in an epoch.
    fn batches(&self) -> usize;

    /// Parts that a batch is cut into, each with a thread of its own. Part of the computation: runs
    /// with different numbers differ in rounding, whatever the machine.
    ///
    /// Must be 1 for models whose layers keep statistics of a batch (batch norm in training, activations
    /// of few bits): each shard would see its own part, in a copy of the model. A [`Run`] refuses them.
    fn shards(&self) -> usize {
        1
    }

    /// The share of one shard in the loss of one batch, a scalar on the model's autodiff device;
    /// the loss is the sum over the shards.
    ///
    /// Must depend on its arguments alone, or a resumed run will not reach the same bits; draw
    /// shuffles from `epoch`.
    fn loss(&self, model: &Self::Model, epoch: usize, batch: usize, shard: usize) -> Tensor<1>;

    /// A figure of merit on validation data, reported after every epoch. The model is in
    /// validation mode.
    fn evaluate(&self, model: &Self::Model) -> f64;
}

/// Why a run stopped, or could not be resumed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The loss is NaN or infinite.
    #[error(
        "the loss is {loss} in the {phase} phase, epoch {}, batch {}; \
         lower the learning rate or check the data",
        .epoch + 1,
        .batch + 1
    )]
    Loss {
        /// The loss.
        loss: f32,
        /// The phase.
        phase: PhaseKind,
        /// Epoch of the schedule, from 0.
        epoch: usize,
        /// Batch of the epoch, from 0.
        batch: usize,
    },
    /// A gradient of a multi-bit weight was not finite, or its square was not.
    #[error("{}", not_finite(.path, *.phase, *.epoch))]
    Gradient {
        /// The path of the weight.
        path: String,
        /// The phase.
        phase: PhaseKind,
        /// Epoch of the schedule, from 0.
        epoch: usize,
    },
    /// An epoch of the task has no batches.
    #[error("the task has no batches; check that there are data")]
    NoBatches,
    /// A layer keeps statistics of a batch, and batches are cut into shards.
    #[error(
        "{path} keeps statistics of a batch, of which each of {shards} shards would see a part; \
         use one shard, or freeze the layer"
    )]
    Shards {
        /// Path of the running state.
        path: String,
        /// The task's shards.
        shards: usize,
    },
    /// The schedule is another model's.
    #[error(transparent)]
    Schedule(#[from] OtherModel),
    /// A pruning step could not drop what it had to.
    #[error(transparent)]
    Shortfall(#[from] Shortfall),
    /// The loss does not change around the model, up to rounding: there is nothing to measure.
    #[error(
        "the gradients are rounding: they change by {:.0} % when weights change in their last bits, at a \
         loss of {loss:e}; the loss is at its minimum here (as of a network that is its own teacher), \
         so measure another one, such as that of the labels",
        100.0 * .change
    )]
    Minimum {
        /// The loss of the first batch.
        loss: f64,
        /// The gradients' change, relative to them.
        change: f64,
    },
    /// The loss cannot be read. Resume from the last checkpoint when the device is there again.
    #[error(transparent)]
    Device(#[from] DeviceLost),
    /// The checkpoint could not be written, or is not one of this run.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Why training stops, here and in Burn's Learner.
pub(super) fn not_finite(path: &str, phase: PhaseKind, epoch: usize) -> String {
    format!(
        "{path}: a gradient is not finite in the {phase} phase, epoch {}; \
         lower the learning rate or check the data and the loss",
        epoch + 1
    )
}

/// Time spent in one phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Steps taken.
    pub steps: usize,
    /// Seconds in forward and backward passes. A GPU works on after a call returns: there the sum of
    /// all seconds is right, but this is only until the work was handed over, or to a read of the loss
    /// ([`Run::read_loss_every`]).
    pub forward_backward: f64,
    /// Seconds in the optimizer.
    pub optimizer: f64,
    /// Seconds in evaluation.
    pub evaluation: f64,
}

impl Timing {
    /// All seconds.
    pub fn seconds(&self) -> f64 {
        self.forward_backward + self.optimizer + self.evaluation
    }
}

/// What one call of [`Run::advance`] did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The epoch of the schedule, from 0.
    pub epoch: usize,
    /// The batch of the epoch, from 0.
    pub batch: usize,
    /// What happens in this epoch.
    pub plan: Epoch,
    /// Mean loss of the epoch, as far as it was read ([`Run::read_loss_every`]).
    pub loss: f64,
    /// After the last batch of an epoch: the task's figure of merit.
    pub metric: Option<f64>,
    /// Average bitwidth of the multi-bit weights; 0 without any.
    pub bits: f64,
}

/// A point of a run's curves; an epoch has up to [`PER_EPOCH`](Self::PER_EPOCH) of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps taken so far.
    pub step: usize,
    /// The outer round, from 0; none before and after the rounds.
    pub round: Option<usize>,
    /// The phase of the steps since the point before.
    pub phase: PhaseKind,
    /// Their mean loss.
    pub loss: f64,
    /// At the end of an epoch: the task's figure of merit.
    pub metric: Option<f64>,
    /// Average bitwidth of the multi-bit weights; 0 without any.
    pub bits: f64,
}

impl Point {
    /// Points in an epoch: enough to see how pruning falls, few enough for the checkpoints of a
    /// long run.
    pub const PER_EPOCH: usize = 8;
}

/// Where a run is. Plain data, so that it can be recorded.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Position {
    epoch: usize,
    batch: usize,
    loss_sum: f64,
    timings: BTreeMap<String, Timing>,
    /// Steps and the sum of their losses since the last point of the history.
    since_point: (usize, f64),
    history: Vec<Point>,
}

/// A model in training along a schedule.
#[derive(Debug, Clone)]
pub struct Run<M: Module> {
    model: M,
    optimizer: AlqOptimizer,
    schedule: Schedule,
    position: Position,
    /// What must be the same for a run to be resumed.
    fingerprint: String,
    bits: f64,
    loss_every: usize,
    /// Whether model, schedule and task were looked at together.
    checked: bool,
    /// Losses of the last batches that are still on the device.
    unread: Vec<Tensor<1>>,
}

impl<M: Module> Run<M> {
    /// A run at its start. The model must be on an autodiff device.
    ///
    /// `fingerprint` names everything that a resumed run must share with the one that it
    /// continues (configuration, data, seed).
    pub fn new(
        model: M,
        mut optimizer: AlqOptimizer,
        schedule: Schedule,
        fingerprint: impl Into<String>,
    ) -> Self {
        optimizer.forget_others(&model);
        let bits = average_bits(&sizes(&model));
        Self {
            model: in_rows(model),
            optimizer,
            schedule,
            position: Position::default(),
            fingerprint: fingerprint.into(),
            bits,
            loss_every: 1,
            checked: false,
            unread: Vec::new(),
        }
    }

    /// Reads the loss only at every `batches`-th batch of an epoch, at the points of the curves and
    /// before a checkpoint [default: every batch]. Reading waits for a GPU, which could have gone on
    /// meanwhile.
    ///
    /// # Panics
    /// If `batches` is 0.
    pub fn read_loss_every(mut self, batches: usize) -> Self {
        assert!(batches > 0, "the loss must be read sometimes");
        self.loss_every = batches;
        self
    }

    /// The model as it is now.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The model, at the end.
    pub fn into_model(self) -> M {
        self.model
    }

    /// Whether all epochs are done.
    pub fn is_finished(&self) -> bool {
        self.position.epoch >= self.schedule.epochs().len()
    }

    /// The schedule.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Epoch and batch of the next step, from 0.
    pub fn position(&self) -> (usize, usize) {
        (self.position.epoch, self.position.batch)
    }

    /// Time spent so far, by phase, including the run that this one resumed.
    pub fn timings(&self) -> impl Iterator<Item = (&str, &Timing)> {
        let timings = self.position.timings.iter();
        timings.map(|(phase, timing)| (phase.as_str(), timing))
    }

    /// The curves so far, including the run that this one resumed. The same run gives the same
    /// points, whether it was interrupted or not.
    pub fn history(&self) -> &[Point] {
        &self.position.history
    }

    /// Trains one batch; after the last one of an epoch, also evaluates. `None` at the end.
    ///
    /// While pruning, layers with a training flag (batch norm, dropout) behave as in evaluation.
    ///
    /// # Errors
    /// If the task has no batches, or shards for a model whose layers keep statistics of a batch; if the
    /// schedule was made for another model. If the loss is not finite; the parameters then are as before
    /// the batch in which it was read. If a pruning step cannot drop as much as it has to. At the end of
    /// an epoch, if a gradient of a multi-bit weight in it was not finite. If the device does not give the
    /// loss back; what else reads from it panics then.
    pub fn advance<T: Task<Model = M>>(
        &mut self,
        task: &T,
    ) -> Result<Option<Progress>, TrainError> {
        let (epoch, batch) = self.position();
        let Some(&plan) = self.schedule.epochs().get(epoch) else {
            return Ok(None);
        };
        let batches = task.batches();
        if !self.checked {
            self.schedule.check(&self.model)?;
            check(task, &self.model)?;
            self.checked = true;
        }
        let step = self.schedule.step(epoch, batch, batches);
        // What lies between prunings is not pruning.
        let kind = step.phase.kind();
        let start = Instant::now();
        let last = batch + 1 == batches;
        let (loss, grads) = gradients(&step.model(&self.model), task, epoch, batch);
        self.unread.push(loss);
        let every = batches.div_ceil(Point::PER_EPOCH);
        let is_point = last || (batch + 1).is_multiple_of(every);
        if is_point || batch % self.loss_every == 0 {
            self.read_losses(kind, batch + 1)?;
        }
        let backward = Instant::now();
        self.optimizer.follow(&step);
        let model = self.model.clone();
        self.model = self.optimizer.step(step.lr, model, grads);
        let stepped = Instant::now();

        if kind == PhaseKind::Prune {
            self.bits = average_bits(&sizes(&self.model));
            if let Some(shortfall) = self.optimizer.shortfall() {
                return Err(shortfall.clone().into());
            }
        }
        if last && let Some(path) = self.optimizer.diverged() {
            return Err(TrainError::Gradient {
                path,
                phase: kind,
                epoch,
            });
        }
        let metric = last.then(|| task.evaluate(&self.model.valid()));
        let timings = &mut self.position.timings;
        let timing = timings.entry(kind.to_string()).or_default();
        timing.steps += 1;
        timing.forward_backward += (backward - start).as_secs_f64();
        timing.optimizer += (stepped - backward).as_secs_f64();
        timing.evaluation += stepped.elapsed().as_secs_f64();

        let read = batch + 1 - self.unread.len();
        let progress = Progress {
            epoch,
            batch,
            plan,
            loss: self.position.loss_sum / read as f64,
            metric,
            bits: self.bits,
        };
        if is_point {
            self.remember(&progress, epoch * batches + batch + 1);
        }
        if last {
            self.position.epoch += 1;
            self.position.batch = 0;
            self.position.loss_sum = 0.0;
        } else {
            self.position.batch += 1;
        }
        Ok(Some(progress))
    }

    /// Writes a checkpoint, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written, or a loss that was not read yet is not finite or not given back;
    /// what was there before is kept.
    pub fn save(&mut self, file: impl AsRef<Path>) -> Result<(), TrainError> {
        let file = file.as_ref();
        let (epoch, batch) = self.position();
        if let Some(plan) = self.schedule.epochs().get(epoch) {
            self.read_losses(plan.kind, batch)?;
        }
        let write = || -> Result<(), CheckpointError> {
            let [moments, rest] = self.optimizer.into_bytes()?;
            let at = &self.position;
            let writer = encode(&self.model, moments, Some(rest), &self.fingerprint, at)?;
            Ok(writer.auto_extension(false).write_to_file(file)?)
        };
        Ok(write().map_err(in_file(file))?)
    }

    /// Continues from a checkpoint. The arguments are those of [`new`](Self::new); the values of
    /// the model and of the optimizer are replaced by the recorded ones.
    ///
    /// # Errors
    /// If the file is not a checkpoint of a run with the same fingerprint and model.
    pub fn resume(self, file: impl AsRef<Path>, device: &Device) -> Result<Self, TrainError> {
        let file = file.as_ref();
        Ok(self.read(file, device).map_err(in_file(file))?)
    }

    fn read(mut self, file: &Path, device: &Device) -> Result<Self, CheckpointError> {
        // The file is read at once, because the container's own reader of files trusts lengths in it.
        let bytes = Bytes::from_bytes_vec(std::fs::read(file)?);
        let checkpoint = Checkpoint::open(bytes, true)?;
        checkpoint.check_run(&self.fingerprint)?;
        checkpoint.check_model(&self.model)?;
        let (model, optimizer, at) = checkpoint.restore(&self.model, self.optimizer, device)?;
        self.model = load_record(self.model, model).map_err(other_model)?;
        self.optimizer = optimizer;
        self.position = at;
        self.bits = average_bits(&sizes(&self.model));
        Ok(self)
    }

    /// Adds up the losses that are still on the device, of the last batches before `end`.
    fn read_losses(&mut self, phase: PhaseKind, end: usize) -> Result<(), TrainError> {
        let losses = core::mem::take(&mut self.unread);
        if losses.is_empty() {
            return Ok(());
        }
        let first = end - losses.len();
        let losses: Vec<f32> = try_read(Tensor::cat(losses, 0))?;
        for (index, loss) in losses.into_iter().enumerate() {
            if !loss.is_finite() {
                return Err(TrainError::Loss {
                    loss,
                    phase,
                    epoch: self.position.epoch,
                    batch: first + index,
                });
            }
            self.position.loss_sum += f64::from(loss);
            let (batches, sum) = &mut self.position.since_point;
            *batches += 1;
            *sum += f64::from(loss);
        }
        Ok(())
    }

    /// Adds a point to the history, of the batches since the last one, all of which are read.
    fn remember(&mut self, progress: &Progress, step: usize) {
        let (batches, sum) = core::mem::take(&mut self.position.since_point);
        self.position.history.push(Point {
            step,
            round: progress.plan.round,
            phase: progress.plan.kind,
            loss: sum / batches as f64,
            metric: progress.metric,
            bits: progress.bits,
        });
    }
}

/// Whether a model can be trained on a task.
fn check<T: Task>(task: &T, model: &T::Model) -> Result<(), TrainError> {
    if task.batches() == 0 {
        return Err(TrainError::NoBatches);
    }
    let shards = task.shards();
    match statistics::of_batches(model).filter(|_| shards > 1) {
        Some(path) => Err(TrainError::Shards { path, shards }),
        None => Ok(()),
    }
}

/// Loss, without its graph, and gradients of a batch, summed over its shards in their order.
pub(crate) fn gradients<T: Task>(
    model: &T::Model,
    task: &T,
    epoch: usize,
    batch: usize,
) -> (Tensor<1>, GradientsParams) {
    let one = |model: &T::Model, shard| {
        let loss = task.loss(model, epoch, batch, shard);
        let value = loss.clone().inner();
        (value, GradientsParams::from_grads(loss.backward(), model))
    };
    let shards = task.shards();
    if shards <= 1 {
        return one(model, 0);
    }
    let parts: Vec<(Tensor<1>, GradientsParams)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..shards)
            .map(|shard| {
                let model = fork(model.clone());
                scope.spawn(move || one(&model, shard))
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut sum = GradientsAccumulator::new();
    let mut losses = Vec::with_capacity(shards);
    for (value, grads) in parts {
        losses.push(value);
        sum.accumulate(model, grads);
    }
    (Tensor::cat(losses, 0).sum(), sum.grads())
}

/// A copy of the module with leaves of its own, sharing the values.
fn fork<M: Module>(module: M) -> M {
    match module.devices().first() {
        Some(device) => {
            let device = device.clone();
            module.fork(&device)
        }
        None => module,
    }
}
