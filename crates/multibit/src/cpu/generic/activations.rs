//! Activations → bit planes.
//!
//! The sign bits of a level change from level to level in a known way, so plane `j` of an
//! activation is its bit in the lowest level, changed once for each threshold below it.

use crate::cpu::levels::Levels;
use crate::cpu::simd::{LANES, Line, Simd, Task};

/// Thirty-two channels of an image: one word a pixel and plane, bit `c` of channel `c`.
///
/// # Shapes
/// - `input`: `[channels ≤ 32, pixels]`
/// - `output`: `[planes, pixels]`
pub(in crate::cpu) struct PackChannels<'a> {
    pub input: &'a [f32],
    pub pixels: usize,
    pub levels: &'a Levels,
    pub output: &'a mut [u32],
}

impl Task for PackChannels<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            input,
            pixels,
            levels,
            output,
        } = self;
        let channels = input.len() / pixels;
        let all = u32::MAX >> (32 - channels);
        let lowest = levels.code(0);
        let mut tail = [0.0; LANES];
        for first in (0..pixels).step_by(LANES) {
            let lanes = LANES.min(pixels - first);
            let mut planes = [simd.zero(); 4];
            for (j, plane) in planes.iter_mut().enumerate() {
                if lowest >> j & 1 == 1 {
                    *plane = simd.splat(all);
                }
            }
            for channel in 0..channels {
                let x = &input[channel * pixels + first..][..lanes];
                let x = match x.first_chunk::<LANES>() {
                    Some(x) => simd.f_load(x),
                    None => {
                        tail[..lanes].copy_from_slice(x);
                        simd.f_load(&tail)
                    }
                };
                for (threshold, change) in levels.changes() {
                    let above = simd.greater(x, simd.f_splat(threshold));
                    for (j, plane) in planes.iter_mut().enumerate() {
                        if change >> j & 1 == 1 {
                            *plane = simd.toggle(*plane, above, 1 << channel);
                        }
                    }
                }
            }
            for (j, &plane) in planes[..levels.bits()].iter().enumerate() {
                let mut line = Line([0; LANES]);
                simd.store(plane, &mut line);
                output[j * pixels + first..][..lanes].copy_from_slice(&line.0[..lanes]);
            }
        }
    }
}

/// Each value at its level.
///
/// The bits of the level's f32 change from level to level in a known way too.
pub(in crate::cpu) struct Quantize<'a> {
    pub input: &'a [f32],
    pub levels: &'a Levels,
    pub output: &'a mut [f32],
}

impl Task for Quantize<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let values = self.levels.values();
        let mut x = [0.0; LANES];
        for (input, output) in self.input.chunks(LANES).zip(self.output.chunks_mut(LANES)) {
            x[..input.len()].copy_from_slice(input);
            let x = simd.f_load(&x);
            let mut level = simd.splat(values[0].to_bits());
            for (&threshold, pair) in self.levels.thresholds().iter().zip(values.windows(2)) {
                let above = simd.greater(x, simd.f_splat(threshold));
                level = simd.toggle(level, above, pair[0].to_bits() ^ pair[1].to_bits());
            }
            let mut line = Line([0; LANES]);
            simd.store(level, &mut line);
            for (output, bits) in output.iter_mut().zip(line.0) {
                *output = f32::from_bits(bits);
            }
        }
    }
}

/// Values in a row, cut into groups that begin on a new word.
///
/// # Shapes
/// - `input`: `[groups, len]`
/// - `output`: `[planes, groups, words]`
pub(in crate::cpu) struct PackRows<'a> {
    pub input: &'a [f32],
    pub len: usize,
    pub levels: &'a Levels,
    pub output: &'a mut [u32],
}

impl Task for PackRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            input,
            len,
            levels,
            output,
        } = self;
        let words = len.div_ceil(32);
        let plane_words = input.len() / len * words;
        output.fill(0);
        let lowest = levels.code(0);
        let mut tail = [0.0; LANES];
        for (group, values) in input.chunks_exact(len).enumerate() {
            for (half, x) in values.chunks(LANES).enumerate() {
                let all = u32::MAX >> (32 - x.len());
                let x = match x.first_chunk::<LANES>() {
                    Some(x) => simd.f_load(x),
                    None => {
                        tail[..x.len()].copy_from_slice(x);
                        simd.f_load(&tail)
                    }
                };
                let mut planes = [0; 4];
                for (j, plane) in planes.iter_mut().enumerate() {
                    if lowest >> j & 1 == 1 {
                        *plane = all;
                    }
                }
                for (threshold, change) in levels.changes() {
                    let above = simd.bits(simd.greater(x, simd.f_splat(threshold))) & all;
                    for (j, plane) in planes.iter_mut().enumerate() {
                        if change >> j & 1 == 1 {
                            *plane ^= above;
                        }
                    }
                }
                let word = group * words + half / 2;
                for (j, plane) in planes[..levels.bits()].iter().enumerate() {
                    output[j * plane_words + word] |= plane << (LANES * (half % 2));
                }
            }
        }
    }
}
