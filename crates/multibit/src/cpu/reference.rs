//! The definition of the packed layers: every kernel is judged by it.
//!
//! One output after the other, one input after the other; [`Mode`] says what happens to an input.

use alloc::vec::Vec;
use core::ops::Range;

use super::integers::{TOGETHER, to_integers};
use super::{
    Activation, Affine, Conv2dOptions, INT8_ROWS, Levels, Mode, assert_len, conv2d_output_shape,
    int8_scale,
};
use crate::bits::{bit, signed};
use crate::math::round;
use crate::packed::PackedWeight;

/// A linear layer, `y = f(scale·(x Ŵ) + offset + residual)`.
///
/// An output is `x Ŵ = Σ over its groups and their bases of α·(Σ ±x)`. A group of width 0
/// costs nothing.
///
/// # Shapes
/// - `input`: `[batch, d_in]`; the batch may be 0
/// - `weight`: `[d_in, d_out]`
/// - `affine`: `[d_out]`, its residual `[batch, d_out]`
/// - `output`: `[batch, d_out]`, written whole
///
/// # Panics
/// If the weight has another rank or its groups do not lie within outputs, or a slice has another
/// length.
pub fn linear(
    input: &[f32],
    batch: usize,
    weight: &PackedWeight,
    mode: &Mode,
    affine: &Affine<'_>,
    output: &mut [f32],
) {
    let &[d_in, d_out] = weight.shape() else {
        panic!(
            "linear: `weight` has shape {:?}, but must be [d_in, d_out]",
            weight.shape()
        );
    };
    let out_axis = weight.grouping().axes()[0];
    assert_eq!(
        out_axis, 1,
        "linear: the groups of `weight` lie along axis {out_axis}, but d_out is axis 1"
    );
    let axes = |name, size| [("batch", batch), (name, size)];
    assert_len("linear", "input", input.len(), &axes("d_in", d_in));
    assert_len("linear", "output", output.len(), &axes("d_out", d_out));
    affine.check("linear", &[("d_out", d_out)], &axes("d_out", d_out));
    let outputs = Outputs::new(weight);
    let rows = input.chunks_exact(d_in).zip(output.chunks_exact_mut(d_out));
    for (row, (input, output)) in rows.enumerate() {
        let inputs: Vec<_> = input.iter().map(|&x| Some(x)).collect();
        let together = if batch < INT8_ROWS { 4 } else { 1 };
        let int8 = Int8 {
            scale: scale_of(&inputs, outputs.len(), together),
            together,
            weights: together == 1,
        };
        for (o, y) in output.iter_mut().enumerate() {
            let sum = outputs.dot(o, &inputs, mode, int8);
            *y = end(affine, o, row * d_out + o, sum);
        }
    }
}

/// A 2-D convolution (cross-correlation), zeros outside the input.
///
/// Each output is the sum that [`linear`] describes, over the patch of the input under the kernel
/// in the order of the weight's grouping. The padding contributes exactly 0 in every mode.
///
/// # Shapes
/// - `input`: `[batch, channels_in, height, width]`; the batch may be 0
/// - `weight`: `[channels_out, channels_in / groups, kernel_height, kernel_width]`
/// - `affine`: `[channels_out]`, its residual as the output
/// - `output`: [`conv2d_output_shape`], written whole
///
/// # Panics
/// If a shape does not fit, the groups of the weight do not lie within output channels, or a slice
/// has another length.
pub fn conv2d(
    input: &[f32],
    input_shape: [usize; 4],
    weight: &PackedWeight,
    mode: &Mode,
    affine: &Affine<'_>,
    options: &Conv2dOptions,
    output: &mut [f32],
) {
    let shape = conv2d_output_shape(input_shape, weight.shape(), options);
    let out_axis = weight.grouping().axes()[0];
    assert_eq!(
        out_axis, 0,
        "conv2d: the groups of `weight` lie along axis {out_axis}, but channels_out is axis 0"
    );
    assert_len("conv2d", "input", input.len(), &named(input_shape));
    assert_len("conv2d", "output", output.len(), &named(shape));
    affine.check("conv2d", &named(shape)[1..2], &named(shape));
    let [_, channels, height, width] = input_shape;
    let [_, channels_out, out_height, out_width] = shape;
    let (group_in, group_out) = (channels / options.groups, channels_out / options.groups);
    let outputs = Outputs::new(weight);
    let patch = patch(weight);
    let image_len = channels * height * width;
    let scales: Vec<f32> = input
        .chunks_exact(image_len.max(1))
        .map(|image| {
            let inputs: Vec<_> = image.iter().map(|&x| Some(x)).collect();
            scale_of(&inputs, image_len, 1)
        })
        .collect();
    for (i, y) in output.iter_mut().enumerate() {
        let (column, row) = (i % out_width, i / out_width % out_height);
        let o = i / (out_width * out_height) % channels_out;
        let n = i / (out_width * out_height * channels_out);
        let inputs: Vec<_> = patch
            .iter()
            .map(|&[channel, kernel_row, kernel_column]| {
                let y = place(options, 0, row, kernel_row, height)?;
                let x = place(options, 1, column, kernel_column, width)?;
                let channel = o / group_out * group_in + channel;
                Some(input[((n * channels + channel) * height + y) * width + x])
            })
            .collect();
        let int8 = Int8 {
            scale: scales[n],
            together: 1,
            weights: options.groups == 1 || group_in > 1,
        };
        *y = end(affine, o, i, outputs.dot(o, &inputs, mode, int8));
    }
}

/// An activation of one value; of an infinity, its limit.
pub fn activation(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    // What falls to 0 wins over `x`.
    let times = |gate: f64| if gate == 0.0 { 0.0 } else { x * gate };
    match activation {
        Activation::Identity => x,
        // Unlike `max`, this keeps NaN.
        Activation::Relu => x.clamp(0.0, f64::INFINITY),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::HardSwish => times((x / 6.0 + 0.5).clamp(0.0, 1.0)),
        Activation::Silu => times(sigmoid(x)),
        Activation::Gelu => times(0.5 * libm::erfc(-x * core::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluApproximate => {
            // `½(1 + tanh z) = σ(2z)`
            let z = libm::sqrt(2.0 / core::f64::consts::PI) * (x + 0.044_715 * x * x * x);
            times(sigmoid(2.0 * z))
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => libm::tanh(x),
    }
}

/// The sum of an output → its value at a place.
fn end(affine: &Affine<'_>, output: usize, place: usize, sum: f32) -> f32 {
    let (scale, offset) = affine.of(output);
    let residual = affine.residual.map_or(0.0, |residual| residual[place]);
    let y = scale * sum + offset + residual;
    match affine.activation {
        Activation::Identity => y,
        function => activation(function, f64::from(y)) as f32,
    }
}

pub(super) fn named(shape: [usize; 4]) -> [(&'static str, usize); 4] {
    let axes = ["batch", "channels", "height", "width"];
    [0, 1, 2, 3].map(|axis| (axes[axis], shape[axis]))
}

/// The weight cut by output: where the rows of each output begin.
struct Outputs<'a> {
    weight: &'a PackedWeight,
    groups: usize,
    first_rows: Vec<usize>,
}

impl<'a> Outputs<'a> {
    fn new(weight: &'a PackedWeight) -> Self {
        Self {
            weight,
            groups: weight.grouping().groups_per_output(weight.shape()),
            first_rows: weight.first_rows(),
        }
    }

    /// Weights of a group.
    fn len(&self) -> usize {
        self.weight.grouping().len()
    }

    /// `Σ over groups and bases of α·(Σ ±x)` for one output; `None` is padding.
    fn dot(&self, output: usize, inputs: &[Option<f32>], mode: &Mode, int8: Int8) -> f32 {
        let len = self.len();
        let widths = &self.weight.widths()[output * self.groups..];
        let mut row = self.first_rows[output];
        // A scale that is not a number reaches outputs without rows too.
        let mut y = match mode {
            Mode::Int8 => 0.0 * int8.scale,
            _ => 0.0,
        };
        for (inputs, &width) in inputs.chunks_exact(len).zip(widths) {
            let rows = row..row + usize::from(width);
            row = rows.end;
            if matches!(mode, Mode::Int8) && int8.weights {
                for first in rows.clone().step_by(TOGETHER) {
                    let rows = first..rows.end.min(first + TOGETHER);
                    y += self.int8_products(rows, inputs, int8.scale);
                }
                continue;
            }
            for row in rows {
                let signs = self.weight.row(row);
                let sum = match mode {
                    Mode::Exact => signed_sum(signs, 0, inputs),
                    Mode::Int8 => int8_sum(signs, inputs, int8),
                    Mode::Bitwise(levels) => level_sum(signs, inputs, levels),
                };
                y += self.weight.coordinates()[row] * sum;
            }
        }
        y
    }

    /// `s·step·Σ (Σᵢ ±kᵢ)·round(x / s)` with some bases of a group, whose coordinates are about
    /// `step·kᵢ`.
    fn int8_products(&self, rows: Range<usize>, inputs: &[Option<f32>], scale: f32) -> f32 {
        if scale == 0.0 {
            return 0.0;
        }
        let (step, multiples) = to_integers(&self.weight.coordinates()[rows.clone()]);
        let mut sum = 0;
        for (j, x) in inputs.iter().enumerate() {
            let signs = rows.clone().map(|row| bit(self.weight.row(row), j));
            let signed = signs
                .zip(multiples)
                .map(|(sign, k)| (1 - 2 * sign as i64) * i64::from(k));
            let weight: i64 = signed.sum();
            // NaN and infinities have made the scale NaN.
            sum += weight * round(x.unwrap_or(0.0) * (1.0 / scale)) as i64;
        }
        scale * (step * sum as f32)
    }
}

/// `Σ ±x` with the signs of a row from `first` on.
fn signed_sum(signs: &[u32], first: usize, inputs: &[Option<f32>]) -> f32 {
    let signed = |(j, x): (usize, &Option<f32>)| signed(x.unwrap_or(0.0), bit(signs, first + j));
    inputs.iter().enumerate().map(signed).sum()
}

/// How inputs are rounded: sums of so many together, to multiples of the scale; and whether weights
/// are too.
#[derive(Clone, Copy)]
struct Int8 {
    scale: f32,
    together: usize,
    weights: bool,
}

/// The scale for the largest `|x₀|+|x₁|+…` of `together` inputs of a group.
fn scale_of(inputs: &[Option<f32>], len: usize, together: usize) -> f32 {
    let groups = inputs.chunks_exact(len);
    let parts = groups.flat_map(|group| group.chunks(together));
    let sums = parts.map(|part| part.iter().map(|x| x.unwrap_or(0.0).abs()).sum::<f32>());
    let largest = sums.fold(0.0, |largest: f32, sum| {
        if sum.is_finite() {
            largest.max(sum)
        } else {
            f32::NAN
        }
    });
    int8_scale(largest)
}

/// `s·Σ round(Σ ±x / s)`, the inner sum over the inputs that are rounded together.
fn int8_sum(signs: &[u32], inputs: &[Option<f32>], int8: Int8) -> f32 {
    let Int8 {
        scale, together, ..
    } = int8;
    if scale == 0.0 {
        return 0.0;
    }
    let parts = inputs.chunks(together).enumerate();
    let rounded =
        parts.map(|(i, part)| round(signed_sum(signs, together * i, part) * (1.0 / scale)));
    scale * rounded.sum::<f32>()
}

/// `Σ ±x̂` with `x̂ = x_ref + Σ ±γ`, from counts of equal and different signs.
fn level_sum(signs: &[u32], inputs: &[Option<f32>], levels: &Levels) -> f32 {
    let visited = inputs
        .iter()
        .enumerate()
        .filter_map(|(j, x)| Some((j, (*x)?)));
    let mut reference = 0;
    let mut counts = [0i32; super::MAX_ACTIVATION_BITS];
    for (j, x) in visited {
        let sign = 1 - 2 * bit(signs, j) as i32;
        let code = levels.code(levels.rank(x));
        reference += sign;
        for (plane, count) in counts.iter_mut().enumerate() {
            *count += sign * (1 - 2 * i32::from(code >> plane & 1));
        }
    }
    let planes = levels.coordinates().iter().zip(counts);
    let sum = planes
        .map(|(gamma, count)| gamma * count as f32)
        .sum::<f32>();
    levels.reference() * reference as f32 + sum
}

/// The input's row or column under element `kernel` of the kernel, none in the padding.
pub(super) fn place(
    options: &Conv2dOptions,
    axis: usize,
    out: usize,
    kernel: usize,
    size: usize,
) -> Option<usize> {
    let padded = out * options.stride[axis] + kernel * options.dilation[axis];
    let place = padded.checked_sub(options.padding[axis].0)?;
    (place < size).then_some(place)
}

/// `[channel, kernel row, kernel column]` of one output's weights in the order of the grouping.
pub(crate) fn patch(weight: &PackedWeight) -> Vec<[usize; 3]> {
    let (shape, axes) = (weight.shape(), weight.grouping().axes());
    let weights = shape[1] * shape[2] * shape[3];
    let mut place = [0; 4];
    let mut patch = Vec::with_capacity(weights);
    for _ in 0..weights {
        patch.push([place[1], place[2], place[3]]);
        for &axis in axes[1..].iter().rev() {
            place[axis] += 1;
            if place[axis] < shape[axis] {
                break;
            }
            place[axis] = 0;
        }
    }
    patch
}
