// Deprecated by Burn, but still in use.
#![allow(deprecated)]

use alloc::sync::Arc;

use burn_core::backend::tensor::FloatTensor;
use burn_ndarray::NdArray;
use multibit::cpu::{Conv2dOptions, Mode, Pool2dOptions};

use crate::ops::{AlqOps, packed};
use crate::prepared::PreparedWeight;

// Its device is the host.
impl AlqOps for NdArray {
    fn alq_linear(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        mode: Mode,
    ) -> FloatTensor<Self> {
        packed::linear_on_host::<Self>(input, scale, offset, &weight, &mode)
    }

    fn alq_conv2d(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        options: Conv2dOptions,
        mode: Mode,
    ) -> FloatTensor<Self> {
        packed::conv2d_on_host::<Self>(input, scale, offset, &weight, &options, &mode)
    }

    fn alq_max_pool2d(input: FloatTensor<Self>, options: Pool2dOptions) -> FloatTensor<Self> {
        packed::max_pool2d_on_host::<Self>(input, &options)
    }
}
