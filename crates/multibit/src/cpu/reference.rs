//! The definition of packed layers: scalar, in order, from the words.
//!
//! Sums are f32 and run in a fixed order: inputs in the order of the grouping, then bases, then
//! groups, then the bias.

use alloc::vec::Vec;

use super::Conv2dOptions;
use crate::packed::PackedWeight;

/// A weight's groups by output, with the row that each starts at.
struct Rows<'a> {
    weight: &'a PackedWeight,
    /// First row of every group.
    starts: Vec<usize>,
    per_output: usize,
}

impl<'a> Rows<'a> {
    fn new(weight: &'a PackedWeight) -> Self {
        let starts = weight.widths().iter().scan(0, |row, &width| {
            let start = *row;
            *row += usize::from(width);
            Some(start)
        });
        Self {
            weight,
            starts: starts.collect(),
            per_output: weight.grouping().groups_per_output(weight.shape()),
        }
    }

    /// `Σ_groups Σ_i α_i Σ_j b_ij x_j` for one output; `inputs` in the order of the grouping.
    fn dot(&self, output: usize, inputs: &[f32]) -> f32 {
        let groups = output * self.per_output..(output + 1) * self.per_output;
        let runs = inputs.chunks_exact(self.weight.grouping().len());
        let mut sum = 0.0;
        for (group, inputs) in groups.zip(runs) {
            let start = self.starts[group];
            for row in start..start + usize::from(self.weight.widths()[group]) {
                sum += self.weight.coordinates()[row] * signed_sum(self.weight.row(row), inputs);
            }
        }
        sum
    }
}

/// `Σ_j b_j x_j` for one row of signs.
///
/// This loop is the definition; every other implementation is judged by it.
pub fn signed_sum(row: &[u32], inputs: &[f32]) -> f32 {
    let mut sum = 0.0;
    for (word, inputs) in row.iter().zip(inputs.chunks(u32::BITS as usize)) {
        for (j, &x) in inputs.iter().enumerate() {
            sum += if word >> j & 1 == 0 { x } else { -x };
        }
    }
    sum
}

pub(super) fn linear(
    input: &[f32],
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let (d_in, d_out) = (weight.shape()[0], weight.shape()[1]);
    let rows = Rows::new(weight);
    for (input, output) in input.chunks_exact(d_in).zip(output.chunks_exact_mut(d_out)) {
        for (o, output) in output.iter_mut().enumerate() {
            *output = rows.dot(o, input) + bias.map_or(0.0, |bias| bias[o]);
        }
    }
}

pub(super) fn conv2d(
    input: &[f32],
    input_shape: [usize; 4],
    weight: &PackedWeight,
    bias: Option<&[f32]>,
    options: &Conv2dOptions,
    output: &mut [f32],
    output_shape: [usize; 4],
) {
    let [batch, channels, height, width] = input_shape;
    let [_, out, height_out, width_out] = output_shape;
    let group_in = channels / options.groups;
    let group_out = out / options.groups;
    let rows = Rows::new(weight);
    let taps = taps(weight);
    let mut patch = alloc::vec![0.0; taps.len()];
    for n in 0..batch {
        for group in 0..options.groups {
            let first = (n * channels + group * group_in) * height * width;
            let input = &input[first..][..group_in * height * width];
            for y in 0..height_out {
                for x in 0..width_out {
                    for (value, &[channel, ky, kx]) in patch.iter_mut().zip(&taps) {
                        let row = source(options, 0, y, ky, height);
                        let column = source(options, 1, x, kx, width);
                        *value = row.zip(column).map_or(0.0, |(row, column)| {
                            input[(channel * height + row) * width + column]
                        });
                    }
                    for o in group * group_out..(group + 1) * group_out {
                        let place = ((n * out + o) * height_out + y) * width_out + x;
                        output[place] = rows.dot(o, &patch) + bias.map_or(0.0, |bias| bias[o]);
                    }
                }
            }
        }
    }
}

/// Where a tap of the kernel reads on one axis; `None` in the padding.
fn source(
    options: &Conv2dOptions,
    axis: usize,
    output: usize,
    kernel: usize,
    size: usize,
) -> Option<usize> {
    let place = output * options.stride[axis] + kernel * options.dilation[axis];
    place
        .checked_sub(options.padding[axis].0)
        .filter(|&place| place < size)
}

/// `[channel, k_y, k_x]` of an output's weights in the order of the grouping.
fn taps(weight: &PackedWeight) -> Vec<[usize; 3]> {
    let shape = weight.shape();
    let axes = &weight.grouping().axes()[1..];
    let permuted: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    (0..permuted.iter().product())
        .map(|mut place: usize| {
            let mut tap = [0; 3];
            for (&axis, &size) in axes.iter().zip(&permuted).rev() {
                tap[axis - 1] = place % size;
                place /= size;
            }
            tap
        })
        .collect()
}
