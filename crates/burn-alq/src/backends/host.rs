//! Back ends whose memory is the host's: everything by the slice kernels of `multibit`.

/// Implements the extension for a back end by the kernels on the host, which get at its tensors by a
/// [`Memory`](crate::ops::host::Memory).
macro_rules! on_the_host {
    ($backend:ty, $memory:ty) => {
        impl $crate::ops::AlqOps for $backend {
            fn alq_linear(
                input: FloatTensor<Self>,
                scale: Term<Self>,
                offset: Term<Self>,
                residual: Term<Self>,
                weight: Arc<PreparedWeight>,
                mode: Mode,
                activation: Activation,
            ) -> FloatTensor<Self> {
                let (affine, end) = ([scale, offset], (residual, activation));
                let weights = core::iter::once(&*weight);
                host::linears::<Self, $memory>(input, affine, end, weights, &mode)
            }

            fn alq_linears(
                input: FloatTensor<Self>,
                scale: Term<Self>,
                offset: Term<Self>,
                weights: Vec<Arc<PreparedWeight>>,
                mode: Mode,
            ) -> FloatTensor<Self> {
                let (affine, end) = ([scale, offset], (Term::None, Activation::Identity));
                let weights = weights.iter().map(|weight| &**weight);
                host::linears::<Self, $memory>(input, affine, end, weights, &mode)
            }

            fn alq_conv2d(
                input: Activations<Self>,
                scale: Term<Self>,
                offset: Term<Self>,
                residual: Activations<Self>,
                weight: Arc<PreparedWeight>,
                conv2d: PackedConv2d,
            ) -> Activations<Self> {
                let affine = [scale, offset];
                host::conv2d::<Self, $memory>(input, affine, residual, &weight, &conv2d)
            }

            fn alq_quantize(input: FloatTensor<Self>, levels: Levels) -> FloatTensor<Self> {
                host::quantize::<Self, $memory>(input, &levels)
            }

            fn alq_planes(input: FloatTensor<Self>, levels: Levels) -> IntTensor<Self> {
                host::pack::<Self, $memory>(input, &levels)
            }

            fn alq_planes_values(
                planes: IntTensor<Self>,
                channels: usize,
                levels: Levels,
            ) -> FloatTensor<Self> {
                host::unpack::<Self, $memory>(planes, channels, &levels)
            }

            fn alq_activate(input: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
                host::activate::<Self, $memory>(input, activation)
            }

            fn alq_layer_norm(
                input: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                beta: Term<Self>,
                epsilon: f64,
            ) -> FloatTensor<Self> {
                host::layer_norm::<Self, $memory>(input, gamma, beta, epsilon)
            }

            fn alq_attention(
                query: FloatTensor<Self>,
                key: FloatTensor<Self>,
                value: FloatTensor<Self>,
                mask_pad: Mask<Self>,
                mask_attn: Mask<Self>,
                attention: Attention,
            ) -> Attended<Self> {
                let (rows, masks) = ([query, key, value], [mask_pad, mask_attn]);
                host::attention::<Self, $memory>(rows, masks, &attention)
            }

            fn alq_max_pool2d(
                input: FloatTensor<Self>,
                options: Pool2dOptions,
            ) -> FloatTensor<Self> {
                host::max_pool2d::<Self, $memory>(input, &options)
            }

            fn alq_planes_max_pool2d(
                planes: IntTensor<Self>,
                channels: usize,
                levels: Levels,
                options: Pool2dOptions,
            ) -> IntTensor<Self> {
                host::planes_max_pool2d::<Self, $memory>(planes, channels, &levels, &options)
            }
        }

        #[cfg(feature = "train")]
        impl $crate::ops::LayerOps for $backend {
            fn alq_dense_conv2d(
                input: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                options: Conv2dOptions,
            ) -> FloatTensor<Self> {
                host_layers::dense_conv2d::<Self, $memory>(input, weight, &options)
            }

            fn alq_dense_conv2d_input_grad(
                input: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                grad: FloatTensor<Self>,
                options: Conv2dOptions,
            ) -> FloatTensor<Self> {
                host_layers::dense_conv2d_input_grad::<Self, $memory>(input, weight, grad, &options)
            }

            fn alq_dense_conv2d_weight_grad(
                input: FloatTensor<Self>,
                weight: FloatTensor<Self>,
                grad: FloatTensor<Self>,
                options: Conv2dOptions,
            ) -> FloatTensor<Self> {
                host_layers::dense_conv2d_weight_grad::<Self, $memory>(
                    input, weight, grad, &options,
                )
            }

            fn alq_batch_norm(
                input: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                beta: FloatTensor<Self>,
                epsilon: f64,
            ) -> Normed<Self> {
                host_layers::batch_norm::<Self, $memory>(input, gamma, beta, epsilon)
            }

            fn alq_batch_norm_grads(
                input: FloatTensor<Self>,
                gamma: FloatTensor<Self>,
                mean: FloatTensor<Self>,
                variance: FloatTensor<Self>,
                epsilon: f64,
                grad: FloatTensor<Self>,
            ) -> NormGrads<Self> {
                let statistics = [mean, variance];
                host_layers::batch_norm_grads::<Self, $memory>(
                    input, gamma, statistics, epsilon, grad,
                )
            }
        }

        #[cfg(feature = "train")]
        impl $crate::ops::StepOps for $backend {
            fn alq_basis(
                state: StepState<Self>,
                grad: FloatTensor<Self>,
                layout: WeightLayout,
                params: StepParams,
            ) -> (StepState<Self>, FloatTensor<Self>) {
                host_steps::basis::<Self, $memory>(state, grad, &layout, &params)
            }

            fn alq_ste(
                state: StepState<Self>,
                latent: FloatTensor<Self>,
                grad: FloatTensor<Self>,
                layout: WeightLayout,
                params: StepParams,
            ) -> (StepState<Self>, FloatTensor<Self>, FloatTensor<Self>) {
                host_steps::ste::<Self, $memory>(state, latent, grad, &layout, &params)
            }

            fn alq_coordinate(
                state: StepState<Self>,
                grad: FloatTensor<Self>,
                layout: WeightLayout,
                params: StepParams,
            ) -> (StepState<Self>, FloatTensor<Self>) {
                host_steps::coordinate::<Self, $memory>(state, grad, &layout, &params)
            }

            fn alq_importance(
                state: StepState<Self>,
                grad: FloatTensor<Self>,
                layout: WeightLayout,
                params: StepParams,
            ) -> (StepState<Self>, FloatTensor<Self>) {
                host_steps::importance::<Self, $memory>(state, grad, &layout, &params)
            }

            fn alq_drop(
                state: StepState<Self>,
                drop: IntTensor<Self>,
                layout: WeightLayout,
            ) -> (StepState<Self>, FloatTensor<Self>) {
                host_steps::drop_coordinates::<Self, $memory>(state, drop, &layout)
            }
        }
    };
}

pub(super) use on_the_host;

/// What [`on_the_host`] names.
pub(super) mod prelude {
    pub use alloc::sync::Arc;
    pub use alloc::vec::Vec;

    pub use burn_core::backend::tensor::{FloatTensor, IntTensor};
    #[cfg(feature = "train")]
    pub use multibit::cpu::Conv2dOptions;
    pub use multibit::cpu::{Activation, Levels, Mode, Pool2dOptions};
    #[cfg(feature = "train")]
    pub use multibit::fit::StepParams;

    pub(crate) use crate::ops::{Activations, Attended, Attention, Mask, PackedConv2d, Term, host};
    #[cfg(feature = "train")]
    pub(crate) use crate::ops::{
        NormGrads, Normed, StepState, WeightLayout, host_layers, host_steps,
    };
    pub(crate) use crate::weight::PreparedWeight;
}
