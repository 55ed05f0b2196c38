//! What the operations return, known before they run: kernel fusion runs them later.

use burn_core::backend::fusion::custom::TensorSpec;
use burn_core::tensor::{DType, Shape};
use multibit::cpu::{Conv2dOptions, Levels, Pool2dOptions, conv2d_output_shape};
use multibit::fit::StepParams;

use super::{Conv2dToPlanes, WeightLayout, WeightStateMetadata};
use crate::prepared::PreparedWeight;

/// A weight in its own layout, flat.
fn weight(layout: &WeightLayout) -> TensorSpec {
    let len: usize = layout.shape.iter().product();
    TensorSpec::new([len].into(), DType::F32)
}

pub(super) fn step(
    state: &WeightStateMetadata,
    _grad: &TensorSpec,
    layout: &WeightLayout,
    _params: &StepParams,
) -> (WeightStateMetadata, TensorSpec) {
    (state.clone(), weight(layout))
}

pub(super) fn ste(
    state: &WeightStateMetadata,
    latent: &TensorSpec,
    _grad: &TensorSpec,
    layout: &WeightLayout,
    _params: &StepParams,
) -> (WeightStateMetadata, TensorSpec, TensorSpec) {
    (state.clone(), latent.clone(), weight(layout))
}

pub(super) fn importance(
    state: &WeightStateMetadata,
    _grad: &TensorSpec,
    _layout: &WeightLayout,
    _params: &StepParams,
) -> (WeightStateMetadata, TensorSpec) {
    (state.clone(), state.coordinates.clone())
}

pub(super) fn smallest(_values: &TensorSpec, count: &usize) -> (TensorSpec, TensorSpec) {
    let spec = |dtype| TensorSpec::new([*count].into(), dtype);
    (spec(DType::U32), spec(DType::F32))
}

pub(super) fn drop(
    state: &WeightStateMetadata,
    _drop: &TensorSpec,
    layout: &WeightLayout,
) -> (WeightStateMetadata, TensorSpec) {
    (state.clone(), weight(layout))
}

pub(super) fn linear(input: &Shape, weight: &PreparedWeight) -> Shape {
    [input[0], weight.shape()[1]].into()
}

pub(super) fn lookup(indices: &Shape, weight: &PreparedWeight) -> Shape {
    [indices.num_elements(), weight.shape()[1]].into()
}

pub(super) fn conv2d(input: &Shape, weight: &PreparedWeight, options: &Conv2dOptions) -> Shape {
    conv2d_output_shape(input.dims(), weight.shape(), options).into()
}

/// Words `[batch, ⌈channels / 32⌉, bits, h, w]` of activations `[batch, channels, h, w]`.
pub(super) fn planes(values: &Shape, levels: &Levels) -> Shape {
    let [batch, channels, height, width] = values.dims();
    [batch, channels.div_ceil(32), levels.bits(), height, width].into()
}

pub(super) fn values(planes: &Shape, channels: usize) -> Shape {
    let [batch, _, _, height, width] = planes.dims();
    [batch, channels, height, width].into()
}

pub(super) fn pooled(planes: &Shape, options: &Pool2dOptions) -> Shape {
    let [batch, words, bits, height, width] = planes.dims();
    let [height, width] = options.output_size([height, width]);
    [batch, words, bits, height, width].into()
}

pub(super) fn planes_conv2d(
    planes: &Shape,
    weight: &PreparedWeight,
    options: &Conv2dOptions,
) -> Shape {
    let input = values(planes, weight.shape()[1] * options.groups);
    conv2d(&input, weight, options)
}

pub(super) fn conv2d_to_planes(
    input: &Shape,
    weight: &PreparedWeight,
    conv: &Conv2dToPlanes,
) -> Shape {
    planes(&conv2d(input, weight, &conv.options), &conv.levels)
}

pub(super) fn planes_conv2d_to_planes(
    input: &Shape,
    weight: &PreparedWeight,
    conv: &Conv2dToPlanes,
) -> Shape {
    let output = planes_conv2d(input, weight, &conv.options);
    planes(&output, &conv.levels)
}
