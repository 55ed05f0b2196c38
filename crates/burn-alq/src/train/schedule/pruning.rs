//! Where each pruning step must end, and what lies between the steps.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{ScheduleConfig, ScheduleError, Target};
use crate::optim::prune::{Budget, least};
use crate::optim::{Cost, Phase, Size, average_bits, total};

/// How pruning spreads over its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pace {
    /// As much in every step of a round, and the same share of what is left in every round.
    Constant,
    /// `left = target + (start − target)·(1 − t)³` over all pruning steps of all rounds: much at
    /// first, little near the target (Zhu & Gupta, *To prune, or not to prune*, 2017).
    Cubic,
    /// As much modelled loss in every step of a round: many coordinates while they are cheap, few
    /// where the loss is steep. Rounds end as in [`Constant`](Self::Constant).
    Loss,
}

/// What a step between two prunings moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recovery {
    /// Coordinates.
    Coordinate,
    /// Bases, then coordinates.
    Basis,
}

/// What may be left after each pruning step, from the start to the target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PrunePlan {
    cost: Cost,
    start: f64,
    target: f64,
    rounds: usize,
    pace: Pace,
    /// Average bitwidth that every layer keeps.
    floor: f64,
}

impl PrunePlan {
    pub(super) fn new(config: &ScheduleConfig, sizes: &[Size]) -> Result<Self, ScheduleError> {
        if sizes.is_empty() {
            return Err(ScheduleError::NoWeights);
        }
        let trained = sizes.iter().filter(|size| !size.frozen).copied();
        let sizes: &[Size] = &trained.collect::<Vec<Size>>();
        if sizes.is_empty() {
            return Err(ScheduleError::Frozen);
        }
        if config.rounds == 0 || config.prune_epochs == 0 {
            return Err(ScheduleError::NoPruning);
        }
        let refused = |field, value| Err(ScheduleError::Value { field, value });
        let weights: usize = sizes.iter().map(Size::weights).sum();
        // (unit's cost, target in it, factor from the unit to what the user reads, name)
        let (cost, target, scale, unit) = match config.target {
            Target::Ratio(ratio) => {
                if !(ratio > 0.0 && ratio < 1.0) {
                    return refused("target ratio", ratio);
                }
                let start = total(sizes, Cost::Coordinates) as f64;
                let kept = libm::pow(1.0 - ratio, config.rounds as f64);
                let target = libm::round(start * kept);
                (Cost::Coordinates, target, 1.0, "coordinates")
            }
            Target::Bits(bits) => {
                if !bits.is_finite() {
                    return refused("target_bits", bits);
                }
                let scale = weights as f64;
                (Cost::BaseBits, bits * scale, scale, "bits per weight")
            }
            Target::Bytes(bytes) => {
                let cost = Cost::Bytes(config.coordinate_type);
                (cost, bytes as f64, 1.0, "bytes")
            }
        };
        let start = total(sizes, cost) as f64;
        if target >= start {
            return Err(ScheduleError::NothingToPrune {
                target: target / scale,
                start: start / scale,
                unit,
            });
        }
        let floor = config.floor * average_bits(sizes) * target.max(0.0) / start;
        let keeping = |size: &Size, coordinates: usize| {
            let size = Size {
                coordinates,
                widest: u8::from(coordinates > 0),
                ..*size
            };
            size.cost(cost)
        };
        let least = if floor > 0.0 {
            let kept = sizes.iter().map(|size| keeping(size, least(size, floor)));
            kept.sum()
        } else {
            let one = sizes.iter().map(|size| keeping(size, 1));
            one.min().unwrap_or(0)
        };
        let least = least as f64;
        if target < least {
            return Err(ScheduleError::Unreachable {
                target: target / scale,
                least: least / scale,
                unit,
            });
        }
        Ok(Self {
            cost,
            start,
            target,
            rounds: config.rounds,
            pace: config.pace,
            floor,
        })
    }

    /// What may be left after a share of the steps of round `round`, from 0.
    fn left(&self, round: usize, share: f64) -> f64 {
        match self.pace {
            Pace::Constant if share < 1.0 => {
                let (from, to) = (self.after(round), self.after(round + 1));
                from + (to - from) * share
            }
            Pace::Constant | Pace::Loss => self.after(round + 1),
            Pace::Cubic => {
                let to_go = 1.0 - (round as f64 + share) / self.rounds as f64;
                self.target + (self.start - self.target) * to_go * to_go * to_go
            }
        }
    }

    /// What may be left after `round` rounds: a geometric path.
    fn after(&self, round: usize) -> f64 {
        if round == self.rounds {
            return self.target;
        }
        let share = round as f64 / self.rounds as f64;
        let left = self.start * libm::pow(self.target / self.start, share);
        match self.cost {
            Cost::Coordinates => libm::round(left),
            Cost::BaseBits | Cost::Bytes(_) => left,
        }
    }
}

/// The pruning of one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PruneEpoch {
    pub plan: PrunePlan,
    /// The round, from 0.
    pub round: usize,
    /// Which of the round's pruning epochs this is, from 0.
    pub part: usize,
    /// Pruning epochs of the round.
    pub parts: usize,
    pub top_k: f64,
    pub recovery_steps: usize,
    pub recovery: Recovery,
}

impl PruneEpoch {
    /// A pruning step, then its steps of recovery, and again; what remains of the epoch recovers.
    pub(super) fn phase(&self, iteration: usize, iterations: usize) -> Phase {
        let cycle = self.recovery_steps.saturating_add(1);
        let steps = (iterations / cycle).max(1);
        let step = iteration / cycle;
        if !iteration.is_multiple_of(cycle) || step >= steps {
            return match self.recovery {
                Recovery::Coordinate => Phase::Coordinate,
                Recovery::Basis => Phase::Basis,
            };
        }
        // The pruning steps of the round: those before this one, and all of them.
        let (done, all) = (self.part * steps + step, self.parts * steps);
        let share = (done + 1) as f64 / all as f64;
        Phase::Prune(Budget {
            cost: self.plan.cost,
            at_most: self.plan.left(self.round, share),
            top_k: self.top_k,
            loss_share: match self.plan.pace {
                Pace::Constant | Pace::Cubic => 1.0,
                Pace::Loss => 1.0 / (all - done) as f64,
            },
            floor: self.plan.floor,
        })
    }
}
