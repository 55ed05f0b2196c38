//! Inputs → lines of positions.

use super::element::{OFFSET, four_times};
use super::{Depth, Input, Starting};
use crate::cpu::simd::{LANES, Simd, Task};

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
