//! Packed layers: the weight is copied to a device once, and its bits stay there.

use burn_core::backend::cubecl::dtype_to_storage_type;
use burn_core::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use multibit::cpu::{Conv2dOptions, Levels, Mode, conv2d_output_shape};
use multibit::gpu::cubecl::prelude::BufferArg;
use multibit::gpu::packed::{self, DeviceWeight, Layer};

use super::{empty, own};
use crate::prepared::PreparedWeight;

/// Scale and offset of a layer; those without elements are not there.
fn term(tensor: CubeTensor) -> Option<BufferArg> {
    let some = tensor.meta.shape().num_elements() > 0;
    some.then(|| own(tensor, DType::F32).into_buffer_arg())
}

fn layer<'a>(
    weight: &'a DeviceWeight,
    [scale, offset]: [CubeTensor; 2],
    output: &'a CubeTensor,
) -> Layer<'a> {
    Layer {
        client: &output.client,
        weight,
        scale: term(scale),
        offset: term(offset),
        output: output.clone().into_buffer_arg(),
    }
}

pub(super) fn linear(
    input: CubeTensor,
    affine: [CubeTensor; 2],
    weight: &PreparedWeight,
    mode: &Mode,
) -> CubeTensor {
    let input = own(input, DType::F32);
    let batch = input.meta.shape()[0];
    weight
        .check_output_axis(1)
        .unwrap_or_else(|error| panic!("MultiBitLinear: {error}"));
    let output = empty(&input, [batch, weight.shape()[1]], DType::F32);
    let weight = weight.on_cube(&input.client, &input.device);
    let layer = layer(&weight, affine, &output);
    packed::linear(layer, input.into_buffer_arg(), batch, mode);
    output
}

/// Calls `run` with the layer and the shape of its input.
fn with_conv2d(
    like: &CubeTensor,
    input_shape: [usize; 4],
    affine: [CubeTensor; 2],
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    run: impl FnOnce(Layer<'_>),
) -> CubeTensor {
    weight
        .check_output_axis(0)
        .unwrap_or_else(|error| panic!("MultiBitConv2d: {error}"));
    let shape = conv2d_output_shape(input_shape, weight.shape(), options);
    let output = empty(like, shape, DType::F32);
    let weight = weight.on_cube(&like.client, &like.device);
    run(layer(&weight, affine, &output));
    output
}

pub(super) fn conv2d(
    input: CubeTensor,
    affine: [CubeTensor; 2],
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    mode: &Mode,
) -> CubeTensor {
    let input = own(input, DType::F32);
    let shape = input.meta.shape().dims();
    with_conv2d(&input, shape, affine, weight, options, |layer| {
        packed::conv2d(layer, input.clone().into_buffer_arg(), shape, options, mode);
    })
}

pub(super) fn conv2d_planes(
    planes: CubeTensor,
    affine: [CubeTensor; 2],
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    levels: &Levels,
) -> CubeTensor {
    let planes = own(planes, DType::U32);
    let shape = values_shape(&planes, weight.shape()[1] * options.groups);
    with_conv2d(&planes, shape, affine, weight, options, |layer| {
        let planes = planes.clone().into_buffer_arg();
        packed::conv2d_planes(layer, planes, shape, options, levels);
    })
}

pub(super) fn lookup(indices: CubeTensor, weight: &PreparedWeight) -> CubeTensor {
    weight
        .check_output_axis(0)
        .unwrap_or_else(|error| panic!("MultiBitEmbedding: {error}"));
    let indices = into_contiguous(indices);
    let shape = [indices.meta.shape().num_elements(), weight.shape()[1]];
    let output = empty(&indices, shape, DType::F32);
    packed::lookup(
        &output.client,
        &weight.on_cube(&indices.client, &indices.device),
        indices.clone().into_buffer_arg(),
        dtype_to_storage_type(indices.dtype),
        output.clone().into_buffer_arg(),
    );
    output
}

pub(super) fn dense(like: &CubeTensor, weight: &PreparedWeight) -> CubeTensor {
    let output = empty(like, weight.shape().to_vec(), DType::F32);
    let weight = weight.on_cube(&like.client, &like.device);
    packed::unpack_weight(&output.client, &weight, output.clone().into_buffer_arg());
    output
}

pub(super) fn quantize(input: CubeTensor, levels: &Levels) -> CubeTensor {
    let input = own(input, DType::F32);
    let output = empty(&input, input.meta.shape().clone(), DType::F32);
    packed::quantize(
        &output.client,
        input.into_buffer_arg(),
        levels,
        output.clone().into_buffer_arg(),
    );
    output
}

/// The shape of the activations of planes `[batch, ⌈channels / 32⌉, bits, h, w]`.
fn values_shape(planes: &CubeTensor, channels: usize) -> [usize; 4] {
    let [batch, _, _, height, width] = planes.meta.shape().dims();
    [batch, channels, height, width]
}

pub(super) fn pack(values: CubeTensor, levels: &Levels) -> CubeTensor {
    let values = own(values, DType::F32);
    let shape @ [batch, channels, height, width] = values.meta.shape().dims();
    let words = [batch, channels.div_ceil(32), levels.bits(), height, width];
    let planes = empty(&values, words, DType::U32);
    packed::pack(
        &planes.client,
        values.into_buffer_arg(),
        shape,
        levels,
        planes.clone().into_buffer_arg(),
    );
    planes
}

pub(super) fn unpack(planes: CubeTensor, channels: usize, levels: &Levels) -> CubeTensor {
    let planes = own(planes, DType::U32);
    let shape = values_shape(&planes, channels);
    let values = empty(&planes, shape, DType::F32);
    packed::unpack(
        &values.client,
        planes.into_buffer_arg(),
        shape,
        levels,
        values.clone().into_buffer_arg(),
    );
    values
}
