//! CubeCL devices: the kernels of `multibit::gpu` on tensors that stay where they are.

#[cfg(feature = "train")]
mod fit;
mod packed;

use alloc::sync::Arc;

use burn_core::backend::ops::FloatTensorOps;
use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::{cast, into_contiguous};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use multibit::cpu::{Activation, Levels, Mode, Pool2dOptions};
#[cfg(feature = "train")]
use multibit::fit::StepParams;

use crate::ops::packed::{conv2d_epilogue, epilogue};
use crate::ops::{Activations, AlqOps, PackedConv2d, Term};
#[cfg(feature = "train")]
use crate::ops::{LayerOps, StepOps, StepState, WeightLayout, dense};
use crate::weight::PreparedWeight;

/// A tensor of a shape that a kernel writes whole.
fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), dtype)
}

/// A dense tensor of the type that the kernels compute with.
///
/// # Panics
/// If it is of another type and not of floats.
fn own(tensor: CubeTensor, dtype: DType) -> CubeTensor {
    let found = tensor.dtype;
    let castable = found == dtype || found.is_float() && dtype.is_float();
    assert!(
        castable,
        "ALQ on GPUs computes with {dtype:?}, not {found:?}"
    );
    into_contiguous(cast(tensor, dtype))
}

impl AlqOps for CubeBackend {
    fn alq_linear(
        input: FloatTensor<Self>,
        scale: Term<Self>,
        offset: Term<Self>,
        residual: Term<Self>,
        weight: Arc<PreparedWeight>,
        mode: Mode,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let y = packed::linear(input, [scale, offset], &weight, &mode);
        epilogue::<Self>(y, residual, activation)
    }

    fn alq_conv2d(
        input: Activations<Self>,
        scale: Term<Self>,
        offset: Term<Self>,
        residual: Activations<Self>,
        weight: Arc<PreparedWeight>,
        conv2d: PackedConv2d,
    ) -> Activations<Self> {
        let dtype = match &input {
            Activations::Values(values) => values.dtype,
            _ => DType::F32,
        };
        let y = packed::conv2d(input, [scale, offset], &weight, &conv2d);
        let Some(levels) = &conv2d.levels else {
            let y = conv2d_epilogue::<Self>(cast(y, dtype), residual, conv2d.activation);
            return Activations::Values(y);
        };
        let y = match (residual, &conv2d.residual) {
            (Activations::Planes(residual), Some(levels)) => {
                let channels = y.meta.shape()[1];
                let residual = packed::unpack(residual, channels, levels);
                <Self as FloatTensorOps<Self>>::float_add(y, residual)
            }
            (Activations::Values(_), _) => {
                panic!("a residual without levels is added to values")
            }
            (Activations::Planes(_) | Activations::None, _) => y,
        };
        Activations::Planes(packed::pack(y, levels))
    }

    fn alq_dense(like: FloatTensor<Self>, weight: Arc<PreparedWeight>) -> FloatTensor<Self> {
        packed::dense(&like, &weight)
    }

    fn alq_lookup(indices: IntTensor<Self>, weight: Arc<PreparedWeight>) -> FloatTensor<Self> {
        packed::lookup(indices, &weight)
    }

    fn alq_quantize(input: FloatTensor<Self>, levels: Levels) -> FloatTensor<Self> {
        packed::quantize(input, &levels)
    }

    fn alq_planes(input: FloatTensor<Self>, levels: Levels) -> IntTensor<Self> {
        packed::pack(input, &levels)
    }

    fn alq_planes_values(
        planes: IntTensor<Self>,
        channels: usize,
        levels: Levels,
    ) -> FloatTensor<Self> {
        packed::unpack(planes, channels, &levels)
    }

    fn alq_planes_max_pool2d(
        planes: IntTensor<Self>,
        channels: usize,
        levels: Levels,
        options: Pool2dOptions,
    ) -> IntTensor<Self> {
        let values = packed::unpack(planes, channels, &levels);
        packed::pack(Self::alq_max_pool2d(values, options), &levels)
    }
}

#[cfg(feature = "train")]
impl LayerOps for CubeBackend {}

#[cfg(feature = "train")]
impl StepOps for CubeBackend {
    fn alq_basis(
        state: StepState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (StepState<Self>, FloatTensor<Self>) {
        if !fit::fits(&grad) {
            return dense::basis::<Self>(state, grad, &layout, &params);
        }
        let (state, _, weight) = fit::refit(state, None, grad, &layout, &params);
        (state, weight)
    }

    fn alq_ste(
        state: StepState<Self>,
        latent: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (StepState<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !fit::fits(&grad) {
            return dense::ste::<Self>(state, latent, grad, &layout, &params);
        }
        let (state, latent, weight) = fit::refit(state, Some(latent), grad, &layout, &params);
        (state, latent.expect("a latent weight stays one"), weight)
    }

    fn alq_coordinate(
        state: StepState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (StepState<Self>, FloatTensor<Self>) {
        if !fit::fits(&grad) {
            return dense::coordinate::<Self>(state, grad, &layout, &params);
        }
        fit::coordinate(state, grad, &layout, &params)
    }

    fn alq_importance(
        state: StepState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (StepState<Self>, FloatTensor<Self>) {
        if !fit::fits(&grad) {
            return dense::importance::<Self>(state, grad, &layout, &params);
        }
        fit::importance(state, grad, &layout, &params)
    }

    fn alq_smallest(
        values: FloatTensor<Self>,
        count: usize,
    ) -> (IntTensor<Self>, FloatTensor<Self>) {
        fit::smallest(values, count)
    }

    fn alq_drop(
        state: StepState<Self>,
        drop: IntTensor<Self>,
        layout: WeightLayout,
    ) -> (StepState<Self>, FloatTensor<Self>) {
        if !fit::fits(&drop) {
            return dense::drop_coordinates::<Self>(state, drop, &layout);
        }
        fit::drop_coordinates(state, drop, &layout)
    }
}
