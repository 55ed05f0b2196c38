//! Exact mode: weights times shifted images.

use alloc::vec;
use alloc::vec::Vec;

use super::Call;
use crate::PackedWeight;
use crate::bits::{bit, signed};
use crate::cpu::Conv2dOptions;
use crate::cpu::generic::{Shifted, Taps};
use crate::cpu::simd::LANES;
use crate::cpu::threads::{self, Shared};

/// Images that are laid out at once.
const IMAGES: usize = 16;

/// Outputs of a task.
const OUTPUTS: usize = 4;

/// An image with its padding, sorted by the remainders of its places by the stride.
struct Padded {
    /// Rows and columns of one remainder.
    rows: usize,
    columns: usize,
    /// Values of an image, and zeros for the sums behind its end.
    len: usize,
}

impl Call<'_> {
    pub(super) fn exact(&self) {
        let [batch, channels, ..] = self.input_shape;
        let [_, outputs, out_height, out_width] = self.output_shape;
        let padded = self.padded();
        let flat = ((out_height - 1) * padded.columns + out_width).next_multiple_of(LANES);
        let offsets = self.offsets(&padded);
        let first_row = first_rows(&self.kernel.weight);
        let group_out = outputs / self.options.groups;
        let group_stride = channels / self.options.groups * self.channel_stride(&padded);
        let mut images = vec![0.0; IMAGES.min(batch) * padded.len];
        for first in (0..batch).step_by(IMAGES) {
            let count = IMAGES.min(batch - first);
            let shared = Shared::new(&mut images);
            threads::for_each(count, |image| {
                // SAFETY: each image has a part of its own.
                let to = unsafe { shared.part(image * padded.len, padded.len) };
                self.lay_out(first + image, &padded, to);
            });
            threads::for_each(outputs.div_ceil(OUTPUTS), |task| {
                let mut sums = vec![0.0; flat];
                #[expect(clippy::needless_range_loop, reason = "it is more than an index")]
                for output in task * OUTPUTS..outputs.min((task + 1) * OUTPUTS) {
                    let origin = output / group_out * group_stride;
                    let row = first_row[output];
                    let (scale, offset) = self.affine.of(output);
                    let taps = taps(&self.kernel.weight, output, row, &offsets, origin);
                    for (image, values) in images.chunks_exact(padded.len).take(count).enumerate() {
                        self.kernel.isa.run(Shifted {
                            taps: &taps,
                            image: values,
                            output: &mut sums,
                        });
                        let channel = (first + image) * outputs + output;
                        let len = self.positions();
                        // SAFETY: a channel of an image belongs to one task.
                        let to = unsafe { self.output.part(channel * len, len) };
                        let rows = sums.chunks(padded.columns);
                        for (to, row) in to.chunks_exact_mut(out_width).zip(rows) {
                            for (y, sum) in to.iter_mut().zip(row) {
                                *y = scale * sum + offset;
                            }
                        }
                    }
                }
            });
        }
    }

    fn padded(&self) -> Padded {
        let Conv2dOptions {
            stride, padding, ..
        } = *self.options;
        let [_, channels, height, width] = self.input_shape;
        let size = |axis: usize, size: usize| {
            let (before, after) = padding[axis];
            (size + before + after).div_ceil(stride[axis])
        };
        let mut padded = Padded {
            rows: size(0, height),
            columns: size(1, width),
            len: 0,
        };
        // The sums of the last row run on for up to a row and a vector.
        padded.len = channels * self.channel_stride(&padded) + padded.columns + LANES;
        padded
    }

    fn channel_stride(&self, padded: &Padded) -> usize {
        let [rows, columns] = self.options.stride;
        rows * columns * padded.rows * padded.columns
    }

    /// Where a row and a column of the padded input lie in a channel.
    fn place(&self, padded: &Padded, row: usize, column: usize) -> usize {
        let [down, across] = self.options.stride;
        let remainder = row % down * across + column % across;
        (remainder * padded.rows + row / down) * padded.columns + column / across
    }

    /// Where the input of each weight of the patch begins.
    fn offsets(&self, padded: &Padded) -> Vec<usize> {
        let [down, across] = self.options.dilation;
        let stride = self.channel_stride(padded);
        let patch = self.kernel.patch.iter();
        patch
            .map(|&[c, y, x]| c * stride + self.place(padded, y * down, x * across))
            .collect()
    }

    fn lay_out(&self, image: usize, padded: &Padded, to: &mut [f32]) {
        let [_, channels, height, width] = self.input_shape;
        let stride = self.channel_stride(padded);
        let [(top, _), (left, _)] = self.options.padding;
        let across = self.options.stride[1];
        let rows = self.input[image * channels * height * width..].chunks_exact(width);
        for (i, row) in rows.take(channels * height).enumerate() {
            let (channel, y) = (i / height, i % height);
            let start = channel * stride;
            for column in 0..across.min(width) {
                // All values of one remainder lie next to each other.
                let place = start + self.place(padded, y + top, column + left);
                let values = row[column..].iter().step_by(across);
                for (to, &x) in to[place..].iter_mut().zip(values) {
                    *to = x;
                }
            }
        }
    }
}

/// The first row of each output.
fn first_rows(weight: &PackedWeight) -> Vec<usize> {
    let groups = weight.grouping().groups_per_output(weight.shape());
    let mut row = 0;
    let outputs = weight.widths().chunks_exact(groups);
    outputs
        .map(|widths| {
            let first = row;
            row += widths
                .iter()
                .map(|&width| usize::from(width))
                .sum::<usize>();
            first
        })
        .collect()
}

/// The weights of one output, from its rows.
fn taps(
    weight: &PackedWeight,
    output: usize,
    mut row: usize,
    offsets: &[usize],
    origin: usize,
) -> Taps {
    let len = weight.grouping().len();
    let groups = offsets.len() / len;
    let mut list = Vec::new();
    let widths = &weight.widths()[output * groups..];
    for (offsets, &width) in offsets.chunks_exact(len).zip(widths) {
        let rows = row..row + usize::from(width);
        row = rows.end;
        if rows.is_empty() {
            continue;
        }
        for (j, offset) in offsets.iter().enumerate() {
            let signed = rows
                .clone()
                .map(|row| signed(weight.coordinates()[row], bit(weight.row(row), j)));
            list.push((signed.sum(), origin + offset));
        }
    }
    Taps { list }
}
