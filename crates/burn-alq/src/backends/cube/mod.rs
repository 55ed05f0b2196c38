//! CubeCL devices: the kernels of `multibit::gpu` on tensors that stay where they are.

mod fit;
mod packed;

use alloc::sync::Arc;

use burn_core::backend::ops::FloatTensorOps;
use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use multibit::cpu::{Conv2dOptions, Levels, Mode, Pool2dOptions};
use multibit::fit::StepParams;

use crate::ops::{AlqOps, Conv2dToPlanes, WeightLayout, WeightState, dense};
use crate::prepared::PreparedWeight;

/// A tensor of a shape that a kernel writes whole.
fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, shape.into(), dtype)
}

/// A dense tensor of the type that the kernels compute with.
fn own(tensor: CubeTensor, dtype: DType) -> CubeTensor {
    assert_eq!(tensor.dtype, dtype, "ALQ on GPUs computes with {dtype:?}");
    into_contiguous(tensor)
}

impl AlqOps for CubeBackend {
    fn alq_basis(
        state: WeightState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        if !fit::fits(&grad) {
            return dense::basis::<Self>(state, grad, &layout, &params);
        }
        let (state, _, weight) = fit::refit(state, None, grad, &layout, &params);
        (state, weight)
    }

    fn alq_ste(
        state: WeightState<Self>,
        latent: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        if !fit::fits(&grad) {
            return dense::ste::<Self>(state, latent, grad, &layout, &params);
        }
        let (state, latent, weight) = fit::refit(state, Some(latent), grad, &layout, &params);
        (state, latent.expect("a latent weight stays one"), weight)
    }

    fn alq_coordinate(
        state: WeightState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        if !fit::fits(&grad) {
            return dense::coordinate::<Self>(state, grad, &layout, &params);
        }
        fit::coordinate(state, grad, &layout, &params)
    }

    fn alq_importance(
        state: WeightState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
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
        state: WeightState<Self>,
        drop: IntTensor<Self>,
        layout: WeightLayout,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        if !fit::fits(&drop) {
            return dense::drop_coordinates::<Self>(state, drop, &layout);
        }
        fit::drop_coordinates(state, drop, &layout)
    }

    fn alq_linear(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        mode: Mode,
    ) -> FloatTensor<Self> {
        packed::linear(input, [scale, offset], &weight, &mode)
    }

    fn alq_conv2d(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        options: Conv2dOptions,
        mode: Mode,
    ) -> FloatTensor<Self> {
        packed::conv2d(input, [scale, offset], &weight, &options, &mode)
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

    fn alq_planes_conv2d(
        planes: IntTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        options: Conv2dOptions,
        levels: Levels,
    ) -> FloatTensor<Self> {
        packed::conv2d_planes(planes, [scale, offset], &weight, &options, &levels)
    }

    fn alq_conv2d_to_planes(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        residual: IntTensor<Self>,
        weight: Arc<PreparedWeight>,
        conv2d: Conv2dToPlanes,
    ) -> IntTensor<Self> {
        let (options, mode) = (&conv2d.options, &conv2d.mode);
        let y = packed::conv2d(input, [scale, offset], &weight, options, mode);
        to_planes(y, residual, &conv2d)
    }

    fn alq_planes_conv2d_to_planes(
        planes: IntTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        residual: IntTensor<Self>,
        weight: Arc<PreparedWeight>,
        conv2d: Conv2dToPlanes,
    ) -> IntTensor<Self> {
        let levels = conv2d.input_levels();
        let options = &conv2d.options;
        let y = packed::conv2d_planes(planes, [scale, offset], &weight, options, levels);
        to_planes(y, residual, &conv2d)
    }
}

/// What lies between a convolution and the next layer.
fn to_planes(y: CubeTensor, residual: CubeTensor, conv2d: &Conv2dToPlanes) -> CubeTensor {
    let y = match &conv2d.residual {
        None => y,
        Some(levels) => {
            let channels = y.meta.shape()[1];
            <CubeBackend as FloatTensorOps<CubeBackend>>::float_add(
                y,
                packed::unpack(residual, channels, levels),
            )
        }
    };
    packed::pack(y, &conv2d.levels)
}
