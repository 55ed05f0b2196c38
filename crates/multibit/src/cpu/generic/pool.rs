//! Max pooling: the largest of some columns at every place, then every so many of them, then the
//! largest of some rows. All but the last are long runs.

use alloc::vec;
use alloc::vec::Vec;

use crate::cpu::Pool2dOptions;
use crate::cpu::simd::{Simd, Task};

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

// Plain loops: inlined into the entry of an instruction set, the compiler makes vectors of them.
impl Task for MaxPool<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let [height, width] = self.size;
        let [out_height, out_width] = self.out_size;
        let ([down, across], [top, left]) = (self.options.stride, self.options.padding);
        // Padded rows, a whole number of strides long.
        let padded_width = (width + 2 * left).next_multiple_of(across);
        let columns = padded_width / across;
        let count = (CHUNK / (height * padded_width)).max(1);
        let len = count * height * padded_width;
        let mut padded = vec![f32::NEG_INFINITY; if padded_width == width { 0 } else { len }];
        let mut largest: Vec<f32> = Vec::with_capacity(len);
        let mut picked = vec![0.0; len / across];
        let planes = self.input.chunks(count * height * width);
        let out_planes = self.output.chunks_mut(count * out_height * out_width);
        for (planes, out_planes) in planes.zip(out_planes) {
            let values = if padded_width == width {
                planes
            } else {
                let rows = padded.chunks_exact_mut(padded_width);
                for (to, row) in rows.zip(planes.chunks_exact(width)) {
                    to[left..][..width].copy_from_slice(row);
                }
                &padded[..planes.len() / width * padded_width]
            };
            largest.clear();
            largest.extend_from_slice(values);
            for k in 1..self.options.kernel[1] {
                let ahead = (k * self.options.dilation[1]).min(values.len());
                keep_larger(&mut largest, &values[ahead..]);
            }
            let picked = &mut picked[..largest.len() / across];
            match across {
                1 => picked.copy_from_slice(&largest),
                2 => pick::<2>(picked, &largest),
                3 => pick::<3>(picked, &largest),
                _ => {
                    let values = largest.iter().step_by(across);
                    for (to, &x) in picked.iter_mut().zip(values) {
                        *to = x;
                    }
                }
            }
            let planes = picked.chunks_exact(height * columns);
            for (plane, out_plane) in
                planes.zip(out_planes.chunks_exact_mut(out_height * out_width))
            {
                for (y, to) in out_plane.chunks_exact_mut(out_width).enumerate() {
                    let mut first = true;
                    for k in 0..self.options.kernel[0] {
                        let y = y * down + k * self.options.dilation[0];
                        if y < top || y - top >= height {
                            continue;
                        }
                        let row = &plane[(y - top) * columns..][..out_width];
                        if first {
                            to.copy_from_slice(row);
                        } else {
                            keep_larger(to, row);
                        }
                        first = false;
                    }
                    if first {
                        to.fill(f32::NEG_INFINITY);
                    }
                }
            }
        }
    }
}

/// NaN is kept from either side.
#[inline(always)]
fn keep_larger(to: &mut [f32], from: &[f32]) {
    for (to, &x) in to.iter_mut().zip(from) {
        *to = if x > *to || x.is_nan() { x } else { *to };
    }
}

/// Every `N`th value.
#[inline(always)]
fn pick<const N: usize>(to: &mut [f32], from: &[f32]) {
    const BLOCK: usize = 16;
    let (blocks, rest) = to.as_chunks_mut::<BLOCK>();
    let from = from.as_chunks::<N>().0;
    let (from, from_rest) = from.as_chunks::<BLOCK>();
    for (to, from) in blocks.iter_mut().zip(from) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from[0];
        }
    }
    for (to, from) in rest.iter_mut().zip(from_rest) {
        *to = from[0];
    }
}
