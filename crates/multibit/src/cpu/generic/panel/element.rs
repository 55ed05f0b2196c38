//! Weights in a panel: f32, or bytes.

use core::ops::Range;

use super::WORD;
use crate::cpu::generic::matrix::{Bytes, Element, OFFSET, Single, four_times};
use crate::cpu::integers::{Component, TOGETHER};
use crate::cpu::simd::{LANES, Line, Simd};
use crate::cpu::tiles::Tiles;

/// How weights are unpacked into lanes of outputs, and what their sums stand for.
pub(in crate::cpu) trait PanelElement: Element {
    fn zero<S: Simd>(simd: S) -> Self::Sum<S>;
    /// What a sum starts from.
    fn start<S: Simd>(simd: S, start: u32) -> Self::Sum<S>;
    /// Adds a sum to those before.
    fn finish<S: Simd>(simd: S, sum: Self::Sum<S>, scale: S::F, total: S::F) -> S::F;

    /// Unpacks a part of a group, for one of `N` blocks.
    fn unpack_lanes<S: Simd, const N: usize>(
        simd: S,
        part: Part<'_>,
        lines: &mut [[Line<u32>; N]],
        block: usize,
    );
}

/// Some bases and words of a group of a block.
pub(in crate::cpu) struct Part<'a> {
    pub tiles: &'a Tiles,
    pub bases: Range<usize>,
    pub words: Range<usize>,
    /// Steps that there are in the words.
    pub steps: usize,
    /// The bases' coordinates as bytes, if there are bases and the element needs them.
    pub component: Option<&'a Component>,
}

impl PanelElement for Single {
    #[inline(always)]
    fn zero<S: Simd>(simd: S) -> S::F {
        simd.f_splat(0.0)
    }

    #[inline(always)]
    fn start<S: Simd>(simd: S, _start: u32) -> S::F {
        simd.f_splat(0.0)
    }

    #[inline(always)]
    fn finish<S: Simd>(simd: S, sum: S::F, _scale: S::F, total: S::F) -> S::F {
        simd.f_add(total, sum)
    }

    #[inline(always)]
    fn unpack_lanes<S: Simd, const N: usize>(
        simd: S,
        part: Part<'_>,
        lines: &mut [[Line<u32>; N]],
        block: usize,
    ) {
        let Part {
            tiles,
            bases,
            words,
            ..
        } = part;
        for (word, lines) in words.zip(lines[..part.steps].chunks_mut(WORD)) {
            let step = bases.start;
            match bases.len() {
                0 => {
                    for line in lines {
                        line[block] = Line([0; LANES]);
                    }
                }
                1 => floats::<S, N, 1, false>(simd, tiles, step, word, lines, block),
                2 => floats::<S, N, 2, false>(simd, tiles, step, word, lines, block),
                3 => floats::<S, N, 3, false>(simd, tiles, step, word, lines, block),
                _ => {
                    floats::<S, N, 4, false>(simd, tiles, step, word, lines, block);
                    for step in step + 4..bases.end {
                        floats::<S, N, 1, true>(simd, tiles, step, word, lines, block);
                    }
                }
            }
        }
    }
}

/// The sum of `B` bases in f32; `ADD`ed to what is there.
///
/// The bits are brought to the sign of their lanes one after the other, the last first, each by
/// adding the words to themselves.
#[inline(always)]
fn floats<S: Simd, const N: usize, const B: usize, const ADD: bool>(
    simd: S,
    tiles: &Tiles,
    step: usize,
    word: usize,
    lines: &mut [[Line<u32>; N]],
    block: usize,
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
        let line = &mut line[block];
        let mut weight = simd.flip(alphas[0], bits[0], 31);
        for basis in 1..B {
            weight = simd.f_add(weight, simd.flip(alphas[basis], bits[basis], 31));
        }
        if ADD {
            weight = simd.f_add(weight, simd.as_floats(simd.load(line)));
        }
        simd.store(simd.as_words(weight), line);
        for bits in &mut bits {
            *bits = simd.add(*bits, *bits);
        }
    }
}

impl PanelElement for Bytes {
    #[inline(always)]
    fn zero<S: Simd>(simd: S) -> S::U {
        simd.zero()
    }

    #[inline(always)]
    fn start<S: Simd>(simd: S, start: u32) -> S::U {
        simd.splat(start)
    }

    #[inline(always)]
    fn finish<S: Simd>(simd: S, sum: S::U, scale: S::F, total: S::F) -> S::F {
        simd.f_fma(simd.to_float(sum), scale, total)
    }

    #[inline(always)]
    fn unpack_lanes<S: Simd, const N: usize>(
        simd: S,
        part: Part<'_>,
        lines: &mut [[Line<u32>; N]],
        block: usize,
    ) {
        let Some(component) = part.component else {
            for line in lines {
                line[block] = Line([four_times(OFFSET); LANES]);
            }
            return;
        };
        let multiples = simd.load(&component.multiples);
        match part.bases.len() {
            1 => bytes::<S, N, 1>(simd, part, multiples, lines, block),
            2 => bytes::<S, N, 2>(simd, part, multiples, lines, block),
            3 => bytes::<S, N, 3>(simd, part, multiples, lines, block),
            _ => bytes::<S, N, TOGETHER>(simd, part, multiples, lines, block),
        }
    }
}

/// Steps of a word of bits.
const STEPS: usize = WORD / Bytes::INPUTS;

/// Bits of the four weights of a step, which are neighbours: the lower half of a byte, or the upper.
const NIBBLES: [u32; 2] = [0x0804_0201, 0x8040_2010];

/// The weights of `B` bases as bytes.
#[inline(always)]
fn bytes<S: Simd, const N: usize, const B: usize>(
    simd: S,
    part: Part<'_>,
    multiples: S::U,
    lines: &mut [[Line<u32>; N]],
    block: usize,
) {
    let mut twice = [simd.zero(); B];
    // The weight if all bits are 0, and if that of the first basis is 1.
    let mut clear = simd.splat(four_times(OFFSET));
    for (basis, twice) in twice.iter_mut().enumerate() {
        let multiple = simd.repeat_byte(multiples, basis);
        clear = simd.add(clear, multiple);
        *twice = simd.add(multiple, multiple);
    }
    let all = simd.splat(u32::MAX);
    let set = simd.subtract_selected(clear, all, all, twice[0]);
    let lines = lines.as_chunks_mut::<STEPS>().0;
    for (word, lines) in part.words.zip(lines) {
        let mut bits = [simd.zero(); B];
        for (basis, bits) in bits.iter_mut().enumerate() {
            *bits = simd.load(&part.tiles.lines(part.bases.start + basis)[word]);
        }
        for byte in 0..STEPS / 2 {
            let mut repeated = [simd.zero(); B];
            for (repeated, &bits) in repeated.iter_mut().zip(&bits) {
                *repeated = simd.repeat_byte(bits, byte);
            }
            for (half, nibble) in NIBBLES.into_iter().enumerate() {
                let nibble = simd.splat(nibble);
                let mut weights = simd.select(repeated[0], nibble, set, clear);
                for basis in 1..B {
                    let (bits, twice) = (repeated[basis], twice[basis]);
                    weights = simd.subtract_selected(weights, bits, nibble, twice);
                }
                simd.store(weights, &mut lines[2 * byte + half][block]);
            }
        }
    }
}
