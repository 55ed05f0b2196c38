//! Gradients through packed layers: forward on the device's own kernels, backward with the dense
//! weight. Rounded and quantized inputs pass their gradient straight through. Operations without an
//! override compose differentiable ones.

use alloc::sync::Arc;

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_core::backend::tensor::{Device, FloatTensor, IntTensor};
use burn_core::backend::{AutodiffBackend, TensorMetadata};
use burn_core::tensor::{FloatDType, Shape};
use multibit::cpu::{Conv2dOptions, Mode};

use crate::ops::{AlqOps, packed};
use crate::prepared::PreparedWeight;

/// `x Ŵ` with regard to `x`.
#[derive(Debug)]
struct Linear;

impl<B: AlqOps> Backward<B, 1> for Linear {
    type State = Arc<PreparedWeight>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            let weight = B::alq_dense(grad.clone(), ops.state);
            B::float_matmul(grad, B::float_transpose(weight))
        });
    }
}

/// A convolution with regard to its input.
#[derive(Debug)]
struct Conv2d;

impl<B: AlqOps> Backward<B, 1> for Conv2d {
    type State = (Arc<PreparedWeight>, Conv2dOptions, Shape);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            let (weight, options, shape) = ops.state;
            let weight = B::alq_dense(grad.clone(), weight);
            // Only its shape counts.
            let input = B::float_empty(shape, &grad.device(), grad.dtype().into());
            B::conv2d_x_backward(input, weight, grad, packed::conv_options(&options))
        });
    }
}

/// A scale or offset that is not there.
fn none<B: AlqOps>(device: &Device<B>, dtype: FloatDType) -> FloatTensor<B> {
    B::float_empty(Shape::new([0]), device, dtype)
}

impl<B: AlqOps, C: CheckpointStrategy> AlqOps for Autodiff<B, C> {
    fn alq_linear(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        mode: Mode,
    ) -> FloatTensor<Self> {
        let (input, node) = input.into_parts();
        let none = || none::<B>(&input.device(), input.dtype().into());
        let [no_scale, no_offset] = [none(), none()];
        let y = B::alq_linear(input, no_scale, no_offset, weight.clone(), mode);
        let y = match Linear.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(weight, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        packed::affine::<Self>(y, scale, offset, 1)
    }

    fn alq_conv2d(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        options: Conv2dOptions,
        mode: Mode,
    ) -> FloatTensor<Self> {
        let (input, node) = input.into_parts();
        let none = || none::<B>(&input.device(), input.dtype().into());
        let [no_scale, no_offset] = [none(), none()];
        let shape = input.shape();
        let y = B::alq_conv2d(input, no_scale, no_offset, weight.clone(), options, mode);
        let y = match Conv2d.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((weight, options, shape), y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        packed::affine::<Self>(y, scale, offset, 1)
    }

    fn alq_lookup(indices: IntTensor<Self>, weight: Arc<PreparedWeight>) -> FloatTensor<Self> {
        Self::from_inner(B::alq_lookup(indices, weight))
    }
}
