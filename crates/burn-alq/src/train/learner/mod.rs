//! The schedule in Burn's Learner: [`Alq`] wraps a model that Burn's `SupervisedTraining` can
//! train, and nothing else changes.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! # mod burn { pub use ::burn::*; pub use burn_train as train; } // its feature `train`, without compiling it
//! use burn::data::dataloader::DataLoader;
//! use burn::optim::AdamConfig;
//! use burn::train::metric::{Adaptor, LossInput, LossMetric};
//! use burn::train::{InferenceStep, Learner, LearnerModel, SupervisedTraining, TrainStep};
//! use burn_alq::train::learner::{Alq, resume_data};
//! use burn_alq::{ScheduleConfig, Target, sizes};
//!
//! # fn fit<M: LearnerModel>(
//! #     model: M, // quantized
//! #     train: Arc<dyn DataLoader<<M as TrainStep>::Input>>,
//! #     valid: Arc<dyn DataLoader<<M as InferenceStep>::Input>>,
//! # ) -> Result<M, Box<dyn std::error::Error>>
//! # where
//! #     <M as TrainStep>::Output: Adaptor<LossInput>,
//! #     <M as InferenceStep>::Output: Adaptor<LossInput>,
//! # {
//! let schedule = ScheduleConfig::new(Target::Bits(0.7)).init(&sizes(&model))?;
//! let epochs = schedule.epochs().len();
//! let steps = train.num_items().div_ceil(128); // another number is an error after the first epoch
//!
//! let model = Alq::new(model, schedule, steps); // the one line
//!
//! let done = model.last_checkpoint("run")?; // None the first time
//! let train = resume_data(train, done.unwrap_or(0));
//! let mut training = SupervisedTraining::new("run", train, valid)
//!     .metrics((LossMetric::new(),))
//!     .with_default_checkpointers()
//!     .num_epochs(epochs);
//! if let Some(done) = done {
//!     training = training.checkpoint(done);
//! }
//! let training = model.watch(training); // bits, bytes and phase; a line an epoch without a terminal
//! let rates = model.rates(); // or any learning-rate scheduler
//! let result = training.launch(Learner::new(model, AdamConfig::new().init(), rates));
//! let model = result.model.finish()?; // an error before everything is pruned
//! # Ok(model)
//! # }
//! ```
//!
//! What Burn's Learner does, it does here: learning-rate schedulers (their rate is the rate of
//! ALQ's steps too), gradient clipping (the optimizer's first group's holds for multi-bit weights)
//! and accumulation, early stopping ([`Alq::once_pruned`] waits for the target), checkpointers,
//! several devices, the dashboard (feature `tui`). Gradients of several devices are summed, as
//! Burn does; ALQ's steps do not depend on the scale of a gradient, but for `ε` and clipping.
//!
//! A resumed training reaches the bits of one without a break where its batches and its dropout do:
//! see [`resume_data`] and [`Alq::with_seed`]. It needs the checkpointers again; without them Burn's
//! `checkpoint` skips epochs and loads nothing.

mod checkpoint;
mod data;
mod line;
mod monitor;
mod replicas;

use std::fmt;
use std::string::String;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn_core::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn_core::store::{ModuleRecord, RecordError};
use burn_core::tensor::Device;
use burn_optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn_optim::lr_scheduler::{LrScheduler, LrSchedulerRecord};
use burn_optim::module_optimizer::GradAdaptor;
use burn_optim::{GradientsParams, LearningRate, ModuleOptimizer, MultiGradientsParams};
use burn_train::{InferenceStep, SupervisedTraining, TrainOutput, TrainStep};
use thiserror::Error;

pub use self::data::resume_data;
pub use self::line::LineRenderer;
pub use self::monitor::{
    AfterPruning, Monitor, PhaseMetric, Status, StatusMetric, WeightMetric, WidthsMetric,
};
use self::replicas::{Replicas, Widths};
pub use super::checkpoint::CheckpointError;
use super::run::not_finite;
use super::schedule::{Schedule, ScheduleStep};
use crate::optim::{AlqOptimizer, AlqOptimizerConfig};
use crate::weight::in_rows;

/// What does not change in a training.
#[derive(Debug, Clone)]
struct Plan {
    schedule: Schedule,
    steps_per_epoch: usize,
    optimizer: AlqOptimizerConfig,
    seed: Option<u64>,
    /// Replicas that train it, each all of it.
    replicas: usize,
    /// What a checkpoint must share with this training.
    fingerprint: String,
}

/// A quantized model on its way along a [`Schedule`], for Burn's Learner.
///
/// To Burn it is the model itself, parameter by parameter and path by path; its record also holds
/// the position in the schedule and the moments of the multi-bit weights, so Burn's checkpoints
/// resume to the same bits. While pruning, layers with a training flag (batch norm, dropout)
/// behave as in evaluation. After the last epoch of the schedule multi-bit weights stay fixed and
/// the rest goes on training.
///
/// The moments move on with the model that was optimized last: an older clone can be evaluated, but
/// not trained or recorded. Every training of Burn's begins with a fork, which has moments of its own: so
/// copies of a Learner each train, as do the replicas of a distributed one, which see the same gradients
/// and prune the same.
#[derive(Debug, Clone)]
pub struct Alq<M> {
    model: M,
    plan: Arc<Plan>,
    /// Steps taken.
    step: usize,
    epoch: Arc<Mutex<EpochCount>>,
    /// Empty once the optimizer has moved on to the next model; unused before the first step.
    memory: Arc<Mutex<Option<AlqOptimizer>>>,
    monitor: Monitor,
    /// What this and the other replicas have in common; forks share it.
    replicas: Arc<Mutex<Replicas>>,
}

impl<M: Module> Alq<M> {
    /// A quantized model at the start of a schedule, with `steps_per_epoch` optimizer steps in each
    /// epoch: batches, divided by the accumulated gradients and by the devices, rounded up. After an
    /// epoch with another number of steps the training panics, and names it: phases and pruning would end
    /// elsewhere than planned.
    ///
    /// # Panics
    /// If `steps_per_epoch` is 0, or the schedule was made for another model.
    pub fn new(model: M, schedule: Schedule, steps_per_epoch: usize) -> Self {
        assert!(steps_per_epoch > 0, "steps_per_epoch must not be 0");
        if let Err(error) = schedule.check(&model) {
            panic!("{error}");
        }
        let plan = Plan {
            schedule,
            steps_per_epoch,
            optimizer: AlqOptimizerConfig::new(),
            seed: None,
            replicas: 1,
            fingerprint: String::new(),
        };
        Self::with_plan(model, plan)
    }

    /// Seeds the device's random numbers (dropout) at every step from this seed and the step, so
    /// that a resumed training draws the same; checkpoints of another seed are refused. On several
    /// devices, threads share one generator and draw in no fixed order.
    pub fn with_seed(self, seed: u64) -> Self {
        let mut plan = Arc::unwrap_or_clone(self.plan);
        plan.seed = Some(seed);
        Self::with_plan(self.model, plan)
    }

    /// Says that a distributed training has so many replicas, each with a copy of the model in this process.
    /// They get the same gradients and so prune the same. At the end of each epoch they compare checksums of
    /// their bitwidths, and the training panics where one differs, with its device and the weight.
    ///
    /// # Panics
    /// If there are none.
    pub fn with_replicas(self, replicas: usize) -> Self {
        assert!(replicas > 0, "a training has at least one replica");
        let mut plan = Arc::unwrap_or_clone(self.plan);
        plan.replicas = replicas;
        Self::with_plan(self.model, plan)
    }

    /// Other moments for the multi-bit weights.
    pub fn with_optimizer(self, optimizer: AlqOptimizerConfig) -> Self {
        let mut plan = Arc::unwrap_or_clone(self.plan);
        plan.optimizer = optimizer;
        Self::with_plan(self.model, plan)
    }

    fn with_plan(model: M, mut plan: Plan) -> Self {
        plan.fingerprint = plan.describe();
        let mut alq = Self {
            model: in_rows(model),
            plan: Arc::new(plan),
            step: 0,
            epoch: Arc::default(),
            memory: Arc::default(),
            monitor: Monitor::default(),
            replicas: Arc::default(),
        };
        alq.restart_monitor();
        alq
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The model as it is now, wherever it is in the schedule.
    pub fn into_inner(self) -> M {
        self.model
    }

    /// The model, once everything is pruned that is to be pruned and coordinates are of the type that
    /// they are stored with; it may have been stopped early after that
    /// ([`once_pruned`](Self::once_pruned)).
    ///
    /// # Errors
    /// Before: a model at another size than asked for is no result.
    pub fn finish(self) -> Result<M, Unfinished> {
        let needed = self.plan.schedule.until_pruned() * self.plan.steps_per_epoch;
        if self.step >= needed {
            return Ok(self.model);
        }
        Err(Unfinished {
            steps: self.step,
            needed,
            epochs: self.plan.schedule.until_pruned(),
        })
    }

    /// Optimizer steps taken.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// Live figures of the training, shared by all clones and by every later state of the model.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// The learning rates of the schedule, for `Learner::new`.
    pub fn rates(&self) -> Rates {
        Rates {
            plan: self.plan.clone(),
            step: self.step,
        }
    }

    /// An early-stopping strategy that is first asked when [`finish`](Self::finish) has a result, at the
    /// end of the epoch after that: before, the target is not met.
    pub fn once_pruned<S>(&self, strategy: S) -> AfterPruning<S> {
        AfterPruning::new(self.plan.schedule.until_pruned(), strategy)
    }

    /// Adds average bits, packed bytes, a checksum of the bitwidths and the current phase to the metrics, and
    /// prints one line an epoch where Burn's dashboard cannot run.
    pub fn watch(&self, training: SupervisedTraining<Self>) -> SupervisedTraining<Self>
    where
        M: TrainStep + InferenceStep + fmt::Display + 'static,
    {
        let training = training
            .metric_train_numeric(WeightMetric::bits(&self.monitor))
            .metric_train_numeric(WeightMetric::bytes(&self.monitor))
            .metric_train(WidthsMetric::new(&self.monitor))
            .metric_train(PhaseMetric::new(&self.monitor));
        if line::has_dashboard() {
            training
        } else {
            training.renderer(Box::new(LineRenderer::new(std::io::stdout())))
        }
    }

    /// What the next step does.
    fn next(&self) -> ScheduleStep {
        self.plan.step(self.step)
    }

    /// One step of the optimizer and of the schedule.
    ///
    /// # Panics
    /// If a later state of the model has the optimizer, or the epoch before had another number of steps
    /// than planned. If pruning cannot drop what it has to, or at the
    /// end of an epoch, if a gradient of a multi-bit weight in it was not finite, or another replica has
    /// pruned otherwise: Burn's loop has no other way to stop before the epoch becomes a checkpoint.
    fn advance(
        mut self,
        rest: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: impl Into<GradAdaptor>,
    ) -> Self {
        let mut optimizer = match self.step {
            0 => self.plan.optimizer.init(),
            _ => self.take_optimizer(),
        };
        lock(&self.epoch).go_on(self.plan.steps_per_epoch);
        let step = self.next();
        optimizer.follow(&step);
        self.model = optimizer.step_with(rest, lr, self.model, grads);
        self.step += 1;
        if let Some(shortfall) = optimizer.shortfall().filter(|_| step.evaluates()) {
            panic!("{shortfall}");
        }
        let ends_epoch = self.step.is_multiple_of(self.plan.steps_per_epoch);
        if ends_epoch && let Some(path) = optimizer.diverged() {
            panic!("{}", not_finite(&path, step.phase.kind(), step.epoch));
        }
        self.memory = Arc::new(Mutex::new(Some(optimizer)));
        if step.evaluates() {
            self.monitor.weigh(&self.model, &self.plan);
        }
        if ends_epoch {
            self.end_epoch(step.epoch);
        }
        self.monitor.stepped();
        self
    }

    /// Logs the widths, and compares them with those of the other replicas.
    ///
    /// # Panics
    /// If they differ.
    fn end_epoch(&self, epoch: usize) {
        let widths = Widths::of(&self.model);
        self.monitor.note(widths.sum());
        let replicas = self.plan.replicas;
        if replicas > 1
            && let Some(device) = self.model.devices().first()
        {
            let said = lock(&self.replicas).say(widths, device, [self.step, epoch + 1, replicas]);
            said.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// # Panics
    /// If a later state of the model has it.
    fn take_optimizer(&self) -> AlqOptimizer {
        let memory = self.lock_memory().take();
        memory.unwrap_or_else(|| panic!("{MOVED_ON}"))
    }
}

/// A model that was not trained to where its schedule has pruned it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the training has taken {steps} of the {needed} steps until everything is pruned, {epochs} epochs of \
     the schedule; train on, or take the model as it is with `into_inner`"
)]
pub struct Unfinished {
    /// Steps taken.
    pub steps: usize,
    /// Steps until everything is pruned.
    pub needed: usize,
    /// Epochs of the schedule until then.
    pub epochs: usize,
}

/// Epochs as they are, by where Burn validates.
#[derive(Debug, Clone, Copy, Default)]
struct EpochCount {
    /// Steps at the start of the epoch.
    start: usize,
    /// Steps in an epoch that was not as planned.
    wrong: Option<usize>,
}

impl EpochCount {
    /// The model is validated after so many steps.
    fn end(&mut self, step: usize, planned: usize) {
        // Without a step it is no end: validated before the first, or twice, or in an older clone.
        let steps = step.saturating_sub(self.start);
        if steps == planned {
            *self = Self {
                start: step,
                wrong: None,
            };
        } else if steps > 0 {
            self.wrong = Some(steps);
        }
    }

    /// The training goes on. (Burn also validates what was interrupted; that ends anywhere.)
    ///
    /// # Panics
    /// If an epoch was not as planned.
    fn go_on(&self, planned: usize) {
        if let Some(steps) = self.wrong {
            panic!(
                "epoch {} had {steps} steps of the optimizer, where `Alq::new` was told {planned}: phases \
                 and pruning would not end where the schedule says. Count batches, divided by the \
                 accumulated gradients and by the devices, rounded up",
                self.start / planned + 1
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const MOVED_ON: &str = "this copy of the model was trained further elsewhere and has no moments \
    any more; go on from the latest copy, or from a checkpoint";

impl Plan {
    /// What optimizer step `step` does.
    fn step(&self, step: usize) -> ScheduleStep {
        let steps = self.steps_per_epoch;
        self.schedule.step(step / steps, step % steps, steps)
    }

    fn describe(&self) -> String {
        let epochs = self.schedule.epochs();
        let sum = crc32fast::hash(format!("{epochs:?} {:?}", self.optimizer).as_bytes());
        let seed = self.seed.map_or("none".into(), |seed| seed.to_string());
        format!(
            "schedule {sum:08x} of {} epochs, {} steps an epoch, seed {seed}",
            epochs.len(),
            self.steps_per_epoch
        )
    }
}

impl<M: fmt::Display> fmt::Display for Alq<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)
    }
}

/// The module is the model; only its record holds more. Moments stay where the step runs, so that
/// workers of several devices are not sent them.
impl<M: Module> Module for Alq<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.model.collect_devices(devices)
    }

    /// A copy that trains on its own.
    fn fork(mut self, device: &Device) -> Self {
        let (memory, epoch) = (self.lock_memory().clone(), *lock(&self.epoch));
        self.memory = Arc::new(Mutex::new(memory));
        self.epoch = Arc::new(Mutex::new(epoch));
        self.map_model(|model| model.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_model(|model| model.to_device(device))
    }

    fn train(self) -> Self {
        self.map_model(Module::train)
    }

    /// The model in validation mode. Burn asks for it at the end of each epoch of training; what is
    /// trained on then is a new epoch.
    fn valid(&self) -> Self {
        lock(&self.epoch).end(self.step, self.plan.steps_per_epoch);
        self.clone().map_model(|model| model.valid())
    }

    fn materialize(self) -> Self {
        self.map_model(Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit(visitor);
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        self.map_model(|model| model.map(mapper))
    }

    /// The model's record, the position in the schedule and the moments. A plain model loads it
    /// with `allow_unused(true)`.
    ///
    /// # Panics
    /// If a later state of the model has the moments.
    fn into_record(self) -> ModuleRecord {
        self.to_checkpoint()
    }

    /// Loads [`into_record`](Self::into_record)'s with default settings of the record.
    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        self.load_checkpoint(record)
            .map_err(|error| RecordError::Validation(error.to_string()))
    }
}

impl<M> Alq<M> {
    fn lock_memory(&self) -> MutexGuard<'_, Option<AlqOptimizer>> {
        lock(&self.memory)
    }

    fn map_model(mut self, change: impl FnOnce(M) -> M) -> Self {
        self.model = change(self.model);
        self
    }
}

impl<M: TrainStep + Module> TrainStep for Alq<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: M::Input) -> TrainOutput<M::Output> {
        let item_of_step = self.monitor.item(self.step, &self.plan);
        if let (Some(seed), Some(device)) = (self.plan.seed, self.model.devices().first()) {
            // Steps and their items (accumulated gradients, devices) get seeds far apart.
            let mixed = (self.step as u64) << 20 | item_of_step as u64;
            let device = device.clone().without_autodiff();
            device.seed(seed ^ mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        self.next().model(&self.model).step(item)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        self.advance(optim, lr_module, grads)
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr_module: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        self.advance(optim, lr_module, grads)
    }
}

impl<M: InferenceStep> InferenceStep for Alq<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: M::Input) -> M::Output {
        self.model.step(item)
    }
}

/// The learning rates of a schedule, step by step, as a scheduler of Burn's.
#[derive(Clone, Debug)]
pub struct Rates {
    plan: Arc<Plan>,
    step: usize,
}

impl LrScheduler for Rates {
    /// After the schedule: the last rate.
    fn step(&mut self) -> LearningRate {
        self.step += 1;
        self.plan.step(self.step - 1).lr
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("step", self.step as u64)
    }

    /// # Panics
    /// If the record is of another kind of scheduler.
    fn load_record(&mut self, record: LrSchedulerRecord) {
        let step: Option<u64> = record.scalar("step");
        self.step = step.expect("a record of a schedule's rates holds its step") as usize;
    }
}
