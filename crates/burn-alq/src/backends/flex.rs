//! Flex: the kernels read its buffers where they lie, and steps write them in place where they are not
//! shared.

use burn_core::tensor::{DType, Shape};
use burn_flex::{Flex, FlexTensor};

use super::host::on_the_host;
use super::host::prelude::*;
use crate::ops::host::{Elements, Memory};

/// The buffers of Flex.
struct Shared;

impl Memory<Flex> for Shared {
    type Buffer = FlexTensor;

    fn floats(tensor: FlexTensor) -> FlexTensor {
        own(tensor, DType::F32)
    }

    fn ints(tensor: FlexTensor, dtype: DType) -> FlexTensor {
        own(tensor, dtype)
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

/// A contiguous tensor whose storage is exactly its elements.
fn own(tensor: FlexTensor, dtype: DType) -> FlexTensor {
    assert_eq!(tensor.dtype(), dtype, "ALQ on Flex computes with {dtype:?}");
    tensor.to_contiguous()
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
