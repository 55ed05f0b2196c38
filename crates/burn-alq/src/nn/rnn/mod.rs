//! Burn's recurrent layers, which run on the bits once packed.

mod gate_controller;

pub mod basic;
pub mod gru;
pub mod lstm;

pub use self::gate_controller::GateController;

use alloc::vec::Vec;

use burn_core::tensor::{Device, Tensor, s};

/// A sequence with its batch first, `[batch, length, features]`, or back.
fn swap_unless(batch_first: bool, sequence: Tensor<3>) -> Tensor<3> {
    if batch_first {
        sequence
    } else {
        sequence.swap_dims(0, 1)
    }
}

/// The time steps of a sequence `[batch, length, features]` in order or in reverse, each with its place.
fn steps(sequence: Tensor<3>, reverse: bool) -> Vec<(usize, Tensor<3>)> {
    let mut steps: Vec<_> = sequence.iter_dim(1).enumerate().collect();
    if reverse {
        steps.reverse();
    }
    steps
}

/// The hidden states of all time steps `[batch, length, d_hidden]`: what `step` makes of each.
fn hidden_states(
    steps: impl IntoIterator<Item = (usize, Tensor<3>)>,
    shape: [usize; 3],
    device: &Device,
    mut step: impl FnMut(Tensor<2>) -> Tensor<2>,
) -> Tensor<3> {
    let mut states = Tensor::empty(shape, device);
    for (t, input) in steps {
        let hidden = step(input.squeeze_dim(1));
        states = states.slice_assign(s![.., t, ..], hidden.unsqueeze_dim(1));
    }
    states
}

/// A state of both directions `[2, batch, d_hidden]` as one for each.
fn halves(state: Tensor<3>) -> [Tensor<2>; 2] {
    [0, 1].map(|half| state.clone().narrow(0, half, 1).squeeze_dim(0))
}
