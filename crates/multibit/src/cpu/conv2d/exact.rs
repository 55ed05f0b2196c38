//! Exact mode: the weights of an output in f32, times images.
//!
//! Many images lie side by side, one a lane ([`batched`](super::batched)); few are taken one after
//! the other, shifted below each weight or, where many outputs share them, below sums of four
//! inputs. Groups of width 0 cost nothing where an output is computed alone; outputs that have most
//! groups in common share the loads of the image.

use alloc::vec;
use alloc::vec::Vec;

use super::Call;
use crate::cpu::Conv2dOptions;
use crate::cpu::generic::{Expand, FinishRows, Fours, Offsets, Row, Shifted, Uses};
use crate::cpu::simd::{LANES, Line, flat_mut};
use crate::cpu::threads::{self, Shared};
use crate::packed::PackedWeight;

/// Images that are laid out at once.
const IMAGES: usize = 16;

/// Outputs of a task.
pub(super) const OUTPUTS: usize = 4;

/// Vectors of positions of a task.
const STRIP: usize = 32;

/// Rows of a group from which making sums of four inputs pays.
const FEW_USES: usize = 12;

/// Where the rows of bits are.
pub(super) struct Rows {
    /// The first row of each output, and the end.
    pub first: Vec<usize>,
    /// The rows of each group of channels by their inputs, where sums of four inputs pay.
    uses: Option<Vec<Uses>>,
}

impl Rows {
    pub(super) fn new(weight: &PackedWeight, groups: usize) -> Self {
        let first = weight.first_rows();
        let outputs = first.len() - 1;
        let part = outputs / groups;
        let uses = first[..outputs].chunks(part).enumerate();
        let uses: Vec<Uses> = uses
            .map(|(group, rows)| Uses::new(weight, group * part, rows))
            .collect();
        let pay = uses.iter().all(|uses| uses.pay(FEW_USES));
        Self {
            first,
            uses: pay.then_some(uses),
        }
    }
}

/// An image with its padding, sorted by the remainders of its places by the stride.
struct Padded {
    /// Rows and columns of one remainder.
    rows: usize,
    columns: usize,
    /// Values of an image, and zeros for the sums behind its end.
    len: usize,
}

impl Call<'_> {
    pub(super) fn exact(&self, rows: &Rows) {
        let batch = self.input_shape[0];
        let mut whole = 0;
        while self.fits_lanes(batch.saturating_sub(whole * LANES)) {
            whole += 1;
        }
        let cost = whole * self.positions() * self.kernel.row_weights();
        threads::for_each(whole, cost, |part| {
            self.batched(rows, part * LANES..batch.min((part + 1) * LANES));
        });
        if whole * LANES < batch {
            self.shifted(rows, whole * LANES);
        }
    }

    /// The images from `start` on, one after the other.
    fn shifted(&self, rows: &Rows, start: usize) {
        let [batch, channels, ..] = self.input_shape;
        let outputs = self.output_shape[1];
        let padded = self.padded();
        let offsets = self.shifted_offsets(&padded);
        let group_stride = channels / self.options.groups * self.channel_stride(&padded);
        let mut images = vec![0.0; IMAGES.min(batch - start) * padded.len];
        for first in (start..batch).step_by(IMAGES) {
            let count = IMAGES.min(batch - first);
            let cost = count * padded.len / 4;
            let shared = Shared::new(&mut images);
            threads::for_each(count, cost, |image| {
                // SAFETY: each image has a part of its own.
                let to = unsafe { shared.part(image * padded.len, padded.len) };
                self.lay_out(first + image, &padded, to);
            });
            let images = &images[..count * padded.len];
            if let Some(uses) = &rows.uses {
                self.fours(first, &padded, &offsets, images, uses);
                continue;
            }
            // Tasks of a group of channels read the same part of the images.
            let group_out = outputs / self.options.groups;
            let parts = group_out.div_ceil(OUTPUTS);
            let weights = self.kernel.row_weights();
            let cost = count * weights * padded.columns * padded.rows / LANES;
            threads::for_each(self.options.groups * parts, cost, |task| {
                let (group, part) = (task / parts, task % parts * OUTPUTS);
                let output = group * group_out + part;
                let expanded: Vec<Row> = (output..output + OUTPUTS.min(group_out - part))
                    .map(|output| self.row(output, rows.first[output]))
                    .collect();
                for (image, values) in images.chunks_exact(padded.len).enumerate() {
                    let shift = Shift {
                        image: first + image,
                        padded: &padded,
                        offsets: &offsets,
                        values: &values[group * group_stride..],
                    };
                    self.shift(&shift, output, &expanded);
                }
            });
        }
    }

    /// Some images by sums of four inputs, laid out in `images`.
    fn fours(
        &self,
        first: usize,
        padded: &Padded,
        offsets: &Offsets,
        images: &[f32],
        uses: &[Uses],
    ) {
        let [_, channels_out, out_height, out_width] = self.output_shape;
        let group_out = channels_out / self.options.groups;
        let group_stride = self.input_shape[1] / self.options.groups * self.channel_stride(padded);
        let flat = (out_height - 1) * padded.columns + out_width;
        let strips = flat.div_ceil(STRIP * LANES);
        let count = images.len() / padded.len;
        let room = || (vec![Line([0.0; LANES]); group_out * STRIP], Vec::new());
        let cost = count * self.kernel.row_weights() / 4 * flat / LANES;
        threads::for_each_with(count * uses.len() * strips, cost, room, |room, task| {
            let (sums, values) = room;
            let (strip, part) = (task % strips, task / strips);
            let (group, image) = (part % uses.len(), part / uses.len());
            let start = strip * STRIP * LANES;
            let vectors = (flat - start).div_ceil(LANES).min(STRIP);
            let sums = &mut sums[..group_out * vectors];
            sums.fill(Line([0.0; LANES]));
            self.kernel.isa.run(Fours {
                words: self.kernel.weight.words(),
                uses: &uses[group],
                offsets,
                image: &images[image * padded.len + group * group_stride + start..],
                outputs: group_out,
                output: sums,
            });
            for place in 0..group_out {
                let output = group * group_out + place;
                self.kernel.isa.run(FinishRows {
                    sums: Fours::sums(sums, group_out, place),
                    affine: self.affine.of(output),
                    ends: self.affine.ends(),
                    place: start,
                    columns: padded.columns,
                    // A place of a channel of an image belongs to one task.
                    start: ((first + image) * channels_out + output) * self.positions(),
                    size: [out_height, out_width],
                    values,
                    output: &self.output,
                });
            }
        });
    }

    /// Some outputs of one image, together where they have most groups in common.
    fn shift(&self, shift: &Shift<'_>, output: usize, rows: &[Row]) {
        let mut groups: Vec<usize> = rows.iter().flat_map(|row| row.groups.clone()).collect();
        let alone = groups.len();
        groups.sort_unstable();
        groups.dedup();
        match rows {
            // Alone, an output spends as much time on loads as on products.
            [a, b, c, d] if 2 * groups.len() <= alone => {
                self.shift_some(shift, output, [a, b, c, d], &groups);
            }
            rows => {
                for (i, row) in rows.iter().enumerate() {
                    self.shift_some(shift, output + i, [row], &row.groups);
                }
            }
        }
    }

    fn shift_some<const R: usize>(
        &self,
        shift: &Shift<'_>,
        output: usize,
        rows: [&Row; R],
        groups: &[usize],
    ) {
        let [_, outputs, out_height, out_width] = self.output_shape;
        let columns = shift.padded.columns;
        let flat = ((out_height - 1) * columns + out_width).next_multiple_of(LANES);
        let mut sums = vec![Line([0.0; LANES]); R * flat / LANES];
        self.kernel.isa.run(Shifted {
            rows,
            groups,
            offsets: shift.offsets,
            image: shift.values,
            output: flat_mut(&mut sums),
        });
        let mut values = Vec::new();
        for (output, sums) in (output..).zip(sums.chunks_exact(flat / LANES)) {
            let len = self.positions();
            self.kernel.isa.run(FinishRows {
                sums: sums.iter(),
                affine: self.affine.of(output),
                ends: self.affine.ends(),
                place: 0,
                columns,
                // A channel of an image belongs to one task.
                start: (shift.image * outputs + output) * len,
                size: [out_height, out_width],
                values: &mut values,
                output: &self.output,
            });
        }
    }

    /// The weights of an output, whose rows of bits begin at `first`.
    pub(super) fn row(&self, output: usize, first: usize) -> Row {
        let weight = &self.kernel.weight;
        let mut row = Row::new(weight);
        self.kernel.isa.run(Expand {
            weight,
            output,
            first,
            row: &mut row,
        });
        row
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
    fn shifted_offsets(&self, padded: &Padded) -> Offsets {
        let [down, across] = self.options.dilation;
        let stride = self.channel_stride(padded);
        let patch = self.kernel.patch.iter();
        let list = patch
            .map(|&[c, y, x]| c * stride + self.place(padded, y * down, x * across))
            .collect();
        Offsets::new(list, self.kernel.weight.grouping().len())
    }

    fn lay_out(&self, image: usize, padded: &Padded, to: &mut [f32]) {
        let [_, channels, height, width] = self.input_shape;
        let stride = self.channel_stride(padded);
        let [(top, _), (left, _)] = self.options.padding;
        let across = self.options.stride[1];
        if width == 0 {
            return; // All of it is padding.
        }
        let rows = self.input[image * channels * height * width..].chunks_exact(width);
        for (i, row) in rows.take(channels * height).enumerate() {
            let (channel, y) = (i / height, i % height);
            let start = channel * stride;
            for column in 0..across.min(width) {
                // All values of one remainder lie next to each other.
                let place = start + self.place(padded, y + top, column + left);
                if across == 1 {
                    to[place..][..width].copy_from_slice(row);
                    continue;
                }
                let values = row[column..].iter().step_by(across);
                for (to, &x) in to[place..].iter_mut().zip(values) {
                    *to = x;
                }
            }
        }
    }
}

/// One image, laid out.
struct Shift<'a> {
    image: usize,
    padded: &'a Padded,
    offsets: &'a Offsets,
    /// The image from the first channel of the group on.
    values: &'a [f32],
}
