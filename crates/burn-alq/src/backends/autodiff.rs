//! Gradients through packed layers: forward on the device's own kernels, backward with the dense
//! weight. Rounded and quantized inputs pass their gradient straight through. Operations without an
//! override compose differentiable ones.

use alloc::sync::Arc;

use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::backend::{AutodiffBackend, TensorMetadata};
use burn_core::tensor::Shape;
use multibit::cpu::{Activation, Conv2dOptions, Mode};

#[cfg(feature = "train")]
use crate::ops::StepOps;
use crate::ops::{Activations, AlqOps, PackedConv2d, Term, host, packed};
use crate::weight::PreparedWeight;

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

impl<B: AlqOps, C: CheckpointStrategy> AlqOps for Autodiff<B, C> {
    fn alq_linear(
        input: FloatTensor<Self>,
        scale: Term<Self>,
        offset: Term<Self>,
        residual: Term<Self>,
        weight: Arc<PreparedWeight>,
        mode: Mode,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let (input, node) = input.into_parts();
        let y = B::alq_linear(
            input,
            Term::None,
            Term::None,
            Term::None,
            weight.clone(),
            mode,
            Activation::Identity,
        );
        let y = match Linear.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(weight, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        let y = packed::affine::<Self>(y, [scale, offset]);
        packed::epilogue::<Self>(y, residual, activation)
    }

    /// No gradient flows to and from bits.
    fn alq_conv2d(
        input: Activations<Self>,
        scale: Term<Self>,
        offset: Term<Self>,
        residual: Activations<Self>,
        weight: Arc<PreparedWeight>,
        conv2d: PackedConv2d,
    ) -> Activations<Self> {
        let input = match (input, &conv2d.levels) {
            (Activations::Values(input), None) => input,
            (input, _) => {
                let affine = [scale, offset];
                return host::conv2d::<Self, host::Copied>(
                    input, affine, residual, &weight, &conv2d,
                );
            }
        };
        let (input, node) = input.into_parts();
        let state = (weight.clone(), conv2d.options, input.shape());
        let (input, none) = (Activations::Values(input), Activations::None);
        let activation = conv2d.activation;
        let plain = PackedConv2d {
            activation: Activation::Identity,
            ..conv2d
        };
        let y = B::alq_conv2d(input, Term::None, Term::None, none, weight, plain);
        let Activations::Values(y) = y else {
            unreachable!("without levels the outputs are values")
        };
        let y = match Conv2d.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(state, y),
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        let y = packed::affine::<Self>(y, [scale, offset]);
        Activations::Values(packed::conv2d_epilogue::<Self>(y, residual, activation))
    }

    fn alq_lookup(indices: IntTensor<Self>, weight: Arc<PreparedWeight>) -> FloatTensor<Self> {
        Self::from_inner(B::alq_lookup(indices, weight))
    }
}

#[cfg(feature = "train")]
mod layers;

#[cfg(feature = "train")]
impl<B: StepOps, C: CheckpointStrategy> StepOps for Autodiff<B, C> {}
