//! The nearest of the `2^I` values that a weight of one group can take.

use core::ops::Range;

use crate::MAX_BITS;
use crate::bits::{CODES, Codebook};

/// One group's levels in ascending order, to find the nearest one to a target.
///
/// Built in `O(2^I)`: each basis merges the sorted levels `L − α` and `L + α`. A target takes a
/// binary search over the midpoints, `I` comparisons without a branch.
#[derive(Debug, Clone)]
pub(super) struct NearestCode {
    codebook: Codebook,
    bits: usize,
    sorted: [f32; CODES],
    codes: [u8; CODES],
    /// `middles[k]` separates levels `k` and `k + 1`.
    middles: [f32; CODES],
}

impl NearestCode {
    /// The levels of a group without bases: 0 alone.
    pub(super) fn new() -> Self {
        Self {
            codebook: Codebook::new(),
            bits: 0,
            sorted: [0.0; CODES],
            codes: [0; CODES],
            middles: [0.0; CODES],
        }
    }

    /// Takes a group's coordinates, none of them negative.
    ///
    /// # Panics
    /// If there are more than [`MAX_BITS`] coordinates.
    pub(super) fn build(&mut self, coordinates: &[f32]) {
        self.codebook.build(coordinates);
        self.bits = coordinates.len();
        self.sorted[0] = 0.0;
        self.codes[0] = 0;
        for (i, &alpha) in coordinates.iter().enumerate() {
            self.merge(i, alpha);
        }
        let count = 1 << self.bits;
        for (middle, pair) in self.middles.iter_mut().zip(self.sorted[..count].windows(2)) {
            *middle = 0.5 * pair[0] + 0.5 * pair[1];
        }
    }

    /// Takes changed coordinates into the codebook alone; the sorted levels become stale.
    pub(super) fn build_codebook(&mut self, coordinates: &[f32]) {
        self.codebook.build(coordinates);
    }

    /// In place, from the top: what is written was read before.
    fn merge(&mut self, i: usize, alpha: f32) {
        let bit = 1u8 << i;
        // How many are left of the levels `L − α` and `L + α`; of the latter never more.
        let (mut low, mut high) = (1 << i, 1 << i);
        for place in (0..2 << i).rev() {
            let (last_low, last_high) = ((low - 1) % CODES, usize::wrapping_sub(high, 1) % CODES);
            let (minus, plus) = (
                self.sorted[last_low] - alpha,
                self.sorted[last_high] + alpha,
            );
            // Of equal levels the one with the bit set comes first.
            // A branch: mostly foreseen, while a choice would make each place wait for the last.
            if high > 0 && plus >= minus {
                self.sorted[place % CODES] = plus;
                self.codes[place % CODES] = self.codes[last_high];
                high -= 1;
            } else {
                self.sorted[place % CODES] = minus;
                self.codes[place % CODES] = self.codes[last_low] | bit;
                low -= 1;
            }
        }
    }

    /// The levels by code.
    pub(super) fn codebook(&self) -> &Codebook {
        &self.codebook
    }

    /// The code of the level nearest to each target.
    ///
    /// A target midway between two levels takes the lower one. The midpoint is rounded to f32, so
    /// a target within one rounding of it may take either. NaN takes the lowest level.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub(super) fn assign(&self, targets: &[f32], codes: &mut [u8]) {
        assert_eq!(
            targets.len(),
            codes.len(),
            "`targets` and `codes` differ in length"
        );
        match self.bits {
            0 => codes.fill(0),
            1 => self.assign_bits::<1>(targets, codes),
            2 => self.assign_bits::<2>(targets, codes),
            3 => self.assign_bits::<3>(targets, codes),
            4 => self.assign_bits::<4>(targets, codes),
            5 => self.assign_bits::<5>(targets, codes),
            6 => self.assign_bits::<6>(targets, codes),
            7 => self.assign_bits::<7>(targets, codes),
            _ => self.assign_bits::<MAX_BITS>(targets, codes),
        }
    }

    /// How ascending targets fall to the levels: of each level that gets any, its code and which.
    /// The same as [`assign`](Self::assign) of each, in time that grows with the levels or the
    /// targets, whichever are fewer.
    pub(super) fn runs<'a>(
        &'a self,
        targets: &'a [f32],
    ) -> impl Iterator<Item = (u8, Range<usize>)> + 'a {
        let last = (1 << self.bits) - 1;
        let middles = &self.middles[..last];
        let (mut place, mut from) = (0, 0);
        core::iter::from_fn(move || {
            let &target = targets.get(from)?;
            place += first_not(&middles[place..], |middle| target > middle);
            let rest = &targets[from..];
            let count = match middles.get(place) {
                Some(&middle) => 1 + first_not(&rest[1..], |target| target <= middle),
                None => rest.len(),
            };
            from += count;
            Some((self.codes[place], from - count..from))
        })
    }

    /// The search with a constant number of comparisons, which the compiler unrolls, and without
    /// bounds to check.
    fn assign_bits<const BITS: usize>(&self, targets: &[f32], codes: &mut [u8]) {
        for (code, &target) in codes.iter_mut().zip(targets) {
            let mut place = 0;
            for bit in (0..BITS).rev() {
                let middle = self.middles[(place + (1 << bit) - 1) % CODES];
                place += usize::from(target > middle) << bit;
            }
            *code = self.codes[place % CODES];
        }
    }
}

/// Where a condition that holds up to some place of `values` stops to hold: quick if that is near
/// the start.
fn first_not(values: &[f32], holds: impl Fn(f32) -> bool) -> usize {
    let (mut from, mut step) = (0, 1);
    while from + step <= values.len() && holds(values[from + step - 1]) {
        from += step;
        step *= 2;
    }
    let to = values.len().min(from + step - 1);
    from + values[from..to].partition_point(|&value| holds(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn built(coordinates: &[f32]) -> NearestCode {
        let mut nearest = NearestCode::new();
        nearest.build(coordinates);
        nearest
    }

    impl NearestCode {
        fn levels(&self) -> &[f32] {
            &self.sorted[..1 << self.bits]
        }

        fn level_at(&self, target: f32) -> f32 {
            let mut code = [0];
            self.assign(&[target], &mut code);
            self.codebook.value(code[0])
        }
    }

    #[test]
    fn the_nearest_level_is_the_nearest_of_all() {
        let mut state = 5u64;
        let mut unit = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 40) as f32 / (1u32 << 24) as f32
        };
        for bits in 0..=MAX_BITS {
            for case in 0..20 {
                let coordinates: Vec<f32> = (0..bits)
                    .map(|i| match case {
                        // Equal coordinates make equal levels.
                        0 => 0.25,
                        1 => 0.25 * (i / 2 + 1) as f32,
                        _ => 0.01 + unit(),
                    })
                    .collect();
                let nearest = built(&coordinates);
                let total: f32 = coordinates.iter().sum();
                assert!(nearest.levels().is_sorted());
                assert_eq!(nearest.levels().len(), 1 << bits);
                let mut targets: Vec<f32> = (0..50)
                    .map(|_| (3.0 * unit() - 1.5) * (total + 0.1))
                    .collect();
                targets.extend([0.0, total, -total, 1e30, -1e30]);
                targets.extend(nearest.levels());
                let mut codes = alloc::vec![0; targets.len()];
                nearest.assign(&targets, &mut codes);
                let mut ascending = targets.clone();
                ascending.sort_unstable_by(f32::total_cmp);
                let mut runs = Vec::new();
                for (code, run) in nearest.runs(&ascending) {
                    assert!(!run.is_empty() && run.start == runs.len());
                    runs.resize(run.end, code);
                }
                let mut one_by_one = runs.clone();
                nearest.assign(&ascending, &mut one_by_one);
                assert_eq!(runs, one_by_one, "{coordinates:?}");
                for (&target, &code) in targets.iter().zip(&codes) {
                    assert!(usize::from(code) < 1 << bits);
                    let distance = |level: f32| (f64::from(level) - f64::from(target)).abs();
                    let best = nearest.levels().iter().map(|&level| distance(level));
                    let best = best.fold(f64::INFINITY, f64::min);
                    // The midpoint is rounded to f32.
                    let rounding = 1e-7 * f64::from(total);
                    assert!(
                        distance(nearest.codebook.value(code)) <= best + rounding,
                        "{coordinates:?}: {target} takes {code:#b}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_target_midway_takes_the_lower_level() {
        let nearest = built(&[1.0, 2.0]);
        assert_eq!(nearest.levels(), [-3.0, -1.0, 1.0, 3.0]);
        for (target, value) in [(-2.0, -3.0), (0.0, -1.0), (2.0, 1.0)] {
            assert_eq!(nearest.level_at(target), value);
        }
    }

    #[test]
    fn the_nearest_level_of_anything() {
        let nearest = built(&[0.5, 0.5, 2.0]);
        assert_eq!(nearest.level_at(f32::NAN), -3.0, "the lowest");
        assert_eq!(nearest.level_at(f32::NEG_INFINITY), -3.0);
        assert_eq!(nearest.level_at(f32::INFINITY), 3.0);
        assert_eq!(
            nearest.level_at(-1e-45),
            -1.0,
            "of -1 and 1, with equal levels in between"
        );
        let mut codes = [9; 4];
        nearest.assign(&[f32::NAN, f32::MAX, 0.2, -0.2], &mut codes);
        let levels = codes.map(|code| nearest.codebook.value(code));
        assert_eq!(levels[..2], [-3.0, 3.0]);
        assert_eq!(levels[2..], [0.2, -0.2].map(|x| nearest.level_at(x)));
    }
}
