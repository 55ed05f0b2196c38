//! Where the bits of the weights lie.

use core::ops::Range;

use super::depth::SIGNS;
use crate::cpu::integers::{Integers, TOGETHER};
use crate::packed::PackedWeight;

/// The outputs of a layer, each a *slot*, with the rows of bits of their groups, a row a basis.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Weights<'a> {
    /// `[outputs, groups]`.
    widths: &'a [u8],
    groups: usize,
    /// The first row of each output.
    first: &'a [usize],
    words: &'a [u32],
    coordinates: &'a [f32],
    integers: &'a Integers,
    /// Words of a row.
    row_words: usize,
    /// Which signs of a row stand for weights, `[groups, row_words / 2]`; none if all do, or if
    /// those that do not meet no input.
    valid: Option<&'a [u64]>,
}

/// The bases of one group of one output.
#[derive(Clone, Copy, Default)]
pub(in crate::cpu) struct Bases {
    /// The first row.
    row: usize,
    pub(super) width: usize,
}

impl<'a> Weights<'a> {
    /// Rows of bits one after the other, with `row_words` words each; slots are outputs.
    pub fn rows(
        weight: &'a PackedWeight,
        first: &'a [usize],
        words: &'a [u32],
        row_words: usize,
        integers: &'a Integers,
        valid: Option<&'a [u64]>,
    ) -> Self {
        Self {
            widths: weight.widths(),
            groups: weight.grouping().groups_per_output(weight.shape()),
            first,
            words,
            coordinates: weight.coordinates(),
            integers,
            row_words,
            valid,
        }
    }

    /// The bases of a group of some slots side by side. Groups must be asked for in ascending order,
    /// with a `next` of each slot's own, which is 0 before the first.
    #[inline(always)]
    pub(super) fn bases(
        &self,
        slots: Range<usize>,
        group: usize,
        next: &mut [usize],
        to: &mut [Bases],
    ) {
        for ((slot, next), to) in slots.zip(next).zip(to) {
            if group == 0 {
                *next = self.first[slot];
            }
            let width = usize::from(self.widths[slot * self.groups + group]);
            *to = Bases { row: *next, width };
            *next += width;
        }
    }

    /// Panics if the bases are not those of this weight.
    #[inline(always)]
    pub(super) fn check(&self, bases: Bases) {
        if let Some(last) = bases.width.checked_sub(1) {
            let end = (bases.row + last + 1) * self.row_words;
            assert!(end <= self.words.len(), "a row outside of the words");
        }
    }

    /// [`SIGNS`] signs of a basis, the `place`-th of its row; 0 behind the end.
    ///
    /// # Safety
    /// [`check`](Self::check) must have seen the bases, and `basis` and `place` must lie inside.
    #[inline(always)]
    pub(super) unsafe fn signs(&self, bases: Bases, basis: usize, place: usize) -> u64 {
        let place = place * (SIGNS / 32);
        let word = (bases.row + basis) * self.row_words + place;
        debug_assert!(basis < bases.width && place < self.row_words);
        // SAFETY: not behind the last word of the last row, which `check` has seen.
        let low = u64::from(unsafe { *self.words.get_unchecked(word) });
        if place + 1 < self.row_words {
            // SAFETY: as above.
            low | u64::from(unsafe { *self.words.get_unchecked(word + 1) }) << 32
        } else {
            low
        }
    }

    /// Which signs of a group stand for weights, [`SIGNS`] a word, from the `place`-th word on.
    #[inline(always)]
    pub(super) fn valid(&self, group: usize, place: usize) -> Option<&[u64]> {
        let words = self.row_words.div_ceil(SIGNS / 32);
        Some(&self.valid?[group * words + place..])
    }

    #[inline(always)]
    pub(super) fn coordinate(&self, bases: Bases, basis: usize) -> f32 {
        self.coordinates[bases.row + basis]
    }

    #[inline(always)]
    pub(super) fn multiple(&self, bases: Bases, basis: usize) -> u8 {
        self.integers.multiples[bases.row + basis]
    }

    /// The step of some coordinates of a group.
    #[inline(always)]
    pub(super) fn step(&self, bases: Bases, component: usize) -> f32 {
        self.integers.steps[bases.row + TOGETHER * component]
    }
}
