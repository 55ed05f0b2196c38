//! Gated Recurrent Unit module.

use alloc::vec;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn_core::tensor::{Device, Tensor};
use burn_nn::Initializer;

use super::{GateController, halves, hidden_states, steps, swap_unless};
use crate::nn::activation::{Activation, ActivationConfig};
use crate::nn::dims;

/// Configuration to create a [`Gru`] with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct GruConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// If a bias should be applied during the transformation.
    pub bias: bool,
    /// Whether the reset gate is applied after the multiplication by the weights (as PyTorch does) instead
    /// of before it. Default: true
    #[config(default = "true")]
    pub reset_after: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Activation function of the update and reset gates. Default: Sigmoid
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// Activation function of the candidate gate. Default: Tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
    /// Clips the hidden state to `[-clip, clip]` after each time step.
    pub clip: Option<f64>,
}

/// Burn's gated recurrent unit ([`Gru`](burn_nn::gru::Gru)).
///
/// Should be created with [`GruConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Gru {
    /// The update gate.
    pub update_gate: GateController,
    /// The reset gate.
    pub reset_gate: GateController,
    /// The candidate gate.
    pub new_gate: GateController,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the reset gate is applied after the multiplication by the weights instead of before it.
    pub reset_after: bool,
    /// Activation function of the update and reset gates.
    pub gate_activation: Activation,
    /// Activation function of the candidate gate.
    pub hidden_activation: Activation,
    /// Clips the hidden state to `[-clip, clip]` after each time step.
    pub clip: Option<f64>,
}

impl GruConfig {
    /// Initializes a new layer.
    pub fn init(&self, device: &Device) -> Gru {
        let (d_input, d_hidden, initializer) = (self.d_input, self.d_hidden, &self.initializer);
        let gate =
            || GateController::new(d_input, d_hidden, self.bias, initializer.clone(), device);
        Gru {
            update_gate: gate(),
            reset_gate: gate(),
            new_gate: gate(),
            d_hidden,
            reset_after: self.reset_after,
            gate_activation: self.gate_activation.init(device),
            hidden_activation: self.hidden_activation.init(device),
            clip: self.clip,
        }
    }
}

impl Gru {
    /// Applies the forward pass on the input tensor: the hidden state of each time step.
    ///
    /// # Shapes
    /// - `batched_input`: `[batch, length, d_input]`
    /// - `state`: `[batch, d_hidden]`; zeros if there is none
    /// - result: `[batch, length, d_hidden]`
    pub fn forward(&self, batched_input: Tensor<3>, state: Option<Tensor<2>>) -> Tensor<3> {
        self.run(batched_input, state, false).0
    }

    fn run(
        &self,
        input: Tensor<3>,
        state: Option<Tensor<2>>,
        reverse: bool,
    ) -> (Tensor<3>, Tensor<2>) {
        let device = input.device();
        let [batch, length, _] = input.dims();
        let mut hidden = state.unwrap_or_else(|| Tensor::zeros([batch, self.d_hidden], &device));
        let shape = [batch, length, self.d_hidden];
        let states = hidden_states(steps(input, reverse), shape, &device, |input| {
            hidden = self.step(input, hidden.clone());
            hidden.clone()
        });
        (states, hidden)
    }

    /// The next hidden state.
    fn step(&self, input: Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        let gates = [&self.update_gate, &self.reset_gate, &self.new_gate];
        let ahead = if self.reset_after { 3 } else { 2 };
        let (input_of_all, hidden_of_all) = (input.clone(), hidden.clone());
        let transforms = GateController::transforms(&gates[..ahead], input_of_all, hidden_of_all);
        let mut transforms = transforms.into_iter();
        let mut gate = || {
            let [from_input, from_hidden] = transforms.next().expect("one for each gate");
            self.gate_activation.forward(from_input + from_hidden)
        };
        let (update, reset) = (gate(), gate());
        let product = match transforms.next() {
            Some([from_input, from_hidden]) => from_input + reset * from_hidden,
            None => self.new_gate.gate_product(input, hidden.clone() * reset),
        };
        let candidate = self.hidden_activation.forward(product);
        let renewed = update.clone().neg().add_scalar(1.0);
        let next = candidate * renewed + update * hidden;
        match self.clip {
            Some(clip) => next.clamp(-clip, clip),
            None => next,
        }
    }
}

impl ModuleDisplay for Gru {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, _] = dims(&self.update_gate.input_transform.weight);
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &self.update_gate.input_transform.bias.is_some())
            .add("reset_after", &self.reset_after)
            .optional()
    }
}

/// Configuration to create a [`BiGru`] with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct BiGruConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// If a bias should be applied during the transformation.
    pub bias: bool,
    /// Whether the reset gate is applied after the multiplication by the weights instead of before it.
    #[config(default = "true")]
    pub reset_after: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Whether the input is `[batch, length, d_input]` instead of `[length, batch, d_input]`.
    #[config(default = true)]
    pub batch_first: bool,
    /// Activation function of the update and reset gates. Default: Sigmoid
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// Activation function of the candidate gate. Default: Tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
    /// Clips the hidden state to `[-clip, clip]` after each time step.
    pub clip: Option<f64>,
}

/// Burn's bidirectional gated recurrent unit ([`BiGru`](burn_nn::gru::BiGru)).
///
/// Should be created with [`BiGruConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BiGru {
    /// GRU for the forward direction.
    pub forward: Gru,
    /// GRU for the reverse direction.
    pub reverse: Gru,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the input is `[batch, length, d_input]` instead of `[length, batch, d_input]`.
    pub batch_first: bool,
}

impl BiGruConfig {
    /// Initializes a new layer.
    pub fn init(&self, device: &Device) -> BiGru {
        let config = GruConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_reset_after(self.reset_after)
            .with_initializer(self.initializer.clone())
            .with_gate_activation(self.gate_activation.clone())
            .with_hidden_activation(self.hidden_activation.clone())
            .with_clip(self.clip);
        BiGru {
            forward: config.init(device),
            reverse: config.init(device),
            d_hidden: self.d_hidden,
            batch_first: self.batch_first,
        }
    }
}

impl BiGru {
    /// Applies the forward pass on the input tensor: the hidden states of each time step, and the last one
    /// of each direction.
    ///
    /// # Shapes
    /// - `batched_input`: `[batch, length, d_input]` if `batch_first`, else `[length, batch, d_input]`
    /// - `state`, also of the result: `[2, batch, d_hidden]`; zeros if there is none
    /// - result: as the input, of `2 · d_hidden` features
    pub fn forward(
        &self,
        batched_input: Tensor<3>,
        state: Option<Tensor<3>>,
    ) -> (Tensor<3>, Tensor<3>) {
        let input = swap_unless(self.batch_first, batched_input);
        let [forward, reverse] = match state {
            Some(state) => halves(state).map(Some),
            None => [None, None],
        };
        let (forward, last_forward) = self.forward.run(input.clone(), forward, false);
        let (reverse, last_reverse) = self.reverse.run(input, reverse, true);
        let states = Tensor::cat(vec![forward, reverse], 2);
        let last = Tensor::stack(vec![last_forward, last_reverse], 0);
        (swap_unless(self.batch_first, states), last)
    }
}

impl ModuleDisplay for BiGru {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        self.forward.custom_settings()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, _] = dims(&self.forward.update_gate.input_transform.weight);
        let bias = &self.forward.update_gate.input_transform.bias;
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &bias.is_some())
            .optional()
    }
}
