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

use super::Conv2dToPlanes;
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

pub(super) fn conv2d_to_planes<B: Backend>(
    input: FloatTensor<B>,
    affine: [FloatTensor<B>; 2],
    residual: IntTensor<B>,
    weight: &PreparedWeight,
    conv2d: &Conv2dToPlanes,
) -> IntTensor<B> {
    let input = values::<B>(input);
    let input = Conv2dInput::Values(&conv2d.mode, slice(&input), input.shape().dims());
    fused::<B>(&input, affine, residual, weight, conv2d)
}

pub(super) fn planes_conv2d_to_planes<B: Backend>(
    planes: IntTensor<B>,
    affine: [FloatTensor<B>; 2],
    residual: IntTensor<B>,
    weight: &PreparedWeight,
    conv2d: &Conv2dToPlanes,
) -> IntTensor<B> {
    let data = words::<B>(planes);
    let input = conv2d.planes(word_slice(&data), data.shape().dims(), weight);
    fused::<B>(
        &Conv2dInput::Planes(input),
        affine,
        residual,
        weight,
        conv2d,
    )
}

impl Conv2dToPlanes {
    /// Its input, if it is bits.
    pub(crate) fn planes<'a>(
        &'a self,
        words: &'a [u32],
        dims: [usize; 5],
        weight: &PreparedWeight,
    ) -> Planes<'a> {
        let channels = weight.shape()[1] * self.options.groups;
        planes_of(words, dims, channels, self.input_levels())
    }

    /// The levels of its input, if it is bits.
    pub(crate) fn input_levels(&self) -> &Levels {
        let Mode::Bitwise(levels) = &self.mode else {
            panic!("activations that are bits need bitwise arithmetic");
        };
        levels
    }
}

fn fused<B: Backend>(
    input: &Conv2dInput<'_>,
    affine: [FloatTensor<B>; 2],
    residual: IntTensor<B>,
    weight: &PreparedWeight,
    conv2d: &Conv2dToPlanes,
) -> IntTensor<B> {
    let device = residual.device();
    let [scale, offset] = affine.map(values::<B>);
    let affine = affine_of(slice(&scale), slice(&offset));
    let residual = words::<B>(residual);
    let residual = (word_slice(&residual), residual.shape().as_slice());
    let (words, shape) = forward_to_planes(input, &affine, residual, weight, conv2d);
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
    conv2d: &Conv2dToPlanes,
) -> (Vec<u32>, [usize; 5]) {
    let (options, levels) = (&conv2d.options, &conv2d.levels);
    let shape = conv2d_output_shape(input.shape(), weight.shape(), options);
    let [batch, channels, height, width] = shape;
    let residual = conv2d.residual.as_ref().map(|levels| {
        let dims = residual_shape.try_into().expect("planes have five axes");
        planes_of(residual, dims, channels, levels)
    });
    let kernel = weight.conv2d(conv2d.mode.arithmetic(), options.groups);
    let mut words = vec![0; Planes::len(shape, levels)];
    kernel.forward_to_planes(
        input,
        affine,
        options,
        residual.as_ref(),
        levels,
        &mut words,
    );
    let len = channels.div_ceil(32);
    (words, [batch, len, levels.bits(), height, width])
}
