//! Softmax and layer norm: rows of values that share a sum.

use super::elementary::exp;
use crate::cpu::simd::{LANES, Simd, Task, first_lanes, store_first};
use crate::math::sqrt;

/// Softmax of some rows, in place.
pub(in crate::cpu) struct Softmax<'a> {
    /// `[rows, len]`.
    pub values: &'a mut [f32],
    pub len: usize,
    pub quiet: bool,
}

impl Task for Softmax<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for row in self.values.chunks_exact_mut(self.len) {
            let inverse = exponentials(simd, row, self.quiet);
            scale(simd, row, inverse);
        }
    }
}

/// Values → `e^(x − largest)`. Returns what these are multiplied by: one divided by their sum,
/// to which quiet softmax adds a value of `x = 0`.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(simd: S, row: &mut [f32], quiet: bool) -> f32 {
    let (lines, rest) = row.as_chunks_mut::<LANES>();
    let mut padded = [f32::NEG_INFINITY; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    let mut largest = simd.f_load(&padded);
    for line in lines.iter() {
        largest = simd.f_max(largest, simd.f_load(line));
    }
    let mut lanes = [0.0; LANES];
    simd.f_store(largest, &mut lanes);
    let mut largest = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    if quiet && largest == f32::NEG_INFINITY {
        // Nothing but the added value is left; the difference would be NaN.
        largest = 0.0;
    }
    let shift = simd.f_splat(largest);
    let mut sum = simd.f_splat(0.0);
    for line in lines {
        let e = exp(simd, simd.f_sub(simd.f_load(line), shift));
        sum = simd.f_add(sum, e);
        simd.f_store(e, line);
    }
    if !rest.is_empty() {
        let e = exp(simd, simd.f_sub(simd.f_load(&padded), shift));
        sum = simd.f_add(sum, e);
        simd.f_store(e, &mut padded);
        rest.copy_from_slice(&padded[..rest.len()]);
    }
    let added = if quiet {
        simd.f_store(exp(simd, simd.f_splat(-largest)), &mut lanes);
        lanes[0]
    } else {
        0.0
    };
    1.0 / (total(simd, sum) + added)
}

/// The sum of sixteen values, by halves.
#[inline(always)]
pub(super) fn total<S: Simd>(simd: S, x: S::F) -> f32 {
    let mut lanes = [0.0; LANES];
    simd.f_store(x, &mut lanes);
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Values times a factor, in place.
#[inline(always)]
pub(super) fn scale<S: Simd>(simd: S, row: &mut [f32], factor: f32) {
    let (lines, rest) = row.as_chunks_mut::<LANES>();
    for line in lines {
        simd.f_store(simd.f_mul(simd.f_load(line), simd.f_splat(factor)), line);
    }
    for x in rest {
        *x *= factor;
    }
}

/// Layer norm of some rows.
pub(in crate::cpu) struct LayerNorm<'a> {
    /// `[rows, len]`.
    pub input: &'a [f32],
    pub gamma: &'a [f32],
    pub beta: Option<&'a [f32]>,
    pub epsilon: f32,
    pub output: &'a mut [f32],
}

impl Task for LayerNorm<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let len = self.gamma.len();
        let rows = self.input.chunks_exact(len);
        for (input, output) in rows.zip(self.output.chunks_exact_mut(len)) {
            let mean = sum(simd, input, 0.0, false) / len as f32;
            let variance = sum(simd, input, mean, true) / len as f32;
            let factor = 1.0 / sqrt(variance + self.epsilon);
            let (center, factor) = (simd.f_splat(mean), simd.f_splat(factor));
            for first in (0..len).step_by(LANES) {
                let part = first..len.min(first + LANES);
                let x = simd.f_load(&first_lanes(&input[part.clone()]));
                let gamma = simd.f_load(&first_lanes(&self.gamma[part.clone()]));
                let beta = match self.beta {
                    Some(beta) => first_lanes(&beta[part.clone()]),
                    None => [0.0; LANES],
                };
                let x = simd.f_mul(simd.f_sub(x, center), factor);
                let y = simd.f_fma(x, gamma, simd.f_load(&beta));
                store_first(simd, y, &mut output[part]);
            }
        }
    }
}

/// `Σ (x − centre)`, or of squares.
#[inline(always)]
pub(super) fn sum<S: Simd>(simd: S, values: &[f32], centre: f32, squares: bool) -> f32 {
    let (lines, rest) = values.as_chunks::<LANES>();
    let shift = simd.f_splat(centre);
    // Four sums at a time: each waits for its last addition.
    let mut sums = [simd.f_splat(0.0); 4];
    let (fours, lines) = lines.as_chunks::<4>();
    for four in fours {
        for (sum, line) in sums.iter_mut().zip(four) {
            *sum = add(simd, *sum, simd.f_sub(simd.f_load(line), shift), squares);
        }
    }
    for (sum, line) in sums.iter_mut().zip(lines) {
        *sum = add(simd, *sum, simd.f_sub(simd.f_load(line), shift), squares);
    }
    let [a, b, c, d] = sums;
    let mut sum = total(simd, simd.f_add(simd.f_add(a, b), simd.f_add(c, d)));
    for x in rest {
        let x = x - centre;
        sum += if squares { x * x } else { x };
    }
    sum
}

/// `sum + x`, or `sum + x²`.
#[inline(always)]
fn add<S: Simd>(simd: S, sum: S::F, x: S::F, squares: bool) -> S::F {
    if squares {
        simd.f_fma(x, x, sum)
    } else {
        simd.f_add(sum, x)
    }
}
