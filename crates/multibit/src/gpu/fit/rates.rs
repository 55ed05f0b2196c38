//! AMSGrad's moments on the device, as `fit::moments` on slices.

use cubecl::prelude::*;

use crate::fit::{Rates, StepParams};

/// A step's numbers; see [`Rates`].
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone))]
pub(super) struct StepRates {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    epsilon: f32,
    gradient: f32,
    curvature: f32,
    /// Added to the diagonal of a system scaled to a diagonal of 1.
    pub ridge: f32,
}

impl From<&StepParams> for StepRatesLaunch {
    fn from(params: &StepParams) -> Self {
        let rates = Rates::new(params);
        Self::new(
            rates.beta1,
            rates.rest1,
            rates.beta2,
            rates.rest2,
            rates.epsilon,
            rates.gradient,
            rates.curvature,
            params.ridge as f32,
        )
    }
}

#[cube]
impl StepRates {
    /// `β₁m + (1−β₁)g`.
    pub fn first(&self, m: f32, g: f32) -> f32 {
        self.beta1 * m + self.rest1 * g
    }

    /// `β₂v + (1−β₂)g²`.
    pub fn second(&self, v: f32, g: f32) -> f32 {
        self.beta2 * v + self.rest2 * (g * g)
    }

    /// `p = lr/(1−β₁ᵗ)·m`.
    pub fn p(&self, m: f32) -> f32 {
        self.gradient * m
    }

    /// `h = (√v̂ + ε)/√(1−β₂ᵗ)`.
    pub fn h(&self, v_max: f32) -> f32 {
        (v_max.sqrt() + self.epsilon) * self.curvature
    }
}
