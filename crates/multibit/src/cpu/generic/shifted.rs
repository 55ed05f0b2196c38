//! Convolution of floats with bits: each weight times the whole image, shifted.
//!
//! With the padding written out, the input under one weight for all outputs of an image is one run
//! of memory, that begins where the weight lies: with stride 1, output `(y, x)` at distance
//! `y·width + x`. Runs are as wide as the padded input, so that some sums at the end of each row
//! belong to no output. A stride above 1 first sorts the image by the remainder of its places.

use alloc::vec::Vec;

use crate::cpu::simd::{LANES, Simd, Task};

/// Vectors of sums that are kept in registers.
const WIDE: usize = 8;

/// The weights of one output that are not in a group of width 0.
pub(in crate::cpu) struct Taps {
    /// Weight, and where its input begins.
    pub list: Vec<(f32, usize)>,
}

/// One output channel of one image.
pub(in crate::cpu) struct Shifted<'a> {
    pub taps: &'a Taps,
    pub image: &'a [f32],
    /// The sums, a multiple of [`LANES`]; written whole.
    pub output: &'a mut [f32],
}

impl Task for Shifted<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let len = self.output.len();
        for &(_, offset) in &self.taps.list {
            assert!(
                offset + len <= self.image.len(),
                "a tap lies outside of the image"
            );
        }
        let mut first = 0;
        while len - first >= WIDE * LANES {
            self.sums::<S, WIDE>(simd, first);
            first += WIDE * LANES;
        }
        match (len - first) / LANES {
            7 => self.sums::<S, 7>(simd, first),
            6 => self.sums::<S, 6>(simd, first),
            5 => self.sums::<S, 5>(simd, first),
            4 => self.sums::<S, 4>(simd, first),
            3 => self.sums::<S, 3>(simd, first),
            2 => self.sums::<S, 2>(simd, first),
            1 => self.sums::<S, 1>(simd, first),
            _ => {}
        }
    }
}

impl Shifted<'_> {
    #[inline(always)]
    fn sums<S: Simd, const V: usize>(&mut self, simd: S, first: usize) {
        let mut sums = [simd.f_splat(0.0); V];
        for &(weight, offset) in &self.taps.list {
            let weight = simd.f_splat(weight);
            // SAFETY: `offset + output.len()` is inside, as `run` has asserted, and so is the part
            // of the run that belongs to these sums.
            let inputs = unsafe { self.image.get_unchecked(offset + first..) };
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let x = unsafe { &*inputs.as_ptr().add(v * LANES).cast::<[f32; LANES]>() };
                *sum = simd.f_fma(weight, simd.f_load(x), *sum);
            }
        }
        for (v, &sum) in sums.iter().enumerate() {
            let to = &mut self.output[first + v * LANES..];
            simd.f_store(sum, to.first_chunk_mut().expect("a multiple of LANES"));
        }
    }
}
