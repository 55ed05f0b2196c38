//! Floats × bits by unpacking, for some rows of inputs: the weights of a block become f32 in the
//! first cache, a panel at a time, and are multiplied with all rows while they are there.
//!
//! The bits of 16 weights are brought to the sign of their lanes one after the other, each by adding
//! the words to themselves, so that a weight of `I` bases takes `3·I − 1` operations.

use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::cpu::tiles::Tiles;

/// Rows come in pairs.
pub(in crate::cpu) const PAIR: usize = 2;

/// Bits of a word.
const WORD: usize = 32;

/// Lines of a panel, whole words.
const PANEL: usize = 4 * WORD;

/// One block of outputs × all rows of inputs.
pub(in crate::cpu) struct FewRows<'a> {
    pub tiles: &'a Tiles,
    pub block: usize,
    /// `[inputs, rows]`.
    pub inputs: &'a [f32],
    /// Receives the sums of a row, on top of what is there; whole pairs of rows.
    pub output: &'a mut [Line<f32>],
}

impl Task for FewRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let tiles = self.tiles;
        let rows = self.output.len();
        assert!(rows.is_multiple_of(PAIR), "rows come in pairs");
        let mut panel = Panel {
            lines: [Line([0.0; LANES]); PANEL],
            len: 0,
            first: 0,
            inputs: self.inputs,
            rows,
        };
        for chunk in 0..tiles.chunks() {
            let steps = tiles.steps(chunk, self.block);
            let mut first = steps.start;
            while first < steps.end {
                let group = tiles.group(first);
                let mut end = first + 1;
                while end < steps.end && tiles.group(end) == group {
                    end += 1;
                }
                for word in 0..tiles.words {
                    let place = group * tiles.len + word * WORD;
                    let count = (tiles.len - word * WORD).min(WORD);
                    if panel.len + count > PANEL || panel.first + panel.len != place {
                        panel.flush(simd, self.output);
                        panel.first = place;
                    }
                    let lines = &mut panel.lines[panel.len..][..count];
                    unpack_word(simd, tiles, first..end, word, lines);
                    panel.len += count;
                }
                first = end;
            }
        }
        panel.flush(simd, self.output);
    }
}

/// The weights of a word, of a group with these steps.
#[inline(always)]
fn unpack_word<S: Simd>(
    simd: S,
    tiles: &Tiles,
    steps: core::ops::Range<usize>,
    word: usize,
    lines: &mut [Line<f32>],
) {
    let step = steps.start;
    match steps.len() {
        1 => unpack::<S, 1, false>(simd, tiles, step, word, lines),
        2 => unpack::<S, 2, false>(simd, tiles, step, word, lines),
        3 => unpack::<S, 3, false>(simd, tiles, step, word, lines),
        _ => {
            unpack::<S, 4, false>(simd, tiles, step, word, lines);
            for step in step + 4..steps.end {
                unpack::<S, 1, true>(simd, tiles, step, word, lines);
            }
        }
    }
}

/// The sum of `B` bases; `ADD`ed to what is there.
#[inline(always)]
fn unpack<S: Simd, const B: usize, const ADD: bool>(
    simd: S,
    tiles: &Tiles,
    step: usize,
    word: usize,
    lines: &mut [Line<f32>],
) {
    let mut bits = [simd.zero(); B];
    let mut alphas = [simd.f_splat(0.0); B];
    for (basis, (bits, alpha)) in bits.iter_mut().zip(&mut alphas).enumerate() {
        *bits = simd.load(&tiles.lines(step + basis)[word]);
        *alpha = simd.f_load(tiles.coordinates(step + basis));
        for _ in lines.len()..WORD {
            *bits = simd.add(*bits, *bits);
        }
    }
    for line in lines.iter_mut().rev() {
        let mut weight = simd.flip(alphas[0], bits[0], 31);
        for basis in 1..B {
            weight = simd.f_add(weight, simd.flip(alphas[basis], bits[basis], 31));
        }
        if ADD {
            weight = simd.f_add(weight, simd.f_load(&line.0));
        }
        simd.f_store(weight, &mut line.0);
        for bits in &mut bits {
            *bits = simd.add(*bits, *bits);
        }
    }
}

/// Some weights of 16 outputs, in f32.
struct Panel<'a> {
    lines: [Line<f32>; PANEL],
    /// How many there are.
    len: usize,
    /// The input of the first; the others follow.
    first: usize,
    /// `[inputs, rows]`.
    inputs: &'a [f32],
    rows: usize,
}

impl Panel<'_> {
    /// Multiplies with all rows, and forgets the lines.
    #[inline(always)]
    fn flush<S: Simd>(&mut self, simd: S, output: &mut [Line<f32>]) {
        let mut row = 0;
        while row < self.rows {
            // As many sums as hide the time that each takes; rows with few are summed in turns.
            row += match self.rows - row {
                16.. if S::REGISTERS >= 32 => self.multiply::<S, 16, 1>(simd, row, output),
                12.. if S::REGISTERS >= 32 => self.multiply::<S, 12, 1>(simd, row, output),
                8.. if S::REGISTERS >= 32 => self.multiply::<S, 8, 1>(simd, row, output),
                4.. if S::REGISTERS >= 32 => self.multiply::<S, 4, 2>(simd, row, output),
                4.. => self.multiply::<S, 4, 1>(simd, row, output),
                _ => self.multiply::<S, 2, 2>(simd, row, output),
            };
        }
        self.len = 0;
    }

    /// `R` rows from `row` on, `T` lines in turns.
    #[inline(always)]
    fn multiply<S: Simd, const R: usize, const T: usize>(
        &self,
        simd: S,
        row: usize,
        output: &mut [Line<f32>],
    ) -> usize {
        let output: &mut [_; R] = output[row..].first_chunk_mut().expect("as many rows");
        let inputs = &self.inputs[self.first * self.rows..][..self.len * self.rows];
        let mut sums = [[simd.f_splat(0.0); R]; T];
        let (whole, rest) = self.lines[..self.len].as_chunks::<T>();
        for (lines, inputs) in whole.iter().zip(inputs.chunks_exact(T * self.rows)) {
            for (t, (line, sums)) in lines.iter().zip(&mut sums).enumerate() {
                add_products(simd, line, &inputs[t * self.rows + row..], sums);
            }
        }
        let rest_inputs = &inputs[(self.len - rest.len()) * self.rows..];
        for (line, inputs) in rest.iter().zip(rest_inputs.chunks_exact(self.rows)) {
            add_products(simd, line, &inputs[row..], &mut sums[0]);
        }
        for (r, line) in output.iter_mut().enumerate() {
            let mut total = simd.f_load(&line.0);
            for sums in &sums {
                total = simd.f_add(total, sums[r]);
            }
            simd.f_store(total, &mut line.0);
        }
        R
    }
}

/// `sums + weights·x` for each of `R` rows.
#[inline(always)]
fn add_products<S: Simd, const R: usize>(
    simd: S,
    weights: &Line<f32>,
    inputs: &[f32],
    sums: &mut [S::F; R],
) {
    let weights = simd.f_load(&weights.0);
    let inputs: &[f32; R] = inputs.first_chunk().expect("as many rows");
    for (sum, &x) in sums.iter_mut().zip(inputs) {
        *sum = simd.f_fma(simd.f_splat(x), weights, *sum);
    }
}
