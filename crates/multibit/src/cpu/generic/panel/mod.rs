//! Rows × outputs by unpacking: a linear layer that sees more than a few rows.
//!
//! Sixteen outputs lie in the lanes of a vector, as their bits do in [`Tiles`], and an input is the
//! same in all of them: rows need no transposition, sums come out in the order of the output, and
//! one instruction unpacks a bit of sixteen outputs, or of four inputs of each.
//!
//! ```text
//! inputs  [row][step]              a step is a word of 32 bits: one f32, or four bytes
//! panel   [step][block][16 outputs] unpacked from their bits, in the first cache
//! sums    [block][row][16 outputs]
//! ```
//!
//! A *panel* is the weights of one or two blocks and up to [`PANEL`] steps. It is unpacked once and
//! meets all rows of a task while it is there, so the dense weight never exists, and what unpacking
//! costs does not grow with the rows. Groups that none of the blocks has are left out.

mod element;
mod round;
mod walk;

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::Range;

pub(in crate::cpu) use element::{PanelElement, Part};
pub(in crate::cpu) use round::RoundRows;

use super::matrix::Element;
use crate::cpu::integers::Components;
use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::cpu::tiles::Tiles;
use walk::Walk;

/// Steps of a panel at most: with two blocks 32 KiB, what most of the first cache holds.
const PANEL: usize = 256;

/// Inputs of a word of bits.
const WORD: usize = 32;

/// Blocks of a task.
pub(in crate::cpu) const BLOCKS: usize = 2;

/// Rows that are multiplied together, or half as many where there are few registers or rows left.
pub(in crate::cpu) const TILE: usize = 8;

/// Rows whose sums are handed on together, whole tiles.
const DONE_ROWS: usize = 32;

/// How the inputs of a group are cut into pieces that fit a panel.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Pieces {
    /// Steps of a group.
    pub steps: usize,
    /// Words of bits of a piece, and steps.
    words: usize,
    pub piece: usize,
    /// Pieces of a group.
    pub count: usize,
}

impl Pieces {
    /// Groups of `len` inputs.
    pub fn new<E: Element>(len: usize) -> Self {
        let words = len.div_ceil(WORD);
        let count = words.div_ceil(PANEL * E::INPUTS / WORD);
        let words = words.div_ceil(count);
        Self {
            steps: len.div_ceil(E::INPUTS),
            words,
            piece: words * WORD / E::INPUTS,
            count,
        }
    }
}

/// Rows of inputs.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct RowInputs<'a> {
    /// `[rows, row]`; a row begins with its groups, `[groups, steps]`.
    pub words: &'a [u32],
    /// The last rows, filled up to whole tiles: those from `whole` on.
    pub tail: &'a [u32],
    pub whole: usize,
    /// Distance of rows.
    pub row: usize,
    pub pieces: Pieces,
    /// What a piece starts from, `[rows, groups, pieces]`, for elements that need it.
    pub starts: &'a [u32],
}

impl<'a> RowInputs<'a> {
    /// Some neighbouring rows, which all lie on one side of `whole`.
    #[inline(always)]
    fn rows(&self, first: usize, count: usize) -> &'a [u32] {
        let (words, first) = match first.checked_sub(self.whole) {
            Some(first) => (self.tail, first),
            None => (self.words, first),
        };
        &words[first * self.row..][..count * self.row]
    }
}

/// Up to [`BLOCKS`] blocks of outputs × some rows, whole tiles.
pub(in crate::cpu) struct PanelProduct<'a, E> {
    pub tiles: &'a Tiles,
    /// The coordinates as bytes, for elements that need them.
    pub components: &'a Components,
    pub blocks: Range<usize>,
    pub inputs: RowInputs<'a>,
    pub rows: Range<usize>,
    /// Room to work in.
    pub room: &'a mut PanelRoom,
    /// Receives the sums on top of what is there, `[blocks, rows]`.
    pub sums: &'a mut [Line<f32>],
    /// Takes the sums of a block and some of the rows, counted from the first, when they are whole:
    /// early, so that the output is written while others are computed.
    pub done: &'a Done<'a>,
    /// Where they will be written: output 0 of the first row.
    pub output: *const f32,
    /// Distance of rows there.
    pub output_row: usize,
    pub element: PhantomData<E>,
}

/// Takes a block, some rows, and their sums.
pub(in crate::cpu) type Done<'a> = dyn Fn(usize, Range<usize>, &[Line<f32>]) + 'a;

/// A panel and what is known of it.
#[derive(Default)]
pub(in crate::cpu) struct PanelRoom {
    /// `[steps, blocks]`.
    lines: Vec<Line<u32>>,
    runs: Vec<Run>,
}

/// A piece of a group in the panel.
struct Run {
    /// Its first step in the panel, and in a row.
    line: usize,
    step: usize,
    steps: usize,
    /// Where it starts from, in a row.
    start: usize,
    /// What a sum's 1 stands for, by block and lane.
    scales: [Line<f32>; BLOCKS],
}

impl<E: PanelElement> Task for PanelProduct<'_, E> {
    const BYTES: bool = E::STARTS;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let groups = self.tiles.groups;
        let pieces = self.inputs.pieces;
        let rows = self.rows.len();
        assert!(
            rows.is_multiple_of(TILE / 2) && self.rows.start.is_multiple_of(TILE),
            "rows outside of tiles"
        );
        assert!(groups * pieces.steps <= self.inputs.row, "rows overlap");
        assert!(
            !E::STARTS || self.rows.end * groups * pieces.count <= self.inputs.starts.len(),
            "rows without starts"
        );
        // Words of bits are unpacked whole.
        let room = groups * pieces.steps * crate::MAX_BITS.div_ceil(E::BASES);
        let room = room.min(PANEL) + WORD / E::INPUTS;
        let blocks = self.blocks.clone();
        let together = S::REGISTERS >= 32 && blocks.len() == BLOCKS;
        let room = if together { room * BLOCKS } else { room };
        self.room.lines.resize(room, Line([0; LANES]));
        if together {
            self.blocks::<S, BLOCKS>(simd, blocks, 0);
        } else {
            for (i, block) in blocks.enumerate() {
                self.blocks::<S, 1>(simd, block..block + 1, i);
            }
        }
    }
}

impl<E: PanelElement> PanelProduct<'_, E> {
    /// `N` blocks, whose sums are those from the `first` on; those that there are not weigh nothing.
    #[inline(always)]
    fn blocks<S: Simd, const N: usize>(&mut self, simd: S, blocks: Range<usize>, first: usize) {
        let mut walk = Walk::<N>::new(self.tiles, self.components, blocks);
        let pieces = self.inputs.pieces;
        loop {
            let mut len = 0;
            let mut more;
            loop {
                more = walk.find(E::BASES, pieces.count);
                let step = walk.piece * pieces.piece;
                let steps = pieces.piece.min(pieces.steps - step);
                if !more || len + steps > PANEL {
                    break;
                }
                self.unpack(simd, &walk, len, steps);
                len += steps;
                walk.piece += 1;
            }
            self.multiply_all::<S, N>(simd, first, !more);
            if !more {
                break;
            }
        }
    }

    /// Unpacks where the walk is, behind the first `len` steps of the panel.
    #[inline(always)]
    fn unpack<S: Simd, const N: usize>(
        &mut self,
        simd: S,
        walk: &Walk<'_, N>,
        len: usize,
        steps: usize,
    ) {
        let pieces = self.inputs.pieces;
        let words = walk.piece * pieces.words;
        let words = words..self.tiles.words.min(words + pieces.words);
        let lines = self.room.lines.as_chunks_mut::<N>().0;
        let lines = &mut lines[len..][..words.len() * WORD / E::INPUTS];
        let mut scales = [Line([0.0; LANES]); BLOCKS];
        for (block, scale) in scales[..N].iter_mut().enumerate() {
            let present = &walk.bases[block];
            let start = present.end.min(present.start + walk.component * E::BASES);
            let mut part = Part {
                tiles: self.tiles,
                bases: start..present.end.min(start + E::BASES),
                words: words.clone(),
                steps,
                component: None,
            };
            if E::STARTS && !part.bases.is_empty() {
                let component = &self.components.all[walk.first[block] + walk.component];
                *scale = component.steps;
                part.component = Some(component);
            }
            for basis in part.bases.clone() {
                for word in part.words.clone() {
                    let line = basis
                        .wrapping_add(walk.ahead[block])
                        .wrapping_mul(self.tiles.words)
                        .wrapping_add(word);
                    simd.prefetch(self.tiles.line(line).cast());
                }
            }
            E::unpack_lanes(simd, part, lines, block);
        }
        let step = walk.group * pieces.steps + walk.piece * pieces.piece;
        match self.room.runs.last_mut() {
            // Nothing is to be done between them.
            Some(run) if !E::STARTS && run.step + run.steps == step => run.steps += steps,
            _ => self.room.runs.push(Run {
                line: len,
                step,
                steps,
                start: walk.group * pieces.count + walk.piece,
                scales,
            }),
        }
    }

    /// Multiplies the panel with all rows, and forgets it.
    #[inline(always)]
    fn multiply_all<S: Simd, const N: usize>(&mut self, simd: S, first: usize, last: bool) {
        let rows = self.rows.len();
        let (mut row, mut done) = (0, 0);
        while row < rows {
            let tile = if S::REGISTERS >= 32 && rows - row >= TILE {
                TILE
            } else {
                TILE / 2
            };
            if last {
                self.expect::<S>(simd, row..row + tile, first..first + N);
            }
            row += if S::REGISTERS >= 32 && tile == TILE {
                self.multiply::<S, N, TILE>(simd, row, first)
            } else {
                self.multiply::<S, N, { TILE / 2 }>(simd, row, first)
            };
            if last && (row - done >= DONE_ROWS || row == rows) {
                for block in (first..first + N).take(self.blocks.len() - first) {
                    let sums = &self.sums[block * rows..][done..row];
                    (self.done)(self.blocks.start + block, done..row, sums);
                }
                done = row;
            }
        }
        self.room.runs.clear();
    }

    /// Has the cache fetch where the outputs of some rows and blocks will be written, which otherwise
    /// takes as long as all else where there are many.
    #[inline(always)]
    fn expect<S: Simd>(&self, simd: S, rows: Range<usize>, blocks: Range<usize>) {
        for block in blocks.take(self.blocks.len()) {
            let block = self.tiles.block_outputs(self.blocks.start + block);
            let first = self.output.wrapping_add(block[0] as usize);
            for row in rows.clone() {
                simd.prefetch(first.wrapping_add(row * self.output_row));
            }
        }
    }

    /// `R` rows from `row` on.
    #[inline(always)]
    fn multiply<S: Simd, const N: usize, const R: usize>(
        &mut self,
        simd: S,
        row: usize,
        first: usize,
    ) -> usize {
        let RowInputs {
            row: distance,
            pieces,
            starts,
            ..
        } = self.inputs;
        let rows = self.rows.len();
        let place = self.rows.start + row;
        let row_starts = self.tiles.groups * pieces.count;
        let inputs = self.inputs.rows(place, R);
        let lines = self.room.lines.as_chunks::<N>().0;
        for run in &self.room.runs {
            let mut sums = [[E::zero(simd); N]; R];
            if E::STARTS {
                for (r, sums) in sums.iter_mut().enumerate() {
                    let start = (place + r) * row_starts + run.start;
                    // SAFETY: `run` has asserted that all rows have starts.
                    *sums = [E::start(simd, unsafe { *starts.get_unchecked(start) }); N];
                }
            }
            // SAFETY: a run is a part of the groups, which `run` has asserted to be in each row.
            let inputs = unsafe { inputs.as_ptr().add(run.step) };
            let lines = &lines[run.line..][..run.steps];
            // SAFETY: as above.
            unsafe { add_products::<S, E, N, R>(simd, lines, inputs, distance, &mut sums) };
            for n in 0..N {
                let scale = simd.f_load(&run.scales[n].0);
                let totals = self.sums[(first + n) * rows + row..].first_chunk_mut::<R>();
                for (sums, total) in sums.iter().zip(totals.expect("sums of all rows")) {
                    let sum = E::finish(simd, sums[n], scale, simd.f_load(&total.0));
                    simd.f_store(sum, &mut total.0);
                }
            }
        }
        R
    }
}

/// `sums + weights·x` for `N` blocks and `R` rows.
///
/// # Safety
/// There must be an input for each line and row, rows `distance` apart.
#[inline(always)]
unsafe fn add_products<S: Simd, E: PanelElement, const N: usize, const R: usize>(
    simd: S,
    lines: &[[Line<u32>; N]],
    inputs: *const u32,
    distance: usize,
    sums: &mut [[E::Sum<S>; N]; R],
) {
    for (step, lines) in lines.iter().enumerate() {
        let mut weights = [E::splat(simd, 0); N];
        for (weights, line) in weights.iter_mut().zip(lines) {
            *weights = E::load(simd, &line.0);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: the caller says so.
            let x = E::splat(simd, unsafe { *inputs.add(r * distance + step) });
            for (sum, &weights) in sums.iter_mut().zip(&weights) {
                *sum = E::product(simd, *sum, weights, x);
            }
        }
    }
}
