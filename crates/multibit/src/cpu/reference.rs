//! The definition of the packed layers: every other implementation is judged by it.
//!
//! It works on tiles of [`LANES`] inputs side by side (rows of a batch, positions of a
//! convolution), so that a row of bits is read once for all of them and the compiler can use
//! vector registers. Lanes never meet: each is the plain sum of the documentation, in its order.

use alloc::vec;
use alloc::vec::Vec;

use super::Conv2dOptions;
use crate::PackedWeight;
use crate::bits::{bit, signed};

/// Inputs that are computed side by side.
const LANES: usize = 16;

type Lane = [f32; LANES];

/// The weight cut by output: where the rows of each output begin.
struct Outputs<'a> {
    weight: &'a PackedWeight,
    groups_per_output: usize,
    /// The first row of each output.
    first_row: Vec<usize>,
}

impl<'a> Outputs<'a> {
    fn new(weight: &'a PackedWeight) -> Self {
        let groups_per_output = weight.grouping().groups_per_output(weight.shape());
        let mut row = 0;
        let outputs = weight.widths().chunks_exact(groups_per_output);
        let first_row = outputs
            .map(|widths| {
                let first = row;
                row += widths
                    .iter()
                    .map(|&width| usize::from(width))
                    .sum::<usize>();
                first
            })
            .collect();
        Self {
            weight,
            groups_per_output,
            first_row,
        }
    }

    /// `Σ over groups and bases of α·(Σ ±x)` for one output, in each lane.
    fn output(&self, output: usize, inputs: &[Lane]) -> Lane {
        let mut y = [0.0; LANES];
        let mut row = self.first_row[output];
        let groups = &self.weight.widths()[output * self.groups_per_output..];
        let len = self.weight.grouping().len();
        for (inputs, &width) in inputs.chunks_exact(len).zip(groups) {
            for _basis in 0..width {
                let alpha = self.weight.coordinates()[row];
                let sum = signed_sum(self.weight.row(row), inputs);
                for (y, sum) in y.iter_mut().zip(sum) {
                    *y += alpha * sum;
                }
                row += 1;
            }
        }
        y
    }
}

/// `Σ ±x` with the signs of one row, in each lane.
fn signed_sum(row: &[u32], inputs: &[Lane]) -> Lane {
    let mut sum = [0.0; LANES];
    for (j, x) in inputs.iter().enumerate() {
        let negative = bit(row, j);
        for (sum, &x) in sum.iter_mut().zip(x) {
            *sum += signed(x, negative);
        }
    }
    sum
}

pub(super) fn linear(
    input: &[f32],
    batch: usize,
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let (d_in, d_out) = (weight.shape()[0], weight.shape()[1]);
    let outputs = Outputs::new(weight);
    let mut tile = vec![[0.0; LANES]; d_in];
    for first in (0..batch).step_by(LANES) {
        let lanes = LANES.min(batch - first);
        for (lane, x) in input[first * d_in..]
            .chunks_exact(d_in)
            .take(lanes)
            .enumerate()
        {
            for (tile, &x) in tile.iter_mut().zip(x) {
                tile[lane] = x;
            }
        }
        for o in 0..d_out {
            let y = outputs.output(o, &tile);
            let bias = bias.map_or(0.0, |bias| bias[o]);
            for (lane, y) in y[..lanes].iter().enumerate() {
                output[(first + lane) * d_out + o] = y + bias;
            }
        }
    }
}

pub(super) fn conv2d(
    input: &[f32],
    [_, channels, height, width]: [usize; 4],
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    options: &Conv2dOptions,
    output: &mut [f32],
    [_, channels_out, out_height, out_width]: [usize; 4],
) {
    let outputs = Outputs::new(weight);
    let patch = patch(weight);
    let positions = out_height * out_width;
    let (group_in, group_out) = (channels / options.groups, channels_out / options.groups);
    let mut tile = vec![[0.0; LANES]; patch.len()];
    let image_len = channels * height * width;
    for (n, result) in output
        .chunks_exact_mut(channels_out * positions)
        .enumerate()
    {
        let image = &input[n * image_len..][..image_len];
        for group in 0..options.groups {
            let first_channel = group * group_in;
            for first in (0..positions).step_by(LANES) {
                let lanes = LANES.min(positions - first);
                for (tile, &[channel, y, x]) in tile.iter_mut().zip(&patch) {
                    let plane = &image[(first_channel + channel) * height * width..];
                    for (lane, value) in tile[..lanes].iter_mut().enumerate() {
                        let position = first + lane;
                        let y = place(options, 0, position / out_width, y, height);
                        let x = place(options, 1, position % out_width, x, width);
                        *value = match (y, x) {
                            (Some(y), Some(x)) => plane[y * width + x],
                            _ => 0.0,
                        };
                    }
                }
                for o in group * group_out..(group + 1) * group_out {
                    let y = outputs.output(o, &tile);
                    let bias = bias.map_or(0.0, |bias| bias[o]);
                    let result = &mut result[o * positions + first..][..lanes];
                    for (result, y) in result.iter_mut().zip(y) {
                        *result = y + bias;
                    }
                }
            }
        }
    }
}

/// The input's row or column under element `kernel` of the kernel, none in the padding.
fn place(
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
fn patch(weight: &PackedWeight) -> Vec<[usize; 3]> {
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
