//! Max pooling: the largest of some columns at every place, every so many of them, then the largest
//! of some rows at every place, and every so many rows. All but the last are long runs over planes.

use alloc::vec;
use alloc::vec::Vec;

use super::finish::copy;
use crate::cpu::Pool2dOptions;
use crate::cpu::simd::{LANES, Simd, Task};

/// Values that are worked on at once, about: they stay in the first cache.
const CHUNK: usize = 2048;

/// Some planes.
pub(in crate::cpu) struct MaxPool<'a> {
    pub input: &'a [f32],
    pub size: [usize; 2],
    pub options: &'a Pool2dOptions,
    pub out_size: [usize; 2],
    pub output: &'a mut [f32],
}

impl Task for MaxPool<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let [height, width] = self.size;
        let [out_height, out_width] = self.out_size;
        let Pool2dOptions {
            kernel,
            stride,
            padding: [top, left],
            dilation,
        } = *self.options;
        // A padded row is a whole number of strides long.
        let padded_height = height + 2 * top;
        let padded_width = (width + 2 * left).next_multiple_of(stride[1]);
        let is_padded = padded_height * padded_width > height * width;
        let columns = padded_width / stride[1];
        let reach = dilation[0] * (kernel[0] - 1) + 1;
        // Some planes, or some rows of windows of one.
        let count = (CHUNK / (padded_height * padded_width)).max(1);
        let strip = match count {
            1 => (CHUNK / (padded_width * stride[0])).clamp(1, out_height),
            _ => out_height,
        };
        let room = count * padded_width * padded_height.min(strip * stride[0] + reach);
        let mut padded = vec![f32::NEG_INFINITY; if is_padded { room } else { 0 }];
        // Room for whole vectors behind the end.
        let mut largest = Vec::with_capacity(room);
        let mut picked = vec![0.0; room / stride[1]];
        let mut rows = Vec::with_capacity(picked.len() + LANES);
        let planes = self.input.chunks(count * height * width);
        let out_plane = out_height * out_width;
        for (planes, output) in planes.zip(self.output.chunks_mut(count * out_plane)) {
            let count = output.len() / out_plane;
            let mut first = 0;
            for start in (0..out_height).step_by(strip) {
                let strip = strip.min(out_height - start);
                // Rows of a padded plane under these windows.
                let from = start * stride[0];
                let strip_rows = if strip == out_height {
                    padded_height
                } else {
                    (strip - 1) * stride[0] + reach
                };
                let values = if is_padded {
                    let padded = &mut padded[..count * strip_rows * padded_width];
                    let all = planes.chunks_exact(height * width);
                    for (to, plane) in padded.chunks_exact_mut(strip_rows * padded_width).zip(all) {
                        for (y, to) in (from..).zip(to.chunks_exact_mut(padded_width)) {
                            if y < top || y >= top + height {
                                to.fill(f32::NEG_INFINITY);
                            } else {
                                let row = &plane[(y - top) * width..][..width];
                                to[left..][..width].copy_from_slice(row);
                            }
                        }
                    }
                    &*padded
                } else {
                    &planes[from * width..][..count * strip_rows * width]
                };
                largest_ahead(values, kernel[1], dilation[1], &mut largest);
                let picked = &mut picked[..largest.len() / stride[1]];
                pick(simd, &largest, stride[1], picked);
                largest_ahead(picked, kernel[0], dilation[0] * columns, &mut rows);
                rows.resize(rows.len() + LANES, 0.0);
                for plane in 0..count {
                    for y in 0..strip {
                        let row = &rows[(plane * strip_rows + y * stride[0]) * columns..];
                        copy(&mut output[first..], row, out_width);
                        first += out_width;
                    }
                }
            }
        }
    }
}

/// The largest of `count` values at distance `step` from every place on.
#[inline(always)]
fn largest_ahead(values: &[f32], count: usize, step: usize, to: &mut Vec<f32>) {
    to.clear();
    to.extend_from_slice(values);
    for k in 1..count {
        // The compiler makes vectors of this.
        for (to, &x) in to.iter_mut().zip(&values[(k * step).min(values.len())..]) {
            // NaN is kept from either side.
            *to = if x > *to || x.is_nan() { x } else { *to };
        }
    }
}

/// Every `step`th value.
#[inline(always)]
fn pick<S: Simd>(simd: S, values: &[f32], step: usize, to: &mut [f32]) {
    let mut done = 0;
    if step == 1 {
        to.copy_from_slice(values);
        return;
    }
    if step == 2 {
        let pairs = values.as_chunks::<{ 2 * LANES }>().0;
        for (pair, to) in pairs.iter().zip(to.as_chunks_mut::<LANES>().0) {
            let (a, b) = (pair.first_chunk(), pair.last_chunk());
            let a = simd.f_load(a.expect("two vectors"));
            let b = simd.f_load(b.expect("two vectors"));
            simd.f_store(simd.f_even(a, b), to);
            done += LANES;
        }
    }
    let values = values.iter().step_by(step).skip(done);
    for (to, &x) in to[done..].iter_mut().zip(values) {
        *to = x;
    }
}
