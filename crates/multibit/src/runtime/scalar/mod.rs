//! Layers without vectors, tables of the weight or memory of their own: bits are read where they lie.
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

/// What is made of the places of a window, one after the other.
pub(super) type Gather = fn(&mut dyn Iterator<Item = f32>, places: usize) -> f32;

/// The largest, and the first of equals; NaN if one is; −∞ of none.
pub(super) fn largest(window: &mut dyn Iterator<Item = f32>, _: usize) -> f32 {
    window.fold(f32::NEG_INFINITY, larger)
}

#[inline(always)]
fn larger(largest: f32, x: f32) -> f32 {
    if x > largest || x.is_nan() {
        x
    } else {
        largest
    }
}

/// The sum over all places.
pub(super) fn average(window: &mut dyn Iterator<Item = f32>, places: usize) -> f32 {
    window.fold(0.0, |sum, x| sum + x) / places as f32
}

/// A value of each window of each channel.
pub(super) fn pool(
    input: &[u32],
    [_, height, width]: [usize; 3],
    options: &Pool2dOptions,
    output: &mut [u32],
    gather: Gather,
) {
    let planes = input.chunks_exact((height * width).max(1));
    let [down, across] = [0, 1].map(|axis| {
        let reach = options.dilation[axis] * (options.kernel[axis] - 1) + 1;
        let size = [height, width][axis];
        (size + 2 * options.padding[axis] - reach) / options.stride[axis] + 1
    });
    for (plane, to) in planes.zip(output.chunks_exact_mut(down * across)) {
        for (place, to) in to.iter_mut().enumerate() {
            let window = Window {
                options,
                size: [height, width],
                place: [place / across, place % across],
            };
            let places = options.kernel[0] * options.kernel[1];
            *to = gather(&mut window.values(plane), places).to_bits();
        }
    }
}

/// A window at its place.
struct Window<'a> {
    options: &'a Pool2dOptions,
    size: [usize; 2],
    place: [usize; 2],
}

impl Window<'_> {
    /// Its places along an axis that lie in the input.
    fn along(&self, axis: usize) -> impl Iterator<Item = usize> + Clone {
        let Pool2dOptions {
            kernel,
            stride,
            padding,
            dilation,
        } = *self.options;
        let (size, padding, dilation) = (self.size[axis], padding[axis], dilation[axis]);
        let first = self.place[axis] * stride[axis];
        let low = padding.saturating_sub(first).div_ceil(dilation);
        let high = (size + padding).saturating_sub(first).div_ceil(dilation);
        let taps = low..high.min(kernel[axis]).max(low);
        taps.map(move |tap| first + tap * dilation - padding)
    }

    fn values<'p>(&'p self, plane: &'p [u32]) -> impl Iterator<Item = f32> + 'p {
        let columns = self.along(1);
        self.along(0).flat_map(move |y| {
            let row = &plane[y * self.size[1]..];
            columns.clone().map(move |x| f32::from_bits(row[x]))
        })
    }
}
