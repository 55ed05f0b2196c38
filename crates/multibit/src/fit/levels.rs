//! The `2^I` levels of one group in ascending order, and the nearest of them.

use crate::MAX_BITS;

const MAX_LEVELS: usize = 1 << MAX_BITS;

/// One group's levels `Σ ±α_i`, ascending, with the code of each.
///
/// Built by merging: with one more basis, the levels are those before, each minus and each plus
/// `α`, two runs that are sorted already. So `2^I` levels take about `2^(I+1)` steps, and a weight
/// finds its nearest one in `I` steps.
#[derive(Debug, Clone)]
pub struct Levels {
    count: usize,
    values: [f32; MAX_LEVELS],
    codes: [u8; MAX_LEVELS],
    /// Midpoints between neighbouring levels as a search tree: the root at 1, the children of
    /// node `i` at `2i` and `2i + 1`.
    tree: [f32; MAX_LEVELS],
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            count: 1,
            values: [0.0; MAX_LEVELS],
            codes: [0; MAX_LEVELS],
            tree: [0.0; MAX_LEVELS],
        }
    }
}

impl Levels {
    /// The levels of a group with the given coordinates, which must not be negative.
    ///
    /// # Panics
    /// If there are more than [`MAX_BITS`].
    pub fn new(alpha: &[f32]) -> Self {
        let mut levels = Self::default();
        levels.rebuild(alpha);
        levels
    }

    /// Takes another group's coordinates.
    ///
    /// # Panics
    /// If there are more than [`MAX_BITS`].
    pub fn rebuild(&mut self, alpha: &[f32]) {
        assert!(
            alpha.len() <= MAX_BITS,
            "alpha: {} bases, but at most {MAX_BITS}",
            alpha.len()
        );
        self.count = 1;
        self.values[0] = 0.0;
        self.codes[0] = 0;
        for (basis, &a) in alpha.iter().enumerate() {
            self.merge(a, 1 << basis);
        }
        let mut nodes = 1;
        while nodes < self.count {
            // The nodes of one depth, left to right, halve what the depth above left.
            let step = self.count / nodes;
            for node in 0..nodes {
                let above = node * step + step / 2;
                let middle = 0.5 * self.values[above - 1] + 0.5 * self.values[above];
                self.tree[nodes + node] = middle;
            }
            nodes *= 2;
        }
    }

    fn merge(&mut self, a: f32, bit: u8) {
        let n = self.count;
        let (old_values, old_codes) = (self.values, self.codes);
        let (mut minus, mut plus) = (0, 0);
        for place in 0..2 * n {
            let take_minus =
                plus == n || (minus < n && old_values[minus] - a <= old_values[plus] + a);
            (self.values[place], self.codes[place]) = if take_minus {
                minus += 1;
                (old_values[minus - 1] - a, old_codes[minus - 1] | bit)
            } else {
                plus += 1;
                (old_values[plus - 1] + a, old_codes[plus - 1])
            };
        }
        self.count = 2 * n;
    }

    /// Number of levels, `2^I`.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The code of the level nearest to `target`; of two equally near ones, the lower level.
    ///
    /// A NaN gets the lowest level.
    pub fn nearest(&self, target: f32) -> u8 {
        let mut code = [0];
        self.assign(&[target], &mut code);
        code[0]
    }

    /// [`nearest`](Self::nearest) for many targets.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn assign(&self, targets: &[f32], codes: &mut [u8]) {
        assert_eq!(targets.len(), codes.len(), "codes: as many as targets");
        // Without branches, since what they would decide is noise; several targets at a time, since
        // each step of one waits for the one before.
        const LANES: usize = 8;
        let (whole, rest) = targets.as_chunks::<LANES>();
        let (whole_codes, rest_codes) = codes.as_chunks_mut::<LANES>();
        for (targets, codes) in whole.iter().zip(whole_codes) {
            *codes = self.search(targets);
        }
        for (&target, code) in rest.iter().zip(rest_codes) {
            [*code] = self.search(&[target]);
        }
    }

    #[inline]
    fn search<const N: usize>(&self, targets: &[f32; N]) -> [u8; N] {
        let mut nodes = [1u8; N];
        let mut depth = 1;
        // The last step may leave the tree's 255 nodes, so it is taken apart.
        while 2 * depth < self.count {
            for (node, &target) in nodes.iter_mut().zip(targets) {
                *node = 2 * *node + u8::from(target > self.tree[usize::from(*node)]);
            }
            depth *= 2;
        }
        core::array::from_fn(|lane| {
            let node = usize::from(nodes[lane]);
            let place = match self.count {
                1 => 0,
                count => 2 * node + usize::from(targets[lane] > self.tree[node]) - count,
            };
            self.codes[place]
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::fit::value;
    use crate::testing::Random;

    #[test]
    fn nearest_is_what_trying_all_levels_finds() {
        let mut random = Random::new(1);
        for width in 0..=MAX_BITS {
            for _ in 0..50 {
                let alpha: Vec<f32> = (0..width).map(|_| random.uniform() + 1e-3).collect();
                let levels = Levels::new(&alpha);
                assert_eq!(levels.count(), 1 << width);
                for _ in 0..50 {
                    let target = 4.0 * random.normal();
                    let distance = |code: u8| (value(&alpha, code) - target).abs();
                    let best = (0..1u32 << width).map(|code| distance(code as u8));
                    let best = best.fold(f32::INFINITY, f32::min);
                    let found = distance(levels.nearest(target));
                    // Levels and targets are a few units large; sums of 8 terms round.
                    assert!(found <= best + 4e-6, "{found} instead of {best}");
                }
            }
        }
    }

    #[test]
    fn equal_coordinates_and_ties_are_settled() {
        let levels = Levels::new(&[1.0, 1.0]);
        // −2, 0 twice, 2: a tie goes to the lower level.
        assert_eq!(levels.nearest(-1.0), 0b11);
        assert_eq!(value(&[1.0, 1.0], levels.nearest(1.0)), 0.0);
        assert_eq!(levels.nearest(1.1), 0b00);
        assert_eq!(levels.nearest(f32::NAN), 0b11);
        assert_eq!(levels.nearest(f32::INFINITY), 0b00);
        assert_eq!(Levels::new(&[]).nearest(3.0), 0);
    }
}
