//! Where the bits of the weights lie.

use core::ops::Range;

use super::depth::SIGNS;
use crate::cpu::integers::{Integers, TOGETHER};
use crate::cpu::simd::{LANES, flat};
use crate::cpu::tiles::{NONE, Tiles};
use crate::packed::PackedWeight;

/// The outputs of a layer, each a *slot*, with the rows of bits of their groups, a row a basis.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Weights<'a> {
    order: Order<'a>,
    words: &'a [u32],
    coordinates: &'a [f32],
    integers: &'a Integers,
    /// Words of a row.
    row_words: usize,
    /// Distance of neighbours in a row, and of the rows of a group; in words.
    word: usize,
    basis: usize,
    /// Distance of the coordinates of a group.
    coordinate: usize,
    /// Which signs of a row stand for weights, `[groups, row_words / 2]`; none if all do, or if
    /// those that do not meet no input.
    valid: Option<&'a [u64]>,
}

/// How slots and groups follow each other.
#[derive(Clone, Copy)]
enum Order<'a> {
    Tiles(&'a Tiles),
    /// Outputs one after the other, and their groups.
    Rows {
        /// `[outputs, groups]`.
        widths: &'a [u8],
        groups: usize,
        /// The first row of each output.
        first: &'a [usize],
    },
}

/// The bases of one group of one output.
#[derive(Clone, Copy, Default)]
pub(in crate::cpu) struct Bases {
    /// The first word of the first row.
    word: usize,
    /// The first coordinate.
    coordinate: usize,
    pub(super) width: usize,
}

impl<'a> Weights<'a> {
    /// A weight in tiles; slots are in their order.
    pub fn tiles(tiles: &'a Tiles, integers: &'a Integers) -> Self {
        Self {
            order: Order::Tiles(tiles),
            words: flat(tiles.all_lines()),
            coordinates: flat(tiles.all_coordinates()),
            integers,
            row_words: tiles.words,
            word: LANES,
            basis: tiles.words * LANES,
            coordinate: LANES,
            valid: None,
        }
    }

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
            order: Order::Rows {
                widths: weight.widths(),
                groups: weight.grouping().groups_per_output(weight.shape()),
                first,
            },
            words,
            coordinates: weight.coordinates(),
            integers,
            row_words,
            word: 1,
            basis: row_words,
            coordinate: 1,
            valid,
        }
    }

    /// The bases of a group of some slots side by side, which in tiles lie in one block. Groups must
    /// be asked for in ascending order, with a `next` of each slot's own, which is 0 before the
    /// first.
    #[inline(always)]
    pub(super) fn bases(
        &self,
        slots: Range<usize>,
        group: usize,
        next: &mut [usize],
        to: &mut [Bases],
    ) {
        match self.order {
            Order::Tiles(tiles) => {
                let (block, lane) = (slots.start / LANES, slots.start % LANES);
                // Half the cost of a division of 64 bits.
                let chunk = group as u32 / tiles.chunk as u32;
                let steps = tiles.steps(chunk as usize, block);
                let first = steps.start.max(next[0]);
                let mut end = first;
                while end < steps.end && tiles.group(end) == group {
                    end += 1;
                }
                next[0] = end;
                let outputs = &tiles.block_outputs(block)[lane..];
                for ((to, &output), lane) in to.iter_mut().zip(outputs).zip(lane..) {
                    *to = Bases {
                        word: first * self.basis + lane,
                        coordinate: first * LANES + lane,
                        width: if output == NONE { 0 } else { end - first },
                    };
                }
            }
            Order::Rows {
                widths,
                groups,
                first,
            } => {
                for ((slot, next), to) in slots.zip(next).zip(to) {
                    if group == 0 {
                        *next = first[slot];
                    }
                    let (row, width) = (*next, usize::from(widths[slot * groups + group]));
                    *next += width;
                    *to = Bases {
                        word: row * self.basis,
                        coordinate: row,
                        width,
                    };
                }
            }
        }
    }

    /// Panics if the bases are not those of this weight.
    #[inline(always)]
    pub(super) fn check(&self, bases: Bases) {
        if let Some(last) = bases.width.checked_sub(1) {
            let word = bases.word + last * self.basis + (self.row_words - 1) * self.word;
            assert!(word < self.words.len(), "a row outside of the words");
        }
    }

    /// [`SIGNS`] signs of a basis, the `place`-th of its row; 0 behind the end.
    ///
    /// # Safety
    /// [`check`](Self::check) must have seen the bases, and `basis` and `place` must lie inside.
    #[inline(always)]
    pub(super) unsafe fn signs(&self, bases: Bases, basis: usize, place: usize) -> u64 {
        let place = place * (SIGNS / 32);
        let word = bases.word + basis * self.basis + place * self.word;
        debug_assert!(basis < bases.width && place < self.row_words);
        // SAFETY: not behind the last word of the last row, which `check` has seen.
        let low = u64::from(unsafe { *self.words.get_unchecked(word) });
        if place + 1 < self.row_words {
            // SAFETY: as above.
            low | u64::from(unsafe { *self.words.get_unchecked(word + self.word) }) << 32
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
        self.coordinates[bases.coordinate + basis * self.coordinate]
    }

    #[inline(always)]
    pub(super) fn multiple(&self, bases: Bases, basis: usize) -> u8 {
        self.integers.multiples[bases.coordinate + basis * self.coordinate]
    }

    /// The step of some coordinates of a group.
    #[inline(always)]
    pub(super) fn step(&self, bases: Bases, component: usize) -> f32 {
        self.integers.steps[bases.coordinate + TOGETHER * component * self.coordinate]
    }
}
