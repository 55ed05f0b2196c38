//! Rounds, epochs, decays and targets: which phase at which learning rate.

mod pruning;

use alloc::vec::Vec;
use core::fmt;

use burn_core as burn;
use burn_core::config::Config;
use serde::{Deserialize, Serialize};

use crate::optim::Phase;
use multibit::CoordinateType;

use crate::step::prune::Size;
use pruning::{PruneEpoch, PrunePlan};

pub use pruning::{Pace, Recovery};

/// Where pruning stops.
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
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The model has no multi-bit weights.
    NoWeights,
    /// The target is at or above where the model starts.
    NothingToPrune {
        /// The target.
        target: f64,
        /// Where the model starts.
        start: f64,
        /// What both count.
        unit: &'static str,
    },
    /// The target leaves no room for a single coordinate.
    Unreachable {
        /// The target.
        target: f64,
        /// The smallest that keeps one coordinate.
        least: f64,
        /// What both count.
        unit: &'static str,
    },
    /// There is a target, but no epoch to prune in.
    NoPruning,
    /// Coordinates are to be stored in another type than f32, but there are no epochs after the
    /// rounds to tune them in.
    NoLastPhase {
        /// The type.
        coordinate_type: CoordinateType,
    },
    /// A number is outside its range.
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
    },
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWeights => write!(f, "the model has no multi-bit weights; quantize it first"),
            Self::NothingToPrune {
                target,
                start,
                unit,
            } => write!(
                f,
                "the target of {target} {unit} is not below the start of {start:.4} {unit}; \
                 choose a smaller one"
            ),
            Self::Unreachable {
                target,
                least,
                unit,
            } => write!(
                f,
                "the target of {target} {unit} cannot be reached: a single coordinate needs \
                 {least:.6} {unit}; choose a larger one"
            ),
            Self::NoPruning => write!(
                f,
                "a target needs at least one round with at least one pruning epoch"
            ),
            Self::NoLastPhase { coordinate_type } => write!(
                f,
                "coordinates in {coordinate_type} need at least one STE or coordinate epoch after \
                 the last round"
            ),
            Self::Value { field, value } => write!(f, "{field} must not be {value}"),
        }
    }
}

impl core::error::Error for ScheduleError {}

impl ScheduleConfig {
    /// The schedule for a model whose weights have the given sizes after sketching
    /// ([`sizes`](crate::optim::sizes)).
    ///
    /// # Errors
    /// If the target is not below the start or cannot be reached, or a number is out of range.
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
        Ok(Schedule { epochs })
    }
}

/// The phase of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhaseKind {
    /// Multi-bit weights, if there are any, stay fixed.
    #[serde(rename = "float")]
    Fixed,
    /// Bases move.
    Basis,
    /// Coordinates move.
    Coordinate,
    /// Coordinates are dropped.
    Prune,
    /// The full-precision copy moves.
    Ste,
}

impl fmt::Display for PhaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fixed => "float",
            Self::Basis => "basis",
            Self::Coordinate => "coordinate",
            Self::Prune => "prune",
            Self::Ste => "ste",
        })
    }
}

/// One epoch of a schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Epoch {
    /// The outer round, from 0; none before and after the rounds.
    pub round: Option<usize>,
    /// What happens in it.
    pub kind: PhaseKind,
    /// The learning rate of every step in it.
    pub lr: f64,
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
            coordinate_type: CoordinateType::F32,
            prune: None,
        }
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

/// All epochs of a training, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    epochs: Vec<Epoch>,
}

impl Schedule {
    /// Plain training for a float model: `lr` times `decay` before every epoch after the first.
    pub fn float(epochs: usize, lr: f64, decay: f64) -> Self {
        let rate = |epoch| lr * libm::pow(decay, epoch as f64);
        Self {
            epochs: (0..epochs)
                .map(|epoch| Epoch::new(None, PhaseKind::Fixed, rate(epoch)))
                .collect(),
        }
    }

    /// The epochs.
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }

    /// What coordinates are at the end.
    pub fn coordinate_type(&self) -> CoordinateType {
        let last = self.epochs.last();
        last.map_or(CoordinateType::F32, |epoch| epoch.coordinate_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn start() -> Vec<Size> {
        let size = |groups, len| Size {
            groups,
            len,
            coordinates: groups * 6,
            widest: 6,
        };
        alloc::vec![size(20, 25), size(1000, 25), size(1000, 400), size(10, 500)]
    }

    #[test]
    fn epochs_and_rates_follow_the_paper() {
        let config = ScheduleConfig::new(Target::Ratio(0.5))
            .with_rounds(2)
            .with_basis_epochs(2)
            .with_coordinate_epochs(1)
            .with_ste_epochs(1)
            .with_final_epochs(1);
        let schedule = config.init(&start()).unwrap();
        let kinds: Vec<PhaseKind> = schedule.epochs().iter().map(|e| e.kind).collect();
        use PhaseKind::{Basis, Coordinate, Prune, Ste};
        let round = [Basis, Basis, Coordinate, Prune];
        assert_eq!(kinds, [&round[..], &round, &[Ste, Coordinate]].concat());
        let rates: Vec<f64> = schedule.epochs().iter().map(|e| e.lr * 1e3).collect();
        let expected = [
            0.8, 0.64, 0.512, 0.512, 0.8, 0.64, 0.512, 0.512, 0.95, 0.855,
        ];
        for (rate, expected) in rates.iter().zip(expected) {
            // A few multiplications of f64.
            assert!((rate - expected).abs() < 1e-12, "{rate} is not {expected}");
        }
    }

    #[test]
    fn budgets_fall_to_the_target_and_end_on_it() {
        for (target, last) in [
            (Target::Ratio(0.5), 761.0),
            (Target::Bits(0.4), 0.4 * 430_500.0),
            (Target::Bytes(22_700), 22_700.0),
        ] {
            let schedule = ScheduleConfig::new(target).init(&start()).unwrap();
            let mut budgets = Vec::new();
            for epoch in schedule.epochs() {
                for iteration in 0..10 {
                    if let Phase::Prune(budget) = epoch.phase(iteration, 10) {
                        budgets.push(budget.at_most);
                    }
                }
            }
            assert_eq!(budgets.len(), 40);
            assert!(budgets.is_sorted_by(|a, b| a > b), "budgets fall");
            assert_eq!(budgets.last(), Some(&last));
        }
    }

    #[test]
    fn impossible_targets_are_refused() {
        let init = |target| ScheduleConfig::new(target).init(&start());
        assert!(matches!(
            init(Target::Bits(6.0)),
            Err(ScheduleError::NothingToPrune {
                unit: "bits per weight",
                ..
            })
        ));
        assert!(matches!(
            init(Target::Bytes(1 << 30)),
            Err(ScheduleError::NothingToPrune { unit: "bytes", .. })
        ));
        assert!(matches!(
            init(Target::Bits(0.0)),
            Err(ScheduleError::Unreachable { .. })
        ));
        assert!(matches!(
            init(Target::Bits(-1.0)),
            Err(ScheduleError::Unreachable { .. })
        ));
        assert!(matches!(
            init(Target::Bytes(1)),
            Err(ScheduleError::Unreachable { .. })
        ));
        assert!(matches!(
            init(Target::Bits(f64::NAN)),
            Err(ScheduleError::Value { .. })
        ));
        assert!(matches!(
            init(Target::Ratio(1.0)),
            Err(ScheduleError::Value { .. })
        ));
        let no_rounds = ScheduleConfig::new(Target::Bits(0.4)).with_rounds(0);
        assert_eq!(no_rounds.init(&start()), Err(ScheduleError::NoPruning));
        let no_weights = ScheduleConfig::new(Target::Bits(0.4)).init(&[]);
        assert_eq!(no_weights, Err(ScheduleError::NoWeights));
        let no_last = ScheduleConfig::new(Target::Bits(0.4))
            .with_coordinate_type(CoordinateType::F16)
            .with_ste_epochs(0)
            .with_final_epochs(0);
        let coordinate_type = CoordinateType::F16;
        let error = ScheduleError::NoLastPhase { coordinate_type };
        assert_eq!(no_last.init(&start()), Err(error));
        let lr = ScheduleConfig::new(Target::Bits(0.4)).with_lr(f64::NAN);
        assert!(matches!(
            lr.init(&start()),
            Err(ScheduleError::Value { field: "lr", .. })
        ));
    }
}
