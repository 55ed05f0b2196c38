use alloc::vec::Vec;

use burn_core as burn;
use burn_core::module::Module;
use burn_core::tensor::{Device, Tensor};
use burn_nn::Initializer;

use crate::nn::{Linear, LinearConfig};

/// A gate of a recurrent layer, two linear transformations: Burn's
/// [`GateController`](burn_nn::GateController).
#[derive(Module, Debug)]
pub struct GateController {
    /// The affine transformation applied to the input vector.
    pub input_transform: Linear,
    /// The affine transformation applied to the hidden state.
    pub hidden_transform: Linear,
}

impl GateController {
    /// Initializes a new gate.
    pub fn new(
        d_input: usize,
        d_output: usize,
        bias: bool,
        initializer: Initializer,
        device: &Device,
    ) -> Self {
        let linear = |d_input| {
            LinearConfig::new(d_input, d_output)
                .with_bias(bias)
                .with_initializer(initializer.clone())
                .init(device)
        };
        Self {
            input_transform: linear(d_input),
            hidden_transform: linear(d_output),
        }
    }

    /// `x W_x + b_x + h W_h + b_h`.
    ///
    /// # Shapes
    /// - `input`: `[batch, d_input]`
    /// - `hidden`, result: `[batch, d_output]`
    pub fn gate_product(&self, input: Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        self.input_transform.forward(input) + self.hidden_transform.forward(hidden)
    }

    /// `[x W_x + b_x, h W_h + b_h]` of several gates.
    pub(super) fn transforms(
        gates: &[&Self],
        input: Tensor<2>,
        hidden: Tensor<2>,
    ) -> Vec<[Tensor<2>; 2]> {
        let inputs: Vec<_> = gates.iter().map(|gate| &gate.input_transform).collect();
        let hiddens: Vec<_> = gates.iter().map(|gate| &gate.hidden_transform).collect();
        let inputs = Linear::forward_each(&inputs, input).into_iter();
        let both = inputs.zip(Linear::forward_each(&hiddens, hidden));
        both.map(|(input, hidden)| [input, hidden]).collect()
    }
}
