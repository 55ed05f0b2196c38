//! Flex: the kernels read its buffers where they lie, and steps write them in place where they are not
//! shared.

use burn_core::backend::ops::FloatTensorOps;
use burn_core::tensor::{Bytes, DType, FloatDType, Shape};
use burn_flex::{Flex, FlexDevice, FlexTensor, Layout};

use super::host::on_the_host;
use super::host::prelude::*;
use crate::ops::host::{Elements, Memory, Rows};

/// The buffers of Flex: contiguous tensors whose storage is exactly their elements, but for rows.
struct Shared;

/// A tensor whose storage is its elements: itself, if it is one.
fn whole(tensor: FlexTensor) -> FlexTensor {
    let layout = tensor.layout();
    let bytes = layout.num_elements() * tensor.dtype().size();
    if layout.start_offset() == 0 && tensor.bytes().len() == bytes && layout.is_contiguous() {
        return tensor;
    }
    tensor.to_contiguous()
}

impl Memory<Flex> for Shared {
    type Buffer = FlexTensor;

    fn floats(tensor: FlexTensor) -> FlexTensor {
        let tensor = if tensor.dtype() == DType::F32 {
            tensor
        } else {
            Flex::float_cast(tensor, FloatDType::F32)
        };
        whole(tensor)
    }

    fn rows(tensor: FlexTensor) -> Rows<FlexTensor> {
        let layout = tensor.layout();
        let [batch, length, width] = layout.shape().dims();
        let &[batch_stride, length_stride, step] = layout.strides() else {
            unreachable!("the shape has three axes")
        };
        let stride = usize::try_from(if length == 1 {
            batch_stride
        } else {
            length_stride
        });
        let even = |stride: usize| {
            let distance = isize::try_from(stride * length);
            stride >= width && (batch <= 1 || distance == Ok(batch_stride))
        };
        match stride {
            Ok(stride) if tensor.dtype() == DType::F32 && step == 1 && even(stride) => Rows {
                start: layout.start_offset(),
                stride,
                buffer: tensor,
            },
            _ => Rows {
                start: 0,
                stride: width,
                buffer: Self::floats(tensor),
            },
        }
    }

    fn tensor(
        values: Vec<f32>,
        shape: impl Into<Shape>,
        dtype: DType,
        _: &FlexDevice,
    ) -> FlexTensor {
        let (values, layout) = (Bytes::from_elems(values), Layout::contiguous(shape.into()));
        let tensor = FlexTensor::new(values, layout, DType::F32);
        match dtype {
            DType::F32 => tensor,
            dtype => Flex::float_cast(tensor, dtype.into()),
        }
    }

    fn ints(tensor: FlexTensor, dtype: DType) -> FlexTensor {
        let found = tensor.dtype();
        assert_eq!(found, dtype, "ALQ on Flex computes with {dtype:?}");
        whole(tensor)
    }

    #[cfg(feature = "train")]
    fn into_floats(buffer: FlexTensor, _: &FlexDevice) -> FlexTensor {
        buffer
    }

    #[cfg(feature = "train")]
    fn into_ints(buffer: FlexTensor, _: DType, _: &FlexDevice) -> FlexTensor {
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
