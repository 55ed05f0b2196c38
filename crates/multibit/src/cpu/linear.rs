//! A linear layer made ready to run.

use alloc::vec;
use alloc::vec::Vec;

use super::generic::{
    Bitwise, Class, Classes, DENSE_ROWS, Dense, Entries, Exact, Int8, Lookup, MakeTables, PackRows,
    Scatter, empty_tables, inverse, scale,
};
use super::simd::{LANES, Line};
use super::threads::{self, Shared};
use super::tiles::{Sort, Tiles};
use super::{Affine, Arithmetic, Isa, KernelError, Levels, Mode, assert_arithmetic, assert_len};
use crate::packed::PackedWeight;

/// Rows of inputs from which expanding the weights to f32 is faster than look-up.
const EXPAND_ROWS: usize = 4;

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
    /// - `affine`: `[d_out]`, its residual `[batch, d_out]`
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
        affine.check("linear", &axes("d_out", d_out));
        if batch == 0 {
            return;
        }
        match mode {
            Mode::Exact if batch < EXPAND_ROWS => {
                let tables = self.tables::<Exact>(input, batch, &vec![1.0; batch]);
                self.lookup::<Exact>(&tables, &vec![1.0; batch], affine, output);
            }
            Mode::Exact => self.dense(input, batch, affine, output),
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
        let output = Shared::new(output);
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
            for (block, sums) in blocks.zip(sums.chunks_exact(rows)) {
                self.write(block, sums, Some(scales), affine, &output);
            }
        });
    }

    fn dense(&self, input: &[f32], batch: usize, affine: &Affine<'_>, output: &mut [f32]) {
        let row_tiles = batch.div_ceil(DENSE_ROWS);
        let mut panels = vec![[0.0; DENSE_ROWS]; row_tiles * self.d_in];
        let tiles = panels.chunks_exact_mut(self.d_in);
        for (panel, rows) in tiles.zip(input.chunks(DENSE_ROWS * self.d_in)) {
            for (r, row) in rows.chunks_exact(self.d_in).enumerate() {
                for (values, &x) in panel.iter_mut().zip(row) {
                    values[r] = x;
                }
            }
        }
        let output = Shared::new(output);
        let cost = self.tiles.blocks() * panels.len() * DENSE_ROWS;
        threads::for_each(self.tiles.blocks(), cost, |block| {
            let mut sums = vec![Line([0.0; LANES]); row_tiles * DENSE_ROWS];
            self.isa.run(Dense {
                tiles: &self.tiles,
                block,
                inputs: &panels,
                output: &mut sums,
            });
            self.write(block, &sums[..batch], None, affine, &output);
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
        let output = Shared::new(output);
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
            self.write(block, &sums, None, affine, &output);
        });
    }

    /// Writes the outputs of a block, `[rows, lanes]`. A block belongs to one task.
    fn write(
        &self,
        block: usize,
        sums: &[Line<f32>],
        scales: Option<&[f32]>,
        affine: &Affine<'_>,
        output: &Shared<'_, f32>,
    ) {
        self.isa.run(Scatter {
            sums,
            outputs: self.tiles.block_outputs(block),
            affine: self.tiles.affine(block, affine),
            ends: affine.ends(),
            scales,
            row: self.tiles.outputs,
            output,
        });
    }
}
