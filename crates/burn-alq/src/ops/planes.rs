//! Activations that stay bits between packed layers, on the host.
//!
//! Their words are few: a back end whose device is the host need not do better than copy them.

use alloc::vec;
use alloc::vec::Vec;

use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::{DType, TensorData, read_sync};
use multibit::cpu::{
    Affine, Arithmetic, Conv2dInput, Conv2dOptions, Isa, Levels, Mode, Planes, Pool2dOptions,
    conv2d_output_shape,
};

use super::ToPlanes;
use super::packed::{affine_of, slice, values};
use crate::prepared::PreparedWeight;

/// The words of planes on the host.
fn words<B: Backend>(planes: IntTensor<B>) -> TensorData {
    let data = read_sync(B::int_into_data(planes)).expect("the device gives its data back");
    data.convert_dtype(DType::U32)
}

fn word_slice(data: &TensorData) -> &[u32] {
    data.as_slice().expect("converted to u32")
}

fn view<'a>(data: &'a TensorData, channels: usize, levels: &'a Levels) -> Planes<'a> {
    planes_of(word_slice(data), data.shape().dims(), channels, levels)
}

/// Planes `[batch, words, bits, h, w]` of activations with so many channels.
pub(crate) fn planes_of<'a>(
    words: &'a [u32],
    [batch, _, _, height, width]: [usize; 5],
    channels: usize,
    levels: &'a Levels,
) -> Planes<'a> {
    Planes::new(words, [batch, channels, height, width], levels)
}

/// Planes that `fill` writes, for activations `[batch, channels, h, w]`.
fn planes<B: Backend>(
    shape: [usize; 4],
    levels: &Levels,
    device: &B::Device,
    fill: impl FnOnce(&mut [u32]),
) -> IntTensor<B> {
    let mut words = vec![0; Planes::len(shape, levels)];
    fill(&mut words);
    let [batch, channels, height, width] = shape;
    let shape = [batch, channels.div_ceil(32), levels.bits(), height, width];
    B::int_from_data(TensorData::new(words, shape), device)
}

fn floats<B: Backend>(values: Vec<f32>, shape: [usize; 4], device: &B::Device) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(values, shape), device)
}

pub(super) fn pack<B: Backend>(input: FloatTensor<B>, levels: &Levels) -> IntTensor<B> {
    let device = input.device();
    let input = values::<B>(input);
    let shape = input.shape().dims();
    planes::<B>(shape, levels, &device, |words| {
        Planes::pack(Isa::best(), slice(&input), shape, levels, words);
    })
}

pub(super) fn unpack<B: Backend>(
    planes: IntTensor<B>,
    channels: usize,
    levels: &Levels,
) -> FloatTensor<B> {
    let device = planes.device();
    let data = words::<B>(planes);
    let planes = view(&data, channels, levels);
    let mut values = vec![0.0; planes.shape().iter().product()];
    planes.unpack(Isa::best(), &mut values);
    floats::<B>(values, planes.shape(), &device)
}

pub(super) fn max_pool2d<B: Backend>(
    input: IntTensor<B>,
    channels: usize,
    levels: &Levels,
    options: &Pool2dOptions,
) -> IntTensor<B> {
    let device = input.device();
    let data = words::<B>(input);
    let input = view(&data, channels, levels);
    let [batch, _, height, width] = input.shape();
    let [height, width] = options.output_size([height, width]);
    planes::<B>([batch, channels, height, width], levels, &device, |words| {
        input.max_pool2d(Isa::best(), options, words);
    })
}

pub(super) fn conv2d<B: Backend>(
    planes: IntTensor<B>,
    scale: FloatTensor<B>,
    offset: FloatTensor<B>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    levels: &Levels,
) -> FloatTensor<B> {
    let device = planes.device();
    let data = words::<B>(planes);
    let [scale, offset] = [scale, offset].map(values::<B>);
    let input = view(&data, weight.shape()[1] * options.groups, levels);
    let affine = affine_of(slice(&scale), slice(&offset));
    let (output, shape) = forward(&input, &affine, weight, options);
    floats::<B>(output, shape, &device)
}

#[expect(clippy::too_many_arguments, reason = "those of the operation")]
pub(super) fn conv2d_to_planes<B: Backend>(
    input: FloatTensor<B>,
    scale: FloatTensor<B>,
    offset: FloatTensor<B>,
    residual: IntTensor<B>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    mode: &Mode,
    to: &ToPlanes,
) -> IntTensor<B> {
    let input = values::<B>(input);
    let input = Conv2dInput::Values(mode, slice(&input), input.shape().dims());
    fused::<B>(&input, [scale, offset], residual, weight, options, to)
}

#[expect(clippy::too_many_arguments, reason = "those of the operation")]
pub(super) fn planes_conv2d_to_planes<B: Backend>(
    planes: IntTensor<B>,
    scale: FloatTensor<B>,
    offset: FloatTensor<B>,
    residual: IntTensor<B>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    levels: &Levels,
    to: &ToPlanes,
) -> IntTensor<B> {
    let data = words::<B>(planes);
    let channels = weight.shape()[1] * options.groups;
    let input = Conv2dInput::Planes(view(&data, channels, levels));
    fused::<B>(&input, [scale, offset], residual, weight, options, to)
}

fn fused<B: Backend>(
    input: &Conv2dInput<'_>,
    affine: [FloatTensor<B>; 2],
    residual: IntTensor<B>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    to: &ToPlanes,
) -> IntTensor<B> {
    let device = residual.device();
    let [scale, offset] = affine.map(values::<B>);
    let affine = affine_of(slice(&scale), slice(&offset));
    let residual = words::<B>(residual);
    let dims = residual.shape().as_slice();
    let residual = (word_slice(&residual), dims);
    let (words, shape) = forward_to_planes(input, &affine, residual, weight, options, to);
    B::int_from_data(TensorData::new(words, shape), &device)
}

/// A convolution of planes, to values.
pub(crate) fn forward(
    input: &Planes<'_>,
    affine: &Affine<'_>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
) -> (Vec<f32>, [usize; 4]) {
    let shape = conv2d_output_shape(input.shape(), weight.shape(), options);
    let mut output = vec![0.0; shape.iter().product()];
    let kernel = weight.conv2d(Arithmetic::Bitwise, options.groups);
    kernel.forward_planes(input, affine, options, &mut output);
    (output, shape)
}

/// A convolution to planes; the residual is its words and their shape.
pub(crate) fn forward_to_planes(
    input: &Conv2dInput<'_>,
    affine: &Affine<'_>,
    (residual, residual_shape): (&[u32], &[usize]),
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    to: &ToPlanes,
) -> (Vec<u32>, [usize; 5]) {
    let shape = conv2d_output_shape(input.shape(), weight.shape(), options);
    let [batch, channels, height, width] = shape;
    let residual = to.residual.as_ref().map(|levels| {
        let dims = residual_shape.try_into().expect("planes have five axes");
        planes_of(residual, dims, channels, levels)
    });
    let arithmetic = match input {
        Conv2dInput::Values(mode, ..) => mode.arithmetic(),
        Conv2dInput::Planes(_) => Arithmetic::Bitwise,
    };
    let kernel = weight.conv2d(arithmetic, options.groups);
    let mut words = vec![0; Planes::len(shape, &to.levels)];
    let residual = residual.as_ref();
    kernel.forward_to_planes(input, affine, options, residual, &to.levels, &mut words);
    let words_out = channels.div_ceil(32);
    (words, [batch, words_out, to.levels.bits(), height, width])
}
