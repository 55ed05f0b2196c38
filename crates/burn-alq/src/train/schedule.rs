//! Rounds, epochs, decays and targets: which phase at which learning rate.

mod pruning;

use alloc::vec::Vec;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Flag, Module, ModuleMapper, Param};
use multibit::CoordinateType;
use thiserror::Error;

use crate::optim::{AlqOptimizer, Phase, PhaseKind, Size};
use crate::weight::{tie, trained_numbers};
use pruning::{PruneEpoch, PrunePlan};

pub use pruning::{Pace, Recovery};

/// Where pruning stops. Only the weights that train count: one whose parameter requires no gradient is no
/// part of it, and keeps its bits.
#[derive(Config, Debug, PartialEq)]
pub enum Target {
    /// Every round drops this share of the coordinates that are left, the paper's `M_p`.
    Ratio(f64),
    /// Average bitwidth `I_W` after the last round.
    Bits(f64),
    /// Bytes of all packed weights (bases, coordinates, widths) after the last round.
    Bytes(usize),
}

/// Configuration of a [`Schedule`]. The defaults are the paper's for LeNet5, without a target.
#[derive(Config, Debug)]
pub struct ScheduleConfig {
    /// Where pruning stops.
    pub target: Target,
    /// Outer rounds `R` of basis, coordinate and pruning epochs.
    #[config(default = 4)]
    pub rounds: usize,
    /// Epochs of the basis phase in a round.
    #[config(default = 20)]
    pub basis_epochs: usize,
    /// Epochs of the coordinate phase in a round.
    #[config(default = 10)]
    pub coordinate_epochs: usize,
    /// Epochs of the pruning phase in a round.
    #[config(default = 1)]
    pub prune_epochs: usize,
    /// Learning rate at the start of each round.
    #[config(default = 1e-3)]
    pub lr: f64,
    /// Factor on the learning rate before every basis epoch.
    #[config(default = 0.8)]
    pub basis_decay: f64,
    /// Factor on the learning rate before every coordinate epoch.
    #[config(default = 0.8)]
    pub coordinate_decay: f64,
    /// How pruning spreads over its steps.
    #[config(default = "Pace::Constant")]
    pub pace: Pace,
    /// Steps of recovery after each pruning step, of the same epoch: with more of them, it prunes
    /// in fewer steps, at least one.
    #[config(default = 0)]
    pub recovery_steps: usize,
    /// What moves in them.
    #[config(default = "Recovery::Coordinate")]
    pub recovery: Recovery,
    /// Share of a layer's coordinates that it offers for pruning at a time.
    #[config(default = 0.005)]
    pub top_k: f64,
    /// What every layer keeps at least, as a share of the average bitwidth at the target, 0 to 1, and
    /// never less than one coordinate; 0 lets layers be emptied to pay for others.
    #[config(default = 0.01)]
    pub floor: f64,
    /// Epochs of the STE phase after the last round.
    #[config(default = 50)]
    pub ste_epochs: usize,
    /// Factor on the learning rate before every STE epoch.
    #[config(default = 0.95)]
    pub ste_decay: f64,
    /// Type that coordinates are stored with. After the rounds they are fine-tuned as stored:
    /// rounded after every step, from f32 values that the optimizer keeps.
    #[config(default = "CoordinateType::F32")]
    pub coordinate_type: CoordinateType,
    /// Coordinate epochs after the STE phase.
    #[config(default = 20)]
    pub final_epochs: usize,
    /// Factor on the learning rate before every final coordinate epoch.
    #[config(default = 0.9)]
    pub final_decay: f64,
}

/// Why a schedule cannot be followed from where the model starts.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The model has no multi-bit weights.
    #[error("the model has no multi-bit weights; quantize it first")]
    NoWeights,
    /// None of the multi-bit weights trains.
    #[error(
        "no multi-bit weight trains: all are frozen (`no_grad`, `freeze`), and pruning needs gradients"
    )]
    Frozen,
    /// The target is at or above where the model starts.
    #[error(
        "the target of {target} {unit} is not below the start of {start:.4} {unit}; \
         choose a smaller one"
    )]
    NothingToPrune {
        /// The target.
        target: f64,
        /// Where the model starts.
        start: f64,
        /// What both count.
        unit: &'static str,
    },
    /// The target leaves less than every layer keeps; or with a floor of 0, no single coordinate.
    #[error(
        "the target of {target} {unit} cannot be reached: what the layers keep needs \
         {least:.6} {unit}; choose a larger one, or a smaller `floor`"
    )]
    Unreachable {
        /// The target.
        target: f64,
        /// The smallest that can be reached.
        least: f64,
        /// What both count.
        unit: &'static str,
    },
    /// There is a target, but no epoch to prune in.
    #[error("a target needs at least one round with at least one pruning epoch")]
    NoPruning,
    /// Coordinates are to be stored in another type than f32, but there are no epochs after the
    /// rounds to tune them in.
    #[error(
        "coordinates in {coordinate_type} need at least one STE or coordinate epoch after \
         the last round"
    )]
    NoLastPhase {
        /// The type.
        coordinate_type: CoordinateType,
    },
    /// A number is outside its range.
    #[error("{field} must not be {value}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
    },
}

impl ScheduleConfig {
    /// The schedule for a model whose weights have the given sizes after sketching
    /// ([`sizes`](crate::sizes)). Freeze what shall not train before.
    ///
    /// # Errors
    /// If the target is not below the start or cannot be reached, nothing trains, or a number is out of
    /// range.
    pub fn init(&self, start: &[Size]) -> Result<Schedule, ScheduleError> {
        for (field, value) in [
            ("lr", self.lr),
            ("basis_decay", self.basis_decay),
            ("coordinate_decay", self.coordinate_decay),
            ("ste_decay", self.ste_decay),
            ("final_decay", self.final_decay),
            ("top_k", self.top_k),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ScheduleError::Value { field, value });
            }
        }
        let coordinate_type = self.coordinate_type;
        if coordinate_type != CoordinateType::F32 && self.ste_epochs + self.final_epochs == 0 {
            return Err(ScheduleError::NoLastPhase { coordinate_type });
        }
        if !(0.0..=1.0).contains(&self.floor) {
            let (field, value) = ("floor", self.floor);
            return Err(ScheduleError::Value { field, value });
        }
        let plan = PrunePlan::new(self, start)?;
        let mut epochs = Vec::new();
        for round in 0..self.rounds {
            let mut lr = self.lr;
            for _ in 0..self.basis_epochs {
                lr *= self.basis_decay;
                epochs.push(Epoch::new(Some(round), PhaseKind::Basis, lr));
            }
            for _ in 0..self.coordinate_epochs {
                lr *= self.coordinate_decay;
                epochs.push(Epoch::new(Some(round), PhaseKind::Coordinate, lr));
            }
            for part in 0..self.prune_epochs {
                let mut epoch = Epoch::new(Some(round), PhaseKind::Prune, lr);
                epoch.prune = Some(PruneEpoch {
                    plan,
                    round,
                    part,
                    parts: self.prune_epochs,
                    top_k: self.top_k,
                    recovery_steps: self.recovery_steps,
                    recovery: self.recovery,
                });
                epochs.push(epoch);
            }
        }
        let last = epochs.len();
        let mut lr = self.lr;
        for _ in 0..self.ste_epochs {
            lr *= self.ste_decay;
            epochs.push(Epoch::new(None, PhaseKind::Ste, lr));
        }
        for _ in 0..self.final_epochs {
            lr *= self.final_decay;
            epochs.push(Epoch::new(None, PhaseKind::Coordinate, lr));
        }
        for epoch in &mut epochs[last..] {
            epoch.coordinate_type = coordinate_type;
        }
        let trained = start.iter().filter(|size| !size.frozen);
        let numbers = Some(trained.map(Size::weights).sum());
        Ok(Schedule { epochs, numbers })
    }
}

/// One epoch of a schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// The outer round, from 0; none before and after the rounds.
    pub round: Option<usize>,
    /// What happens in it.
    pub kind: PhaseKind,
    /// The learning rate at its start.
    pub lr: f64,
    /// The learning rate at its end; in between it changes by as much in every step.
    pub end_lr: f64,
    /// What its steps round coordinates to.
    pub coordinate_type: CoordinateType,
    prune: Option<PruneEpoch>,
}

impl Epoch {
    fn new(round: Option<usize>, kind: PhaseKind, lr: f64) -> Self {
        Self {
            round,
            kind,
            lr,
            end_lr: lr,
            coordinate_type: CoordinateType::F32,
            prune: None,
        }
    }

    /// The learning rate in the middle of step `step` of `steps`.
    fn lr_of(&self, step: usize, steps: usize) -> f64 {
        self.lr + (self.end_lr - self.lr) * (step as f64 + 0.5) / steps.max(1) as f64
    }

    /// The optimizer's phase in iteration `iteration` of `iterations`.
    pub fn phase(&self, iteration: usize, iterations: usize) -> Phase {
        match (self.kind, self.prune) {
            (PhaseKind::Prune, Some(prune)) => prune.phase(iteration, iterations),
            (PhaseKind::Basis, _) => Phase::Basis,
            (PhaseKind::Coordinate, _) => Phase::Coordinate,
            (PhaseKind::Ste, _) => Phase::Ste,
            (PhaseKind::Fixed | PhaseKind::Prune, _) => Phase::Fixed,
        }
    }
}

/// Everything that a training does at one batch, whoever's loop it is in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScheduleStep {
    /// The epoch of the schedule, from 0.
    pub epoch: usize,
    /// The batch of the epoch, from 0.
    pub batch: usize,
    /// The outer round, from 0; none before and after the rounds.
    pub round: Option<usize>,
    /// What happens in the epoch; what lies between its prunings is a step of another phase.
    pub kind: PhaseKind,
    /// The optimizer's phase.
    pub phase: Phase,
    /// The learning rate.
    pub lr: f64,
    /// What the step rounds coordinates to.
    pub coordinate_type: CoordinateType,
}

impl ScheduleStep {
    /// Whether layers with a training flag (batch norm, dropout) behave as in evaluation: where it is
    /// measured what pruning costs.
    pub fn evaluates(&self) -> bool {
        matches!(self.phase, Phase::Prune(_))
    }

    /// The model that computes the loss of this batch. Its gradients are those of the model given; tied
    /// weights are one leaf.
    pub fn model<M: Module>(&self, model: &M) -> M {
        let model = tie(model.clone());
        if self.evaluates() {
            evaluating(model)
        } else {
            model
        }
    }
}

impl AlqOptimizer {
    /// Takes phase and coordinate type of the next step from a schedule. Its learning rate is the
    /// caller's to hand on.
    pub fn follow(&mut self, step: &ScheduleStep) {
        self.set_phase(step.phase);
        self.set_coordinate_type(step.coordinate_type);
    }
}

/// The module with every training flag off and gradients as they are: batch norm uses its running
/// statistics, dropout does nothing.
pub(crate) fn evaluating<M: Module>(module: M) -> M {
    struct FlagsOff;

    impl ModuleMapper for FlagsOff {
        fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
            flag.with_value(false)
        }
    }

    // Running statistics keep their last update aside until validation mode takes it in. They must
    // be the same whether a checkpoint was written before this step or not.
    let _ = module.valid();
    module.map(&mut FlagsOff)
}

/// All epochs of a training, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    epochs: Vec<Epoch>,
    /// Numbers in the weights that it prunes; none if it prunes nothing.
    numbers: Option<usize>,
}

/// A schedule in the training of another model than it was made for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the schedule was made for {expected} numbers in multi-bit weights that train, this model has \
     {found}; make it for this model, after freezing what shall not train"
)]
pub struct OtherModel {
    /// Numbers in the multi-bit weights that the schedule was made for.
    pub expected: usize,
    /// Those of the model.
    pub found: usize,
}

impl Schedule {
    /// Plain training for a float model: `lr` times `decay` before every epoch after the first.
    pub fn float(epochs: usize, lr: f64, decay: f64) -> Self {
        let rate = |epoch| lr * libm::pow(decay, epoch as f64);
        Self {
            epochs: (0..epochs)
                .map(|epoch| Epoch::new(None, PhaseKind::Fixed, rate(epoch)))
                .collect(),
            numbers: None,
        }
    }

    /// Plain training for a float model in one cycle (Smith and Topin, 2018): the rate rises from 0 to
    /// `peak` in the first `warm_up` epochs and falls to 0 in the others, by as much in every step.
    pub fn one_cycle(epochs: usize, peak: f64, warm_up: usize) -> Self {
        let warm_up = warm_up.min(epochs);
        let rate = |epoch: usize| match epoch < warm_up {
            true => peak * epoch as f64 / warm_up as f64,
            false => peak * (epochs - epoch) as f64 / (epochs - warm_up).max(1) as f64,
        };
        let epoch = |epoch: usize| {
            let mut planned = Epoch::new(None, PhaseKind::Fixed, rate(epoch));
            planned.end_lr = match epoch + 1 == warm_up {
                true => peak,
                false => rate(epoch + 1),
            };
            planned
        };
        Self {
            epochs: (0..epochs).map(epoch).collect(),
            numbers: None,
        }
    }

    /// Plain training for as many steps at the same rates: what a float network gains in the time of this
    /// schedule, and so what a quantized one is fairly compared with.
    pub fn control(&self) -> Self {
        let fixed = |epoch: &Epoch| Epoch {
            end_lr: epoch.end_lr,
            ..Epoch::new(None, PhaseKind::Fixed, epoch.lr)
        };
        Self {
            epochs: self.epochs.iter().map(fixed).collect(),
            numbers: None,
        }
    }

    /// The epochs.
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// What to do at a batch, of `batches` in an epoch. After the last epoch multi-bit weights stay
    /// fixed, at its learning rate.
    pub fn step(&self, epoch: usize, batch: usize, batches: usize) -> ScheduleStep {
        let planned = self.epochs.get(epoch);
        ScheduleStep {
            epoch,
            batch,
            round: planned.and_then(|epoch| epoch.round),
            kind: planned.map_or(PhaseKind::Fixed, |epoch| epoch.kind),
            phase: planned.map_or(Phase::Fixed, |epoch| epoch.phase(batch, batches)),
            lr: match (planned, self.epochs.last()) {
                (Some(epoch), _) => epoch.lr_of(batch, batches),
                (None, last) => last.map_or(0.0, |epoch| epoch.end_lr),
            },
            coordinate_type: planned.map_or(self.coordinate_type(), |epoch| epoch.coordinate_type),
        }
    }

    /// All steps, in order, of epochs with so many batches.
    ///
    /// # Panics
    /// If `batches` is 0.
    pub fn steps(&self, batches: usize) -> impl Iterator<Item = ScheduleStep> {
        assert!(batches > 0, "an epoch without batches trains nothing");
        let epochs = 0..self.epochs.len();
        epochs
            .flat_map(move |epoch| (0..batches).map(move |batch| self.step(epoch, batch, batches)))
    }

    /// Whether it can be followed with a model: frozen weights are no part of what it prunes, so the same
    /// must train as when it was made.
    ///
    /// # Errors
    /// If other weights train.
    pub fn check<M: Module>(&self, model: &M) -> Result<(), OtherModel> {
        let found = trained_numbers(model);
        match self.numbers {
            Some(expected) if expected != found => Err(OtherModel { expected, found }),
            _ => Ok(()),
        }
    }

    /// Epochs from the first to where everything is pruned that is to be pruned, and coordinates are of
    /// the type that they are stored with.
    #[cfg(feature = "learner")]
    pub(crate) fn until_pruned(&self) -> usize {
        let last = self.epochs.iter().rposition(|e| e.kind == PhaseKind::Prune);
        let tuned = usize::from(self.coordinate_type() != CoordinateType::F32);
        last.map_or(0, |epoch| epoch + 1 + tuned)
    }

    /// What coordinates are at the end.
    pub fn coordinate_type(&self) -> CoordinateType {
        let last = self.epochs.last();
        last.map_or(CoordinateType::F32, |epoch| epoch.coordinate_type)
    }
}
