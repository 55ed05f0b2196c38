//! One head of attention: queries × keys, softmax, × values, a few queries at a time, so that their
//! scores stay in the cache.
//!
//! Both products are the same kernel: a few rows of numbers × a panel of vectors. Keys are packed
//! so that neighbouring ones are the lanes of a vector, values so that a row is whole vectors.

use alloc::vec::Vec;

use super::norm::{exponentials, scale};
use crate::cpu::Attention;
use crate::cpu::simd::{LANES, Line, Simd, Task, flat_mut};
use crate::cpu::threads::Shared;

/// Queries at a time: whole tiles of each instruction set.
const QUERIES: usize = 12;

/// One head of one sequence, or some of its queries.
pub(in crate::cpu) struct Head<'a> {
    /// Where the head's part of the first row begins.
    pub query: &'a [f32],
    pub key: &'a [f32],
    pub value: &'a [f32],
    /// Distances of the rows of each.
    pub strides: [usize; 3],
    pub queries: usize,
    /// `[keys]`.
    pub pad: Option<&'a [u8]>,
    /// `[queries, keys]`.
    pub pairs: Option<&'a [u8]>,
}

pub(in crate::cpu) struct AttendHead<'a> {
    pub attention: &'a Attention,
    pub head: Head<'a>,
    pub context: &'a Shared<'a, f32>,
    /// Where the head's part of the first row of the context begins; no other task may write it.
    pub start: usize,
    /// `[queries, keys]`.
    pub weights: Option<&'a mut [f32]>,
    /// Room for packed keys and values and for scores.
    pub room: &'a mut Vec<Line<f32>>,
}

impl Task for AttendHead<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            attention,
            head,
            context,
            start,
            mut weights,
            room,
        } = self;
        let (keys, width) = (attention.keys, attention.width);
        let [query_stride, key_stride, value_stride] = head.strides;
        let context_stride = attention.heads * width;
        let (key_lines, width_lines) = (keys.div_ceil(LANES), width.div_ceil(LANES));
        let sizes = [
            key_lines * width,
            keys * width_lines,
            QUERIES * key_lines,
            QUERIES * width_lines,
            (QUERIES * width).div_ceil(LANES),
        ];
        room.resize(sizes.iter().sum(), Line([0.0; LANES]));
        let (packed_keys, rest) = room.split_at_mut(sizes[0]);
        let (packed_values, rest) = rest.split_at_mut(sizes[1]);
        let (scores, rest) = rest.split_at_mut(sizes[2]);
        let (sums, scaled) = rest.split_at_mut(sizes[3]);
        pack_keys(simd, head.key, key_stride, [keys, width], packed_keys);
        for (row, lines) in packed_values.chunks_exact_mut(width_lines).enumerate() {
            let row = &head.value[row * value_stride..][..width];
            for (line, values) in lines.iter_mut().zip(row.chunks(LANES)) {
                line.0[..values.len()].copy_from_slice(values);
            }
        }
        let scaled = flat_mut(scaled);
        for first in (0..head.queries).step_by(QUERIES) {
            let count = QUERIES.min(head.queries - first);
            for (i, scaled) in scaled.chunks_exact_mut(width).take(count).enumerate() {
                let row = &head.query[(first + i) * query_stride..][..width];
                for (scaled, x) in scaled.iter_mut().zip(row) {
                    *scaled = x * attention.scale;
                }
            }
            // Panels of keys, each `[width, lanes]`.
            multiply(
                simd,
                Numbers {
                    values: scaled,
                    stride: width,
                    rows: count,
                    len: width,
                },
                Panels {
                    lines: packed_keys,
                    step: 1,
                    next: width,
                },
                key_lines,
                scores,
            );
            let scores = flat_mut(scores);
            let mut inverses = [0.0; QUERIES];
            let rows = scores.chunks_exact_mut(key_lines * LANES);
            for (i, (row, inverse)) in rows.zip(&mut inverses).take(count).enumerate() {
                let row = &mut row[..keys];
                let pairs = head
                    .pairs
                    .map_or(&[][..], |mask| &mask[(first + i) * keys..][..keys]);
                for mask in [head.pad.unwrap_or(&[]), pairs] {
                    for (score, &masked) in row.iter_mut().zip(mask) {
                        *score = if masked != 0 {
                            attention.min_float
                        } else {
                            *score
                        };
                    }
                }
                *inverse = exponentials(simd, row, attention.quiet);
                if let Some(weights) = &mut weights {
                    let weights = &mut weights[(first + i) * keys..][..keys];
                    weights.copy_from_slice(row);
                    scale(simd, weights, *inverse);
                }
            }
            multiply(
                simd,
                Numbers {
                    values: scores,
                    stride: key_lines * LANES,
                    rows: count,
                    len: keys,
                },
                Panels {
                    lines: packed_values,
                    step: width_lines,
                    next: 1,
                },
                width_lines,
                sums,
            );
            let rows = flat_mut(sums).chunks_exact_mut(width_lines * LANES);
            for (i, (row, inverse)) in rows.zip(inverses).take(count).enumerate() {
                let row = &mut row[..width];
                scale(simd, row, inverse);
                // SAFETY: whoever made `start` keeps tasks apart.
                let to = unsafe { context.part(start + (first + i) * context_stride, width) };
                to.copy_from_slice(row);
            }
        }
    }
}

/// Keys `[keys, width]` → `[⌈keys / lanes⌉, width, lanes]`. Lanes without a key are not written.
#[inline(always)]
fn pack_keys<S: Simd>(
    simd: S,
    values: &[f32],
    stride: usize,
    [keys, width]: [usize; 2],
    lines: &mut [Line<f32>],
) {
    for (panel, lines) in lines.chunks_exact_mut(width).enumerate() {
        let first = panel * LANES;
        let count = LANES.min(keys - first);
        for (part, lines) in lines.chunks_mut(LANES).enumerate() {
            let mut rows = [Line([0.0; LANES]); LANES];
            for (i, row) in rows.iter_mut().take(count).enumerate() {
                let from = &values[(first + i) * stride + part * LANES..];
                match from.first_chunk() {
                    // What is behind the row is not stored.
                    Some(from) => row.0 = *from,
                    None => row.0[..lines.len()].copy_from_slice(&from[..lines.len()]),
                }
            }
            simd.transpose(&mut rows);
            lines.copy_from_slice(&rows[..lines.len()]);
        }
    }
}

/// Rows of numbers.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    values: &'a [f32],
    /// Distance of rows.
    stride: usize,
    rows: usize,
    /// Numbers of a row.
    len: usize,
}

/// Panels of vectors, one for each number of a row.
#[derive(Clone, Copy)]
struct Panels<'a> {
    lines: &'a [Line<f32>],
    /// Distance of the vectors of one panel.
    step: usize,
    /// Distance of panels.
    next: usize,
}

/// `output[row, panel] = Σᵢ numbers[row, i]·panels[panel, i]`; the output has lines side by side.
#[inline(always)]
fn multiply<S: Simd>(
    simd: S,
    numbers: Numbers<'_>,
    panels: Panels<'_>,
    count: usize,
    output: &mut [Line<f32>],
) {
    let Numbers {
        values,
        stride,
        rows,
        len,
    } = numbers;
    let reach = (count - 1) * panels.next + (len - 1) * panels.step;
    assert!(
        reach < panels.lines.len(),
        "vectors lie outside of the panels"
    );
    assert!(
        (rows - 1) * stride + len <= values.len(),
        "rows lie outside of the numbers"
    );
    let mut panel = 0;
    while panel < count {
        let is_pair = S::REGISTERS >= 32 && panel + 1 < count;
        let mut row = 0;
        while row < rows {
            let left = rows - row;
            macro_rules! tile {
                ($rows:literal, $panels:literal) => {{
                    tile::<S, $rows, $panels>(simd, numbers, panels, [row, panel], count, output);
                    $rows
                }};
            }
            row += match (is_pair, left) {
                (true, 12..) => tile!(12, 2),
                (true, 4..) => tile!(4, 2),
                (true, _) => tile!(1, 2),
                (false, 6..) if S::REGISTERS >= 8 => tile!(6, 1),
                (false, 2..) => tile!(2, 1),
                (false, _) => tile!(1, 1),
            };
        }
        panel += if is_pair { 2 } else { 1 };
    }
}

/// `R` rows × `P` panels from `row` and `panel` on.
#[inline(always)]
fn tile<S: Simd, const R: usize, const P: usize>(
    simd: S,
    numbers: Numbers<'_>,
    panels: Panels<'_>,
    [row, panel]: [usize; 2],
    count: usize,
    output: &mut [Line<f32>],
) {
    let mut sums = [[simd.f_splat(0.0); P]; R];
    let mut place = panel * panels.next;
    for i in 0..numbers.len {
        let at = row * numbers.stride + i;
        let mut lines = [simd.f_splat(0.0); P];
        for (p, line) in lines.iter_mut().enumerate() {
            debug_assert!(place + p * panels.next < panels.lines.len());
            // SAFETY: `multiply` has seen that the last vector of the last panel lies inside.
            *line = simd.f_load(unsafe { &panels.lines.get_unchecked(place + p * panels.next).0 });
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            debug_assert!(at + r * numbers.stride < numbers.values.len());
            // SAFETY: `multiply` has seen that the last number of the last row lies inside.
            let x = simd.f_splat(unsafe { *numbers.values.get_unchecked(at + r * numbers.stride) });
            for (sum, &line) in sums.iter_mut().zip(&lines) {
                *sum = simd.f_fma(x, line, *sum);
            }
        }
        place += panels.step;
    }
    for (r, sums) in sums.iter().enumerate() {
        let output = &mut output[(row + r) * count + panel..][..P];
        for (line, &sum) in output.iter_mut().zip(sums) {
            simd.f_store(sum, &mut line.0);
        }
    }
}
