//! Packed layers: the weight is copied to a device once, and its bits stay there.

use burn_core::backend::cubecl::dtype_to_storage_type;
use burn_core::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::{cast, into_contiguous};
use burn_cubecl::tensor::CubeTensor;
use multibit::cpu::{Levels, Mode, conv2d_output_shape};
use multibit::gpu::cubecl::prelude::BufferArg;
use multibit::gpu::packed::{self, DeviceWeight, Layer};

use super::{empty, own};
use crate::ops::{Activations, PackedConv2d, Term};
use crate::weight::PreparedWeight;

/// Scale or offset of a layer.
fn term(term: Term<CubeBackend>) -> Option<BufferArg> {
    match term {
        Term::None => None,
        Term::Tensor(tensor) => Some(own(tensor, DType::F32).into_buffer_arg()),
    }
}

fn layer<'a>(
    weight: &'a DeviceWeight,
    [scale, offset]: [Term<CubeBackend>; 2],
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
    affine: [Term<CubeBackend>; 2],
    weight: &PreparedWeight,
    mode: &Mode,
) -> CubeTensor {
    let dtype = input.dtype;
    let input = own(input, DType::F32);
    let batch = input.meta.shape()[0];
    weight
        .check_output_axis(1)
        .unwrap_or_else(|error| panic!("MultiBitLinear: {error}"));
    let output = empty(&input, [batch, weight.shape()[1]], DType::F32);
    let weight = weight.on_cube(&input.client, &input.device);
    let layer = layer(&weight, affine, &output);
    packed::linear(layer, input.into_buffer_arg(), batch, mode);
    cast(output, dtype)
}

/// A convolution to values in f32.
pub(super) fn conv2d(
    input: Activations<CubeBackend>,
    affine: [Term<CubeBackend>; 2],
    weight: &PreparedWeight,
    conv2d: &PackedConv2d,
) -> CubeTensor {
    weight
        .check_output_axis(0)
        .unwrap_or_else(|error| panic!("MultiBitConv2d: {error}"));
    let options = &conv2d.options;
    let (input, planes) = match input {
        Activations::Values(values) => (own(values, DType::F32), None),
        Activations::Planes(words) => match &conv2d.mode {
            Mode::Bitwise(levels) => (own(words, DType::U32), Some(levels)),
            _ => panic!("activations that are bits need bitwise arithmetic"),
        },
        Activations::None => panic!("a convolution without an input"),
    };
    let shape = if planes.is_some() {
        values_shape(&input, weight.shape()[1] * options.groups)
    } else {
        input.meta.shape().dims()
    };
    let output = conv2d_output_shape(shape, weight.shape(), options);
    let output = empty(&input, output, DType::F32);
    let weight = weight.on_cube(&input.client, &input.device);
    let layer = layer(&weight, affine, &output);
    let input = input.into_buffer_arg();
    match planes {
        Some(levels) => packed::conv2d_planes(layer, input, shape, options, levels),
        None => packed::conv2d(layer, input, shape, options, &conv2d.mode),
    }
    output
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
    cast(output, like.dtype)
}

pub(super) fn quantize(input: CubeTensor, levels: &Levels) -> CubeTensor {
    let dtype = input.dtype;
    let input = own(input, DType::F32);
    let output = empty(&input, input.meta.shape().clone(), DType::F32);
    packed::quantize(
        &output.client,
        input.into_buffer_arg(),
        levels,
        output.clone().into_buffer_arg(),
    );
    cast(output, dtype)
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
