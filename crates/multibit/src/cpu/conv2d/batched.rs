//! Exact mode for many images: sixteen side by side.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::Call;
use super::exact::{OUTPUTS, Rows};
use crate::cpu::generic::{Batched, Finish, Interleave, Offsets, Row};
use crate::cpu::simd::{LANES, Line};
use crate::cpu::threads::{self, Shared};

/// Bytes of sixteen images that the second cache holds, about.
const CACHE: usize = 512 << 10;

/// Images from which empty lanes cost less than one image after the other.
const FEW: usize = 8;

impl Call<'_> {
    /// Whether as many images are best laid side by side.
    pub(super) fn fits_lanes(&self, images: usize) -> bool {
        let [height, width] = self.padded_size();
        let lines = self.input_shape[1] * height * width;
        images >= FEW && lines * size_of::<Line<f32>>() <= CACHE
    }

    /// Up to sixteen images.
    pub(super) fn batched(&self, rows: &Rows, images: Range<usize>) {
        let [_, channels, height, width] = self.input_shape;
        let [_, outputs, out_height, out_width] = self.output_shape;
        let [padded_height, padded_width] = self.padded_size();
        let (pixels, plane) = (height * width, padded_height * padded_width);
        let lanes = |part: usize, stride: usize| -> [Option<usize>; LANES] {
            core::array::from_fn(|lane| {
                let image = images.start + lane;
                (image < images.end).then(|| image * stride + part)
            })
        };

        let [(top, _), (left, _)] = self.options.padding;
        let mut lines = vec![Line([0.0; LANES]); channels * plane];
        let shared = Shared::new(&mut lines);
        threads::for_each(channels, 4 * channels * plane, |channel| {
            // SAFETY: each channel has a plane of its own.
            let to = unsafe { shared.part(channel * plane, plane) };
            // Without columns of padding, the rows are one run.
            let run = if padded_width == width { pixels } else { width };
            for (i, first) in (0..pixels).step_by(run.max(1)).enumerate() {
                self.kernel.isa.run(Interleave {
                    input: self.input,
                    starts: lanes(channel * pixels + first, channels * pixels),
                    output: &mut to[(top + i) * padded_width + left..][..run],
                });
            }
        });

        let [down, across] = self.options.dilation;
        let patch = self.kernel.patch.iter();
        let offsets = patch
            .map(|&[c, y, x]| c * plane + y * down * padded_width + x * across)
            .collect();
        let offsets = Offsets::new(offsets, self.kernel.weight.grouping().len());
        let [down, across] = self.options.stride;
        let positions: Vec<usize> = (0..self.positions())
            .map(|p| p / out_width * down * padded_width + p % out_width * across)
            .collect();
        debug_assert_eq!(positions.len(), out_height * out_width);
        let group_out = outputs / self.options.groups;
        let group_lines = channels / self.options.groups * plane;
        // Tasks of a group of channels read the same part of the images.
        let parts = group_out.div_ceil(OUTPUTS);
        let room = || vec![Line([0.0; LANES]); OUTPUTS * positions.len()];
        let cost = self.kernel.row_weights() * positions.len();
        threads::for_each_with(self.options.groups * parts, cost, room, |sums, task| {
            let (group, part) = (task / parts, task % parts * OUTPUTS);
            let first = group * group_out + part;
            let expanded: Vec<Row> = (first..first + OUTPUTS.min(group_out - part))
                .map(|output| self.row(output, rows.matrix.first[output]))
                .collect();
            let sums = &mut sums[..expanded.len() * positions.len()];
            sums.fill(Line([0.0; LANES]));
            self.kernel.isa.run(Batched {
                rows: &expanded,
                offsets: &offsets,
                images: &lines[group * group_lines..],
                positions: &positions,
                output: sums,
            });
            for (output, sums) in (first..).zip(sums.chunks_exact(positions.len())) {
                let (scale, offset) = self.affine.of(output);
                self.kernel.isa.run(Finish {
                    sums,
                    affine: [[scale; LANES], [offset; LANES]],
                    ends: self.affine.ends(),
                    // A channel of an image belongs to one task.
                    starts: lanes(output * positions.len(), outputs * positions.len()),
                    output: &self.output,
                });
            }
        });
    }

    /// `[height, width]` of the input with its padding.
    fn padded_size(&self) -> [usize; 2] {
        let [.., height, width] = self.input_shape;
        let [(top, bottom), (left, right)] = self.options.padding;
        [height + top + bottom, width + left + right]
    }
}
