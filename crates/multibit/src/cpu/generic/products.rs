//! Bytes × signs: the inputs as bytes, the bits of a weight as ±1, four products at a time.
//!
//! `Σ b·q` for inputs `q` of −127 to 127, stored as `u = q + 128`, is `−128·Σ b + Σ b·u`: a total
//! begins at the first term, and each instruction adds four products for 16 outputs. The module of
//! convolutions in int8 derives it, and says how inputs become bytes.

use alloc::vec::Vec;

use super::bitwise::Output;
use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::cpu::tiles::Tiles;

/// What is added to an input's int8, so that it has no sign.
pub(in crate::cpu) const BIAS: u8 = 128;

/// Four bytes of the input and their weights.
pub(in crate::cpu) struct Signs<'a> {
    /// Coordinates, and the steps of each block.
    pub tiles: &'a Tiles,
    /// Four signs a lane; the quads of a step one after the other.
    pub lines: &'a [Line<u32>],
    /// The first line of each step.
    pub firsts: &'a [usize],
    /// `−BIAS·Σ signs` of each step.
    pub starts: &'a [Line<u32>],
}

/// Positions side by side.
pub(in crate::cpu) struct Run {
    /// Where the first one's bytes begin.
    pub base: usize,
    /// Its place in the output.
    pub place: usize,
    pub count: usize,
}

/// One block of outputs at some positions of one image.
pub(in crate::cpu) struct Products<'a, O> {
    pub signs: Signs<'a>,
    pub block: usize,
    pub bytes: &'a [u8],
    /// How far the quads of each group lie behind a position's base.
    pub offsets: &'a [Vec<usize>],
    pub runs: &'a [Run],
    /// Distance of the bases of neighbours.
    pub step: usize,
    /// What an input's 1 stands for.
    pub scale: f32,
    pub output: O,
}

impl<O: Output> Task for Products<'_, O> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let ends = self
            .runs
            .iter()
            .map(|run| run.base + (run.count - 1) * self.step);
        let reach = self.offsets.iter().flatten().max().copied().unwrap_or(0);
        let end = ends.max().map_or(0, |base| base + reach + 4);
        assert!(end <= self.bytes.len(), "quads lie outside of the bytes");
        for run in self.runs {
            let mut first = 0;
            if S::REGISTERS >= 32 {
                while run.count - first >= 12 {
                    self.tile::<S, 12>(simd, run, first);
                    first += 12;
                }
                while run.count - first >= 4 {
                    self.tile::<S, 4>(simd, run, first);
                    first += 4;
                }
            }
            while run.count - first >= 2 {
                self.tile::<S, 2>(simd, run, first);
                first += 2;
            }
            if first < run.count {
                self.tile::<S, 1>(simd, run, first);
            }
        }
    }
}

impl<O: Output> Products<'_, O> {
    /// `W` positions of a run from `first` on.
    #[inline(always)]
    fn tile<S: Simd, const W: usize>(&mut self, simd: S, run: &Run, first: usize) {
        let base = run.base + first * self.step;
        let tiles = self.signs.tiles;
        let mut sums = [simd.f_splat(0.0); W];
        for chunk in 0..tiles.chunks() {
            for step in tiles.steps(chunk, self.block) {
                let mut totals = [simd.load(&self.signs.starts[step]); W];
                let offsets = &self.offsets[tiles.group(step)];
                let lines = &self.signs.lines[self.signs.firsts[step]..][..offsets.len()];
                for (line, offset) in lines.iter().zip(offsets) {
                    let line = simd.load(line);
                    let mut at = base + offset;
                    for total in &mut totals {
                        // SAFETY: `run` has seen that all quads of all positions lie inside.
                        let quad = unsafe { self.bytes.get_unchecked(at..at + 4) };
                        let quad = u32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]);
                        *total = simd.add_products(*total, simd.splat(quad), line);
                        at += self.step;
                    }
                }
                let alpha = simd.f_load(tiles.coordinates(step));
                for (sum, &total) in sums.iter_mut().zip(&totals) {
                    *sum = simd.f_fma(alpha, simd.to_float(total), *sum);
                }
            }
        }
        let scale = simd.f_splat(self.scale);
        for (w, &sum) in sums.iter().enumerate() {
            self.output
                .take(simd, run.place + first + w, simd.f_mul(sum, scale));
        }
    }
}

/// Values rounded to int8, plus [`BIAS`].
pub(in crate::cpu) struct ToBytes<'a> {
    pub values: &'a [f32],
    /// `1 / scale`.
    pub inverse: f32,
    pub bytes: &'a mut [u8],
}

impl Task for ToBytes<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let inverse = simd.f_splat(self.inverse);
        let mut x = [0.0; LANES];
        for (values, bytes) in self.values.chunks(LANES).zip(self.bytes.chunks_mut(LANES)) {
            x[..values.len()].copy_from_slice(values);
            let rounded = simd.to_i8(simd.f_mul(simd.f_load(&x), inverse));
            for (byte, x) in bytes.iter_mut().zip(rounded) {
                // `x + 128` in two's complement.
                *byte = x as u8 ^ BIAS;
            }
        }
    }
}

/// The largest absolute value; NaN if one is not finite.
pub(in crate::cpu) struct Largest<'a> {
    pub values: &'a [f32],
    pub largest: &'a mut f32,
}

impl Task for Largest<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // The compiler makes vectors of this. The bits of a NaN are above those of infinity.
        let mut bits = 0;
        for x in self.values {
            bits = bits.max(x.to_bits() & (u32::MAX >> 1));
        }
        let largest = f32::from_bits(bits);
        *self.largest = if largest.is_finite() {
            largest
        } else {
            f32::NAN
        };
    }
}
