//! The backend extension: packed layers, and with the feature `train` the arithmetic of training.
//!
//! Every operation has a default body in Burn operations, so that it runs on any device; a back end
//! overrides what it can do faster (`backends/`).

// Routing names `NdArray`, which Burn has deprecated.
#![allow(deprecated)]
// Without a back end nothing is routed.
#![cfg_attr(
    not(any(
        feature = "flex",
        feature = "ndarray",
        feature = "cube",
        feature = "remote"
    )),
    allow(unused_variables)
)]

mod activation;
mod attention;
#[cfg(feature = "train")]
pub(crate) mod dense;
#[cfg(feature = "train")]
mod expr;
pub(crate) mod host;
#[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
pub(crate) mod host_layers;
#[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
pub(crate) mod host_steps;
#[cfg(feature = "train")]
mod layers;
pub(crate) mod packed;
#[cfg(feature = "fusion")]
mod shapes;
#[cfg(feature = "train")]
mod steps;

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_core as burn;
use burn_core::backend::tensor::{BoolTensor, FloatTensor, IntTensor};
use burn_core::backend::{Backend, ExtensionType, backend_extension};
#[cfg(feature = "fusion")]
use burn_core::tensor::DType;
use multibit::cpu::{Activation, Conv2dOptions, Levels, Mode, Pool2dOptions};

use crate::weight::PreparedWeight;

pub use self::attention::{Attended, Attention};
#[cfg(feature = "train")]
pub use self::layers::{LayerOps, NormGrads, Normed};
#[cfg(feature = "train")]
pub use self::steps::{StepOps, StepState, WeightLayout};

/// A tensor of floats that a layer may lack.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub enum Term<B: Backend> {
    /// There is none.
    None,
    /// Its numbers: one for each output, or one for each place of the output.
    Tensor(FloatTensor<B>),
}

/// What is left out of an attention.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub enum Mask<B: Backend> {
    /// Nothing.
    None,
    /// Where it is true.
    Tensor(BoolTensor<B>),
}

/// Activations `[batch, channels, h, w]` between layers.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub enum Activations<B: Backend> {
    /// There are none.
    None,
    /// Values, `[batch, channels, h, w]`.
    Values(FloatTensor<B>),
    /// Bits ([`Planes`](multibit::cpu::Planes)), `[batch, ⌈channels / 32⌉, bits, h, w]`.
    Planes(IntTensor<B>),
}

/// A 2-D convolution, and what lies between it and the next layer.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedConv2d {
    /// How it slides.
    pub options: Conv2dOptions,
    /// Its arithmetic; of activations that are bits, bitwise with their levels.
    pub mode: Mode,
    /// The levels of a residual that is bits.
    pub residual: Option<Levels>,
    /// What outputs that are values go through at the end.
    pub activation: Activation,
    /// The levels that the outputs take, as bits; none for outputs that are values.
    pub levels: Option<Levels>,
}

/// Operations of packed layers. Every device can run the defaults.
///
/// Inputs of any float type give results of that type, computed in f32 where a kernel computes them;
/// scales and offsets are of any type too.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Remote: cfg(feature = "remote"),
    Autodiff: cfg(feature = "autodiff"),
    Fusion: cfg(feature = "fusion"),
)]
pub trait AlqOps: Backend {
    /// `y = f(scale·(x Ŵ) + offset + residual)` for a packed weight of shape `[d_in, d_out]`, `f`
    /// being the activation.
    ///
    /// # Shapes
    /// - `input`: `[batch, d_in]`
    /// - `scale`, `offset`: `[d_out]`
    /// - `residual`, result: `[batch, d_out]`
    #[fusion(dtype = input, shape = shapes::linear(input, weight))]
    fn alq_linear(
        input: FloatTensor<Self>,
        #[extension_type] scale: Term<Self>,
        #[extension_type] offset: Term<Self>,
        #[extension_type] residual: Term<Self>,
        weight: Arc<PreparedWeight>,
        mode: Mode,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let y = packed::linear::<Self>(input, [scale, offset], &weight, &mode);
        packed::epilogue::<Self>(y, residual, activation)
    }

    /// Several linear layers of one input, their outputs side by side in the order of the weights.
    ///
    /// # Shapes
    /// - `input`: `[batch, d_in]`
    /// - `scale`, `offset`: `[Σ d_out]`
    /// - result: `[batch, Σ d_out]`
    #[fusion(default)]
    fn alq_linears(
        input: FloatTensor<Self>,
        #[extension_type] scale: Term<Self>,
        #[extension_type] offset: Term<Self>,
        weights: Vec<Arc<PreparedWeight>>,
        mode: Mode,
    ) -> FloatTensor<Self> {
        packed::linears::<Self>(input, [scale, offset], &weights, &mode)
    }

    /// 2-D convolution with a packed weight of shape `[out, in / groups, k_h, k_w]`, then
    /// `scale·y + offset + residual` and the activation; to bits a residual is bits and the levels
    /// are the activation.
    ///
    /// # Shapes
    /// - `input`: `[batch, in, h, w]`
    /// - `scale`, `offset`: `[out]`
    /// - `residual`, result: `[batch, out, h_out, w_out]`
    #[fusion(meta = shapes::conv2d)]
    fn alq_conv2d(
        #[extension_type] input: Activations<Self>,
        #[extension_type] scale: Term<Self>,
        #[extension_type] offset: Term<Self>,
        #[extension_type] residual: Activations<Self>,
        weight: Arc<PreparedWeight>,
        conv2d: PackedConv2d,
    ) -> Activations<Self> {
        packed::conv2d::<Self>(input, [scale, offset], residual, &weight, &conv2d)
    }

    /// The dense weight, where and in the type that `like` is.
    ///
    /// # Shapes
    /// - `like`: any
    /// - result: the weight's own
    #[fusion(dtype = like, shape = weight.shape().to_vec().into())]
    fn alq_dense(like: FloatTensor<Self>, weight: Arc<PreparedWeight>) -> FloatTensor<Self> {
        packed::dense::<Self>(&like, &weight)
    }

    /// Rows of a packed table `[rows, columns]`. Where indices are not read back, a row that is not
    /// there is NaN; elsewhere it panics.
    ///
    /// # Shapes
    /// - `indices`: any, of `n` elements
    /// - result: `[n, columns]` in f32
    #[fusion(dtype = DType::F32, shape = shapes::lookup(indices, weight))]
    fn alq_lookup(indices: IntTensor<Self>, weight: Arc<PreparedWeight>) -> FloatTensor<Self> {
        host::lookup::<Self>(indices, &weight)
    }

    /// Each value at the nearest of some levels.
    ///
    /// # Shapes
    /// - `input`, result: any, the same
    #[fusion(dtype = input, shape = input)]
    fn alq_quantize(input: FloatTensor<Self>, levels: Levels) -> FloatTensor<Self> {
        packed::quantize::<Self>(input, &levels)
    }

    /// Activations at their levels as bits.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels, h, w]`
    /// - result: `[batch, ⌈channels / 32⌉, bits, h, w]`
    #[fusion(dtype = DType::U32, shape = shapes::planes(input, levels))]
    fn alq_planes(input: FloatTensor<Self>, levels: Levels) -> IntTensor<Self> {
        host::pack::<Self, host::Copied>(input, &levels)
    }

    /// The levels of activations that are bits, `[batch, channels, h, w]`.
    #[fusion(dtype = DType::F32, shape = shapes::values(planes, *channels))]
    fn alq_planes_values(
        planes: IntTensor<Self>,
        channels: usize,
        levels: Levels,
    ) -> FloatTensor<Self> {
        host::unpack::<Self, host::Copied>(planes, channels, &levels)
    }

    /// An activation of each value.
    ///
    /// # Shapes
    /// - `input`, result: any, the same
    #[fusion(default)]
    fn alq_activate(input: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        activation::activate::<Self>(input, activation)
    }

    /// `γ·(x − mean)/√(variance + ε) + β` over the last axis.
    ///
    /// # Shapes
    /// - `input`, result: `[..., d_model]`
    /// - `gamma`, `beta`: `[d_model]`
    #[fusion(default)]
    fn alq_layer_norm(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        #[extension_type] beta: Term<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self> {
        let beta = match beta {
            Term::None => None,
            Term::Tensor(beta) => Some(beta),
        };
        Self::layer_norm(input, gamma, beta, epsilon)
    }

    /// `softmax(scale·q kᵀ) v` for heads side by side, as Burn's `MultiHeadAttention` computes it
    /// between its linear layers: [`Attention`].
    ///
    /// Rows of queries, keys and values need not lie side by side.
    ///
    /// # Shapes
    /// - `query`: `[batch, queries, d_model]`
    /// - `key`, `value`: `[batch, keys, d_model]`
    /// - `mask_pad`: `[batch, keys]`
    /// - `mask_attn`: `[batch, queries, keys]`
    #[fusion(default)]
    fn alq_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        #[extension_type] mask_pad: Mask<Self>,
        #[extension_type] mask_attn: Mask<Self>,
        attention: Attention,
    ) -> Attended<Self> {
        attention::attend::<Self>([query, key, value], [mask_pad, mask_attn], &attention)
    }

    /// The largest value of each window, in evaluation.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels, h, w]`
    /// - result: `[batch, channels, h_out, w_out]`
    #[fusion(default)]
    fn alq_max_pool2d(input: FloatTensor<Self>, options: Pool2dOptions) -> FloatTensor<Self> {
        let Pool2dOptions {
            kernel,
            stride,
            padding,
            dilation,
        } = options;
        Self::max_pool2d(input, kernel, stride, padding, dilation, false)
    }

    /// Max pooling of activations that are bits.
    #[fusion(dtype = DType::U32, shape = shapes::pooled(planes, options))]
    fn alq_planes_max_pool2d(
        planes: IntTensor<Self>,
        channels: usize,
        levels: Levels,
        options: Pool2dOptions,
    ) -> IntTensor<Self> {
        host::planes_max_pool2d::<Self, host::Copied>(planes, channels, &levels, &options)
    }
}
