//! What the operations return, known before they run: kernel fusion runs them later.

use burn_core::backend::fusion::custom::TensorSpec;
use burn_core::tensor::{DType, Shape};
use multibit::cpu::{Levels, Pool2dOptions, conv2d_output_shape};
#[cfg(feature = "train")]
use multibit::fit::{State, StepParams};

#[cfg(feature = "train")]
use super::WeightLayout;
use super::{ActivationsMetadata, PackedConv2d, TermMetadata};
use crate::weight::PreparedWeight;

/// A weight's state.
#[cfg(feature = "train")]
pub(crate) type StateSpec = State<TensorSpec, TensorSpec>;

/// A weight in its own layout, flat.
#[cfg(feature = "train")]
pub(super) fn flat(layout: &WeightLayout) -> Shape {
    let len: usize = layout.shape.iter().product();
    [len].into()
}

#[cfg(feature = "train")]
fn weight(layout: &WeightLayout) -> TensorSpec {
    TensorSpec::new(flat(layout), DType::F32)
}

#[cfg(feature = "train")]
pub(super) fn step(
    state: &StateSpec,
    _grad: &TensorSpec,
    layout: &WeightLayout,
    _params: &StepParams,
) -> (StateSpec, TensorSpec) {
    (state.clone(), weight(layout))
}

#[cfg(feature = "train")]
pub(super) fn ste(
    state: &StateSpec,
    latent: &TensorSpec,
    _grad: &TensorSpec,
    layout: &WeightLayout,
    _params: &StepParams,
) -> (StateSpec, TensorSpec, TensorSpec) {
    (state.clone(), latent.clone(), weight(layout))
}

#[cfg(feature = "train")]
pub(super) fn importance(
    state: &StateSpec,
    _grad: &TensorSpec,
    _layout: &WeightLayout,
    _params: &StepParams,
) -> (StateSpec, TensorSpec) {
    (state.clone(), state.coordinates.clone())
}

#[cfg(feature = "train")]
pub(super) fn smallest(_values: &TensorSpec, count: &usize) -> (TensorSpec, TensorSpec) {
    let spec = |dtype| TensorSpec::new([*count].into(), dtype);
    (spec(DType::U32), spec(DType::F32))
}

#[cfg(feature = "train")]
pub(super) fn drop(
    state: &StateSpec,
    _drop: &TensorSpec,
    layout: &WeightLayout,
) -> (StateSpec, TensorSpec) {
    (state.clone(), weight(layout))
}

pub(super) fn linear(input: &Shape, weight: &PreparedWeight) -> Shape {
    [input[0], weight.shape()[1]].into()
}

pub(super) fn lookup(indices: &Shape, weight: &PreparedWeight) -> Shape {
    [indices.num_elements(), weight.shape()[1]].into()
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

pub(super) fn conv2d(
    input: &ActivationsMetadata,
    _scale: &TermMetadata,
    _offset: &TermMetadata,
    _residual: &ActivationsMetadata,
    weight: &PreparedWeight,
    conv2d: &PackedConv2d,
) -> ActivationsMetadata {
    let (input, dtype) = match input {
        ActivationsMetadata::Values(input) => (input.shape.clone(), input.dtype),
        ActivationsMetadata::Planes(planes) => {
            let channels = weight.shape()[1] * conv2d.options.groups;
            (values(&planes.shape, channels), DType::F32)
        }
        ActivationsMetadata::None => panic!("a convolution without an input"),
    };
    let output = conv2d_output_shape(input.dims(), weight.shape(), &conv2d.options).into();
    match &conv2d.levels {
        None => ActivationsMetadata::Values(TensorSpec::new(output, dtype)),
        Some(levels) => {
            ActivationsMetadata::Planes(TensorSpec::new(planes(&output, levels), DType::U32))
        }
    }
}
