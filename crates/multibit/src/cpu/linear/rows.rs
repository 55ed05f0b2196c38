//! Two rows of inputs or more: products with weights that are unpacked panel by panel.

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::Range;

use super::{LinearKernel, Place};
use crate::cpu::Affine;
use crate::cpu::generic::{
    BLOCKS, Bytes, PanelElement, PanelProduct, PanelRoom, Pieces, RoundRows, RowInputs, Single,
    TILE,
};
use crate::cpu::simd::{LANES, Line, words_of};
use crate::cpu::threads::{self, Shared};

/// Rows of a task at most: sums that the second cache holds.
const TASK_ROWS: usize = 512;

/// Rows of a task at least, so that unpacking is a small part of it.
const WORTH_ROWS: usize = 64;

/// Rows of inputs as a kernel reads them.
pub(super) struct Rows<'a> {
    /// Inputs of a group.
    len: usize,
    pieces: Pieces,
    /// Distance of rows.
    row: usize,
    words: Cow<'a, [u32]>,
    /// The rows behind the last whole tile, and zeros, if they are not in `words`.
    tail: Vec<u32>,
    whole: usize,
    /// What the pieces of a row start from.
    starts: Vec<u32>,
    /// The scale of each row; none are 1.
    scales: Option<Vec<f32>>,
}

impl<'a> Rows<'a> {
    /// Rows as they are.
    fn exact(kernel: &LinearKernel, input: &'a [f32], batch: usize) -> Self {
        let (words, d_in) = (words_of(input), kernel.d_in);
        let whole = batch / TILE * TILE;
        let mut tail = words[whole * d_in..].to_vec();
        tail.resize(tail.len().next_multiple_of(d_in * TILE / 2), 0);
        Self {
            len: kernel.tiles.len,
            pieces: Pieces::new::<Single>(kernel.tiles.len),
            row: d_in,
            words: Cow::Borrowed(words),
            tail,
            whole,
            starts: Vec::new(),
            scales: None,
        }
    }

    /// Rows rounded to bytes.
    fn rounded(kernel: &LinearKernel, input: &[f32], batch: usize) -> Self {
        let (len, groups) = (kernel.tiles.len, kernel.tiles.groups);
        let pieces = Pieces::new::<Bytes>(len);
        // A line more, so that rows of a power of two do not meet in the same sets of the cache.
        let row = groups * pieces.steps + LANES;
        let row_starts = groups * pieces.count;
        let whole = batch.next_multiple_of(TILE / 2);
        let mut words = vec![0; whole * row];
        let mut starts = vec![0; whole * row_starts];
        let mut scales = vec![0.0; batch];
        let (all_words, all_starts) = (Shared::new(&mut words), Shared::new(&mut starts));
        let all_scales = Shared::new(&mut scales);
        let part = batch.div_ceil(threads::parts());
        threads::for_each(batch.div_ceil(part), input.len() / 2, |i| {
            let first = i * part;
            let rows = part.min(batch - first);
            // SAFETY: each row has words, starts and a scale of its own.
            let (words, starts, scales) = unsafe {
                (
                    all_words.part(first * row, rows * row),
                    all_starts.part(first * row_starts, rows * row_starts),
                    all_scales.part(first, rows),
                )
            };
            kernel.isa.run(RoundRows {
                input: &input[first * kernel.d_in..][..rows * kernel.d_in],
                groups,
                len,
                pieces,
                words,
                row,
                starts,
                scales,
            });
        });
        Self {
            len,
            pieces,
            row,
            words: Cow::Owned(words),
            tail: Vec::new(),
            whole,
            starts,
            scales: Some(scales),
        }
    }

    fn inputs(&self) -> RowInputs<'_> {
        RowInputs {
            words: &self.words,
            tail: &self.tail,
            whole: self.whole,
            row: self.row,
            pieces: self.pieces,
            starts: &self.starts,
        }
    }
}

impl LinearKernel {
    /// All rows in f32.
    pub(super) fn exact_rows(
        &self,
        input: &[f32],
        batch: usize,
        affine: &Affine<'_>,
        place: &Place<'_>,
    ) {
        self.product::<Single>(&Rows::exact(self, input, batch), batch, affine, place);
    }

    /// All rows in int8; `rounded` may hold them already.
    pub(super) fn int8_rows(
        &self,
        input: &[f32],
        batch: usize,
        affine: &Affine<'_>,
        rounded: &mut Option<Rows<'static>>,
        place: &Place<'_>,
    ) {
        let fits = rounded.take().filter(|rows| rows.len == self.tiles.len);
        let rows = fits.unwrap_or_else(|| Rows::rounded(self, input, batch));
        self.product::<Bytes>(rounded.insert(rows), batch, affine, place);
    }

    fn product<E: PanelElement>(
        &self,
        rows: &Rows<'_>,
        batch: usize,
        affine: &Affine<'_>,
        place: &Place<'_>,
    ) {
        let blocks = self.tiles.blocks();
        let block_parts = blocks.div_ceil(BLOCKS);
        // Parts of rows, as equal as can be.
        let most = batch.div_ceil(WORTH_ROWS);
        let row_parts = threads::parts().div_ceil(block_parts.max(1)).min(most);
        let row_parts = row_parts.max(batch.div_ceil(TASK_ROWS));
        let part = batch.div_ceil(row_parts).next_multiple_of(TILE);
        let row_parts = batch.div_ceil(part);
        let room = || (PanelRoom::default(), Vec::new());
        let cost = blocks * batch * self.d_in / E::INPUTS;
        threads::for_each_with(row_parts * block_parts, cost, room, |room, task| {
            let (room, sums) = room;
            let first = task / block_parts * part;
            let rows_of = first..batch.next_multiple_of(TILE / 2).min(first + part);
            let block = task % block_parts * BLOCKS;
            let blocks = block..blocks.min(block + BLOCKS);
            sums.clear();
            sums.resize(blocks.len() * rows_of.len(), Line([0.0; LANES]));
            let done = |block, done: Range<usize>, sums: &[Line<f32>]| {
                let done = first + done.start..batch.min(first + done.end);
                let scales = rows.scales.as_ref().map(|scales| &scales[done.clone()]);
                let place = Place {
                    first: place.first + done.start * place.row,
                    ..*place
                };
                let sums = &sums[..done.len()];
                self.scatter(block..block + 1, sums, scales, affine, &place);
            };
            self.isa.run(PanelProduct::<E> {
                tiles: &self.tiles,
                components: &self.components,
                blocks,
                inputs: rows.inputs(),
                rows: rows_of,
                room,
                sums,
                done: &done,
                output: place.output.place(place.first + first * place.row),
                output_row: place.row,
                element: PhantomData,
            });
        });
    }
}
