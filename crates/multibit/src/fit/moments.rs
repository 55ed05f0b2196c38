//! AMSGrad's moments, written once for both domains, and the local model that they give.

use super::{Moments, StepParams};
use crate::math::sqrt;

/// A step's numbers, ready for f32.
pub(crate) struct Rates {
    pub beta1: f32,
    pub rest1: f32,
    pub beta2: f32,
    pub rest2: f32,
    pub epsilon: f32,
    /// `lr/(1−β₁ᵗ)`.
    pub gradient: f32,
    /// `1/√(1−β₂ᵗ)`.
    pub curvature: f32,
}

impl Rates {
    /// # Panics
    /// If `t` is 0 or a number is out of its range.
    pub fn new(params: &StepParams) -> Self {
        let StepParams {
            lr,
            t,
            beta1,
            beta2,
            epsilon,
            ridge,
        } = *params;
        assert!(t > 0, "`t` is 0, but steps count from 1");
        assert!((0.0..1.0).contains(&beta1), "`beta1` is {beta1}");
        assert!((0.0..1.0).contains(&beta2), "`beta2` is {beta2}");
        assert!(
            epsilon as f32 > 0.0 && (epsilon as f32).is_finite(),
            "`epsilon` is {epsilon}, but must be positive in f32"
        );
        assert!(
            ridge >= 0.0 && ridge.is_finite(),
            "`ridge` is {ridge}, but must be 0 or positive"
        );
        let t = f64::from(t);
        let gradient = (lr / (1.0 - libm::pow(beta1, t))) as f32;
        // An infinite factor would make a gradient of 0 NaN.
        assert!(gradient.is_finite(), "`lr` is {lr}");
        Self {
            beta1: beta1 as f32,
            rest1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            rest2: (1.0 - beta2) as f32,
            epsilon: epsilon as f32,
            gradient,
            curvature: (1.0 / libm::sqrt(1.0 - libm::pow(beta2, t))) as f32,
        }
    }

    /// One element's moments with gradient `g`.
    #[inline(always)]
    fn advance(&self, m: &mut f32, v: &mut f32, v_max: &mut f32, g: f32) {
        *m = self.beta1 * *m + self.rest1 * g;
        *v = self.beta2 * *v + self.rest2 * (g * g);
        *v_max = if *v > *v_max { *v } else { *v_max };
    }

    /// `p` and `h` of one element.
    #[inline(always)]
    pub fn model(&self, m: f32, v_max: f32) -> (f32, f32) {
        let p = self.gradient * m;
        let h = (sqrt(v_max) + self.epsilon) * self.curvature;
        (p, h)
    }

    /// Updates moments: `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`, `v̂ ← max(v̂, v)`.
    pub fn update(&self, moments: Moments<&mut [f32]>, g: &[f32]) {
        let Moments { m, v, v_max } = moments;
        for (((m, v), v_max), &g) in m.iter_mut().zip(v).zip(v_max).zip(g) {
            self.advance(m, v, v_max, g);
        }
    }
}

/// The local model of one group around a centre: buffers of `len`, reused from group to group.
pub(super) struct LocalModel {
    pub centre: alloc::vec::Vec<f32>,
    pub p: alloc::vec::Vec<f32>,
    pub h: alloc::vec::Vec<f32>,
    /// The model's minimum, `centre − p/h`.
    pub target: alloc::vec::Vec<f32>,
}

impl LocalModel {
    pub fn new(len: usize) -> Self {
        let zeros = || alloc::vec![0.0; len];
        Self {
            centre: zeros(),
            p: zeros(),
            h: zeros(),
            target: zeros(),
        }
    }

    /// Updates a group's moments, and from them the model around `self.centre`.
    pub fn update(&mut self, rates: &Rates, moments: &mut Moments<&mut [f32]>, g: &[f32]) {
        // Equal lengths in sight of the compiler, so that it drops the bounds checks.
        let n = g.len();
        let Moments { m, v, v_max } = moments.part(0..n);
        let (p, h, target) = (&mut self.p[..n], &mut self.h[..n], &mut self.target[..n]);
        let centre = &self.centre[..n];
        for j in 0..n {
            rates.advance(&mut m[j], &mut v[j], &mut v_max[j], g[j]);
            (p[j], h[j]) = rates.model(m[j], v_max[j]);
            target[j] = centre[j] - p[j] / h[j];
        }
    }
}
