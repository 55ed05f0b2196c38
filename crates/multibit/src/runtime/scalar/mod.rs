//! Layers without tables of the weight or memory of their own: bits are read where they lie. Without
//! vectors, but for eight places at once where a program is compiled for WebAssembly's SIMD128.
//!
//! What is added, and in which order, is what the kernels of [`cpu`](crate::cpu) add for one sample
//! on their portable instruction set; the tests compare every bit.

mod bitwise;
mod conv2d;
mod int8;
mod linear;
mod rows;
mod taps;

use super::{FUNCTIONS, LayerView, LevelState, Work};
use crate::cpu::{self, Activation, Ladder, MAX_ACTIVATION_BITS, Pool2dOptions};
use crate::file::PackedFile;

pub(super) use conv2d::{Way, conv2d};
pub(super) use linear::linear;

/// Words that a step works in beside its input and its output; none if they are too many.
pub(super) fn scratch(file: &PackedFile<'_>, work: &Work<'_>) -> Option<usize> {
    match work {
        Work::Linear(weights, _) => {
            let weight = &file.weights()[weights.layer.weight];
            linear::scratch(weight, weights.arithmetic)
        }
        Work::Conv2d(conv) => {
            let weight = &file.weights()[conv.weights.layer.weight];
            conv2d::scratch(weight, conv)
        }
        _ => Some(0),
    }
}

/// The levels of a multi-bit activation, ready to be taken.
pub(super) struct Levels {
    ladder: Ladder,
    reference: f32,
    gammas: [f32; MAX_ACTIVATION_BITS],
    bits: usize,
}

impl Levels {
    /// Those of a state that was checked.
    pub(super) fn of(file: &PackedFile<'_>, state: LevelState) -> Option<Self> {
        let LevelState { tensor, bits } = state;
        let tensor = &file.tensors()[tensor];
        let mut gammas = [0.0; MAX_ACTIVATION_BITS];
        for (j, gamma) in gammas[..bits].iter_mut().enumerate() {
            *gamma = tensor.float(2 + j);
        }
        let reference = tensor.float(1);
        Some(Self {
            ladder: Ladder::new(reference, &gammas[..bits]).ok()?,
            reference,
            gammas,
            bits,
        })
    }

    /// The levels as the kernels take them.
    #[cfg(feature = "runtime")]
    pub(super) fn kernels(&self) -> Option<cpu::Levels> {
        cpu::Levels::new(self.reference, &self.gammas[..self.bits]).ok()
    }

    /// Puts values at their levels.
    pub(super) fn quantize(&self, values: &mut [u32]) {
        for word in values {
            let rank = self.ladder.rank(f32::from_bits(*word));
            *word = self.ladder.values[rank].to_bits();
        }
    }
}

/// A function of each value.
pub(super) fn activate(activation: Activation, values: &mut [u32]) {
    let (low, high) = match activation {
        Activation::Relu => (0.0, f32::INFINITY),
        Activation::Relu6 => (0.0, 6.0),
        _ if FUNCTIONS => return cpu::activate_bits(activation, values),
        // The plan has refused it.
        _ => return,
    };
    for word in values {
        let x = f32::from_bits(*word);
        // NaN stays, of the zeros the positive one.
        let y = if x > low || x.is_nan() { x } else { low };
        *word = if y > high { high } else { y }.to_bits();
    }
}

/// The larger, and the first of equals; NaN if one is.
#[inline(always)]
fn larger(largest: f32, x: f32) -> f32 {
    // By bits, without a branch that no processor foresees.
    let takes = u32::from((x > largest) | x.is_nan()).wrapping_neg();
    f32::from_bits(x.to_bits() & takes | largest.to_bits() & !takes)
}

/// How many windows a pool has along an axis of a size.
fn windows(options: &Pool2dOptions, axis: usize, size: usize) -> usize {
    let reach = options.dilation[axis] * (options.kernel[axis] - 1) + 1;
    (size + 2 * options.padding[axis] - reach) / options.stride[axis] + 1
}

/// The largest of each window of each channel, −∞ of none; or the mean over all places of the window.
pub(super) fn pool(
    is_mean: bool,
    input: &[u32],
    [channels, height, width]: [usize; 3],
    options: &Pool2dOptions,
    output: &mut [u32],
) {
    let Pool2dOptions {
        kernel,
        stride,
        padding,
        dilation,
    } = *options;
    let across = windows(options, 1, width);
    // The input's place under one of a window along an axis; beyond the input in the padding.
    let under = |axis: usize, window: usize, tap: usize| {
        (window * stride[axis] + tap * dilation[axis]).wrapping_sub(padding[axis])
    };
    let down = output.len() / (channels * across).max(1);
    for (row, to) in output.chunks_exact_mut(across.max(1)).enumerate() {
        let (channel, row) = (row / down, row % down);
        to.fill(if is_mean { 0.0 } else { f32::NEG_INFINITY }.to_bits());
        for y in 0..kernel[0] {
            let y = under(0, row, y);
            if y >= height {
                continue;
            }
            let row = &input[(channel * height + y) * width..][..width];
            for x in 0..kernel[1] {
                let mut place = under(1, 0, x);
                for to in &mut *to {
                    if let Some(&word) = row.get(place) {
                        let (x, found) = (f32::from_bits(word), f32::from_bits(*to));
                        let found = if is_mean { found + x } else { larger(found, x) };
                        *to = found.to_bits();
                    }
                    place = place.wrapping_add(stride[1]);
                }
            }
        }
        if is_mean {
            for to in to {
                *to = (f32::from_bits(*to) / (kernel[0] * kernel[1]) as f32).to_bits();
            }
        }
    }
}
