//! Where each pruning step must end, and what lies between the steps.

use serde::{Deserialize, Serialize};

use super::{ScheduleConfig, ScheduleError, Target};
use crate::optim::Phase;
use crate::step::prune::{Budget, Cost, Size, total};

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
}

impl PrunePlan {
    pub(super) fn new(config: &ScheduleConfig, sizes: &[Size]) -> Result<Self, ScheduleError> {
        if sizes.is_empty() {
            return Err(ScheduleError::NoWeights);
        }
        if config.rounds == 0 || config.prune_epochs == 0 {
            return Err(ScheduleError::NoPruning);
        }
        let weights: usize = sizes.iter().map(Size::weights).sum();
        // (unit's cost, target in it, factor from the unit to what the user reads, name)
        let (cost, target, scale, unit) = match config.target {
            Target::Ratio(ratio) => {
                if !(ratio > 0.0 && ratio < 1.0) {
                    let (field, value) = ("target ratio", ratio);
                    return Err(ScheduleError::Value { field, value });
                }
                let start = total(sizes, Cost::Coordinates) as f64;
                let kept = libm::pow(1.0 - ratio, config.rounds as f64);
                let target = libm::round(start * kept);
                (Cost::Coordinates, target, 1.0, "coordinates")
            }
            Target::Bits(bits) => {
                if !bits.is_finite() {
                    let (field, value) = ("target_bits", bits);
                    return Err(ScheduleError::Value { field, value });
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
        let least = sizes
            .iter()
            .map(|size| {
                let one = Size {
                    coordinates: 1,
                    widest: 1,
                    ..*size
                };
                one.cost(cost)
            })
            .min()
            .unwrap_or(0) as f64;
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
    /// From 0.
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
        // Of the round.
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
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};
    use alloc::vec::Vec;

    use super::super::PhaseKind;
    use super::super::tests::start as sizes;
    use super::*;

    /// All budgets of a schedule, in epochs of `iterations`.
    fn budgets(config: &ScheduleConfig, iterations: usize) -> Vec<Budget> {
        let schedule = config.init(&sizes()).unwrap();
        let epochs = schedule.epochs().iter();
        let phases = epochs.flat_map(|e| (0..iterations).map(|i| e.phase(i, iterations)));
        phases
            .filter_map(|phase| match phase {
                Phase::Prune(budget) => Some(budget),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn the_cubic_pace_is_its_formula_over_all_rounds() {
        let config = ScheduleConfig::new(Target::Bits(0.4))
            .with_pace(Pace::Cubic)
            .with_prune_epochs(2);
        let budgets = budgets(&config, 5);
        assert_eq!(budgets.len(), 40);
        let (start, target) = (6.0 * 430_500.0, 0.4 * 430_500.0);
        for (step, budget) in budgets.iter().enumerate() {
            let to_go = 1.0 - (step + 1) as f64 / 40.0;
            let expected = target + (start - target) * libm::pow(to_go, 3.0);
            // A few operations of f64 on numbers of millions.
            assert!((budget.at_most - expected).abs() < 1e-6, "step {step}");
            assert_eq!(budget.loss_share, 1.0);
        }
        assert_eq!(budgets[39].at_most, target);
    }

    #[test]
    fn the_pace_of_the_loss_shares_what_a_round_has_to_go() {
        let config = ScheduleConfig::new(Target::Bits(0.4)).with_prune_epochs(2);
        let constant = budgets(&config, 3);
        let loss = budgets(&config.with_pace(Pace::Loss), 3);
        for (round, budgets) in loss.chunks_exact(6).enumerate() {
            let left: Vec<f64> = budgets.iter().map(|b| 1.0 / b.loss_share).collect();
            assert_eq!(left, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
            let end = constant[round * 6 + 5].at_most;
            assert!(budgets.iter().all(|budget| budget.at_most == end));
        }
    }

    #[test]
    fn recovery_follows_every_pruning_step_and_fills_the_epoch() {
        for (steps, iterations, expected) in [
            (0, 3, "PPP"),
            (2, 10, "PccPccPccc"),
            (2, 6, "PccPcc"),
            (9, 4, "Pccc"),
            (usize::MAX, 2, "Pc"),
        ] {
            let config = ScheduleConfig::new(Target::Bits(0.4)).with_recovery_steps(steps);
            for (recovery, letter) in [(Recovery::Coordinate, 'c'), (Recovery::Basis, 'b')] {
                let schedule = config
                    .clone()
                    .with_recovery(recovery)
                    .init(&sizes())
                    .unwrap();
                let mut epochs = schedule.epochs().iter();
                let epoch = epochs.rfind(|e| e.kind == PhaseKind::Prune).unwrap();
                let phases = (0..iterations).map(|i| epoch.phase(i, iterations));
                let mut last = 0.0;
                let found: String = phases
                    .map(|phase| match phase {
                        Phase::Prune(budget) => {
                            last = budget.at_most;
                            'P'
                        }
                        Phase::Coordinate => 'c',
                        Phase::Basis => 'b',
                        other => panic!("{other:?}"),
                    })
                    .collect();
                assert_eq!(found, expected.replace('c', &letter.to_string()));
                assert_eq!(
                    last,
                    0.4 * 430_500.0,
                    "the target is met whatever is between"
                );
            }
        }
    }
}
