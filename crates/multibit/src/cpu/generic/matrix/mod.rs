//! Outputs × positions: one blocked matrix product for layers that see many rows or places.
//!
//! Sixteen positions lie in the lanes of a vector, a weight is the same in all of them. What meets
//! one *step* of inputs is a word of 32 bits: one f32, or four bytes ([`Element`]).
//!
//! ```text
//! inputs   [tile][step][line][16 positions]     a tile is up to LINES lines
//! weights  [output][step]                       unpacked from their bits, a block of steps at a time
//! sums     [tile][output][LINES][16 positions]
//! ```
//!
//! For each block of steps, the weights of some outputs are unpacked once, into the second cache at
//! most, and meet all positions: the inputs of a tile in this block stay in the first cache for all
//! of the outputs, and [`OUTPUTS`] of them share each load of inputs. So the dense weight never
//! exists, and what unpacking costs does not grow with the positions.
//!
//! Groups that none of the outputs next to each other has are left out.

mod depth;
mod element;
mod input;
mod weights;

use alloc::vec::Vec;
use core::marker::PhantomData;
use core::ops::Range;

pub(in crate::cpu) use depth::{BLOCK as BLOCK_WORDS, Depth};
pub(in crate::cpu) use element::{Bytes, Element, Single};
pub(super) use element::{OFFSET, four_times};
pub(in crate::cpu) use input::Starts;
pub(in crate::cpu) use weights::Weights;

use super::ToRows;
use crate::cpu::Isa;
use crate::cpu::simd::{LANES, Line, Simd, Task};
use weights::Bases;

/// Lines of a tile at most.
pub(in crate::cpu) const LINES: usize = 3;

/// Outputs whose weights are unpacked side by side; sums have room for whole ones.
pub(in crate::cpu) const OUTPUTS: usize = 8;

/// The same of products in f32 where eight vectors are all that registers hold: with a line of inputs and
/// a weight, these sums fill them.
const FEW_OUTPUTS: usize = 6;

/// Tasks begin at whole multiples of this, so that the same outputs are side by side however many
/// tasks there are.
pub(in crate::cpu) fn task_unit<E: Element>(isa: Isa) -> usize {
    struct Side<'a, E>(&'a mut usize, PhantomData<E>);

    impl<E: Element> Task for Side<'_, E> {
        #[inline(always)]
        fn run<S: Simd>(self, _: S) {
            *self.0 = side_by_side::<S, E>();
        }
    }

    let mut side = OUTPUTS;
    isa.run(Side::<E>(&mut side, PhantomData));
    match side {
        // Sums have room for whole multiples of both.
        FEW_OUTPUTS => FEW_OUTPUTS * OUTPUTS / 2,
        _ => OUTPUTS,
    }
}

/// Outputs that are unpacked side by side: as many as sums in f32 fill registers, or whole ones.
#[inline(always)]
const fn side_by_side<S: Simd, E: Element>() -> usize {
    if S::REGISTERS == 8 && !E::STARTS {
        FEW_OUTPUTS
    } else {
        OUTPUTS
    }
}

/// Words of a block of an output: what is unpacked behind its end is whole vectors.
const STRIDE: usize = BLOCK_WORDS + LANES;

/// Where the inputs lie.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Input<'a> {
    pub words: &'a [u32],
    /// Where each step begins, from the start of a tile.
    pub steps: &'a [usize],
    /// Distance of tiles.
    pub tile: usize,
    /// Lines of a tile.
    pub lines: usize,
    /// What each piece starts from, `[tiles, pieces]`, for elements that need it.
    pub starts: &'a [Starting],
}

/// The sums of an output at a tile.
pub(in crate::cpu) type Sums = [Line<f32>; LINES];

/// What a piece starts from at a tile.
pub(in crate::cpu) type Starting = [Line<u32>; LINES];

/// Some outputs × some tiles of positions.
pub(in crate::cpu) struct Matrix<'a, E> {
    pub weights: Weights<'a>,
    pub depth: &'a Depth,
    pub slots: Range<usize>,
    pub input: Input<'a>,
    pub tiles: Range<usize>,
    /// Lines of the last of the tiles.
    pub last_lines: usize,
    /// Room to work in.
    pub room: &'a mut Room,
    /// Receives the sums, `[tiles, slots]`, with slots rounded up to whole [`OUTPUTS`]; or room for
    /// them, of one tile if the depth is one block.
    pub sums: &'a mut [Sums],
    /// Where they go.
    pub rows: Option<MatrixRows<'a>>,
    pub element: PhantomData<E>,
}

/// The rows of an image that positions side by side are.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct MatrixRows<'a> {
    /// Slots are outputs; no other task may write them at the places of the tiles.
    pub to: ToRows<'a>,
    /// The last tile begins here at the latest, so that all inputs of its lines exist.
    pub last: usize,
}

/// Unpacked weights and what is known of them.
#[derive(Default)]
pub(in crate::cpu) struct Room {
    /// `[slots, STRIDE]`.
    words: Vec<u32>,
    /// The pieces that each [`OUTPUTS`] have.
    runs: Vec<Run>,
    /// The first run of each, and the end.
    starts: Vec<usize>,
    /// What follows in the bits, and the group that is unpacked, of each slot.
    next: Vec<usize>,
    bases: Vec<Bases>,
}

/// A piece that is unpacked.
struct Run {
    piece: usize,
    /// Its first step among the inputs, and among the words.
    step: usize,
    word: usize,
    steps: usize,
    scales: [f32; OUTPUTS],
}

impl<E: Element> Task for Matrix<'_, E> {
    const BYTES: bool = E::STARTS;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Input {
            words,
            steps,
            lines,
            starts,
            ..
        } = self.input;
        let highest = steps.iter().copied().max().unwrap_or(0);
        let last = self.tiles.len().saturating_sub(1);
        // The last tile may have fewer lines, so its end is its own.
        let mut reach = 0;
        for i in last.saturating_sub(1)..=last {
            let lines = if i == last { self.last_lines } else { lines };
            reach = reach.max(self.start(self.tiles.start + i) + lines * LANES);
        }
        assert!(
            highest + reach <= words.len() && self.depth.steps <= steps.len(),
            "steps lie outside of the inputs"
        );
        assert!(
            !E::STARTS || self.tiles.end * self.depth.pieces.len() <= starts.len(),
            "pieces without starts"
        );
        let slots = self.slots.len().next_multiple_of(OUTPUTS);
        let room = &mut *self.room;
        room.words.resize(slots * STRIDE, 0);
        room.next.clear();
        room.next.resize(slots, 0);
        room.bases.clear();
        room.bases.resize(slots, Bases::default());
        let blocks = self.depth.blocks();
        for block in 0..blocks {
            self.unpack(simd, block);
            for (i, tile) in self.tiles.clone().enumerate() {
                let lines = if i == last { self.last_lines } else { lines };
                let i = if blocks == 1 && self.rows.is_some() {
                    0
                } else {
                    i
                };
                let mut line = 0;
                while line < lines {
                    line += match (lines - line).min(if S::REGISTERS >= 32 { LINES } else { 1 }) {
                        3 => self.tile::<S, 3>(simd, block, [i, tile, line]),
                        2 => self.tile::<S, 2>(simd, block, [i, tile, line]),
                        _ => self.tile::<S, 1>(simd, block, [i, tile, line]),
                    };
                }
                if block + 1 == blocks {
                    self.finish(simd, i * slots, tile, lines);
                }
            }
        }
    }
}

impl<E: Element> Matrix<'_, E> {
    /// Unpacks the weights of a block.
    #[inline(always)]
    fn unpack<S: Simd>(&mut self, simd: S, block: usize) {
        let Room {
            words,
            runs,
            starts,
            next,
            bases,
        } = &mut *self.room;
        runs.clear();
        starts.clear();
        let pieces = self.depth.block(block);
        let outputs = side_by_side::<S, E>();
        let parts = self.slots.len().div_ceil(outputs);
        let parts = words.chunks_mut(outputs * STRIDE).take(parts);
        for (part, words) in parts.enumerate() {
            let count = words.len() / STRIDE;
            starts.push(runs.len());
            let mut word = 0;
            for number in pieces.clone() {
                let piece = &self.depth.pieces[number];
                if piece.first == 0 && piece.component == 0 {
                    let first = part * outputs;
                    let end = self.slots.len().min(first + count);
                    let slots = self.slots.start + first..self.slots.start + end;
                    let (next, bases) = (&mut next[first..end], &mut bases[first..end]);
                    self.weights.bases(slots, piece.group, next, bases);
                }
                let bases = &bases[part * outputs..][..count];
                let present = E::BASES * piece.component;
                if bases.iter().all(|bases| bases.width <= present) {
                    continue;
                }
                let mut scales = [0.0; OUTPUTS];
                let weights = words.chunks_exact_mut(STRIDE).zip(bases);
                for ((words, &bases), scale) in weights.zip(&mut scales) {
                    *scale = E::unpack(simd, &self.weights, piece, bases, &mut words[word..]);
                }
                runs.push(Run {
                    piece: number,
                    step: piece.place,
                    word,
                    steps: piece.steps,
                    scales,
                });
                word += piece.steps;
            }
        }
        starts.push(runs.len());
    }

    /// Where a tile begins.
    #[inline(always)]
    fn start(&self, tile: usize) -> usize {
        let last = self.rows.map_or(usize::MAX, |rows| rows.last);
        (tile * self.input.tile).min(last)
    }

    /// Brings the sums of a tile, from `first` on, to their rows.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, simd: S, first: usize, tile: usize, lines: usize) {
        let Some(rows) = self.rows else { return };
        let place = tile * self.input.tile;
        let skip = place - self.start(tile);
        let runs = rows.to.runs(place, [skip, lines * LANES]);
        for (output, sums) in self.slots.clone().zip(&self.sums[first..]) {
            // SAFETY: whoever made `rows` keeps tasks apart.
            unsafe { rows.to.finish(simd, &runs, output, &sums[..lines]) };
        }
    }

    /// All outputs of a block at `L` lines of a tile, the `i`-th, from `line` on.
    #[inline(always)]
    fn tile<S: Simd, const L: usize>(&mut self, simd: S, block: usize, at: [usize; 3]) -> usize {
        let outputs = side_by_side::<S, E>();
        for part in 0..self.room.starts.len() - 1 {
            let left = self.slots.len() - part * outputs;
            // Few outputs leave registers unused, but are not computed for nothing.
            if outputs == FEW_OUTPUTS {
                match left {
                    5.. => self.multiply::<S, FEW_OUTPUTS, L>(simd, block, at, [part, 0]),
                    3.. => self.multiply::<S, 4, L>(simd, block, at, [part, 0]),
                    _ => self.multiply::<S, 2, L>(simd, block, at, [part, 0]),
                }
            } else if S::REGISTERS >= 32 && left > OUTPUTS / 2 {
                self.multiply::<S, OUTPUTS, L>(simd, block, at, [part, 0]);
            } else {
                for first in [0, OUTPUTS / 2] {
                    self.multiply::<S, { OUTPUTS / 2 }, L>(simd, block, at, [part, first]);
                }
            }
        }
        L
    }

    /// `R` outputs from the `first` of a part on.
    #[inline(always)]
    fn multiply<S: Simd, const R: usize, const L: usize>(
        &mut self,
        simd: S,
        block: usize,
        [i, tile, line]: [usize; 3],
        [part, first]: [usize; 2],
    ) {
        let Input {
            words: inputs,
            steps: offsets,
            starts,
            ..
        } = self.input;
        let slots = self.slots.len().next_multiple_of(OUTPUTS);
        let slot = part * side_by_side::<S, E>() + first;
        if slot >= self.slots.len() {
            return;
        }
        let base = self.start(tile) + line * LANES;
        let totals = self.sums[i * slots + slot..].first_chunk_mut::<R>();
        let totals = totals.expect("sums of all outputs");
        let weights = &self.room.words[slot * STRIDE..][..R * STRIDE];
        let runs = &self.room.runs[self.room.starts[part]..self.room.starts[part + 1]];
        let mut sums = [[E::begin(simd, &Line([0.0; LANES])); L]; R];
        if block > 0 {
            for (sums, totals) in sums.iter_mut().zip(totals.iter()) {
                for (sum, total) in sums.iter_mut().zip(&totals[line..line + L]) {
                    *sum = E::begin(simd, total);
                }
            }
        } else if runs.is_empty() {
            totals.fill([Line([0.0; LANES]); LINES]);
        }
        const NONE: Starting = [Line([0; LANES]); LINES];
        for (i, run) in runs.iter().enumerate() {
            let start = if E::STARTS {
                &starts[tile * self.depth.pieces.len() + run.piece]
            } else {
                &NONE
            };
            for sums in &mut sums {
                for (sum, start) in sums.iter_mut().zip(&start[line..line + L]) {
                    *sum = E::enter(simd, *sum, start);
                }
            }
            assert!(run.word + run.steps <= STRIDE);
            let offsets = &offsets[run.step..][..run.steps];
            for (step, &offset) in offsets.iter().enumerate() {
                // SAFETY: `run` has asserted that all lines of all tiles lie inside, from every
                // step on.
                let inputs = unsafe { inputs.as_ptr().add(base + offset) };
                let mut x = [E::splat(simd, 0); L];
                for (l, x) in x.iter_mut().enumerate() {
                    // SAFETY: as above.
                    *x = E::load(simd, unsafe { &*inputs.add(l * LANES).cast() });
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: a run lies within the words of each output.
                    let weight = unsafe { *weights.get_unchecked(r * STRIDE + run.word + step) };
                    let weight = E::splat(simd, weight);
                    for (sum, &x) in sums.iter_mut().zip(&x) {
                        *sum = E::product(simd, *sum, weight, x);
                    }
                }
            }
            let scales = run.scales[first..].first_chunk::<R>().expect("all outputs");
            for ((sums, totals), &scale) in sums.iter().zip(totals.iter_mut()).zip(scales) {
                for (&sum, total) in sums.iter().zip(&mut totals[line..line + L]) {
                    E::leave(simd, sum, scale, block + i == 0, total);
                }
            }
        }
        for (sums, totals) in sums.iter().zip(totals) {
            for (&sum, total) in sums.iter().zip(&mut totals[line..line + L]) {
                E::end(simd, sum, total);
            }
        }
    }
}
