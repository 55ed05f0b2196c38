//! The steps of training, one launch a weight.

use burn_core::backend::cubecl::dtype_to_storage_type;
use burn_core::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use multibit::fit::StepParams;
use multibit::gpu::fit::{self, Buffers, Layout, Moved};

use super::{empty, own};
use crate::ops::{StepState, WeightLayout};

type State = multibit::fit::State<CubeTensor, CubeTensor>;

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
fn prepare(StepState(state): StepState<CubeBackend>) -> State {
    assert_eq!(
        state.codes.dtype, state.widths.dtype,
        "ALQ on GPUs keeps codes and widths in one type"
    );
    State {
        codes: into_contiguous(state.codes),
        coordinates: own(state.coordinates, DType::F32),
        widths: into_contiguous(state.widths),
        weight: state.weight.map(in_place),
        alpha: state.alpha.map(in_place),
    }
}

fn buffers(state: &State) -> Buffers {
    let arg = |tensor: CubeTensor| tensor.into_buffer_arg();
    state.clone().map(arg, arg, arg)
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

    fn finish(self, state: State) -> (StepState<CubeBackend>, CubeTensor) {
        let state = State {
            codes: self.codes,
            coordinates: self.coordinates,
            ..state
        };
        (StepState(state), self.weight)
    }
}

pub(super) fn refit(
    state: StepState<CubeBackend>,
    latent: Option<CubeTensor>,
    grad: CubeTensor,
    weight: &WeightLayout,
    params: &StepParams,
) -> (StepState<CubeBackend>, Option<CubeTensor>, CubeTensor) {
    let state = prepare(state);
    let latent = latent.map(in_place);
    let grad = own(grad, DType::F32);
    let results = Results::new(&state);
    fit::refit(
        &state.codes.client,
        &layout(&state, weight),
        dtype_to_storage_type(state.codes.dtype),
        grad.into_buffer_arg(),
        buffers(&state),
        latent.clone().map(CubeTensor::into_buffer_arg),
        params,
        results.args(),
    );
    let (state, weight) = results.finish(state);
    (state, latent, weight)
}

pub(super) fn coordinate(
    state: StepState<CubeBackend>,
    grad: CubeTensor,
    weight: &WeightLayout,
    params: &StepParams,
) -> (StepState<CubeBackend>, CubeTensor) {
    let state = prepare(state);
    let grad = own(grad, DType::F32);
    let results = Results::new(&state);
    fit::coordinate(
        &state.codes.client,
        &layout(&state, weight),
        dtype_to_storage_type(state.codes.dtype),
        grad.into_buffer_arg(),
        buffers(&state),
        params,
        results.args(),
    );
    results.finish(state)
}

pub(super) fn importance(
    state: StepState<CubeBackend>,
    grad: CubeTensor,
    weight: &WeightLayout,
    params: &StepParams,
) -> (StepState<CubeBackend>, CubeTensor) {
    let state = prepare(state);
    let grad = own(grad, DType::F32);
    let shape = state.coordinates.meta.shape().clone();
    let delta = empty(&state.coordinates, shape, DType::F32);
    fit::importance(
        &state.codes.client,
        &layout(&state, weight),
        dtype_to_storage_type(state.codes.dtype),
        grad.into_buffer_arg(),
        buffers(&state),
        params,
        delta.clone().into_buffer_arg(),
    );
    (StepState(state), delta)
}

pub(super) fn drop_coordinates(
    state: StepState<CubeBackend>,
    drop: CubeTensor,
    weight: &WeightLayout,
) -> (StepState<CubeBackend>, CubeTensor) {
    let mut state = prepare(state);
    let drop = own(drop, state.codes.dtype);
    let results = Results::new(&state);
    let widths = empty(
        &state.widths,
        state.widths.meta.shape().clone(),
        state.widths.dtype,
    );
    fit::drop_coordinates(
        &state.codes.client,
        &layout(&state, weight),
        dtype_to_storage_type(state.codes.dtype),
        drop.into_buffer_arg(),
        buffers(&state),
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
