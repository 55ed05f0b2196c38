//! The steps of `multibit` on tensors in the host's memory, in place where nobody else holds them.

use alloc::vec;
use alloc::vec::Vec;

use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::{DType, TensorData};
use multibit::fit::{self, StateMut, StepParams};

use super::host::{Elements, Memory};
use super::{StepState, WeightLayout};

/// The gradient cut into groups.
fn group<B: Backend, M: Memory<B>>(grad: FloatTensor<B>, layout: &WeightLayout) -> Vec<f32> {
    let grad = M::floats(grad);
    let mut grouped = vec![0.0; grad.f32().len()];
    layout
        .grouping
        .gather(&layout.shape, grad.f32(), &mut grouped);
    grouped
}

/// The new weight in its own layout, in the buffer of the gradient: two buffers a step are enough.
fn ungroup<B: Backend>(
    grouped: &[f32],
    mut weight: Vec<f32>,
    layout: &WeightLayout,
    device: &B::Device,
) -> FloatTensor<B> {
    layout.grouping.scatter(&layout.shape, grouped, &mut weight);
    let len = weight.len();
    B::float_from_data(TensorData::new(weight, [len]), device)
}

/// Runs a kernel on the slices of a state.
fn with_slices<B: Backend, M: Memory<B>, T>(
    state: StepState<B>,
    layout: &WeightLayout,
    kernel: impl FnOnce(&mut StateMut<'_>) -> T,
) -> (StepState<B>, T) {
    let StepState(state) = state;
    let device = state.coordinates.device();
    let max_bits = state.coordinates.shape()[1];
    let [codes, widths] = [&state.codes, &state.widths].map(TensorMetadata::dtype);
    let mut buffers = state.map(
        |codes| M::ints(codes, DType::U8),
        |widths| M::ints(widths, DType::U8),
        M::floats,
    );
    let result = kernel(&mut StateMut {
        len: layout.grouping.len(),
        max_bits,
        state: buffers
            .as_mut()
            .map(Elements::u8_mut, Elements::u8_mut, Elements::f32_mut),
    });
    let state = buffers.map(
        |buffer| M::into_ints(buffer, codes, &device),
        |buffer| M::into_ints(buffer, widths, &device),
        |buffer| M::into_floats(buffer, &device),
    );
    (StepState(state), result)
}

/// A step that returns the new weight.
fn step<B: Backend, M: Memory<B>>(
    state: StepState<B>,
    grad: FloatTensor<B>,
    layout: &WeightLayout,
    kernel: impl FnOnce(&mut StateMut<'_>, &[f32], &mut [f32]),
) -> (StepState<B>, FloatTensor<B>) {
    let device = grad.device();
    let grad = group::<B, M>(grad, layout);
    let mut weight = vec![0.0; grad.len()];
    let (state, ()) = with_slices::<B, M, _>(state, layout, |state| {
        kernel(state, &grad, &mut weight);
    });
    (state, ungroup::<B>(&weight, grad, layout, &device))
}

pub(crate) fn basis<B: Backend, M: Memory<B>>(
    state: StepState<B>,
    grad: FloatTensor<B>,
    layout: &WeightLayout,
    params: &StepParams,
) -> (StepState<B>, FloatTensor<B>) {
    step::<B, M>(state, grad, layout, |state, grad, weight| {
        fit::basis(state, None, grad, params, weight);
    })
}

pub(crate) fn ste<B: Backend, M: Memory<B>>(
    state: StepState<B>,
    latent: FloatTensor<B>,
    grad: FloatTensor<B>,
    layout: &WeightLayout,
    params: &StepParams,
) -> (StepState<B>, FloatTensor<B>, FloatTensor<B>) {
    let device = latent.device();
    let mut latent = M::floats(latent);
    let (state, weight) = step::<B, M>(state, grad, layout, |state, grad, weight| {
        fit::ste(state, latent.f32_mut(), grad, params, weight);
    });
    (state, M::into_floats(latent, &device), weight)
}

pub(crate) fn coordinate<B: Backend, M: Memory<B>>(
    state: StepState<B>,
    grad: FloatTensor<B>,
    layout: &WeightLayout,
    params: &StepParams,
) -> (StepState<B>, FloatTensor<B>) {
    step::<B, M>(state, grad, layout, |state, grad, weight| {
        fit::coordinate(state, grad, params, weight);
    })
}

pub(crate) fn importance<B: Backend, M: Memory<B>>(
    state: StepState<B>,
    grad: FloatTensor<B>,
    layout: &WeightLayout,
    params: &StepParams,
) -> (StepState<B>, FloatTensor<B>) {
    let device = grad.device();
    let grad = group::<B, M>(grad, layout);
    let dims = state.0.coordinates.shape();
    let mut delta = vec![0.0; dims.num_elements()];
    let (state, ()) = with_slices::<B, M, _>(state, layout, |state| {
        fit::importance(state, &grad, params, &mut delta);
    });
    let delta = B::float_from_data(TensorData::new(delta, dims), &device);
    (state, delta)
}

pub(crate) fn drop_coordinates<B: Backend, M: Memory<B>>(
    state: StepState<B>,
    drop: IntTensor<B>,
    layout: &WeightLayout,
) -> (StepState<B>, FloatTensor<B>) {
    let device = drop.device();
    let drop = M::ints(drop, DType::U8);
    let drop: Vec<bool> = drop.u8().iter().map(|&mark| mark != 0).collect();
    let mut weight = vec![0.0; layout.shape.iter().product()];
    let (state, ()) = with_slices::<B, M, _>(state, layout, |state| {
        fit::drop_coordinates(state, &drop, &mut weight);
    });
    let buffer = vec![0.0; weight.len()];
    (state, ungroup::<B>(&weight, buffer, layout, &device))
}
