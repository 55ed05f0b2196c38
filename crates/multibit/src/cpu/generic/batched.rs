//! Convolution of floats with bits for many images: sixteen images side by side.
//!
//! Every load is a whole line, and every position of the output is computed alone: no sums behind
//! the ends of rows as in `shifted.rs`.

use core::ops::Range;

use super::expand::{Offsets, Row};
use crate::cpu::simd::{LANES, Line, Simd, Task, first_lanes};

/// Some output channels of sixteen images.
pub(in crate::cpu) struct Batched<'a> {
    pub rows: &'a [Row],
    /// Distance of the input of each weight from that of a position.
    pub offsets: &'a Offsets,
    /// `[channels, height, width]` of the padded images.
    pub images: &'a [Line<f32>],
    /// Where the input of each position begins.
    pub positions: &'a [usize],
    /// Receives the sums on top of what is there, `[rows, positions]`.
    pub output: &'a mut [Line<f32>],
}

/// Lines of the images that the first cache holds beside the sums, about.
const CHUNK: usize = 256;

impl Task for Batched<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let last = self.positions.iter().copied().max().unwrap_or(0);
        assert!(
            self.offsets.highest() + last < self.images.len(),
            "a weight lies outside of the images"
        );
        // The images of some groups stay in the first cache for all rows.
        for chunk in self.offsets.chunks(CHUNK.saturating_sub(last)) {
            for row in 0..self.rows.len() {
                self.row(simd, row, &chunk);
            }
        }
    }
}

impl Batched<'_> {
    /// Adds the groups of a chunk to one row of sums.
    #[inline(always)]
    fn row<S: Simd>(&mut self, simd: S, row: usize, chunk: &Range<usize>) {
        let groups = &self.rows[row].groups;
        let start = groups.partition_point(|&group| group < chunk.start);
        let end = groups.partition_point(|&group| group < chunk.end);
        let groups = start..end;
        let count = self.positions.len();
        let mut first = 0;
        if S::REGISTERS >= 16 {
            while count - first >= 8 {
                self.sums::<S, 8>(simd, row, groups.clone(), first);
                first += 8;
            }
        }
        while count - first >= 4 {
            self.sums::<S, 4>(simd, row, groups.clone(), first);
            first += 4;
        }
        while first < count {
            self.sums::<S, 1>(simd, row, groups.clone(), first);
            first += 1;
        }
    }

    /// Adds some groups at `P` positions from `first` on.
    #[inline(always)]
    fn sums<S: Simd, const P: usize>(
        &mut self,
        simd: S,
        row: usize,
        groups: Range<usize>,
        first: usize,
    ) {
        let positions: &[usize; P] = self.positions[first..].first_chunk().expect("as many");
        let output = &mut self.output[row * self.positions.len() + first..];
        let output: &mut [Line<f32>; P] = output.first_chunk_mut().expect("as many");
        let row = &self.rows[row];
        let mut sums = [simd.f_splat(0.0); P];
        for (sum, line) in sums.iter_mut().zip(output.iter()) {
            *sum = simd.f_load(&line.0);
        }
        for &group in &row.groups[groups] {
            let weights = row.group(group).iter();
            for (&weight, &offset) in weights.zip(self.offsets.group(group)) {
                let weight = simd.f_splat(weight);
                for (sum, &position) in sums.iter_mut().zip(positions) {
                    // SAFETY: `run` has asserted that all positions lie inside with all offsets.
                    let x = unsafe { self.images.get_unchecked(position + offset) };
                    *sum = simd.f_fma(weight, simd.f_load(&x.0), *sum);
                }
            }
        }
        for (&sum, line) in sums.iter().zip(output) {
            simd.f_store(sum, &mut line.0);
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
                    row.0 = first_lanes(&self.input[start + part * LANES..][..to.len()]);
                }
            }
            simd.transpose(&mut rows);
            to.copy_from_slice(&rows[..to.len()]);
        }
    }
}
