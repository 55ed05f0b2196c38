//! Axes with scales and ticks of their own.

use std::ops::Range;
use std::vec::Vec;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::Ranged;

/// How an axis is stretched.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    Log,
    /// Logarithmic in what is missing to 100.
    Percent,
}

impl Scale {
    /// What is missing to 100 at the far end, where the logarithm would not end.
    const LEAST_ERROR: f64 = 0.01;
    const LEAST: f64 = 1e-6;

    /// Where a value is on the axis.
    pub(super) fn place(self, value: f64) -> f64 {
        match self {
            Self::Log => value.max(Self::LEAST).log10(),
            Self::Percent => -(100.0 - value).max(Self::LEAST_ERROR).log10(),
        }
    }

    /// The value at a place.
    pub(super) fn value(self, place: f64) -> f64 {
        match self {
            Self::Log => 10f64.powf(place),
            Self::Percent => 100.0 - 10f64.powf(-place),
        }
    }

    /// Round values between two.
    pub(super) fn ticks(self, from: f64, to: f64) -> Vec<f64> {
        let inside = |values: Vec<f64>| -> Vec<f64> {
            let inside = values.into_iter().filter(|v| (from..=to).contains(v));
            inside.collect()
        };
        let decades = (-6..=6).map(|exponent| 10f64.powi(exponent));
        let coarse = match self {
            Self::Log => inside(decades.clone().collect()),
            Self::Percent => inside(decades.clone().map(|error| 100.0 - error).collect()),
        };
        let steps = |decade: f64| [1.0, 2.0, 5.0].map(|step| step * decade);
        let fine = decades.flat_map(steps);
        let fine = match self {
            Self::Log => inside(fine.collect()),
            Self::Percent => inside(fine.map(|error| 100.0 - error).collect()),
        };
        match (coarse.len(), fine.len()) {
            (5.., _) => coarse,
            (_, 3..) => fine,
            _ => round_ticks(from, to, 8),
        }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, at most `most` and some, between two values.
pub(super) fn round_ticks(from: f64, to: f64, most: usize) -> Vec<f64> {
    let least = ((to - from) / most as f64).max(f64::MIN_POSITIVE);
    let decade = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let step = steps.into_iter().find(|&step| step >= least);
    let step = step.unwrap_or(10.0 * decade);
    let first = (from / step).ceil() as i64;
    let last = (to / step).floor() as i64;
    (first..=last).map(|tick| tick as f64 * step).collect()
}

/// A linear axis with ticks of one's own.
pub(super) struct Axis {
    ends: [f64; 2],
    ticks: Vec<f64>,
}

impl Axis {
    pub(super) fn new(from: f64, to: f64, ticks: Vec<f64>) -> Self {
        Self {
            ends: [from, to],
            ticks,
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.clone(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.ends[0]..self.ends[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(
            round_ticks(0.0, 480.0, 5),
            [0.0, 100.0, 200.0, 300.0, 400.0]
        );
        assert_eq!(Scale::Log.ticks(0.36, 5.8), [0.5, 1.0, 2.0, 5.0]);
        let narrow = Scale::Log.ticks(0.31, 0.425);
        assert!(narrow.len() > 2 && narrow.iter().all(|tick| (0.31..0.425).contains(tick)));
        for error in Scale::Percent
            .ticks(94.5, 99.3)
            .iter()
            .map(|tick| 100.0 - tick)
        {
            assert!(
                [1.0, 2.0, 5.0]
                    .iter()
                    .any(|round| (error - round).abs() < 1e-9),
                "{error}"
            );
        }
    }

    #[test]
    fn scales_are_undone() {
        for value in [0.01, 0.3, 4.0, 99.0] {
            for scale in [Scale::Log, Scale::Percent] {
                // A logarithm and a power in f64.
                assert!((scale.value(scale.place(value)) - value).abs() < 1e-9);
            }
        }
        assert!(Scale::Percent.place(100.0).is_finite() && Scale::Log.place(0.0).is_finite());
    }
}
