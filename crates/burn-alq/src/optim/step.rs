//! The steps of ALQ on one weight, each a function of its arguments (Qu et al., CVPR 2020).
//!
//! All of them take the weight's state in both domains and its gradient, and return the new state
//! and the new dense weight. Tensors are plain, not autodiff.

use alloc::vec::Vec;

use burn_core::backend::Dispatch;
use burn_core::backend::tensor::FloatTensor;
use burn_core::tensor::{DType, Int, Tensor, TensorData};
use multibit::CoordinateType;
pub use multibit::fit::StepParams;
use multibit::fit::{Moments, State};

pub use crate::ops::WeightLayout;
use crate::ops::{StepOps, StepState};
use crate::weight::{MultiBit, read, read_f32, widened};

/// A multi-bit weight with its moments, as plain tensors.
pub type TensorState = State<Tensor<2, Int>, Tensor<2>, Tensor<1, Int>>;

/// A weight before its first step, without autodiff: its moments are zeros.
pub fn start(state: &MultiBit) -> TensorState {
    let (codes, coordinates) = (state.codes.val(), state.coordinates.val());
    let zeros = |dims: [usize; 2]| {
        let options = (&coordinates.device().without_autodiff(), DType::F32);
        Moments::default().map(|()| Tensor::zeros(dims, options))
    };
    resume(state, zeros(codes.dims()), zeros(coordinates.dims()))
}

/// A weight with the moments that an earlier step has left, without autodiff.
pub(super) fn resume(
    state: &MultiBit,
    weight: Moments<Tensor<2>>,
    alpha: Moments<Tensor<2>>,
) -> TensorState {
    TensorState {
        codes: state.codes.val().without_autodiff(),
        coordinates: state.coordinates.val().without_autodiff(),
        widths: state.widths.val().without_autodiff(),
        weight,
        alpha,
    }
}

/// Runs an operation of the backend extension on a weight's state.
fn run<T>(
    state: TensorState,
    operation: impl FnOnce(StepState<Dispatch>) -> (StepState<Dispatch>, T),
) -> (TensorState, T) {
    let state = state.map(
        Tensor::into_dispatch,
        Tensor::into_dispatch,
        Tensor::into_dispatch,
    );
    let (StepState(state), result) = operation(StepState(state));
    let state = state.map(
        Tensor::from_dispatch,
        Tensor::from_dispatch,
        Tensor::from_dispatch,
    );
    (state, result)
}

/// What a step returns: the new state, and the new weight (flat, in its own layout).
pub type Stepped = (TensorState, Tensor<1>);

/// A step that returns the new weight.
fn step(
    state: TensorState,
    operation: impl FnOnce(StepState<Dispatch>) -> (StepState<Dispatch>, FloatTensor<Dispatch>),
) -> Stepped {
    let (state, weight) = run(state, operation);
    (state, Tensor::from_dispatch(weight))
}

/// The basis step with speedup: `B` moves to the levels nearest to `ŵ − p/h`, then
/// `α = (BᵀHB + λI)⁻¹Bᵀ(Hŵ − p)`.
///
/// # Shapes
/// - `grad`: the weight's own shape, flat
pub fn basis(
    state: TensorState,
    grad: Tensor<1>,
    layout: &WeightLayout,
    params: StepParams,
) -> Stepped {
    step(state, |state| {
        <Dispatch as StepOps>::alq_basis(state, grad.into_dispatch(), layout.clone(), params)
    })
}

/// The STE step: like [`basis`] around the kept weight `w` (`latent`, `[groups, len]`), which moves by
/// `−p/h`. Returns it between state and weight.
pub fn ste(
    state: TensorState,
    latent: Tensor<2>,
    grad: Tensor<1>,
    layout: &WeightLayout,
    params: StepParams,
) -> (TensorState, Tensor<2>, Tensor<1>) {
    let (state, (latent, weight)) = run(state, |state| {
        let (state, latent, weight) = <Dispatch as StepOps>::alq_ste(
            state,
            latent.into_dispatch(),
            grad.into_dispatch(),
            layout.clone(),
            params,
        );
        (state, (latent, weight))
    });
    (
        state,
        Tensor::from_dispatch(latent),
        Tensor::from_dispatch(weight),
    )
}

/// The coordinate step: `α ← α − p_α/h_α` with fixed bases.
pub fn coordinate(
    state: TensorState,
    grad: Tensor<1>,
    layout: &WeightLayout,
    params: StepParams,
) -> Stepped {
    step(state, |state| {
        <Dispatch as StepOps>::alq_coordinate(state, grad.into_dispatch(), layout.clone(), params)
    })
}

/// The first half of the pruning step: new moments, and the modelled loss increase
/// `Δ_i = −p_α,i α_i + ½ h_α,i α_i²` of dropping each coordinate, `[groups, max_bits]`, infinite
/// where there is none.
pub fn importance(
    state: TensorState,
    grad: Tensor<1>,
    layout: &WeightLayout,
    params: StepParams,
) -> (TensorState, Tensor<2>) {
    let (state, delta) = run(state, |state| {
        <Dispatch as StepOps>::alq_importance(state, grad.into_dispatch(), layout.clone(), params)
    });
    (state, Tensor::from_dispatch(delta))
}

/// The `count` smallest of the increases of [`importance`], each with its place in the table, in any
/// order: what pruning needs of them, so that no more is read back.
///
/// # Panics
/// If there are not as many.
pub fn smallest(delta: Tensor<2>, count: usize) -> Vec<(f32, usize)> {
    if count == 0 {
        return Vec::new();
    }
    let (places, smallest) = <Dispatch as StepOps>::alq_smallest(delta.into_dispatch(), count);
    let places: Vec<u32> = read(Tensor::<1, Int>::from_dispatch(places));
    let smallest = read_f32(Tensor::<1>::from_dispatch(smallest));
    let places = places.into_iter().map(|place| place as usize);
    smallest.into_iter().zip(places).collect()
}

/// The second half of the pruning step: drops the coordinates marked in `drop`
/// (`[groups * max_bits]`) with their bases and moments.
pub fn drop_coordinates(state: TensorState, drop: &[bool], layout: &WeightLayout) -> Stepped {
    let marks: Vec<u8> = drop.iter().map(|&mark| u8::from(mark)).collect();
    let marks = Tensor::<2, Int>::from_data(
        TensorData::new(marks, state.coordinates.dims()),
        (&state.coordinates.device(), state.widths.dtype()),
    );
    step(state, |state| {
        <Dispatch as StepOps>::alq_drop(state, marks.into_dispatch(), layout.clone())
    })
}

/// The largest width, read back.
pub(super) fn widest(state: &TensorState) -> u8 {
    read::<i32, _, _>(widened(state.widths.clone()).max())[0] as u8
}

/// Rounds the coordinates to the type that they are stored with.
pub fn round(
    state: TensorState,
    coordinate_type: CoordinateType,
    layout: &WeightLayout,
) -> Stepped {
    let coordinates = state.coordinates.into_dispatch();
    let coordinates = <Dispatch as StepOps>::alq_round(coordinates, coordinate_type);
    let weight = <Dispatch as StepOps>::alq_reconstruct(
        state.codes.clone().into_dispatch(),
        coordinates.clone(),
        layout.clone(),
    );
    let coordinates = Tensor::from_dispatch(coordinates);
    let state = TensorState {
        coordinates,
        ..state
    };
    (state, Tensor::from_dispatch(weight))
}

/// `ŵ = B α`, `[groups, len]`.
pub fn reconstruct(state: &TensorState) -> Tensor<2> {
    let [groups, max_bits] = state.coordinates.dims();
    let [_, len] = state.codes.dims();
    let codes = widened(state.codes.clone());
    let zeros = Tensor::zeros([groups, len], (&state.coordinates.device(), DType::F32));
    (0..max_bits).fold(zeros, |sum, i| {
        let bits = codes.clone().bitwise_right_shift_scalar(i as i32);
        let signs = bits.bitwise_and_scalar(1).float() * -2.0 + 1.0;
        sum + signs * state.coordinates.clone().slice([0..groups, i..i + 1])
    })
}
