//! Floats × bits by look-up: four signs of a row choose one of 16 sums of four inputs.
//!
//! Let `T(b) = Σⱼ (−1)^bⱼ·xⱼ` be the sum of four inputs with the signs of a nibble `b`. Then
//! ```text
//! y = Σ_rows α·Σ_fours T(b)
//! ```
//! The 16 sums of each four are made once for a row of inputs and serve all outputs; then one look-up
//! does the work of four multiplications, for sixteen outputs at a time. Inputs behind the end of a
//! group are 0, so the padding of a row counts nothing.
//!
//! In int8 mode the sums are rounded to `t = round(T/s)` with one scale for the row of inputs,
//! `s = max(|x₀|+|x₁|+|x₂|+|x₃|) / 127` over its fours, so that `|T| ≤ 127·s` and `t` fits int8.
//! Each is wrong by at most `s/2`, and they are added exactly, in 32 bits: `y = s·Σ α·Σ t`. A row of
//! `n` weights has `⌈n/4⌉` sums and is wrong by at most `α·⌈n/4⌉·s/2`.

use core::ops::Range;

use crate::cpu::int8_scale;
use crate::cpu::simd::{LANES, Line, Simd, Tables, Task};
use crate::cpu::tiles::Tiles;

/// Rows of inputs that meet a line of weights at once.
const ROWS: usize = 4;

/// How sums of four inputs are kept and added.
pub(in crate::cpu) trait Entries: Copy + Send + Sync + Sized {
    /// Tables of 32 inputs: one word of weights.
    type Word: Copy + Send + Sync;
    /// A running sum.
    type Sum<S: Simd>: Copy;

    const EMPTY: Self::Word;
    /// Whether it looks bytes up.
    #[allow(dead_code, reason = "targets with one instruction set do not ask")]
    const BYTES: bool;

    /// The tables of up to 32 inputs, in place of empty ones, which are those of zeros behind them;
    /// `inverse` is `1/s`.
    fn tables<S: Simd>(simd: S, inputs: &[f32], inverse: f32, word: &mut Self::Word);
    fn zero<S: Simd>(simd: S) -> Self::Sum<S>;
    /// Adds what the words of 16 rows choose.
    fn add<S: Simd>(simd: S, sum: Self::Sum<S>, tables: &Self::Word, words: S::U) -> Self::Sum<S>;
    fn finish<S: Simd>(simd: S, sum: Self::Sum<S>) -> S::F;
}

/// Sums in f32.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Exact;

impl Entries for Exact {
    type Word = [Line<f32>; 8];
    type Sum<S: Simd> = S::F;

    const EMPTY: Self::Word = [Line([0.0; LANES]); 8];
    const BYTES: bool = false;

    #[inline(always)]
    fn tables<S: Simd>(simd: S, inputs: &[f32], _inverse: f32, word: &mut Self::Word) {
        for (table, inputs) in word.iter_mut().zip(inputs.chunks(4)) {
            simd.f_store(sums_of_four(simd, inputs), &mut table.0);
        }
    }

    #[inline(always)]
    fn zero<S: Simd>(simd: S) -> S::F {
        simd.f_splat(0.0)
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, sum: S::F, tables: &Self::Word, mut words: S::U) -> S::F {
        let mut sum = sum;
        for table in tables {
            sum = simd.f_add(sum, simd.entry(&table.0, words));
            words = simd.next_nibble(words);
        }
        sum
    }

    #[inline(always)]
    fn finish<S: Simd>(_simd: S, sum: S::F) -> S::F {
        sum
    }
}

/// Sums in int8.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Int8;

impl Entries for Int8 {
    /// Tables of the low and of the high nibbles.
    type Word = [Tables; 2];
    type Sum<S: Simd> = [S::U; 2];

    const EMPTY: Self::Word = [Tables([[0; LANES]; 4]); 2];
    const BYTES: bool = true;

    #[inline(always)]
    fn tables<S: Simd>(simd: S, inputs: &[f32], inverse: f32, word: &mut Self::Word) {
        for (nibble, inputs) in inputs.chunks(4).enumerate() {
            let sums = simd.f_mul(sums_of_four(simd, inputs), simd.f_splat(inverse));
            word[nibble % 2].0[nibble / 2] = simd.to_i8(sums);
        }
    }

    #[inline(always)]
    fn zero<S: Simd>(simd: S) -> [S::U; 2] {
        [simd.zero(); 2]
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, sum: [S::U; 2], tables: &Self::Word, words: S::U) -> Self::Sum<S> {
        [
            simd.add_low(sum[0], &tables[0], words),
            simd.add_high(sum[1], &tables[1], words),
        ]
    }

    #[inline(always)]
    fn finish<S: Simd>(simd: S, [low, high]: [S::U; 2]) -> S::F {
        simd.to_float(simd.add(low, high))
    }
}

/// `±x₀ ± x₁ ± x₂ ± x₃`, lane `i` with the signs of the bits of `i`; added in this order.
#[inline(always)]
fn sums_of_four<S: Simd>(simd: S, inputs: &[f32]) -> S::F {
    const SIGNS: [[f32; LANES]; 4] = {
        let mut signs = [[1.0; LANES]; 4];
        let mut i = 0;
        while i < 4 * LANES {
            let (input, lane) = (i / LANES, i % LANES);
            if lane >> input & 1 == 1 {
                signs[input][lane] = -1.0;
            }
            i += 1;
        }
        signs
    };
    let mut sum = simd.f_splat(0.0);
    for (&x, signs) in inputs.iter().zip(&SIGNS) {
        sum = simd.f_add(sum, simd.f_mul(simd.f_splat(x), simd.f_load(signs)));
    }
    sum
}

/// Rows of inputs × some blocks of outputs.
pub(in crate::cpu) struct Lookup<'a, E: Entries> {
    pub tiles: &'a Tiles,
    pub blocks: Range<usize>,
    /// `[rows, groups, words]`.
    pub tables: &'a [E::Word],
    pub rows: usize,
    /// Receives the sums, `[blocks, rows]`, on top of what is there.
    pub output: &'a mut [Line<f32>],
}

/// Makes the tables of one row of inputs.
pub(in crate::cpu) struct MakeTables<'a, E: Entries> {
    /// `[groups, len]`.
    pub inputs: &'a [f32],
    pub len: usize,
    pub inverse: f32,
    /// `[groups, words]`, empty.
    pub tables: &'a mut [E::Word],
}

impl<E: Entries> Task for MakeTables<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let words = self.len.div_ceil(32);
        let groups = self.inputs.chunks_exact(self.len);
        for (inputs, tables) in groups.zip(self.tables.chunks_exact_mut(words)) {
            for (inputs, table) in inputs.chunks(32).zip(tables) {
                E::tables(simd, inputs, self.inverse, table);
            }
        }
    }
}

impl<E: Entries> Task for Lookup<'_, E> {
    const BYTES: bool = E::BYTES;

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let tiles = self.tiles;
        for chunk in 0..tiles.chunks() {
            for block in self.blocks.clone() {
                let sums = (block - self.blocks.start) * self.rows;
                let steps = tiles.steps(chunk, block);
                let mut row = 0;
                while self.rows - row >= ROWS {
                    self.steps::<S, ROWS>(simd, steps.clone(), row, sums + row);
                    row += ROWS;
                }
                while row < self.rows {
                    self.steps::<S, 1>(simd, steps.clone(), row, sums + row);
                    row += 1;
                }
            }
        }
    }
}

impl<E: Entries> Lookup<'_, E> {
    /// All steps, in pairs where two are of the same group: these share the look-up tables.
    #[inline(always)]
    fn steps<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        steps: Range<usize>,
        row: usize,
        sums: usize,
    ) {
        let tiles = self.tiles;
        let output = self.output[sums..]
            .first_chunk_mut::<R>()
            .expect("one sum a row");
        let mut totals = [simd.f_splat(0.0); R];
        for (total, output) in totals.iter_mut().zip(output.iter()) {
            *total = simd.f_load(&output.0);
        }
        let mut step = steps.start;
        while step < steps.end {
            if step + 1 < steps.end && tiles.group(step) == tiles.group(step + 1) {
                add_steps::<S, E, R, 2>(simd, tiles, step, self.tables, row, &mut totals);
                step += 2;
            } else {
                add_steps::<S, E, R, 1>(simd, tiles, step, self.tables, row, &mut totals);
                step += 1;
            }
        }
        for (total, output) in totals.iter().zip(output) {
            simd.f_store(*total, &mut output.0);
        }
    }
}

#[inline(always)]
fn add_steps<S: Simd, E: Entries, const R: usize, const B: usize>(
    simd: S,
    tiles: &Tiles,
    step: usize,
    tables: &[E::Word],
    row: usize,
    totals: &mut [S::F; R],
) {
    let words = tiles.words;
    let row_words = tiles.groups * words;
    let first = row * row_words + tiles.group(step) * words;
    // The last of the tables that are read below.
    assert!(first + (R - 1) * row_words + words <= tables.len());
    let lines: [&[Line<u32>]; B] = core::array::from_fn(
        #[inline(always)]
        |basis| tiles.lines(step + basis),
    );
    let mut sums = [[E::zero(simd); R]; B];
    for word in 0..words {
        for (lines, sums) in lines.iter().zip(&mut sums) {
            let line = simd.load(&lines[word]);
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `first + r * row_words + word` is below the length asserted above.
                let table = unsafe { tables.get_unchecked(first + r * row_words + word) };
                *sum = E::add(simd, *sum, table, line);
            }
        }
    }
    for (basis, sums) in sums.iter().enumerate() {
        let alpha = simd.f_load(tiles.coordinates(step + basis));
        for (total, &sum) in totals.iter_mut().zip(sums) {
            *total = simd.f_fma(alpha, E::finish(simd, sum), *total);
        }
    }
}

/// A number in f32, or its bits.
pub(crate) trait Number {
    fn number(self) -> f32;
}

impl Number for f32 {
    #[inline(always)]
    fn number(self) -> f32 {
        self
    }
}

impl Number for u32 {
    #[inline(always)]
    fn number(self) -> f32 {
        f32::from_bits(self)
    }
}

/// `max(|x₀|+|x₁|+|x₂|+|x₃|) / 127` over the fours of all groups; NaN if an input is NaN or
/// infinite.
pub(crate) fn scale<T: Copy + Number>(inputs: &[T], len: usize) -> f32 {
    let mut largest: f32 = 0.0;
    let mut finite = true;
    for group in inputs.chunks_exact(len) {
        for four in group.chunks(4) {
            let sum: f32 = four.iter().map(|x| x.number().abs()).sum();
            finite &= sum.is_finite();
            largest = largest.max(sum);
        }
    }
    int8_scale(if finite { largest } else { f32::NAN })
}

/// `1/s`; 0 where all inputs are 0 or one is not finite.
pub(crate) fn inverse(scale: f32) -> f32 {
    if scale > 0.0 { 1.0 / scale } else { 0.0 }
}
