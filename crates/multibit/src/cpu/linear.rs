//! A linear layer made ready to run.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::generic::{
    Bitwise, Class, Classes, Entries, Exact, FewRows, Int8, Lookup, MakeTables, PAIR, PackRows,
    empty_tables, inverse, scale,
};
use super::simd::{LANES, Line};
use super::threads::{self, Shared};
use super::tiles::{NONE, Sort, Tiles};
use super::{Affine, Arithmetic, Isa, KernelError, Levels, Mode, assert_arithmetic, assert_len};
use crate::packed::PackedWeight;

/// A packed weight `[d_in, d_out]` in tiles, with its arithmetic.
pub struct LinearKernel {
    d_in: usize,
    tiles: Tiles,
    arithmetic: Arithmetic,
    isa: Isa,
}

impl LinearKernel {
    /// Lays the bits out for the kernels.
    ///
    /// # Errors
    /// If the weight has another rank or its groups do not lie within outputs.
    pub fn new(weight: &PackedWeight, arithmetic: Arithmetic) -> Result<Self, KernelError> {
        let &[d_in, d_out] = weight.shape() else {
            return Err(KernelError::Rank {
                expected: 2,
                found: weight.shape().len(),
            });
        };
        let axis = weight.grouping().axes()[0];
        if axis != 1 {
            return Err(KernelError::OutputAxis { expected: 1, axis });
        }
        let words = weight.grouping().len().div_ceil(32);
        Ok(Self {
            d_in,
            tiles: Tiles::new(weight, 0..d_out, words, &[], arithmetic, Sort::All),
            arithmetic,
            isa: Isa::best(),
        })
    }

    /// The same on another instruction set than [`Isa::best`].
    #[must_use]
    pub fn on(self, isa: Isa) -> Self {
        Self { isa, ..self }
    }

    /// The arithmetic.
    pub fn arithmetic(&self) -> Arithmetic {
        self.arithmetic
    }

    /// `[d_in, d_out]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.d_in, self.tiles.outputs]
    }

    /// `y = scale·(x Ŵ) + offset`, by the definition of [`reference::linear`](super::reference::linear) in
    /// this mode up to the order of sums.
    ///
    /// # Shapes
    /// - `input`: `[batch, d_in]`; the batch may be 0
    /// - `affine`: `[d_out]`
    /// - `output`: `[batch, d_out]`, written whole
    ///
    /// # Panics
    /// If a slice has another length, or the mode another arithmetic.
    pub fn forward(
        &self,
        mode: &Mode,
        input: &[f32],
        batch: usize,
        affine: &Affine<'_>,
        output: &mut [f32],
    ) {
        assert_arithmetic("linear", self.arithmetic, mode);
        let [d_in, d_out] = self.shape();
        let axes = |name, size| [("batch", batch), (name, size)];
        assert_len("linear", "input", input.len(), &axes("d_in", d_in));
        assert_len("linear", "output", output.len(), &axes("d_out", d_out));
        affine.check("linear", "d_out", d_out);
        if batch == 0 {
            return;
        }
        match mode {
            Mode::Exact if self.unpacks(batch) => self.dense(input, batch, affine, output),
            Mode::Exact => {
                let ones = vec![1.0; batch];
                let tables = self.tables::<Exact>(input, batch, &ones);
                self.lookup::<Exact>(&tables, &ones, affine, output);
            }
            Mode::Int8 => {
                let rows = input.chunks_exact(d_in);
                let scales: Vec<f32> = rows.map(|row| scale(row, self.tiles.len)).collect();
                let inverse: Vec<f32> = scales.iter().map(|&scale| inverse(scale)).collect();
                let tables = self.tables::<Int8>(input, batch, &inverse);
                self.lookup::<Int8>(&tables, &scales, affine, output);
            }
            Mode::Bitwise(levels) => self.bitwise(levels, input, batch, affine, output),
        }
    }

    /// Whether so many rows of inputs in f32 are multiplied with unpacked weights sooner than they are
    /// looked up.
    ///
    /// Estimates how many cycles each takes for an input, from counted instructions and times on
    /// Cascade Lake; other instruction sets than AVX-512 take longer for both, in about this proportion.
    fn unpacks(&self, rows: usize) -> bool {
        let tiles = &self.tiles;
        let blocks = tiles.blocks() as f32;
        // Bases of a group, on average, of all blocks.
        let bases = tiles.size() as f32 / (tiles.groups * tiles.words) as f32;
        let rows = rows as f32;
        let each = if self.isa.looks_up_floats() {
            0.35
        } else {
            0.8
        };
        // Tables are made for all blocks at once; weights are unpacked for all rows at once.
        let lookup = rows * (1.5 + each * bases);
        let unpacked = rows * (1.0 + 0.5 * blocks) + 1.6 * bases;
        unpacked < lookup
    }

    fn tables<E: Entries>(&self, input: &[f32], batch: usize, inverse: &[f32]) -> Vec<E::Word> {
        let row_tables = self.tiles.groups * self.tiles.words;
        let mut tables = empty_tables::<E>(&self.tiles, batch);
        let shared = Shared::new(&mut tables);
        threads::for_each(batch, 4 * input.len(), |row| {
            self.isa.run(MakeTables::<E> {
                inputs: &input[row * self.d_in..][..self.d_in],
                len: self.tiles.len,
                inverse: inverse[row],
                // SAFETY: each row has tables of its own.
                tables: unsafe { shared.part(row * row_tables, row_tables) },
            });
        });
        tables
    }

    fn lookup<E: Entries>(
        &self,
        tables: &[E::Word],
        scales: &[f32],
        affine: &Affine<'_>,
        output: &mut [f32],
    ) {
        let rows = scales.len();
        let scatter = Scatter::new(self, affine, output);
        // Some blocks at a time share the tables of a chunk while these are in the cache.
        let part = self.tiles.blocks().div_ceil(threads::parts());
        let cost = 8 * rows * self.tiles.size();
        threads::for_each(self.tiles.blocks().div_ceil(part), cost, |task| {
            let blocks = task * part..self.tiles.blocks().min((task + 1) * part);
            let mut sums = vec![Line([0.0; LANES]); blocks.len() * rows];
            self.isa.run(Lookup::<E> {
                tiles: &self.tiles,
                blocks: blocks.clone(),
                tables,
                rows,
                output: &mut sums,
            });
            scatter.blocks(blocks, &sums, |row| scales[row]);
        });
    }

    fn dense(&self, input: &[f32], batch: usize, affine: &Affine<'_>, output: &mut [f32]) {
        let rows = batch.next_multiple_of(PAIR);
        let mut inputs = vec![0.0; rows * self.d_in];
        for (r, row) in input.chunks_exact(self.d_in).enumerate() {
            for (values, &x) in inputs.chunks_exact_mut(rows).zip(row) {
                values[r] = x;
            }
        }
        let scatter = Scatter::new(self, affine, output);
        let cost = self.tiles.blocks() * inputs.len();
        threads::for_each(self.tiles.blocks(), cost, |block| {
            let mut sums = vec![Line([0.0; LANES]); rows];
            self.isa.run(FewRows {
                tiles: &self.tiles,
                block,
                inputs: &inputs,
                output: &mut sums,
            });
            scatter.blocks(block..block + 1, &sums[..batch], |_| 1.0);
        });
    }

    fn bitwise(
        &self,
        levels: &Levels,
        input: &[f32],
        batch: usize,
        affine: &Affine<'_>,
        output: &mut [f32],
    ) {
        let tiles = &self.tiles;
        let (planes, row_words) = (levels.bits(), tiles.groups * tiles.words);
        // `[group, word, plane, row]`: the kernel finds the words of rows side by side.
        let mut activations = vec![0; row_words * planes * batch];
        let shared = Shared::new(&mut activations);
        threads::for_each_with(
            batch,
            input.len(),
            || vec![0; planes * row_words],
            |words, row| {
                self.isa.run(PackRows {
                    input: &input[row * self.d_in..][..self.d_in],
                    len: tiles.len,
                    levels,
                    output: words,
                });
                for (plane, words) in words.chunks_exact(row_words).enumerate() {
                    for (i, &word) in words.iter().enumerate() {
                        // SAFETY: each row has words of its own.
                        unsafe { shared.part((i * planes + plane) * batch + row, 1)[0] = word };
                    }
                }
            },
        );
        let tap = |group: usize, word: usize| {
            let place = (group * tiles.words + word) * planes * batch;
            (word, place as isize)
        };
        let classes = Classes::new(vec![Class {
            positions: (0..batch).map(|row| (row as isize, row)).collect(),
            taps: (0..tiles.groups)
                .map(|group| (0..tiles.words).map(|word| tap(group, word)).collect())
                .collect(),
            counts: vec![tiles.len as i32; tiles.groups],
            masks: Vec::new(),
        }]);
        let scatter = Scatter::new(self, affine, output);
        let cost = 3 * planes * batch * tiles.size();
        threads::for_each(tiles.blocks(), cost, |block| {
            let mut sums = vec![Line([0.0; LANES]); batch];
            self.isa.run(Bitwise {
                tiles,
                block,
                activations: &activations,
                plane_stride: batch,
                reference: levels.reference(),
                gammas: levels.coordinates(),
                classes: &classes,
                part: (0, 1),
                output: sums.as_mut_slice(),
            });
            scatter.blocks(block..block + 1, &sums, |_| 1.0);
        });
    }
}

/// Brings the sums of blocks to their outputs.
struct Scatter<'a> {
    tiles: &'a Tiles,
    affine: &'a Affine<'a>,
    output: Shared<'a, f32>,
}

impl<'a> Scatter<'a> {
    fn new(kernel: &'a LinearKernel, affine: &'a Affine<'a>, output: &'a mut [f32]) -> Self {
        Self {
            tiles: &kernel.tiles,
            affine,
            output: Shared::new(output),
        }
    }

    /// `output = scale·(row scale·sum) + offset`; the sums are `[blocks, rows, lanes]`.
    fn blocks(&self, blocks: Range<usize>, sums: &[Line<f32>], scale: impl Fn(usize) -> f32) {
        let rows = sums.len() / blocks.len();
        for (block, sums) in blocks.zip(sums.chunks_exact(rows)) {
            let outputs = self.tiles.block_outputs(block);
            let [scales, offsets] = self.tiles.affine(block, self.affine);
            let side_by_side = outputs.is_sorted_by(|&a, &b| a + 1 == b) && outputs[0] != NONE;
            for (row, sum) in sums.iter().enumerate() {
                let scale = scale(row);
                if side_by_side {
                    let place = row * self.tiles.outputs + outputs[0] as usize;
                    // SAFETY: an output is in one block, a block in one task.
                    let to = unsafe { self.output.part(place, LANES) };
                    let lanes = scales.iter().zip(&offsets).zip(&sum.0);
                    for (y, ((factor, offset), sum)) in to.iter_mut().zip(lanes) {
                        *y = factor * (scale * sum) + offset;
                    }
                    continue;
                }
                for (lane, &output) in outputs.iter().enumerate() {
                    if output != NONE {
                        let y = scales[lane] * (scale * sum.0[lane]) + offsets[lane];
                        let place = row * self.tiles.outputs + output as usize;
                        // SAFETY: an output is in one block, a block in one task.
                        unsafe { self.output.part(place, 1)[0] = y };
                    }
                }
            }
        }
    }
}
