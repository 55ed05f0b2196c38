//! Inputs → lines of positions.

use core::marker::PhantomData;

use super::super::{inverse, words::largest};
use super::element::{OFFSET, four_times};
use super::{Depth, Element, Input, Starting};
use crate::cpu::int8_scale;
use crate::cpu::simd::{LANES, Line, Simd, Task};

/// Some rows of inputs as the positions of a tile.
pub(in crate::cpu) struct LayRows<'a, E> {
    /// `[rows, d_in]`.
    pub rows: &'a [f32],
    pub d_in: usize,
    /// Inputs of a group, which begins with a new step.
    pub len: usize,
    /// Lines of the tile.
    pub lines: usize,
    /// Receives the tile, `[steps, lines, 16]`.
    pub words: &'a mut [u32],
    /// Receives the scale of each row that rounding needs.
    pub scales: &'a mut [f32],
    pub element: PhantomData<E>,
}

impl<E: Element> Task for LayRows<'_, E> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut inverses = [0.0; LANES];
        let lines = self.rows.chunks(LANES * self.d_in);
        for (line, rows) in lines.zip(self.scales.chunks_mut(LANES)).enumerate() {
            let (rows, scales) = rows;
            if E::STARTS {
                let each = rows.chunks_exact(self.d_in).zip(scales).zip(&mut inverses);
                for ((row, scale), to) in each {
                    *scale = int8_scale(largest(row));
                    *to = inverse(*scale);
                }
            }
            let mut step = 0;
            for first in (0..self.d_in).step_by(self.len) {
                for part in (0..self.len).step_by(LANES * E::INPUTS) {
                    let count = (self.len - part).min(LANES * E::INPUTS);
                    let mut square = [Line([0.0; LANES]); LANES];
                    let each = rows.chunks_exact(self.d_in).zip(&mut square);
                    for ((row, to), &inverse) in each.zip(&inverses) {
                        E::pack(simd, &row[first + part..][..count], inverse, to);
                    }
                    simd.transpose(&mut square);
                    for values in &square[..count.div_ceil(E::INPUTS)] {
                        let to = &mut self.words[(step * self.lines + line) * LANES..];
                        let to = to.first_chunk_mut().expect("room for all steps");
                        simd.store_words(simd.as_words(simd.f_load(&values.0)), to);
                        step += 1;
                    }
                }
            }
        }
    }
}

/// What the pieces of a tile start from in int8: `−OFFSET·Σ x`.
pub(in crate::cpu) struct Starts<'a> {
    pub depth: &'a Depth,
    pub input: Input<'a>,
    pub tile: usize,
    /// Lines that the tile has.
    pub lines: usize,
    /// Receives them, `[pieces]`.
    pub starts: &'a mut [Starting],
}

impl Task for Starts<'_> {
    const BYTES: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let offset = simd.splat(four_times(OFFSET));
        let pieces = self.depth.pieces.iter();
        for (piece, starts) in pieces.zip(self.starts) {
            let steps = &self.input.steps[piece.place..][..piece.steps];
            for (line, start) in starts[..self.lines].iter_mut().enumerate() {
                let mut sum = simd.zero();
                for step in steps {
                    let from = self.input.tile * self.tile + step + line * LANES;
                    let words = self.input.words[from..].first_chunk().expect("whole lines");
                    sum = simd.add_products(sum, offset, simd.load_words(words));
                }
                simd.store(sum, start);
                for sum in &mut start.0 {
                    *sum = sum.wrapping_neg();
                }
            }
        }
    }
}
