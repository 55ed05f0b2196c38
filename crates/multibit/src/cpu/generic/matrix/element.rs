//! What a step multiplies: one f32, or four bytes.

use super::depth::{Piece, SIGNS};
use super::weights::{Bases, Weights};
use crate::cpu::integers::{LARGEST, TOGETHER};
use crate::cpu::simd::{LANES, Line, Simd};

/// How inputs and weights are kept and multiplied. A step of either is a word of 32 bits.
pub(in crate::cpu) trait Element: Copy + Send + Sync + 'static {
    /// Inputs of a step.
    const INPUTS: usize;
    /// Bases that are unpacked together.
    const BASES: usize;
    /// Whether a piece starts from what [`Starts`](super::Starts) has made of its inputs.
    const STARTS: bool;

    /// A line of inputs, and the weight of an output in all lanes.
    type Word<S: Simd>: Copy;
    /// A running sum.
    type Sum<S: Simd>: Copy;

    fn load<S: Simd>(simd: S, words: &[u32; LANES]) -> Self::Word<S>;
    fn splat<S: Simd>(simd: S, word: u32) -> Self::Word<S>;
    fn product<S: Simd>(
        simd: S,
        sum: Self::Sum<S>,
        weight: Self::Word<S>,
        input: Self::Word<S>,
    ) -> Self::Sum<S>;

    /// What a block of pieces starts from, on top of the sums of the blocks before.
    fn begin<S: Simd>(simd: S, total: &Line<f32>) -> Self::Sum<S>;
    /// What a piece starts from.
    fn enter<S: Simd>(simd: S, sum: Self::Sum<S>, start: &Line<u32>) -> Self::Sum<S>;
    /// Where the sum of a piece goes, on top of the total unless it is the first.
    fn leave<S: Simd>(
        simd: S,
        sum: Self::Sum<S>,
        scale: f32,
        is_first: bool,
        total: &mut Line<f32>,
    );
    /// Where the sum of a block goes.
    fn end<S: Simd>(simd: S, sum: Self::Sum<S>, total: &mut Line<f32>);

    /// Unpacks the weights of a piece, and up to [`SIGNS`] words behind them; returns their scale.
    fn unpack<S: Simd>(
        simd: S,
        weights: &Weights<'_>,
        piece: &Piece,
        bases: Bases,
        words: &mut [u32],
    ) -> f32;
}

/// Inputs and weights in f32.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Single;

impl Element for Single {
    const INPUTS: usize = 1;
    const BASES: usize = crate::MAX_BITS;
    const STARTS: bool = false;

    type Word<S: Simd> = S::F;
    type Sum<S: Simd> = S::F;

    #[inline(always)]
    fn load<S: Simd>(simd: S, words: &[u32; LANES]) -> S::F {
        simd.as_floats(simd.load_words(words))
    }

    #[inline(always)]
    fn splat<S: Simd>(simd: S, word: u32) -> S::F {
        simd.f_splat(f32::from_bits(word))
    }

    #[inline(always)]
    fn product<S: Simd>(simd: S, sum: S::F, weight: S::F, input: S::F) -> S::F {
        simd.f_fma(weight, input, sum)
    }

    #[inline(always)]
    fn begin<S: Simd>(simd: S, total: &Line<f32>) -> S::F {
        simd.f_load(&total.0)
    }

    #[inline(always)]
    fn enter<S: Simd>(_simd: S, sum: S::F, _start: &Line<u32>) -> S::F {
        sum
    }

    #[inline(always)]
    fn leave<S: Simd>(_: S, _: S::F, _: f32, _: bool, _: &mut Line<f32>) {}

    #[inline(always)]
    fn end<S: Simd>(simd: S, sum: S::F, total: &mut Line<f32>) {
        simd.f_store(sum, &mut total.0);
    }

    #[inline(always)]
    fn unpack<S: Simd>(
        simd: S,
        weights: &Weights<'_>,
        piece: &Piece,
        bases: Bases,
        words: &mut [u32],
    ) -> f32 {
        let lines = words.as_chunks_mut::<LANES>().0;
        let lines = &mut lines[..piece.steps.div_ceil(LANES)];
        if bases.width == 0 {
            lines.as_flattened_mut().fill(0);
            return 0.0;
        }
        weights.check(bases);
        for first in (0..bases.width).step_by(TOGETHER) {
            let place = piece.first / SIGNS;
            match bases.width - first {
                1 => unpack_floats::<S, 1>(simd, weights, bases, first, place, lines),
                2 => unpack_floats::<S, 2>(simd, weights, bases, first, place, lines),
                3 => unpack_floats::<S, 3>(simd, weights, bases, first, place, lines),
                _ => unpack_floats::<S, TOGETHER>(simd, weights, bases, first, place, lines),
            }
        }
        1.0
    }
}

/// The weights of `B` bases from the `first` on, in f32, on top of those of the bases before;
/// `place` is that of the first [`SIGNS`] in their row. [`Weights::check`] has seen the bases.
#[inline(always)]
fn unpack_floats<S: Simd, const B: usize>(
    simd: S,
    weights: &Weights<'_>,
    bases: Bases,
    first: usize,
    place: usize,
    lines: &mut [[u32; LANES]],
) {
    let mut alphas = [simd.f_splat(0.0); B];
    for (basis, alpha) in alphas.iter_mut().enumerate() {
        *alpha = simd.f_splat(weights.coordinate(bases, first + basis));
    }
    for (part, lines) in lines.chunks_mut(SIGNS / LANES).enumerate() {
        let mut signs = [0; B];
        for (basis, signs) in signs.iter_mut().enumerate() {
            // SAFETY: the caller has checked the bases; a piece lies within its group.
            *signs = unsafe { weights.signs(bases, first + basis, place + part) };
        }
        for line in lines {
            let mut weight = simd.flip_lanes(alphas[0], signs[0] as u32);
            if first > 0 {
                weight = simd.f_add(simd.as_floats(simd.load_words(line)), weight);
            }
            for basis in 1..B {
                let signed = simd.flip_lanes(alphas[basis], signs[basis] as u32);
                weight = simd.f_add(weight, signed);
            }
            simd.store_words(simd.as_words(weight), line);
            for signs in &mut signs {
                *signs >>= LANES;
            }
        }
    }
}

/// Inputs rounded to int8, and weights whose coordinates are rounded to [`LARGEST`] steps.
///
/// The instructions multiply bytes without sign by bytes with one, so a weight `w` is kept as
/// `w + OFFSET`, and the sum starts at `−OFFSET·Σ x`, which is the same for all outputs.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Bytes;

/// What is added to a weight.
pub(in crate::cpu::generic) const OFFSET: u8 = LARGEST + 1;

/// The same byte four times.
#[inline(always)]
pub(in crate::cpu::generic) fn four_times(byte: u8) -> u32 {
    u32::from_ne_bytes([byte; 4])
}

impl Element for Bytes {
    const INPUTS: usize = 4;
    const BASES: usize = TOGETHER;
    const STARTS: bool = true;

    type Word<S: Simd> = S::U;
    type Sum<S: Simd> = S::U;

    #[inline(always)]
    fn load<S: Simd>(simd: S, words: &[u32; LANES]) -> S::U {
        simd.load_words(words)
    }

    #[inline(always)]
    fn splat<S: Simd>(simd: S, word: u32) -> S::U {
        simd.splat(word)
    }

    #[inline(always)]
    fn product<S: Simd>(simd: S, sum: S::U, weight: S::U, input: S::U) -> S::U {
        simd.add_products(sum, weight, input)
    }

    #[inline(always)]
    fn begin<S: Simd>(simd: S, _total: &Line<f32>) -> S::U {
        simd.zero()
    }

    #[inline(always)]
    fn enter<S: Simd>(simd: S, _sum: S::U, start: &Line<u32>) -> S::U {
        simd.load(start)
    }

    #[inline(always)]
    fn leave<S: Simd>(simd: S, sum: S::U, scale: f32, is_first: bool, total: &mut Line<f32>) {
        let before = match is_first {
            true => simd.f_splat(0.0),
            false => simd.f_load(&total.0),
        };
        let sum = simd.f_fma(simd.to_float(sum), simd.f_splat(scale), before);
        simd.f_store(sum, &mut total.0);
    }

    #[inline(always)]
    fn end<S: Simd>(_simd: S, _sum: S::U, _total: &mut Line<f32>) {}

    #[inline(always)]
    fn unpack<S: Simd>(
        simd: S,
        weights: &Weights<'_>,
        piece: &Piece,
        bases: Bases,
        words: &mut [u32],
    ) -> f32 {
        let lines = words.as_chunks_mut::<LANES>().0;
        let lines = &mut lines[..piece.steps.div_ceil(LANES)];
        let first = TOGETHER * piece.component;
        match bases.width.saturating_sub(first) {
            0 => {
                lines.as_flattened_mut().fill(four_times(OFFSET));
                return 0.0;
            }
            1 => unpack_bytes::<S, 1>(simd, weights, piece, bases, lines),
            2 => unpack_bytes::<S, 2>(simd, weights, piece, bases, lines),
            3 => unpack_bytes::<S, 3>(simd, weights, piece, bases, lines),
            _ => unpack_bytes::<S, TOGETHER>(simd, weights, piece, bases, lines),
        }
        weights.step(bases, piece.component)
    }
}

/// The weights of `B` bases, as bytes.
#[inline(always)]
fn unpack_bytes<S: Simd, const B: usize>(
    simd: S,
    weights: &Weights<'_>,
    piece: &Piece,
    bases: Bases,
    lines: &mut [[u32; LANES]],
) {
    let first = TOGETHER * piece.component;
    let mut multiples = [0; B];
    for (basis, multiple) in multiples.iter_mut().enumerate() {
        *multiple = weights.multiple(bases, first + basis);
    }
    let sum: u8 = multiples.iter().sum();
    let all = simd.splat(four_times(OFFSET + sum));
    let place = piece.first * Bytes::INPUTS / SIGNS;
    let valid = weights.valid(piece.group, place);
    weights.check(bases);
    for (i, line) in lines.iter_mut().enumerate() {
        let mut bytes = all;
        if let Some(valid) = valid {
            bytes = simd.subtract_where(bytes, !valid[i], sum);
        }
        for (basis, multiple) in multiples.iter().enumerate() {
            // SAFETY: checked above; a piece lies within its group.
            let signs = unsafe { weights.signs(bases, first + basis, place + i) };
            bytes = simd.subtract_where(bytes, signs, 2 * multiple);
        }
        simd.store_words(bytes, line);
    }
}
