//! Layers without tables of the weight or memory of their own: bits are read where they lie. Without
//! vectors, but for eight places at once where a program is compiled for WebAssembly's SIMD128.
//!
//! What is added, and in which order, is what the kernels of [`cpu`](crate::cpu) add for one sample
//! on their portable instruction set; the tests compare every bit.

mod bitwise;
mod conv2d;
mod int8;
mod linear;

use super::{FUNCTIONS, LayerView, LevelState, Work};
use crate::cpu::{self, Activation, Ladder, MAX_ACTIVATION_BITS, Pool2dOptions};
use crate::file::PackedFile;

pub(super) use conv2d::{Way, conv2d};
pub(super) use linear::linear;

/// Words that a step works in beside its input and its output; none if they are too many.
pub(super) fn scratch(file: &PackedFile<'_>, work: &Work) -> Option<usize> {
    match work {
        Work::Linear(weights, _) => {
            let weight = &file.weights()[weights.weight];
            linear::scratch(weight, weights.arithmetic)
        }
        Work::Conv2d(conv) => {
            let weight = &file.weights()[conv.weights.weight];
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
    if x > largest || x.is_nan() {
        x
    } else {
        largest
    }
}

/// The largest of each window of each channel; −∞ of none.
pub(super) fn max_pool(
    input: &[u32],
    size: [usize; 3],
    options: &Pool2dOptions,
    output: &mut [u32],
) {
    pool(input, size, options, output, f32::NEG_INFINITY, larger);
}

/// The mean of each window of each channel, over all places of the window.
pub(super) fn avg_pool(
    input: &[u32],
    size: [usize; 3],
    options: &Pool2dOptions,
    output: &mut [u32],
) {
    pool(input, size, options, output, 0.0, |sum, x| sum + x);
    let places = (options.kernel[0] * options.kernel[1]) as f32;
    for word in output {
        *word = (f32::from_bits(*word) / places).to_bits();
    }
}

/// A value of each window of each channel: `first`, joined with one place after the other.
fn pool(
    input: &[u32],
    [_, height, width]: [usize; 3],
    options: &Pool2dOptions,
    output: &mut [u32],
    first: f32,
    join: impl Fn(f32, f32) -> f32,
) {
    let Pool2dOptions {
        kernel,
        stride,
        padding,
        dilation,
    } = *options;
    let planes = input.chunks_exact((height * width).max(1));
    let [down, across] = [0, 1].map(|axis| {
        let reach = dilation[axis] * (kernel[axis] - 1) + 1;
        ([height, width][axis] + 2 * padding[axis] - reach) / stride[axis] + 1
    });
    // The input's place under one of a window along an axis; beyond the input in the padding.
    let under = |axis: usize, window: usize, tap: usize| {
        (window * stride[axis] + tap * dilation[axis]).wrapping_sub(padding[axis])
    };
    for (plane, to) in planes.zip(output.chunks_exact_mut(down * across)) {
        for (row, to) in to.chunks_exact_mut(across).enumerate() {
            for (column, to) in to.iter_mut().enumerate() {
                let mut found = first;
                for y in 0..kernel[0] {
                    let y = under(0, row, y);
                    if y >= height {
                        continue;
                    }
                    let row = &plane[y * width..][..width];
                    for x in 0..kernel[1] {
                        if let Some(&word) = row.get(under(1, column, x)) {
                            found = join(found, f32::from_bits(word));
                        }
                    }
                }
                *to = found.to_bits();
            }
        }
    }
}
