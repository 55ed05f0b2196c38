//! Rows of inputs → bytes.

use super::Pieces;
use crate::cpu::generic::matrix::OFFSET;
use crate::cpu::generic::{inverse, words::largest};
use crate::cpu::int8_scale;
use crate::cpu::simd::{LANES, Line, Simd, Task, first_lanes};

/// Rounds rows of inputs to int8.
pub(in crate::cpu) struct RoundRows<'a> {
    /// `[rows, groups, len]`.
    pub input: &'a [f32],
    pub groups: usize,
    /// Inputs of a group.
    pub len: usize,
    pub pieces: Pieces,
    /// Receives the bytes in fours, `[rows, row]`; a row begins with its groups, `[groups, steps]`, a
    /// group with a new word.
    pub words: &'a mut [u32],
    /// Distance of rows.
    pub row: usize,
    /// Receives what the pieces start from, `[rows, groups, pieces]`: `−OFFSET·Σ x`.
    pub starts: &'a mut [u32],
    /// Receives the scales.
    pub scales: &'a mut [f32],
}

/// What is added to a small number becomes a whole one in the lowest bits.
const WHOLE: f32 = (3 << 22) as f32;

impl Task for RoundRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (len, groups, pieces) = (self.len, self.groups, self.pieces);
        let rows = self
            .input
            .chunks_exact((groups * len).max(1))
            .zip(self.scales);
        let words = self.words.chunks_exact_mut(self.row);
        let starts = self.starts.chunks_exact_mut((groups * pieces.count).max(1));
        for (((input, scale), words), starts) in rows.zip(words).zip(starts) {
            *scale = round_row(simd, input, len, pieces, words, starts);
        }
    }
}

/// Rounds a row; returns its scale.
#[inline(always)]
fn round_row<S: Simd>(
    simd: S,
    input: &[f32],
    len: usize,
    pieces: Pieces,
    words: &mut [u32],
    starts: &mut [u32],
) -> f32 {
    let scale = int8_scale(largest(input));
    let inverse = simd.f_splat(inverse(scale));
    let groups = input.chunks_exact(len);
    let words = words.chunks_exact_mut(pieces.steps);
    let starts = starts.chunks_exact_mut(pieces.count);
    for ((inputs, words), starts) in groups.zip(words).zip(starts) {
        let inputs = inputs.chunks(4 * pieces.piece);
        let words = words.chunks_mut(pieces.piece);
        for ((inputs, words), start) in inputs.zip(words).zip(starts) {
            let (mut sums, mut vectors) = (simd.zero(), 0u32);
            let (whole, rest) = inputs.as_chunks::<LANES>();
            let (whole_words, rest_words) = words.split_at_mut(whole.len() * LANES / 4);
            let whole_words = whole_words.as_chunks_mut().0;
            for (values, words) in whole.iter().zip(whole_words) {
                let (words_of, sum) = round(simd, values, inverse, sums);
                (*words, sums) = (words_of, sum);
                vectors += 1;
            }
            if !rest.is_empty() {
                let (words_of, sum) = round(simd, &first_lanes(rest), inverse, sums);
                rest_words.copy_from_slice(&words_of[..rest_words.len()]);
                sums = sum;
                vectors += 1;
            }
            let mut lanes = Line([0; LANES]);
            simd.store(sums, &mut lanes);
            let none = (LANES as u32 * vectors).wrapping_mul(WHOLE.to_bits());
            let mut sum = none.wrapping_neg();
            for lane in lanes.0 {
                sum = sum.wrapping_add(lane);
            }
            *start = sum.wrapping_mul(u32::from(OFFSET)).wrapping_neg();
        }
    }
    scale
}

/// Sixteen inputs as bytes in fours, and their sum in whole numbers, each with the bits of
/// [`WHOLE`], on top of what is there.
#[inline(always)]
fn round<S: Simd>(
    simd: S,
    values: &[f32; LANES],
    inverse: S::F,
    sums: S::U,
) -> ([u32; LANES / 4], S::U) {
    let x = simd.f_mul(simd.f_load(values), inverse);
    let mut words = [0; LANES / 4];
    let bytes = simd.to_i8(x);
    for (word, four) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(four.map(
            #[inline(always)]
            |x| x as u8,
        ));
    }
    // Rounded as the bytes are.
    let whole = simd.f_add(x, simd.f_splat(WHOLE));
    (words, simd.add(sums, simd.as_words(whole)))
}
