//! Activations of sixteen values at a time.

use super::elementary::{gelu, sigmoid, tanh};
use crate::cpu::Activation;
use crate::cpu::simd::{LANES, Simd, Task, first_lanes, store_first};

impl Activation {
    /// The range that it cuts values to, if that is all it does.
    #[inline(always)]
    pub(super) fn range(self) -> Option<[f32; 2]> {
        match self {
            Self::Identity => Some([f32::NEG_INFINITY, f32::INFINITY]),
            Self::Relu => Some([0.0, f32::INFINITY]),
            Self::Relu6 => Some([0.0, 6.0]),
            _ => None,
        }
    }

    /// The activation of sixteen values.
    #[inline(always)]
    pub(in crate::cpu) fn apply<S: Simd>(self, simd: S, x: S::F) -> S::F {
        match self {
            Self::Identity => x,
            Self::Relu => simd.f_max(simd.f_splat(0.0), x),
            Self::Relu6 => simd.f_min(simd.f_splat(6.0), simd.f_max(simd.f_splat(0.0), x)),
            Self::HardSwish => {
                let x = above(simd, x, -3.0);
                let gate = simd.f_fma(x, simd.f_splat(1.0 / 6.0), simd.f_splat(0.5));
                let gate = simd.f_min(simd.f_splat(1.0), simd.f_max(simd.f_splat(0.0), gate));
                simd.f_mul(x, gate)
            }
            Self::Gelu => gelu(simd, x),
            Self::Silu | Self::GeluApproximate | Self::Sigmoid => self.gated(simd, x),
            Self::Tanh => tanh(simd, x),
        }
    }

    /// `x·σ(z)`; of a sigmoid the factor alone.
    #[inline(always)]
    fn gated<S: Simd>(self, simd: S, x: S::F) -> S::F {
        let (x, z) = match self {
            Self::Silu => {
                let x = above(simd, x, -104.0);
                (x, x)
            }
            Self::GeluApproximate => {
                let x = above(simd, x, -20.0);
                // `½(1 + tanh z) = σ(2z)`
                let z = 2.0 * core::f32::consts::FRAC_2_SQRT_PI * core::f32::consts::FRAC_1_SQRT_2;
                let square = simd.f_mul(x, x);
                let cubic = simd.f_fma(square, simd.f_splat(z * 0.044_715), simd.f_splat(z));
                (x, simd.f_mul(x, cubic))
            }
            _ => (x, x),
        };
        let gate = sigmoid(simd, z);
        match self {
            Self::Sigmoid => gate,
            _ => simd.f_mul(x, gate),
        }
    }
}

/// An activation of values, in place.
pub(in crate::cpu) struct Activate<'a> {
    pub activation: Activation,
    pub values: &'a mut [f32],
}

impl Task for Activate<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // A loop for each, without a question inside; one for those with a sigmoid.
        macro_rules! each {
            ($($activation:ident)*) => {
                match self.activation {
                    $(Activation::$activation => run(simd, Activation::$activation, self.values),)*
                    Activation::Silu | Activation::GeluApproximate | Activation::Sigmoid => {
                        run(simd, self.activation, self.values);
                    }
                }
            };
        }
        each!(Identity Relu Relu6 HardSwish Gelu Tanh);
    }
}

/// `x` from where the factor of it is 0 on: of an infinity, their product would be NaN.
#[inline(always)]
fn above<S: Simd>(simd: S, x: S::F, limit: f32) -> S::F {
    simd.f_max(simd.f_splat(limit), x)
}

#[inline(always)]
fn run<S: Simd>(simd: S, activation: Activation, values: &mut [f32]) {
    for values in values.chunks_mut(LANES) {
        let x = simd.f_load(&first_lanes(values));
        store_first(simd, activation.apply(simd, x), values);
    }
}
