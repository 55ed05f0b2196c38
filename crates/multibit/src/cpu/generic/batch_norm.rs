//! Batch norm: sums over planes that lie apart, and values of all planes by a channel's factors.

use super::norm::{sum, total};
use crate::cpu::simd::{LANES, Simd, Task, first_lanes, store_first};

/// Mean and variance of a channel.
pub(in crate::cpu) struct Moments<'a> {
    /// `[planes, len]`: of the channel are `first` and every `step`-th after it.
    pub planes: &'a [f32],
    pub first: usize,
    pub step: usize,
    pub len: usize,
    /// Mean, and mean of squared differences.
    pub moments: &'a mut [f64; 2],
}

impl Task for Moments<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut center = 0.0;
        for (squares, moment) in [false, true].into_iter().zip(self.moments) {
            let (mut all, mut count) = (0.0, 0);
            let mut first = self.first * self.len;
            while let Some(plane) = self.planes.get(first..first + self.len) {
                all += f64::from(sum(simd, plane, center as f32, squares));
                count += self.len;
                first += self.step * self.len;
                if self.len == 0 {
                    break;
                }
            }
            *moment = all / count as f64;
            center = *moment;
        }
    }
}

/// `Σ g` and `Σ g·(x − center)` of a channel.
pub(in crate::cpu) struct GradMoments<'a> {
    /// `x` and `g`; as of [`Moments`].
    pub planes: [&'a [f32]; 2],
    pub first: usize,
    pub step: usize,
    pub len: usize,
    pub center: f32,
    pub sums: &'a mut [f64; 2],
}

impl Task for GradMoments<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let [inputs, grads] = self.planes;
        let center = simd.f_splat(self.center);
        let mut first = self.first * self.len;
        while let (Some(x), Some(g)) = (
            inputs.get(first..first + self.len),
            grads.get(first..first + self.len),
        ) {
            let mut sums = [[simd.f_splat(0.0); 2]; 2];
            for (number, (x, g)) in x.chunks(LANES).zip(g.chunks(LANES)).enumerate() {
                let [sum, along] = &mut sums[number % 2];
                let g = simd.f_load(&first_lanes(g));
                *sum = simd.f_add(*sum, g);
                let x = simd.f_sub(simd.f_load(&first_lanes(x)), center);
                *along = simd.f_fma(g, x, *along);
            }
            let [[a, c], [b, d]] = sums;
            self.sums[0] += f64::from(total(simd, simd.f_add(a, b)));
            self.sums[1] += f64::from(total(simd, simd.f_add(c, d)));
            first += self.step * self.len;
            if self.len == 0 {
                break;
            }
        }
    }
}

/// `a·x + b·y + c` of an image, with factors of each channel.
pub(in crate::cpu) struct Planewise<'a> {
    /// `x` and `y`, `[channels, len]`.
    pub from: [&'a [f32]; 2],
    /// `[a, b, c]` of each channel.
    pub factors: &'a [[f32; 3]],
    pub len: usize,
    pub to: &'a mut [f32],
}

impl Task for Planewise<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let [x, y] = self.from;
        for (channel, factors) in self.factors.iter().enumerate() {
            let plane = channel * self.len..(channel + 1) * self.len;
            let [a, b, c] = [factors[0], factors[1], factors[2]];
            let [a, b, c] = [simd.f_splat(a), simd.f_splat(b), simd.f_splat(c)];
            let values = x[plane.clone()]
                .chunks(LANES)
                .zip(y[plane.clone()].chunks(LANES));
            for (to, (x, y)) in self.to[plane].chunks_mut(LANES).zip(values) {
                let y = simd.f_fma(simd.f_load(&first_lanes(y)), b, c);
                let x = simd.f_load(&first_lanes(x));
                store_first(simd, simd.f_fma(x, a, y), to);
            }
        }
    }
}
