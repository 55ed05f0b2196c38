//! Int8 mode: the patches of some positions side by side, then the look-ups of a linear layer.

use alloc::vec;

use super::Call;
use crate::cpu::generic::{Int8, Lookup, MakeTables, empty_tables, inverse, scale};
use crate::cpu::reference::place;
use crate::cpu::simd::{LANES, Line};
use crate::cpu::threads;
use crate::cpu::tiles::Tiles;

/// Positions of a task.
const POSITIONS: usize = 32;

impl Call<'_> {
    pub(super) fn int8(&self, tiles: &[Tiles]) {
        let images = self.input_shape[0];
        let parts = self.positions().div_ceil(POSITIONS);
        let weights: usize = tiles.iter().map(Tiles::size).sum();
        let cost = images * self.positions() * (4 * weights + 4 * self.input_shape[1]);
        threads::for_each(images * parts, cost, |task| {
            let (image, first) = (task / parts, task % parts * POSITIONS);
            let count = POSITIONS.min(self.positions() - first);
            for (group, tiles) in tiles.iter().enumerate() {
                let len = self.kernel.patch.len();
                let mut patch = vec![0.0; len];
                let mut tables = empty_tables::<Int8>(tiles, count);
                let mut scales = vec![0.0; count];
                let row_tables = tiles.groups * tiles.words;
                let rows = tables.chunks_exact_mut(row_tables).zip(&mut scales);
                for (p, (tables, row_scale)) in rows.enumerate() {
                    self.fill_patch(image, group, first + p, &mut patch);
                    *row_scale = scale(&patch, tiles.len);
                    self.kernel.isa.run(MakeTables::<Int8> {
                        inputs: &patch,
                        len: tiles.len,
                        inverse: inverse(*row_scale),
                        tables,
                    });
                }
                for block in 0..tiles.blocks() {
                    let mut sums = vec![Line([0.0; LANES]); count];
                    self.kernel.isa.run(Lookup::<Int8> {
                        tiles,
                        blocks: block..block + 1,
                        tables: &tables,
                        rows: count,
                        output: &mut sums,
                    });
                    for (sum, scale) in sums.iter_mut().zip(&scales) {
                        for sum in &mut sum.0 {
                            *sum *= scale;
                        }
                    }
                    // SAFETY: a task has places of its own.
                    unsafe { self.write(tiles, block, image, first, &sums) };
                }
            }
        });
    }

    /// The input under the kernel at one position, in the order of the grouping.
    fn fill_patch(&self, image: usize, group: usize, position: usize, to: &mut [f32]) {
        let [.., height, width] = self.input_shape;
        let out_width = self.output_shape[3];
        let channels = self.channels(image, group);
        for (to, &[c, y, x]) in to.iter_mut().zip(&self.kernel.patch) {
            let y = place(self.options, 0, position / out_width, y, height);
            let x = place(self.options, 1, position % out_width, x, width);
            *to = match (y, x) {
                (Some(y), Some(x)) => channels[(c * height + y) * width + x],
                _ => 0.0,
            };
        }
    }
}
