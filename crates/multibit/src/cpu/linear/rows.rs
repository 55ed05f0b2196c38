//! Many rows of inputs: a matrix product on weights that are unpacked block by block.

use alloc::vec;
use alloc::vec::Vec;
use core::marker::PhantomData;

use super::{LinearKernel, Place, Scatter};
use crate::cpu::Affine;
use crate::cpu::generic::{
    Element, Input, LINES, LayRows, Matrix, OUTPUTS, Room, ScatterTile, Starting, Starts, Weights,
};
use crate::cpu::simd::{LANES, Line};
use crate::cpu::threads::{self, Shared};

/// Outputs and tiles of a task: unpacked weights, and sums, that the second cache holds.
const TASK_OUTPUTS: usize = 64;
const TASK_TILES: usize = 20;

/// Rows of inputs, sixteen side by side.
pub(super) struct LaidRows {
    /// Inputs of a group, which begins with a new step.
    len: usize,
    tiles: usize,
    /// Lines of a tile, and of the last.
    lines: [usize; 2],
    /// Where each step of a tile begins.
    steps: Vec<usize>,
    /// `[tiles, steps, lines, 16]`.
    words: Vec<u32>,
    /// The scale of each row.
    scales: Vec<f32>,
}

impl LaidRows {
    fn new<E: Element>(kernel: &LinearKernel, input: &[f32], batch: usize) -> Self {
        let all = batch.div_ceil(LANES);
        let tiles = all.div_ceil(LINES);
        let lines = all.div_ceil(tiles);
        let (steps, rows) = (kernel.depth.steps, lines * LANES);
        let mut laid = Self {
            len: kernel.tiles.len,
            tiles,
            lines: [lines, all - (tiles - 1) * lines],
            steps: (0..steps).map(|step| step * rows).collect(),
            words: vec![0; tiles * steps * rows],
            scales: vec![1.0; batch],
        };
        let (words, scales) = (Shared::new(&mut laid.words), Shared::new(&mut laid.scales));
        threads::for_each(tiles, input.len() / 2, |tile| {
            let first = tile * rows;
            let count = rows.min(batch - first);
            kernel.isa.run(LayRows::<E> {
                rows: &input[first * kernel.d_in..][..count * kernel.d_in],
                d_in: kernel.d_in,
                len: laid.len,
                lines,
                // SAFETY: each tile has words and scales of its own.
                words: unsafe { words.part(first * steps, rows * steps) },
                // SAFETY: as above.
                scales: unsafe { scales.part(first, count) },
                element: PhantomData,
            });
        });
        laid
    }

    fn input<'a>(&'a self, starts: &'a [Starting]) -> Input<'a> {
        Input {
            words: &self.words,
            steps: &self.steps,
            tile: self.steps.len() * self.lines[0] * LANES,
            lines: self.lines[0],
            starts,
        }
    }
}

impl LinearKernel {
    /// All rows; `laid` may hold them already.
    pub(super) fn rows<E: Element>(
        &self,
        input: &[f32],
        batch: usize,
        affine: &Affine<'_>,
        laid: &mut Option<LaidRows>,
        place: &Place<'_>,
    ) {
        let fits = laid.take().filter(|laid| laid.len == self.tiles.len);
        let laid = laid.insert(fits.unwrap_or_else(|| LaidRows::new::<E>(self, input, batch)));
        let [lines, last_lines] = laid.lines;
        let pieces = self.depth.pieces.len();
        let mut starts = Vec::new();
        if E::STARTS {
            starts = vec![[Line([0; LANES]); LINES]; laid.tiles * pieces];
            let shared = Shared::new(&mut starts);
            threads::for_each(laid.tiles, laid.words.len() / LANES, |tile| {
                let last = tile + 1 == laid.tiles;
                self.isa.run(Starts {
                    depth: &self.depth,
                    input: laid.input(&[]),
                    tile,
                    lines: if last { last_lines } else { lines },
                    // SAFETY: each tile has starts of its own.
                    starts: unsafe { shared.part(tile * pieces, pieces) },
                });
            });
        }
        let input = laid.input(&starts);
        let row_parts = laid.tiles.div_ceil(TASK_TILES);
        // Tiles of rows, as equal as can be.
        let part_tiles = laid.tiles.div_ceil(row_parts);
        let slots = self.tiles.blocks() * LANES;
        let parts = threads::parts().div_ceil(row_parts);
        let outputs = slots
            .div_ceil(parts)
            .next_multiple_of(LANES)
            .min(TASK_OUTPUTS);
        let output_parts = slots.div_ceil(outputs);
        let room = || (Room::default(), Vec::new());
        let cost = laid.words.len() / LANES * slots;
        threads::for_each_with(row_parts * output_parts, cost, room, |room, task| {
            let (room, sums) = room;
            let tiles = task / output_parts * part_tiles;
            let tiles = tiles..laid.tiles.min(tiles + part_tiles);
            let slots_of = task % output_parts * outputs;
            let slots = slots_of..slots.min(slots_of + outputs);
            sums.clear();
            sums.resize(tiles.len() * slots.len(), [Line([0.0; LANES]); LINES]);
            let last = tiles.end == laid.tiles;
            self.isa.run(Matrix::<E> {
                weights: Weights::tiles(&self.tiles, &self.integers),
                depth: &self.depth,
                slots: slots.clone(),
                input,
                tiles: tiles.clone(),
                last_lines: if last { last_lines } else { lines },
                room,
                sums,
                rows: None,
                element: PhantomData,
            });
            for (tile, sums) in tiles.zip(sums.chunks_exact(slots.len())) {
                let first = tile * lines * LANES;
                let rows = (batch - first).min(lines * LANES);
                let blocks = slots.start / LANES..slots.end / LANES;
                for (block, sums) in blocks.zip(sums.chunks_exact(LANES)) {
                    let scales = E::STARTS.then(|| &laid.scales[first..][..rows]);
                    let scatter = self.block(block, &[], scales, affine, place);
                    self.isa.run(ScatterTile {
                        scatter: Scatter {
                            first: scatter.first + first * scatter.row,
                            ..scatter
                        },
                        sums,
                        rows,
                    });
                }
            }
        });
    }
}

const _: () = assert!(LANES.is_multiple_of(OUTPUTS), "a block is whole parts");
