//! Flex: the kernels read its buffers where they lie, and steps write them in place where they are not
//! shared.

use burn_core::backend::ops::FloatTensorOps;
use burn_core::tensor::{DType, FloatDType, Shape};
use burn_flex::{Flex, FlexTensor};

use super::host::on_the_host;
use super::host::prelude::*;
use crate::ops::host::{Elements, Memory};

/// The buffers of Flex, each a contiguous tensor whose storage is exactly its elements.
struct Shared;

impl Memory<Flex> for Shared {
    type Buffer = FlexTensor;

    fn floats(tensor: FlexTensor) -> FlexTensor {
        let tensor = if tensor.dtype() == DType::F32 {
            tensor
        } else {
            Flex::float_cast(tensor, FloatDType::F32)
        };
        tensor.to_contiguous()
    }

    fn ints(tensor: FlexTensor, dtype: DType) -> FlexTensor {
        let found = tensor.dtype();
        assert_eq!(found, dtype, "ALQ on Flex computes with {dtype:?}");
        tensor.to_contiguous()
    }

    #[cfg(feature = "train")]
    fn into_floats(buffer: FlexTensor, _: &burn_flex::FlexDevice) -> FlexTensor {
        buffer
    }

    #[cfg(feature = "train")]
    fn into_ints(buffer: FlexTensor, _: DType, _: &burn_flex::FlexDevice) -> FlexTensor {
        buffer
    }
}

impl Elements for FlexTensor {
    fn shape(&self) -> Shape {
        self.layout().shape().clone()
    }

    fn f32(&self) -> &[f32] {
        self.storage()
    }

    fn u32(&self) -> &[u32] {
        self.storage()
    }

    #[cfg(feature = "train")]
    fn u8(&self) -> &[u8] {
        self.storage()
    }

    #[cfg(feature = "train")]
    fn f32_mut(&mut self) -> &mut [f32] {
        self.storage_mut()
    }

    #[cfg(feature = "train")]
    fn u8_mut(&mut self) -> &mut [u8] {
        self.storage_mut()
    }
}

on_the_host!(Flex, Shared);
