//! The backend extension: the hot arithmetic of training, and packed layers.
//!
//! Every operation has a default body in Burn operations (`dense.rs`), so that it runs on any
//! device; a back end overrides what it can do faster (`backends/`). All step operations work on
//! the weight cut into its groups, `[groups, len]`, and on plain (not autodiff) tensors.

// Routing names `NdArray`, which Burn has deprecated.
#![allow(deprecated)]
// Without a back end nothing is routed.
#![cfg_attr(
    not(any(feature = "flex", feature = "ndarray", feature = "cube")),
    allow(unused_variables)
)]

pub(crate) mod dense;
mod expr;
pub(crate) mod packed;
pub(crate) mod planes;
#[cfg(feature = "fusion")]
mod shapes;

use burn_core as burn;
use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::backend::{Backend, ExtensionType, backend_extension};
#[cfg(feature = "fusion")]
use burn_core::tensor::DType;
use derive_new::new;
use multibit::Grouping;
use multibit::cpu::{Conv2dOptions, Levels, Mode, Pool2dOptions};
use multibit::fit::StepParams;

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::prepared::PreparedWeight;

/// The shape of one weight and how it is cut.
#[derive(Debug, Clone, PartialEq, new)]
pub struct WeightLayout {
    /// The shape of the dense weight.
    pub shape: Vec<usize>,
    /// How it is cut into groups.
    pub grouping: Grouping,
}

impl WeightLayout {
    /// Number of groups and weights of each.
    pub fn dims(&self) -> [usize; 2] {
        [self.grouping.groups(&self.shape), self.grouping.len()]
    }
}

/// A multi-bit weight and its moments in both domains, as tensors of one back end.
///
/// # Shapes
/// - codes, m, v, v_max: `[groups, len]`
/// - coordinates, m_alpha, v_alpha, v_max_alpha: `[groups, max_bits]`
/// - widths: `[groups]`
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct WeightState<B: Backend> {
    /// Signs on all bases, one integer a weight.
    pub codes: IntTensor<B>,
    /// Coordinates `α`.
    pub coordinates: FloatTensor<B>,
    /// Bitwidths `I`.
    pub widths: IntTensor<B>,
    /// First moment.
    pub m: FloatTensor<B>,
    /// Second moment.
    pub v: FloatTensor<B>,
    /// Largest second moment so far, `v̂`.
    pub v_max: FloatTensor<B>,
    /// First moment in the α domain.
    pub m_alpha: FloatTensor<B>,
    /// Second moment in the α domain.
    pub v_alpha: FloatTensor<B>,
    /// Largest second moment so far in the α domain.
    pub v_max_alpha: FloatTensor<B>,
}

/// A convolution whose next layer takes bits.
#[derive(Debug, Clone, PartialEq, new)]
pub struct Conv2dToPlanes {
    /// How it slides.
    pub options: Conv2dOptions,
    /// Its arithmetic; of activations that are bits, bitwise with their levels.
    pub mode: Mode,
    /// The levels of the activations that are added to its outputs, if there are such.
    pub residual: Option<Levels>,
    /// The levels that the outputs take.
    pub levels: Levels,
}

/// Operations of ALQ. Every device can run the defaults.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Autodiff: cfg(feature = "autodiff"),
    Fusion: cfg(feature = "fusion"),
)]
pub trait AlqOps: Backend {
    /// The basis step with speedup: returns the new state and the new weight.
    ///
    /// # Shapes
    /// - `grad`, result: the weight's own shape, flat
    #[fusion(meta = shapes::step)]
    fn alq_basis(
        #[extension_type] state: WeightState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        dense::basis::<Self>(state, grad, &layout, &params)
    }

    /// The step of the last phase: the quadratic model is taken around the kept full-precision
    /// weight `latent` (`[groups, len]`), which moves too. Returns state, latent and weight.
    #[fusion(meta = shapes::ste)]
    fn alq_ste(
        #[extension_type] state: WeightState<Self>,
        latent: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        dense::ste::<Self>(state, latent, grad, &layout, &params)
    }

    /// The coordinate step: AMSGrad in the α domain with fixed bases.
    #[fusion(meta = shapes::step)]
    fn alq_coordinate(
        #[extension_type] state: WeightState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        dense::coordinate::<Self>(state, grad, &layout, &params)
    }

    /// Updates the moments and returns the modelled loss increase `Δ` of dropping each coordinate,
    /// `[groups, max_bits]`, infinite where there is none.
    #[fusion(meta = shapes::importance)]
    fn alq_importance(
        #[extension_type] state: WeightState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        dense::importance::<Self>(state, grad, &layout, &params)
    }

    /// The `count` smallest of some values with their places, in any order: of equal values the
    /// earlier ones, NaN last.
    ///
    /// # Shapes
    /// - `values`: any, of at least `count` elements
    /// - places, smallest: `[count]`
    #[fusion(meta = shapes::smallest)]
    fn alq_smallest(
        values: FloatTensor<Self>,
        count: usize,
    ) -> (IntTensor<Self>, FloatTensor<Self>) {
        dense::smallest::<Self>(values, count)
    }

    /// Drops the coordinates marked by a non-zero in `drop`, `[groups, max_bits]`, with their bases
    /// and moments; the kept ones move to the front. Returns the new state and the new weight.
    #[fusion(meta = shapes::drop)]
    fn alq_drop(
        #[extension_type] state: WeightState<Self>,
        drop: IntTensor<Self>,
        layout: WeightLayout,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        dense::drop_coordinates::<Self>(state, drop, &layout)
    }

    /// `y = scale·(x Ŵ) + offset` for a packed weight of shape `[d_in, d_out]`.
    ///
    /// # Shapes
    /// - `input`: `[batch, d_in]`
    /// - `scale`, `offset`: `[d_out]`, or `[0]` for none
    /// - result: `[batch, d_out]`
    #[fusion(dtype = input, shape = shapes::linear(input, weight))]
    fn alq_linear(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        mode: Mode,
    ) -> FloatTensor<Self> {
        packed::linear::<Self>(input, scale, offset, &weight, &mode)
    }

    /// 2-D convolution with a packed weight of shape `[out, in / groups, k_h, k_w]`, then
    /// `scale·y + offset`.
    ///
    /// # Shapes
    /// - `input`: `[batch, in, h, w]`
    /// - `scale`, `offset`: `[out]`, or `[0]` for none
    /// - result: `[batch, out, h_out, w_out]`
    #[fusion(dtype = input, shape = shapes::conv2d(input, weight, options))]
    fn alq_conv2d(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        options: Conv2dOptions,
        mode: Mode,
    ) -> FloatTensor<Self> {
        packed::conv2d::<Self>(input, scale, offset, &weight, &options, &mode)
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
        packed::lookup::<Self>(indices, &weight)
    }

    /// Each value at the nearest of some levels.
    ///
    /// # Shapes
    /// - `input`, result: any, the same
    #[fusion(dtype = input, shape = input)]
    fn alq_quantize(input: FloatTensor<Self>, levels: Levels) -> FloatTensor<Self> {
        packed::quantize::<Self>(input, &levels)
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

    /// Multi-bit activations as bits, in words of 32 channels
    /// ([`Planes`](multibit::cpu::Planes)).
    ///
    /// # Shapes
    /// - `input`: `[batch, channels, h, w]`
    /// - result: `[batch, ⌈channels / 32⌉, bits, h, w]`, as the planes of all operations here
    #[fusion(dtype = DType::U32, shape = shapes::planes(input, levels))]
    fn alq_planes(input: FloatTensor<Self>, levels: Levels) -> IntTensor<Self> {
        planes::pack::<Self>(input, &levels)
    }

    /// The levels of activations that are bits, `[batch, channels, h, w]`.
    #[fusion(dtype = DType::F32, shape = shapes::values(planes, *channels))]
    fn alq_planes_values(
        planes: IntTensor<Self>,
        channels: usize,
        levels: Levels,
    ) -> FloatTensor<Self> {
        planes::unpack::<Self>(planes, channels, &levels)
    }

    /// Max pooling of activations that are bits.
    #[fusion(dtype = DType::U32, shape = shapes::pooled(planes, options))]
    fn alq_planes_max_pool2d(
        planes: IntTensor<Self>,
        channels: usize,
        levels: Levels,
        options: Pool2dOptions,
    ) -> IntTensor<Self> {
        planes::max_pool2d::<Self>(planes, channels, &levels, &options)
    }

    /// [`alq_conv2d`](Self::alq_conv2d) in bitwise arithmetic of activations that are bits.
    #[fusion(dtype = DType::F32, shape = shapes::planes_conv2d(planes, weight, options))]
    fn alq_planes_conv2d(
        planes: IntTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        options: Conv2dOptions,
        levels: Levels,
    ) -> FloatTensor<Self> {
        planes::conv2d::<Self>(planes, scale, offset, &weight, &options, &levels)
    }

    /// [`alq_conv2d`](Self::alq_conv2d), then what lies between it and the next layer.
    ///
    /// # Shapes
    /// - `residual`: planes of the output's shape, or `[0]` for none
    #[fusion(dtype = DType::U32, shape = shapes::conv2d_to_planes(input, weight, conv2d))]
    fn alq_conv2d_to_planes(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        residual: IntTensor<Self>,
        weight: Arc<PreparedWeight>,
        conv2d: Conv2dToPlanes,
    ) -> IntTensor<Self> {
        planes::conv2d_to_planes::<Self>(input, [scale, offset], residual, &weight, &conv2d)
    }

    /// [`alq_conv2d_to_planes`](Self::alq_conv2d_to_planes) in bitwise arithmetic of activations
    /// that are bits.
    #[fusion(
        dtype = DType::U32,
        shape = shapes::planes_conv2d_to_planes(planes, weight, conv2d)
    )]
    fn alq_planes_conv2d_to_planes(
        planes: IntTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        residual: IntTensor<Self>,
        weight: Arc<PreparedWeight>,
        conv2d: Conv2dToPlanes,
    ) -> IntTensor<Self> {
        planes::planes_conv2d_to_planes::<Self>(planes, [scale, offset], residual, &weight, &conv2d)
    }
}
