//! The `2^I` values that a weight of one group can take, and the nearest of them.

use crate::MAX_BITS;

const LEVELS: usize = 1 << MAX_BITS;

/// One group's levels by code.
#[derive(Debug, Clone)]
pub struct LevelTable {
    values: [f32; LEVELS],
    mask: u8,
}

impl Default for LevelTable {
    fn default() -> Self {
        Self::new()
    }
}

impl LevelTable {
    /// The table of a group without bases: its only level is 0.
    pub fn new() -> Self {
        Self {
            values: [0.0; LEVELS],
            mask: 0,
        }
    }

    /// Takes a group's coordinates: `value(code) = Σᵢ ±αᵢ`, summed in f32 in ascending order of
    /// `i` from 0, with − where bit `i` is set.
    ///
    /// # Panics
    /// If there are more than [`MAX_BITS`] coordinates.
    pub fn build(&mut self, coordinates: &[f32]) {
        self.mask = mask(coordinates.len());
        self.values[0] = 0.0;
        for (i, &alpha) in coordinates.iter().enumerate() {
            let (positive, negative) = self.values.split_at_mut(1 << i);
            for (positive, negative) in positive.iter_mut().zip(negative) {
                *negative = *positive - alpha;
                *positive += alpha;
            }
        }
    }

    /// The level of a code; bits from the group's width on do not count.
    #[inline(always)]
    pub fn value(&self, code: u8) -> f32 {
        self.values[usize::from(code & self.mask)]
    }

    /// The levels of many codes.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn values(&self, codes: &[u8], out: &mut [f32]) {
        assert_eq!(codes.len(), out.len(), "`codes` and `out` differ in length");
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = self.value(code);
        }
    }
}

/// One group's levels in ascending order, to find the nearest one to a target.
///
/// Built in `O(2^I)`: each basis merges the sorted levels `L − α` and `L + α`. A target takes a
/// binary search over the midpoints, `I` comparisons without a branch.
#[derive(Debug, Clone)]
pub struct Levels {
    table: LevelTable,
    bits: usize,
    sorted: [f32; LEVELS],
    codes: [u8; LEVELS],
    /// `middles[k]` separates levels `k` and `k + 1`.
    middles: [f32; LEVELS],
}

impl Default for Levels {
    fn default() -> Self {
        Self::new()
    }
}

impl Levels {
    /// The levels of a group without bases: 0 alone.
    pub fn new() -> Self {
        Self {
            table: LevelTable::new(),
            bits: 0,
            sorted: [0.0; LEVELS],
            codes: [0; LEVELS],
            middles: [0.0; LEVELS],
        }
    }

    /// Takes a group's coordinates, none of them negative.
    ///
    /// # Panics
    /// If there are more than [`MAX_BITS`] coordinates.
    pub fn build(&mut self, coordinates: &[f32]) {
        self.table.build(coordinates);
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

    /// Takes changed coordinates into the table alone; the sorted levels become stale.
    pub(super) fn build_table(&mut self, coordinates: &[f32]) {
        self.table.build(coordinates);
    }

    fn merge(&mut self, i: usize, alpha: f32) {
        let count = 1 << i;
        let bit = 1u8 << i;
        let (sorted, codes) = (self.sorted, self.codes);
        let (mut low, mut high) = (0, 0);
        for place in 0..2 * count {
            // Of equal levels the one with the bit set comes first.
            let from_low =
                high == count || (low < count && sorted[low] - alpha <= sorted[high] + alpha);
            if from_low {
                self.sorted[place] = sorted[low] - alpha;
                self.codes[place] = codes[low] | bit;
                low += 1;
            } else {
                self.sorted[place] = sorted[high] + alpha;
                self.codes[place] = codes[high];
                high += 1;
            }
        }
    }

    /// The number of bases of the group.
    pub fn bits(&self) -> usize {
        self.bits
    }

    /// The levels in ascending order, `[2^I]`.
    pub fn sorted(&self) -> &[f32] {
        &self.sorted[..1 << self.bits]
    }

    /// The level of a code.
    #[inline(always)]
    pub fn value(&self, code: u8) -> f32 {
        self.table.value(code)
    }

    /// The levels by code.
    pub fn table(&self) -> &LevelTable {
        &self.table
    }

    /// The code of the level nearest to `target`.
    ///
    /// A target midway between two levels takes the lower one. The midpoint is rounded to f32, so
    /// a target within one rounding of it may take either. NaN takes the lowest level.
    #[inline]
    pub fn nearest(&self, target: f32) -> u8 {
        let mut place = 0;
        for bit in (0..self.bits).rev() {
            place += usize::from(target > self.middles[place + (1 << bit) - 1]) << bit;
        }
        self.codes[place]
    }

    /// [`nearest`](Self::nearest) for many targets.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn assign(&self, targets: &[f32], codes: &mut [u8]) {
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

    /// The search of [`nearest`](Self::nearest) with a constant number of comparisons, which the
    /// compiler unrolls, and without bounds to check.
    fn assign_bits<const BITS: usize>(&self, targets: &[f32], codes: &mut [u8]) {
        for (code, &target) in codes.iter_mut().zip(targets) {
            let mut place = 0;
            for bit in (0..BITS).rev() {
                let middle = self.middles[(place + (1 << bit) - 1) % LEVELS];
                place += usize::from(target > middle) << bit;
            }
            *code = self.codes[place % LEVELS];
        }
    }
}

/// The bits that a code of a group of `width` bases can have.
pub(super) fn mask(width: usize) -> u8 {
    assert!(
        width <= MAX_BITS,
        "a group has {width} bases, at most {MAX_BITS} fit a code"
    );
    ((1u16 << width) - 1) as u8
}
