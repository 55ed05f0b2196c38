//! Convolution of floats with bits: each weight times the whole image, shifted.
//!
//! With the padding written out, the input under one weight for all outputs of an image is one run
//! of memory, that begins where the weight lies: with stride 1, output `(y, x)` at distance
//! `y·width + x`. Runs are as wide as the padded input, so that some sums at the end of each row
//! belong to no output. A stride above 1 first sorts the image by the remainder of its places.

use super::expand::{Offsets, Row};
use crate::cpu::simd::{LANES, Simd, Task};

/// `R` output channels of one image.
pub(in crate::cpu) struct Shifted<'a, const R: usize> {
    /// The weights of each output.
    pub rows: [&'a Row; R],
    /// The groups that at least one of the outputs has.
    pub groups: &'a [usize],
    /// Where the input of each weight begins, from the start of `image`.
    pub offsets: &'a Offsets,
    pub image: &'a [f32],
    /// The sums of each output, [`LANES`] a vector; written whole.
    pub output: &'a mut [f32],
}

impl<const R: usize> Task for Shifted<'_, R> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let len = self.output.len() / R;
        assert!(
            self.offsets.highest() + len <= self.image.len(),
            "a weight lies outside of the image"
        );
        let vectors = len / LANES;
        // Sums, and what is multiplied, are to stay in registers.
        let wide = match R {
            1 => (S::REGISTERS / 2).min(8),
            _ => (S::REGISTERS / 2 / R).clamp(1, 4),
        };
        let mut first = 0;
        while first < vectors {
            let count = match (vectors - first).min(wide) {
                8.. => self.sums::<S, 8>(simd, first),
                7 => self.sums::<S, 7>(simd, first),
                6 => self.sums::<S, 6>(simd, first),
                5 => self.sums::<S, 5>(simd, first),
                4 => self.sums::<S, 4>(simd, first),
                3 => self.sums::<S, 3>(simd, first),
                2 => self.sums::<S, 2>(simd, first),
                _ => self.sums::<S, 1>(simd, first),
            };
            first += count;
        }
    }
}

impl<const R: usize> Shifted<'_, R> {
    /// `V` vectors from `first` on.
    #[inline(always)]
    fn sums<S: Simd, const V: usize>(&mut self, simd: S, first: usize) -> usize {
        let len = self.output.len() / R;
        let mut sums = [[simd.f_splat(0.0); V]; R];
        for &group in self.groups {
            let weights = self.rows.map(
                #[inline(always)]
                |row| row.group(group),
            );
            for (j, &offset) in self.offsets.group(group).iter().enumerate() {
                // SAFETY: `run` has asserted that a run of `len` values, of which these vectors
                // are a part, lies inside from every offset on.
                let inputs = unsafe { self.image.get_unchecked(offset + first * LANES..) };
                let mut x = [simd.f_splat(0.0); V];
                for (v, x) in x.iter_mut().enumerate() {
                    // SAFETY: as above.
                    *x = simd.f_load(unsafe { &*inputs.as_ptr().add(v * LANES).cast() });
                }
                for (sums, weights) in sums.iter_mut().zip(&weights) {
                    // SAFETY: a row has a weight for each offset of a group.
                    let weight = simd.f_splat(unsafe { *weights.get_unchecked(j) });
                    for (sum, &x) in sums.iter_mut().zip(&x) {
                        *sum = simd.f_fma(weight, x, *sum);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let to = &mut self.output[r * len + (first + v) * LANES..];
                simd.f_store(sum, to.first_chunk_mut().expect("whole vectors"));
            }
        }
        V
    }
}
