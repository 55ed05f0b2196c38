//! CubeCL devices: the kernels of `multibit::gpu` on tensors that stay where they are.

mod fit;

use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use multibit::fit::StepParams;

use crate::ops::{AlqOps, WeightLayout, WeightState, dense};

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
}
