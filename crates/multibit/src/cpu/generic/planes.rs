//! Activations that stay bits: sums → bit planes, bit planes → values, and the largest of some.

use alloc::vec;
use alloc::vec::Vec;

use super::bitwise::Output;
use crate::cpu::levels::{Levels, MAX_ACTIVATION_BITS};
use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::cpu::threads::Shared;
use crate::cpu::tiles::LaneBits;

/// Turns the sums of a block into its half of a word of channels: scale and offset, what is added,
/// then the nearest level, of `Q` planes, one or two.
pub(in crate::cpu) struct BlockToPlanes<'a, const Q: usize> {
    /// Scale and offset by lane.
    affine: [[f32; LANES]; 2],
    lanes: &'a LaneBits,
    /// What is kept of the word: nothing for its first block.
    keep: u32,
    residual: Option<Residual<'a>>,
    thresholds: [f32; MAX_THRESHOLDS],
    /// Where the planes of the word begin: that of the smallest coordinate first.
    starts: [usize; Q],
    pixels: usize,
    output: &'a Shared<'a, u32>,
}

/// Bits of activations, before and behind a layer, with which they stay bits within it.
pub(in crate::cpu) const FEW: usize = 2;

const MAX_THRESHOLDS: usize = (1 << FEW) - 1;

/// The same word of activations that are added.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Residual<'a> {
    /// `[planes, pixels]`.
    pub words: &'a [u32],
    pub levels: &'a Levels,
}

impl<'a, const Q: usize> BlockToPlanes<'a, Q> {
    /// The planes of the word begin at `start` of `output`.
    ///
    /// # Safety
    /// No other task may write the word at the places that this one takes.
    pub(in crate::cpu) unsafe fn new(
        affine: [[f32; LANES]; 2],
        lanes: &'a LaneBits,
        is_first: bool,
        residual: Option<Residual<'a>>,
        levels: &Levels,
        output: &'a Shared<'a, u32>,
        [start, pixels]: [usize; 2],
    ) -> Self {
        let mut thresholds = [f32::INFINITY; MAX_THRESHOLDS];
        thresholds[..levels.thresholds().len()].copy_from_slice(levels.thresholds());
        let mut starts = core::array::from_fn(|plane| start + plane * pixels);
        // The first sign to change is that of the smallest.
        if levels
            .changes()
            .next()
            .is_some_and(|(_, change)| change == 2)
        {
            starts.reverse();
        }
        Self {
            affine,
            lanes,
            keep: if is_first { 0 } else { u32::MAX },
            residual,
            thresholds,
            starts,
            pixels,
            output,
        }
    }
}

impl<const Q: usize> Output for BlockToPlanes<'_, Q> {
    const MOST_PLANES: usize = FEW;

    #[inline(always)]
    fn take<S: Simd>(&mut self, simd: S, place: usize, sum: S::F) {
        let [scale, offset] = &self.affine;
        let mut y = simd.f_fma(simd.f_load(scale), sum, simd.f_load(offset));
        if let Some(residual) = &self.residual {
            let mut x = simd.f_splat(residual.levels.reference());
            let planes = residual.words.chunks_exact(self.pixels);
            for (words, &gamma) in planes.zip(residual.levels.coordinates()) {
                let signs = self.lanes.lanes_of(words[place]);
                x = simd.f_add(x, simd.flip_lanes(simd.f_splat(gamma), signs));
            }
            y = simd.f_add(y, x);
        }
        let mut above = [0; MAX_THRESHOLDS];
        let thresholds = self.thresholds.iter().take((1 << Q) - 1);
        for (above, &threshold) in above.iter_mut().zip(thresholds) {
            *above = simd.bits(simd.greater(y, simd.f_splat(threshold)));
        }
        // With one bit, the sign changes at the threshold; with two, the larger coordinate's sign
        // changes at the middle threshold and the other's at each.
        let [a, b, c, ..] = above;
        let signs = [if Q == 1 { !a } else { !(a ^ b ^ c) }, !b];
        for (start, bits) in self.starts.into_iter().zip(signs) {
            // SAFETY: who made this keeps tasks apart.
            let word = unsafe { &mut self.output.part(start + place, 1)[0] };
            *word = *word & self.keep | self.lanes.word_of(bits);
        }
    }
}

/// The levels of thirty-two channels.
///
/// # Shapes
/// - `words`: `[planes, pixels]`
/// - `output`: `[channels ≤ 32, pixels]`
pub(in crate::cpu) struct Unpack<'a> {
    pub words: &'a [u32],
    pub pixels: usize,
    pub levels: &'a Levels,
    pub output: &'a mut [f32],
}

impl Task for Unpack<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let gammas = self.levels.coordinates();
        let mut planes = [Line([0; LANES]); MAX_ACTIVATION_BITS];
        for first in (0..self.pixels).step_by(LANES) {
            let count = LANES.min(self.pixels - first);
            let words = self.words.chunks_exact(self.pixels);
            for (plane, words) in planes.iter_mut().zip(words) {
                plane.0[..count].copy_from_slice(&words[first..][..count]);
            }
            for (channel, values) in self.output.chunks_exact_mut(self.pixels).enumerate() {
                let mut x = simd.f_splat(self.levels.reference());
                for (plane, &gamma) in planes.iter().zip(gammas) {
                    let words = simd.load(plane);
                    x = simd.f_add(x, simd.flip(simd.f_splat(gamma), words, channel as u32));
                }
                match values[first..].first_chunk_mut() {
                    Some(to) => simd.f_store(x, to),
                    None => {
                        let mut line = [0.0; LANES];
                        simd.f_store(x, &mut line);
                        values[first..].copy_from_slice(&line[..count]);
                    }
                }
            }
        }
    }
}

/// Max pooling of a word of channels: level `r` is reached in a window if one of its activations
/// reaches it, 32 channels at a time.
///
/// # Shapes
/// - `words`: `[planes, height, width]`
/// - `output`: `[planes, height_out, width_out]`
pub(in crate::cpu) struct MaxPoolPlanes<'a> {
    pub words: &'a [u32],
    pub size: [usize; 2],
    pub options: &'a crate::cpu::Pool2dOptions,
    pub out_size: [usize; 2],
    pub levels: &'a Levels,
    /// The bits of the word that stand for channels.
    pub channels: u32,
    pub output: &'a mut [u32],
}

impl Task for MaxPoolPlanes<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let ([height, width], [out_height, out_width]) = (self.size, self.out_size);
        let (pixels, out_pixels) = (height * width, out_height * out_width);
        let options = self.options;
        for (plane, words) in self.output.chunks_exact_mut(out_pixels).enumerate() {
            let lowest = u32::from(self.levels.code(0) >> plane & 1);
            words.fill(self.channels * lowest);
        }
        // The bits of a pixel say which of its channels reach the level, from the highest level down.
        let mut reached = vec![0u32; pixels];
        let mut rows = vec![0u32; width];
        let mut windows = vec![0u32; out_width];
        let changes: Vec<u8> = self.levels.changes().map(|(_, change)| change).collect();
        for (rank, change) in changes.into_iter().enumerate().rev() {
            let rank = rank + 1;
            self.add_level(self.levels.code(rank), &mut reached);
            for out_y in 0..out_height {
                rows.fill(0);
                for k in 0..options.kernel[0] {
                    let y = out_y * options.stride[0] + k * options.dilation[0];
                    let Some(y) = y.checked_sub(options.padding[0]).filter(|&y| y < height) else {
                        continue;
                    };
                    for (to, word) in rows.iter_mut().zip(&reached[y * width..][..width]) {
                        *to |= word;
                    }
                }
                windows.fill(0);
                for k in 0..options.kernel[1] {
                    or_columns(&rows, k * options.dilation[1], options, &mut windows);
                }
                for (plane, words) in self.output.chunks_exact_mut(out_pixels).enumerate() {
                    if change >> plane & 1 == 1 {
                        let words = &mut words[out_y * out_width..][..out_width];
                        for (word, window) in words.iter_mut().zip(&windows) {
                            *word ^= window & self.channels;
                        }
                    }
                }
            }
        }
    }
}

impl MaxPoolPlanes<'_> {
    /// Adds the pixels that are at a level.
    #[inline(always)]
    fn add_level(&self, code: u8, reached: &mut [u32]) {
        let pixels = reached.len();
        let (first, rest) = self.words.split_at(pixels);
        let flip = |plane: usize| 0u32.wrapping_sub(u32::from(!code >> plane & 1));
        if rest.len() == pixels {
            // Two planes, the common case, in one pass.
            for (to, (a, b)) in reached.iter_mut().zip(first.iter().zip(rest)) {
                *to |= (a ^ flip(0)) & (b ^ flip(1));
            }
            return;
        }
        for (pixel, to) in reached.iter_mut().enumerate() {
            let planes = self.words.iter().skip(pixel).step_by(pixels).enumerate();
            let mut is_there = u32::MAX;
            for (plane, word) in planes {
                is_there &= word ^ flip(plane);
            }
            *to |= is_there;
        }
    }
}

/// `windows[x] |= row[stride·x + ahead − padding]` where that lies in the row.
#[inline(always)]
fn or_columns(row: &[u32], ahead: usize, options: &crate::cpu::Pool2dOptions, windows: &mut [u32]) {
    let (stride, padding) = (options.stride[1], options.padding[1]);
    let first = padding.saturating_sub(ahead).div_ceil(stride);
    let Some(from) = (first * stride + ahead).checked_sub(padding) else {
        return;
    };
    let (Some(row), Some(windows)) = (row.get(from..), windows.get_mut(first..)) else {
        return;
    };
    if stride == 2 {
        let pairs = row.chunks(2);
        for (to, pair) in windows.iter_mut().zip(pairs) {
            *to |= pair[0];
        }
        return;
    }
    for (to, word) in windows.iter_mut().zip(row.iter().step_by(stride)) {
        *to |= word;
    }
}
