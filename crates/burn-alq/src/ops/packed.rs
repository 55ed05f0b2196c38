//! Default bodies of the packed layers.
//!
//! In exact arithmetic the weight is unpacked to the device and Burn's own layer runs. What only the
//! kernels of `multibit` can compute runs on the host.

use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::ops::ConvOptions;
use burn_core::tensor::{DType, Shape, TensorData, read_sync};
use multibit::PackedWeight;
use multibit::cpu::{Affine, Conv2dOptions, Levels, Mode, conv2d_output_shape};
#[cfg(feature = "ndarray")]
use multibit::cpu::{Isa, Pool2dOptions, max_pool2d};

use crate::prepared::PreparedWeight;

pub(super) fn dense<B: Backend>(like: &FloatTensor<B>, weight: &PackedWeight) -> FloatTensor<B> {
    let data = TensorData::new(weight.unpack(), weight.shape().to_vec());
    B::float_from_data(data.convert_dtype(like.dtype()), &like.device())
}

/// `scale·x + offset` along an axis.
pub(crate) fn affine<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    offset: FloatTensor<B>,
    axis: usize,
) -> FloatTensor<B> {
    let mut shape = alloc::vec![1; x.shape().num_dims()];
    shape[axis] = x.shape()[axis];
    let shape = Shape::from(shape);
    let some = |x: &FloatTensor<B>| x.shape().num_elements() > 0;
    let mut y = x;
    if some(&scale) {
        y = B::float_mul(y, B::float_reshape(scale, shape.clone()));
    }
    if some(&offset) {
        y = B::float_add(y, B::float_reshape(offset, shape));
    }
    y
}

/// Scale and offset for the kernels.
pub(crate) fn affine_of<'a>(scale: &'a [f32], offset: &'a [f32]) -> Affine<'a> {
    let some = |values: &'a [f32]| (!values.is_empty()).then_some(values);
    Affine {
        scale: some(scale),
        offset: some(offset),
    }
}

pub(super) fn linear<B: Backend>(
    input: FloatTensor<B>,
    scale: FloatTensor<B>,
    offset: FloatTensor<B>,
    weight: &PreparedWeight,
    mode: &Mode,
) -> FloatTensor<B> {
    if *mode != Mode::Exact {
        return linear_on_host::<B>(input, scale, offset, weight, mode);
    }
    let weight = dense::<B>(&input, weight);
    affine::<B>(B::float_matmul(input, weight), scale, offset, 1)
}

pub(super) fn conv2d<B: Backend>(
    input: FloatTensor<B>,
    scale: FloatTensor<B>,
    offset: FloatTensor<B>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    mode: &Mode,
) -> FloatTensor<B> {
    if *mode != Mode::Exact {
        return conv2d_on_host::<B>(input, scale, offset, weight, options, mode);
    }
    let weight = dense::<B>(&input, weight);
    let y = B::conv2d(input, weight, None, conv_options(options));
    affine::<B>(y, scale, offset, 1)
}

pub(crate) fn conv_options(options: &Conv2dOptions) -> ConvOptions<2> {
    ConvOptions::new_with_padding(
        options.stride,
        options.padding,
        options.dilation,
        options.groups,
    )
}

pub(super) fn lookup<B: Backend>(indices: IntTensor<B>, weight: &PreparedWeight) -> FloatTensor<B> {
    let device = indices.device();
    let data = read_sync(B::int_into_data(indices)).expect("the device gives its data back");
    let data = data.convert_dtype(DType::I64);
    let indices: &[i64] = data.as_slice().expect("converted to i64");
    let rows = TensorData::new(weight.rows(indices), [indices.len(), weight.shape()[1]]);
    B::float_from_data(rows, &device)
}

pub(super) fn quantize<B: Backend>(input: FloatTensor<B>, levels: &Levels) -> FloatTensor<B> {
    let dtype = input.dtype();
    let mut sum = B::float_add_scalar(
        B::float_zeros(input.shape(), &input.device(), dtype.into()),
        levels.values()[0].into(),
    );
    for (&threshold, pair) in levels.thresholds().iter().zip(levels.values().windows(2)) {
        let bool_dtype = burn_core::backend::get_device_settings::<B>(&input.device()).bool_dtype;
        let above = B::float_greater_elem(input.clone(), threshold.into(), bool_dtype);
        let above = B::bool_into_float(above, dtype.into());
        let step = B::float_mul_scalar(above, (pair[1] - pair[0]).into());
        sum = B::float_add(sum, step);
    }
    sum
}

/// The values on the host, as f32.
pub(super) fn values<B: Backend>(tensor: FloatTensor<B>) -> TensorData {
    let data = read_sync(B::float_into_data(tensor)).expect("the device gives its data back");
    data.convert_dtype(DType::F32)
}

pub(crate) fn linear_on_host<B: Backend>(
    input: FloatTensor<B>,
    scale: FloatTensor<B>,
    offset: FloatTensor<B>,
    weight: &PreparedWeight,
    mode: &Mode,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let [input, scale, offset] = [input, scale, offset].map(values::<B>);
    let batch = input.shape()[0];
    let kernel = weight.linear(mode.arithmetic());
    let [_, d_out] = kernel.shape();
    let mut output = alloc::vec![0.0; batch * d_out];
    let affine = affine_of(slice(&scale), slice(&offset));
    kernel.forward(mode, slice(&input), batch, &affine, &mut output);
    let output = TensorData::new(output, [batch, d_out]);
    B::float_from_data(output.convert_dtype(dtype), &device)
}

pub(crate) fn conv2d_on_host<B: Backend>(
    input: FloatTensor<B>,
    scale: FloatTensor<B>,
    offset: FloatTensor<B>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    mode: &Mode,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let [input, scale, offset] = [input, scale, offset].map(values::<B>);
    let dims = input.shape().dims::<4>();
    let shape = conv2d_output_shape(dims, weight.shape(), options);
    let mut output = alloc::vec![0.0; shape.iter().product()];
    let affine = affine_of(slice(&scale), slice(&offset));
    let kernel = weight.conv2d(mode.arithmetic(), options.groups);
    kernel.forward(mode, slice(&input), dims, &affine, options, &mut output);
    let output = TensorData::new(output, shape);
    B::float_from_data(output.convert_dtype(dtype), &device)
}

#[cfg(feature = "ndarray")]
pub(crate) fn max_pool2d_on_host<B: Backend>(
    input: FloatTensor<B>,
    options: &Pool2dOptions,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let input = values::<B>(input);
    let [batch, channels, height, width] = input.shape().dims();
    let [out_height, out_width] = options.output_size([height, width]);
    let shape = [batch, channels, out_height, out_width];
    let mut output = alloc::vec![0.0; shape.iter().product()];
    let planes = [batch * channels, height, width];
    max_pool2d(Isa::best(), slice(&input), planes, options, &mut output);
    let output = TensorData::new(output, shape);
    B::float_from_data(output.convert_dtype(dtype), &device)
}

pub(super) fn slice(data: &TensorData) -> &[f32] {
    data.as_slice().expect("converted to f32")
}
