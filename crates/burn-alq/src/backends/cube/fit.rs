//! The steps of training, one launch a weight.

use burn_core::backend::cubecl::dtype_to_storage_type;
use burn_core::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use multibit::fit::StepParams;
use multibit::gpu::fit::{self, Groups, Layout, Moments, Moved};

use super::{empty, own};
use crate::ops::{WeightLayout, WeightState};

type State = WeightState<CubeBackend>;

/// Whether the device binds as many buffers as a step needs. Browsers may not.
pub(super) fn fits(tensor: &CubeTensor) -> bool {
    tensor.client.properties().hardware.max_bindings >= fit::MAX_BINDINGS
}

/// A dense tensor that may be overwritten.
fn in_place(tensor: CubeTensor) -> CubeTensor {
    let tensor = own(tensor, DType::F32);
    if tensor.can_mut() {
        tensor
    } else {
        tensor.copy()
    }
}

fn layout<'a>(state: &State, layout: &'a WeightLayout) -> Layout<'a> {
    Layout {
        shape: &layout.shape,
        grouping: &layout.grouping,
        max_bits: state.coordinates.meta.shape()[1],
    }
}

/// The state as the kernels take it: codes and widths of one type, moments to overwrite.
fn prepare(state: State) -> State {
    assert_eq!(
        state.codes.dtype, state.widths.dtype,
        "ALQ on GPUs keeps codes and widths in one type"
    );
    State {
        codes: into_contiguous(state.codes),
        coordinates: own(state.coordinates, DType::F32),
        widths: into_contiguous(state.widths),
        m: in_place(state.m),
        v: in_place(state.v),
        v_max: in_place(state.v_max),
        m_alpha: in_place(state.m_alpha),
        v_alpha: in_place(state.v_alpha),
        v_max_alpha: in_place(state.v_max_alpha),
    }
}

fn groups(state: &State) -> Groups {
    Groups {
        codes: state.codes.clone().into_buffer_arg(),
        coordinates: state.coordinates.clone().into_buffer_arg(),
        widths: state.widths.clone().into_buffer_arg(),
    }
}

fn moments(state: &State) -> Moments {
    Moments {
        m: state.m.clone().into_buffer_arg(),
        v: state.v.clone().into_buffer_arg(),
        v_max: state.v_max.clone().into_buffer_arg(),
        m_alpha: state.m_alpha.clone().into_buffer_arg(),
        v_alpha: state.v_alpha.clone().into_buffer_arg(),
        v_max_alpha: state.v_max_alpha.clone().into_buffer_arg(),
    }
}

/// What a step writes: codes and coordinates, which the module still holds the old ones of, and the
/// weight.
struct Results {
    codes: CubeTensor,
    coordinates: CubeTensor,
    weight: CubeTensor,
}

impl Results {
    fn new(state: &State) -> Self {
        let like = |tensor: &CubeTensor| empty(tensor, tensor.meta.shape().clone(), tensor.dtype);
        let weights = state.codes.meta.shape().num_elements();
        Self {
            codes: like(&state.codes),
            coordinates: like(&state.coordinates),
            weight: empty(&state.codes, [weights], DType::F32),
        }
    }

    fn args(&self) -> Moved {
        Moved {
            codes: self.codes.clone().into_buffer_arg(),
            coordinates: self.coordinates.clone().into_buffer_arg(),
            weight: self.weight.clone().into_buffer_arg(),
        }
    }

    fn finish(self, state: State) -> (State, CubeTensor) {
        let state = State {
            codes: self.codes,
            coordinates: self.coordinates,
            ..state
        };
        (state, self.weight)
    }
}

pub(super) fn refit(
    state: State,
    latent: Option<CubeTensor>,
    grad: CubeTensor,
    weight: &WeightLayout,
    params: &StepParams,
) -> (State, Option<CubeTensor>, CubeTensor) {
    let state = prepare(state);
    let latent = latent.map(in_place);
    let grad = own(grad, DType::F32);
    let results = Results::new(&state);
    fit::refit(
        &state.codes.client,
        &layout(&state, weight),
        dtype_to_storage_type(state.codes.dtype),
        grad.into_buffer_arg(),
        groups(&state),
        moments(&state),
        latent.clone().map(CubeTensor::into_buffer_arg),
        params,
        results.args(),
    );
    let (state, weight) = results.finish(state);
    (state, latent, weight)
}

pub(super) fn coordinate(
    state: State,
    grad: CubeTensor,
    weight: &WeightLayout,
    params: &StepParams,
) -> (State, CubeTensor) {
    let state = prepare(state);
    let grad = own(grad, DType::F32);
    let results = Results::new(&state);
    fit::coordinate(
        &state.codes.client,
        &layout(&state, weight),
        dtype_to_storage_type(state.codes.dtype),
        grad.into_buffer_arg(),
        groups(&state),
        moments(&state),
        params,
        results.args(),
    );
    results.finish(state)
}

pub(super) fn importance(
    state: State,
    grad: CubeTensor,
    weight: &WeightLayout,
    params: &StepParams,
) -> (State, CubeTensor) {
    let state = prepare(state);
    let grad = own(grad, DType::F32);
    let shape = state.coordinates.meta.shape().clone();
    let delta = empty(&state.coordinates, shape, DType::F32);
    fit::importance(
        &state.codes.client,
        &layout(&state, weight),
        dtype_to_storage_type(state.codes.dtype),
        grad.into_buffer_arg(),
        groups(&state),
        moments(&state),
        params,
        delta.clone().into_buffer_arg(),
    );
    (state, delta)
}

pub(super) fn drop_coordinates(
    state: State,
    drop: CubeTensor,
    weight: &WeightLayout,
) -> (State, CubeTensor) {
    let mut state = prepare(state);
    let drop = own(drop, state.codes.dtype);
    let results = Results::new(&state);
    let widths = empty(
        &state.widths,
        state.widths.meta.shape().clone(),
        state.widths.dtype,
    );
    let alpha = moments(&state);
    fit::drop_coordinates(
        &state.codes.client,
        &layout(&state, weight),
        dtype_to_storage_type(state.codes.dtype),
        drop.into_buffer_arg(),
        groups(&state),
        [alpha.m_alpha, alpha.v_alpha, alpha.v_max_alpha],
        widths.clone().into_buffer_arg(),
        results.args(),
    );
    state.widths = widths;
    results.finish(state)
}

pub(super) fn smallest(values: CubeTensor, count: usize) -> (CubeTensor, CubeTensor) {
    let values = own(values, DType::F32);
    let places = empty(&values, [count], DType::U32);
    let smallest = empty(&values, [count], DType::F32);
    multibit::gpu::smallest(
        &values.client.clone(),
        values.into_buffer_arg(),
        places.clone().into_buffer_arg(),
        smallest.clone().into_buffer_arg(),
    );
    (places, smallest)
}
