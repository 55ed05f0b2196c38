//! Default bodies of the packed layers.
//!
//! In exact arithmetic the weight is unpacked to the device and Burn's own layer runs. What only the
//! kernels of `multibit` can compute runs on the host.

use burn_core::backend::tensor::FloatTensor;
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::ops::ConvOptions;
use burn_core::tensor::{DType, Shape, TensorData, read_sync};
use multibit::PackedWeight;
use multibit::cpu::{Conv2dOptions, Mode, conv2d_output_shape};

use crate::prepared::PreparedWeight;

fn unpack<B: Backend>(like: &FloatTensor<B>, weight: &PackedWeight) -> FloatTensor<B> {
    let data = TensorData::new(weight.unpack(), weight.shape().to_vec());
    B::float_from_data(data.convert_dtype(like.dtype()), &like.device())
}

pub(super) fn linear<B: Backend>(
    input: FloatTensor<B>,
    bias: FloatTensor<B>,
    weight: &PreparedWeight,
    mode: &Mode,
) -> FloatTensor<B> {
    if *mode != Mode::Exact {
        return linear_on_host::<B>(input, bias, weight, mode);
    }
    let weight = unpack::<B>(&input, weight);
    let d_out = bias.shape().num_elements();
    let output = B::float_matmul(input, weight);
    B::float_add(output, B::float_reshape(bias, Shape::new([1, d_out])))
}

pub(super) fn conv2d<B: Backend>(
    input: FloatTensor<B>,
    bias: FloatTensor<B>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    mode: &Mode,
) -> FloatTensor<B> {
    if *mode != Mode::Exact {
        return conv2d_on_host::<B>(input, bias, weight, options, mode);
    }
    let weight = unpack::<B>(&input, weight);
    let options = ConvOptions::new_with_padding(
        options.stride,
        options.padding,
        options.dilation,
        options.groups,
    );
    B::conv2d(input, weight, Some(bias), options)
}

/// The values on the host, as f32.
fn values<B: Backend>(tensor: FloatTensor<B>) -> TensorData {
    let data = read_sync(B::float_into_data(tensor)).expect("the device gives its data back");
    data.convert_dtype(DType::F32)
}

pub(crate) fn linear_on_host<B: Backend>(
    input: FloatTensor<B>,
    bias: FloatTensor<B>,
    weight: &PreparedWeight,
    mode: &Mode,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let (input, bias) = (values::<B>(input), values::<B>(bias));
    let batch = input.shape()[0];
    let [_, d_out] = weight.linear(mode.arithmetic()).shape();
    let mut output = alloc::vec![0.0; batch * d_out];
    let (x, b) = (slice(&input), slice(&bias));
    let kernel = weight.linear(mode.arithmetic());
    kernel.forward(mode, x, batch, Some(b), &mut output);
    let output = TensorData::new(output, [batch, d_out]);
    B::float_from_data(output.convert_dtype(dtype), &device)
}

pub(crate) fn conv2d_on_host<B: Backend>(
    input: FloatTensor<B>,
    bias: FloatTensor<B>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    mode: &Mode,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let (input, bias) = (values::<B>(input), values::<B>(bias));
    let dims = input.shape().dims::<4>();
    let shape = conv2d_output_shape(dims, weight.shape(), options);
    let mut output = alloc::vec![0.0; shape.iter().product()];
    let (x, b) = (slice(&input), slice(&bias));
    let kernel = weight.conv2d(mode.arithmetic(), options.groups);
    kernel.forward(mode, x, dims, Some(b), options, &mut output);
    let output = TensorData::new(output, shape);
    B::float_from_data(output.convert_dtype(dtype), &device)
}

fn slice(data: &TensorData) -> &[f32] {
    data.as_slice().expect("converted to f32")
}
