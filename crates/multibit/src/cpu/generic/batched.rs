//! Convolution of floats with bits for many images: sixteen images side by side.
//!
//! Every load is a whole line, and every position of the output is computed alone: no sums behind
//! the ends of rows as in `shifted.rs`.

use super::expand::{Offsets, Row};
use crate::cpu::simd::{LANES, Line, Simd, Task};

/// One output channel of sixteen images.
pub(in crate::cpu) struct Batched<'a> {
    pub row: &'a Row,
    /// Distance of the input of each weight from that of a position.
    pub offsets: &'a Offsets,
    /// `[channels, height, width]` of the padded images.
    pub images: &'a [Line<f32>],
    /// Where the input of each position begins.
    pub positions: &'a [usize],
    /// Receives the sums, one line a position.
    pub output: &'a mut [Line<f32>],
}

impl Task for Batched<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let last = self.positions.iter().copied().max().unwrap_or(0);
        assert!(
            self.offsets.highest() + last < self.images.len(),
            "a weight lies outside of the images"
        );
        let count = self.positions.len();
        let mut first = 0;
        if S::REGISTERS >= 16 {
            while count - first >= 8 {
                self.sums::<S, 8>(simd, first);
                first += 8;
            }
        }
        while count - first >= 4 {
            self.sums::<S, 4>(simd, first);
            first += 4;
        }
        while first < count {
            self.sums::<S, 1>(simd, first);
            first += 1;
        }
    }
}

impl Batched<'_> {
    /// `P` positions from `first` on.
    #[inline(always)]
    fn sums<S: Simd, const P: usize>(&mut self, simd: S, first: usize) {
        let positions: &[usize; P] = self.positions[first..].first_chunk().expect("as many");
        let mut sums = [simd.f_splat(0.0); P];
        for &group in &self.row.groups {
            let weights = self.row.group(group).iter();
            for (&weight, &offset) in weights.zip(self.offsets.group(group)) {
                let weight = simd.f_splat(weight);
                for (sum, &position) in sums.iter_mut().zip(positions) {
                    // SAFETY: `run` has asserted that all positions lie inside with all offsets.
                    let x = unsafe { self.images.get_unchecked(position + offset) };
                    *sum = simd.f_fma(weight, simd.f_load(&x.0), *sum);
                }
            }
        }
        for (&sum, to) in sums.iter().zip(&mut self.output[first..]) {
            simd.f_store(sum, &mut to.0);
        }
    }
}

/// Lays sixteen runs of values side by side.
pub(in crate::cpu) struct Interleave<'a> {
    /// The values; a run for each lane, of the length of `output`; none is zeros.
    pub input: &'a [f32],
    pub starts: [Option<usize>; LANES],
    pub output: &'a mut [Line<f32>],
}

impl Task for Interleave<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (part, to) in self.output.chunks_mut(LANES).enumerate() {
            let mut rows = [Line([0.0; LANES]); LANES];
            for (row, start) in rows.iter_mut().zip(self.starts) {
                if let Some(start) = start {
                    let from = &self.input[start + part * LANES..][..to.len()];
                    match from.first_chunk() {
                        Some(from) => simd.f_store(simd.f_load(from), &mut row.0),
                        None => row.0[..to.len()].copy_from_slice(from),
                    }
                }
            }
            simd.transpose(&mut rows);
            to.copy_from_slice(&rows[..to.len()]);
        }
    }
}
