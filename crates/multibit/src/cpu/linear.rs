//! A linear layer made ready to run.

mod rows;

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::few::Few;
use super::generic::{
    Bitwise, Class, Classes, Entries, Exact, Int8, Lookup, MakeTables, PackRows, Scatter, inverse,
    scale,
};
use super::integers::Components;
use super::simd::{LANES, Line};
use super::threads::{self, Shared};
use super::tiles::{Sort, Tiles};
use super::{
    Affine, Arithmetic, INT8_ROWS, Isa, KernelError, Levels, Mode, assert_arithmetic, assert_len,
};
use crate::packed::PackedWeight;
use rows::Rows;

/// Rows of inputs in f32 whose look-up tables the first cache does not hold.
const EXACT_ROWS: usize = 16;

/// Words of inputs in all rows whose look-up tables lie on the stack, 2 KiB in f32.
const FEW_WORDS: usize = 4;

/// Lines of sums that lie on the stack: outputs of one row, or rows of 16 outputs.
const FEW_LINES: usize = 16;

/// Where a kernel's outputs lie in rows.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The first output, in the first row.
    first: usize,
    /// Values of a row.
    row: usize,
    output: &'a Shared<'a, f32>,
}

/// A packed weight `[d_in, d_out]` in tiles, with its arithmetic.
pub struct LinearKernel {
    d_in: usize,
    tiles: Tiles,
    /// The coordinates of products of bytes; in int8.
    components: Components,
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
        let len = weight.grouping().len();
        let words = len.div_ceil(32);
        let tiles = Tiles::new(weight, 0..d_out, words, &[], arithmetic, Sort::All);
        Ok(Self {
            d_in,
            components: if arithmetic == Arithmetic::Int8 {
                Components::new(&tiles)
            } else {
                Components::default()
            },
            tiles,
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
        Self::forward_all(core::iter::once(self), mode, input, batch, affine, output);
    }

    /// Several weights over the same inputs, such as query, key and value: the inputs are rounded
    /// and laid out once where the weights cut them into groups of the same length.
    ///
    /// Each row of the output is that of the first kernel, then that of the second, and so on, each
    /// equal to [`forward`](Self::forward).
    ///
    /// # Shapes
    /// - `input`: `[batch, d_in]`; the batch may be 0
    /// - `affine`: `[Σ d_out]`, its residual `[batch, Σ d_out]`
    /// - `output`: `[batch, Σ d_out]`, written whole
    ///
    /// # Panics
    /// If a slice has another length, a kernel another `d_in` than the first, or the mode another
    /// arithmetic.
    pub fn forward_all<'a>(
        kernels: impl Iterator<Item = &'a Self> + Clone,
        mode: &Mode,
        input: &[f32],
        batch: usize,
        affine: &Affine<'_>,
        output: &mut [f32],
    ) {
        let axes = |name, size| [("batch", batch), (name, size)];
        let mut d_out = 0;
        for kernel in kernels.clone() {
            assert_arithmetic("linear", kernel.arithmetic, mode);
            assert_len("linear", "input", input.len(), &axes("d_in", kernel.d_in));
            d_out += kernel.tiles.outputs;
        }
        assert_len("linear", "output", output.len(), &axes("d_out", d_out));
        affine.check("linear", &[("d_out", d_out)], &axes("d_out", d_out));
        if batch == 0 {
            return;
        }
        let mut place = Place {
            first: 0,
            row: d_out,
            output: &Shared::new(output),
        };
        let mut rounded = None;
        for kernel in kernels {
            let outputs = place.first..place.first + kernel.tiles.outputs;
            let affine = affine.part(outputs.clone());
            kernel.forward_at(mode, input, batch, &affine, &mut rounded, &place);
            place.first = outputs.end;
        }
    }

    /// Writes the outputs at their place; `rounded` is what another kernel has made of the inputs.
    fn forward_at(
        &self,
        mode: &Mode,
        input: &[f32],
        batch: usize,
        affine: &Affine<'_>,
        rounded: &mut Option<Rows<'static>>,
        place: &Place<'_>,
    ) {
        match mode {
            Mode::Exact if self.unpacks(batch) => self.exact_rows(input, batch, affine, place),
            Mode::Exact => {
                let ones = [1.0; EXACT_ROWS];
                self.lookup::<Exact>(input, &ones[..batch], &ones[..batch], affine, place);
            }
            Mode::Int8 if batch < INT8_ROWS => {
                let [mut scales, mut inverses] = [[0.0; INT8_ROWS]; 2];
                for (i, row) in input.chunks_exact(self.d_in).enumerate() {
                    scales[i] = scale(row, self.tiles.len);
                    inverses[i] = inverse(scales[i]);
                }
                self.lookup::<Int8>(input, &inverses[..batch], &scales[..batch], affine, place);
            }
            Mode::Int8 => self.int8_rows(input, batch, affine, rounded, place),
            // Counting bits takes about as long for one row as for some.
            Mode::Bitwise(levels) if 2 * batch <= levels.bits().max(2) => {
                let mut room = Few::<f32, { 32 * FEW_WORDS }>::new();
                let values = room.fill(0.0, input.len());
                levels.quantize_on(self.isa, input, values);
                self.forward_at(&Mode::Exact, values, batch, affine, rounded, place);
            }
            Mode::Bitwise(levels) => self.bitwise(levels, input, batch, affine, place),
        }
    }

    /// Whether so many rows of inputs in f32 are multiplied with unpacked weights sooner than they are
    /// looked up.
    ///
    /// Estimates how many cycles each takes for an input, from counted instructions and times on
    /// Cascade Lake; other instruction sets than AVX-512 take longer for both, in about this proportion.
    fn unpacks(&self, rows: usize) -> bool {
        if rows >= EXACT_ROWS {
            return true;
        }
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

    /// Sums of looked up entries; `inverses` is what each row is multiplied by before it is rounded,
    /// `scales` what its sums are multiplied by.
    fn lookup<E: Entries>(
        &self,
        input: &[f32],
        inverses: &[f32],
        scales: &[f32],
        affine: &Affine<'_>,
        place: &Place<'_>,
    ) {
        let rows = scales.len();
        let row_tables = self.tiles.groups * self.tiles.words;
        let mut room = Few::<E::Word, FEW_WORDS>::new();
        let tables = room.fill(E::EMPTY, rows * row_tables);
        let shared = Shared::new(tables);
        threads::for_each(rows, 4 * input.len(), |row| {
            self.isa.run(MakeTables::<E> {
                inputs: &input[row * self.d_in..][..self.d_in],
                len: self.tiles.len,
                inverse: inverses[row],
                // SAFETY: each row has tables of its own.
                tables: unsafe { shared.part(row * row_tables, row_tables) },
            });
        });
        let tables = &*tables;
        // Some blocks at a time share the tables of a chunk while these are in the cache.
        let part = self.tiles.blocks().div_ceil(threads::parts());
        let cost = 8 * rows * self.tiles.size();
        threads::for_each(self.tiles.blocks().div_ceil(part), cost, |task| {
            let blocks = task * part..self.tiles.blocks().min((task + 1) * part);
            let mut room = Few::<_, FEW_LINES>::new();
            let sums = room.fill(Line([0.0; LANES]), blocks.len() * rows);
            self.isa.run(Lookup::<E> {
                tiles: &self.tiles,
                blocks: blocks.clone(),
                tables,
                rows,
                output: sums,
            });
            self.scatter(blocks, sums, Some(scales), affine, place);
        });
    }

    fn bitwise(
        &self,
        levels: &Levels,
        input: &[f32],
        batch: usize,
        affine: &Affine<'_>,
        place: &Place<'_>,
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
            self.scatter(block..block + 1, &sums, None, affine, place);
        });
    }
    /// Writes the sums of some blocks, `[blocks, rows, lanes]`. A block must belong to one task.
    fn scatter(
        &self,
        blocks: Range<usize>,
        sums: &[Line<f32>],
        scales: Option<&[f32]>,
        affine: &Affine<'_>,
        place: &Place<'_>,
    ) {
        let rows = sums.len() / blocks.len();
        for (block, sums) in blocks.zip(sums.chunks_exact(rows)) {
            self.isa.run(self.block(block, sums, scales, affine, place));
        }
    }

    /// The end of the sums of a block.
    fn block<'a>(
        &'a self,
        block: usize,
        sums: &'a [Line<f32>],
        scales: Option<&'a [f32]>,
        affine: &Affine<'a>,
        place: &'a Place<'_>,
    ) -> Scatter<'a> {
        Scatter {
            sums,
            outputs: self.tiles.block_outputs(block),
            affine: self.tiles.affine(block, affine),
            ends: affine.ends(),
            scales,
            first: place.first,
            row: place.row,
            output: place.output,
        }
    }
}
