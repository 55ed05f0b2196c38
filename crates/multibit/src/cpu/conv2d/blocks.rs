//! What becomes of the sums of blocks of outputs, however they are computed.

use alloc::vec;

use super::Call;
use crate::cpu::generic::{BlockToPlanes, Output, Residual};
use crate::cpu::simd::{LANES, Line};
use crate::cpu::threads::{self, Shared};
use crate::cpu::tiles::{Tiles, WORD};
use crate::cpu::{Levels, Planes};

/// Computes the sums of a block.
pub(super) trait Blocks: Sync {
    /// The weight of a group of channels.
    fn tiles(&self, group: usize) -> &Tiles;

    /// About how many vector operations a position of an image takes, all blocks together.
    fn cost(&self) -> usize;

    /// The sums of `[image, group, block]` at a part of the positions, part `.0` of `.1`.
    fn run<O: Output>(&self, task: [usize; 3], part: (usize, usize), output: O);
}

/// What is done with the sums.
pub(super) trait End {
    fn of(self, call: &Call<'_>, sums: &impl Blocks);
}

/// Writes them, with scale and offset, to the output of the call.
pub(super) struct ToValues;

impl End for ToValues {
    fn of(self, call: &Call<'_>, sums: &impl Blocks) {
        call.to_values(sums);
    }
}

/// Adds a residual and puts them at the nearest of two or four levels, of a convolution without
/// groups.
pub(super) struct ToPlanes<'a> {
    pub residual: Option<&'a Planes<'a>>,
    pub levels: &'a Levels,
    pub words: &'a mut [u32],
}

impl End for ToPlanes<'_> {
    fn of(self, call: &Call<'_>, sums: &impl Blocks) {
        match self.levels.bits() {
            1 => call.to_planes::<1>(sums, self),
            2 => call.to_planes::<2>(sums, self),
            bits => unreachable!("{bits} bits go through values"),
        }
    }
}

impl Call<'_> {
    /// Writes the outputs as values.
    fn to_values(&self, sums: &impl Blocks) {
        let (images, groups) = (self.input_shape[0], self.options.groups);
        let blocks = sums.tiles(0).blocks();
        let room = || vec![Line([0.0; LANES]); self.positions()];
        let cost = sums.cost() * images * self.positions();
        threads::for_each_with(images * groups * blocks, cost, room, |lines, task| {
            let (block, part) = (task % blocks, task / blocks);
            let (group, image) = (part % groups, part / groups);
            sums.run([image, group, block], (0, 1), lines.as_mut_slice());
            // SAFETY: a block of an image belongs to one task.
            unsafe { self.write(sums.tiles(group), block, image, 0, lines) };
        });
    }

    /// Writes the outputs as bits of `Q` planes, for a convolution without groups. A task is a word of outputs of an
    /// image, at some of the positions.
    fn to_planes<const Q: usize>(&self, sums: &impl Blocks, to: ToPlanes<'_>) {
        let ToPlanes {
            residual,
            levels,
            words,
        } = to;
        let (images, tiles) = (self.input_shape[0], sums.tiles(0));
        let (blocks, pixels) = (tiles.blocks(), self.positions());
        let word_blocks = WORD / LANES;
        let out_words = blocks.div_ceil(word_blocks);
        let parts = threads::parts().div_ceil(images * out_words);
        let cost = sums.cost() * images * pixels;
        let output = Shared::new(words);
        threads::for_each(images * out_words * parts, cost, |task| {
            let (part, word) = (task % parts, task / parts);
            let (image, first) = (word / out_words, word % out_words * word_blocks);
            let residual = residual.map(|planes| {
                let len = planes.levels().bits() * pixels;
                Residual {
                    words: &planes.words()[word * len..][..len],
                    levels: planes.levels(),
                }
            });
            for block in first..blocks.min(first + word_blocks) {
                // SAFETY: a task has a word of outputs and positions of its own.
                let to_planes = unsafe {
                    BlockToPlanes::<Q>::new(
                        tiles.affine(block, self.affine),
                        tiles.lane_bits(block),
                        block == first,
                        residual,
                        levels,
                        &output,
                        [word * Q * pixels, pixels],
                    )
                };
                sums.run([image, 0, block], (part, parts), to_planes);
            }
        });
    }
}
