//! Activations that stay bits between packed layers, on the host.
//!
//! Their words are few: a back end whose device is the host need not do better than copy them.

use alloc::vec;
use alloc::vec::Vec;

use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::{DType, TensorData, read_sync};
use multibit::cpu::{
    Conv2dInput, Conv2dOptions, Isa, Levels, Mode, Planes, Pool2dOptions, conv2d_output_shape,
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

/// Planes of activations with so many channels.
fn view<'a>(data: &'a TensorData, channels: usize, levels: &'a Levels) -> Planes<'a> {
    let [batch, _, _, height, width] = data.shape().dims();
    Planes::new(word_slice(data), [batch, channels, height, width], levels)
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
    let shape = conv2d_output_shape(input.shape(), weight.shape(), options);
    let mut output = vec![0.0; shape.iter().product()];
    let kernel = weight.conv2d(multibit::cpu::Arithmetic::Bitwise, options.groups);
    let affine = affine_of(slice(&scale), slice(&offset));
    kernel.forward_planes(&input, &affine, options, &mut output);
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
    fused::<B>(&input, [scale, offset], residual, weight, options, mode, to)
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
    let mode = Mode::Bitwise(levels.clone());
    fused::<B>(
        &input,
        [scale, offset],
        residual,
        weight,
        options,
        &mode,
        to,
    )
}

fn fused<B: Backend>(
    input: &Conv2dInput<'_>,
    affine: [FloatTensor<B>; 2],
    residual: IntTensor<B>,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
    mode: &Mode,
    to: &ToPlanes,
) -> IntTensor<B> {
    let device = residual.device();
    let [scale, offset] = affine.map(values::<B>);
    let affine = affine_of(slice(&scale), slice(&offset));
    let shape = conv2d_output_shape(input.shape(), weight.shape(), options);
    let residual = to
        .residual
        .as_ref()
        .map(|levels| (words::<B>(residual), levels));
    let residual = residual
        .as_ref()
        .map(|(data, levels)| view(data, shape[1], levels));
    let kernel = weight.conv2d(mode.arithmetic(), options.groups);
    planes::<B>(shape, &to.levels, &device, |words| {
        kernel.forward_to_planes(
            input,
            &affine,
            options,
            residual.as_ref(),
            &to.levels,
            words,
        );
    })
}
