//! The default body of activations.

use burn_core::backend::Backend;
use burn_core::backend::tensor::FloatTensor;
use multibit::cpu::Activation;

/// By Burn's own operations, as its function of the same name.
pub(super) fn activate<B: Backend>(x: FloatTensor<B>, activation: Activation) -> FloatTensor<B> {
    match activation {
        Activation::Identity => x,
        Activation::Relu => B::relu(x),
        Activation::Relu6 => B::float_clamp(x, 0f32.into(), 6f32.into()),
        Activation::HardSwish => {
            let gate = B::hard_sigmoid(x.clone(), (1.0 / 6.0).into(), 0.5.into());
            B::float_mul(x, gate)
        }
        Activation::Silu => B::float_mul(x.clone(), B::sigmoid(x)),
        Activation::Gelu => B::gelu(x),
        Activation::GeluApproximate => {
            // √(2/π)
            let factor = core::f64::consts::FRAC_2_SQRT_PI * core::f64::consts::FRAC_1_SQRT_2;
            let square = B::float_mul(x.clone(), x.clone());
            let slope = B::float_mul_scalar(square, (0.044_715 * factor).into());
            let slope = B::float_add_scalar(slope, factor.into());
            let bend = B::float_tanh(B::float_mul(x.clone(), slope));
            let gate = B::float_mul_scalar(B::float_add_scalar(bend, 1f32.into()), 0.5.into());
            B::float_mul(x, gate)
        }
        Activation::Sigmoid => B::sigmoid(x),
        Activation::Tanh => B::float_tanh(x),
    }
}
