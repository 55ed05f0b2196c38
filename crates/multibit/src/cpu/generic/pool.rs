//! Max pooling: the largest of some rows, then of some columns.

use alloc::vec::Vec;

use crate::cpu::Pool2dOptions;
use crate::cpu::simd::{Simd, Task};

/// Some planes.
pub(in crate::cpu) struct MaxPool<'a> {
    pub input: &'a [f32],
    pub size: [usize; 2],
    pub options: &'a Pool2dOptions,
    pub out_size: [usize; 2],
    /// The largest values of the columns under a row of windows, between paddings of −∞.
    pub row: Vec<f32>,
    pub output: &'a mut [f32],
}

impl MaxPool<'_> {
    /// Values of [`row`](Self::row): what the last window's stride reaches over, or the input.
    pub fn row_len(options: &Pool2dOptions, width: usize, out_width: usize) -> usize {
        let [_, kernel] = options.kernel;
        let reach = options.dilation[1] * (kernel - 1) + options.stride[1] * out_width;
        reach.max(options.padding[1] + width)
    }
}

// Plain loops: inlined into the entry of an instruction set, the compiler makes vectors of them.
impl Task for MaxPool<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, _simd: S) {
        let [height, width] = self.size;
        let [out_height, out_width] = self.out_size;
        let [top, left] = self.options.padding;
        let planes = self.input.chunks_exact(height * width);
        let out_planes = self.output.chunks_exact_mut(out_height * out_width);
        for (plane, out_plane) in planes.zip(out_planes) {
            for (y, to) in out_plane.chunks_exact_mut(out_width).enumerate() {
                let values = &mut self.row[left..][..width];
                let mut first = true;
                for k in 0..self.options.kernel[0] {
                    let y = y * self.options.stride[0] + k * self.options.dilation[0];
                    if y < top || y - top >= height {
                        continue;
                    }
                    let row = &plane[(y - top) * width..][..width];
                    if first {
                        values.copy_from_slice(row);
                    } else {
                        keep_larger(values, row.iter());
                    }
                    first = false;
                }
                if first {
                    values.fill(f32::NEG_INFINITY);
                }
                for k in 0..self.options.kernel[1] {
                    let from = &self.row[k * self.options.dilation[1]..];
                    match (k, self.options.stride[1]) {
                        (0, 1) => to.copy_from_slice(&from[..out_width]),
                        (0, 2) => copy(to, from.as_chunks::<2>().0.iter().map(first_of)),
                        (0, stride) => copy(to, from.iter().step_by(stride)),
                        (_, 1) => keep_larger(to, from.iter()),
                        (_, 2) => keep_larger(to, from.as_chunks::<2>().0.iter().map(first_of)),
                        (_, stride) => keep_larger(to, from.iter().step_by(stride)),
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn first_of(pair: &[f32; 2]) -> &f32 {
    &pair[0]
}

#[inline(always)]
fn copy<'a>(to: &mut [f32], from: impl Iterator<Item = &'a f32>) {
    for (to, &x) in to.iter_mut().zip(from) {
        *to = x;
    }
}

/// NaN is kept from either side.
#[inline(always)]
fn keep_larger<'a>(to: &mut [f32], from: impl Iterator<Item = &'a f32>) {
    for (to, &x) in to.iter_mut().zip(from) {
        *to = if x > *to || x.is_nan() { x } else { *to };
    }
}
