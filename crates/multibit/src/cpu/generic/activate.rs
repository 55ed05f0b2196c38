//! Activations of sixteen values at a time.

use super::elementary::{gelu, sigmoid, tanh};
use crate::cpu::Activation;
use crate::cpu::simd::{LANES, Simd, Task};

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
            Self::Silu => {
                let x = above(simd, x, -104.0);
                simd.f_mul(x, sigmoid(simd, x))
            }
            Self::Gelu => gelu(simd, x),
            Self::GeluApproximate => {
                let x = above(simd, x, -20.0);
                // `½(1 + tanh z) = σ(2z)`
                let z = 2.0 * core::f32::consts::FRAC_2_SQRT_PI * core::f32::consts::FRAC_1_SQRT_2;
                let square = simd.f_mul(x, x);
                let cubic = simd.f_fma(square, simd.f_splat(z * 0.044_715), simd.f_splat(z));
                simd.f_mul(x, sigmoid(simd, simd.f_mul(x, cubic)))
            }
            Self::Sigmoid => sigmoid(simd, x),
            Self::Tanh => tanh(simd, x),
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
        // A loop for each, without a question inside.
        macro_rules! each {
            ($($activation:ident)*) => {
                match self.activation {
                    $(Activation::$activation => run(simd, Activation::$activation, self.values),)*
                }
            };
        }
        each!(Identity Relu Relu6 HardSwish Silu Gelu GeluApproximate Sigmoid Tanh);
    }
}

/// `x` from where the factor of it is 0 on: of an infinity, their product would be NaN.
#[inline(always)]
fn above<S: Simd>(simd: S, x: S::F, limit: f32) -> S::F {
    simd.f_max(simd.f_splat(limit), x)
}

#[inline(always)]
fn run<S: Simd>(simd: S, activation: Activation, values: &mut [f32]) {
    let (lines, rest) = values.as_chunks_mut::<LANES>();
    for line in lines {
        simd.f_store(activation.apply(simd, simd.f_load(line)), line);
    }
    let mut line = [0.0; LANES];
    line[..rest.len()].copy_from_slice(rest);
    simd.f_store(activation.apply(simd, simd.f_load(&line)), &mut line);
    rest.copy_from_slice(&line[..rest.len()]);
}
