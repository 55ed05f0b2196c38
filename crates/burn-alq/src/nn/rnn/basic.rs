//! Basic RNN.

use alloc::vec;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn_core::tensor::{Device, Tensor};
use burn_nn::Initializer;
pub use burn_nn::basic::RnnState;

use super::{GateController, halves, hidden_states, steps, swap_unless};
use crate::nn::activation::{Activation, ActivationConfig};
use crate::nn::dims;

/// Configuration to create an [`Rnn`] with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct RnnConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// If a bias should be applied during the transformation.
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Whether the input is `[batch, length, d_input]` instead of `[length, batch, d_input]`.
    #[config(default = true)]
    pub batch_first: bool,
    /// If true, process the sequence in reverse order.
    #[config(default = false)]
    pub reverse: bool,
    /// Clips the hidden state to `[-clip, clip]` after each time step.
    pub clip: Option<f64>,
    /// Activation function of the hidden state. Default: Tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
}

/// Burn's basic recurrent layer ([`Rnn`](burn_nn::basic::Rnn)), `h = activation(x W_x + b_x + h W_h + b_h)`.
///
/// Should be created with [`RnnConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Rnn {
    /// The gate.
    pub gate: GateController,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the input is `[batch, length, d_input]` instead of `[length, batch, d_input]`.
    pub batch_first: bool,
    /// If true, process the sequence in reverse order.
    pub reverse: bool,
    /// Clips the hidden state to `[-clip, clip]` after each time step.
    pub clip: Option<f64>,
    /// Activation function of the hidden state.
    pub hidden_activation: Activation,
}

impl RnnConfig {
    /// Initializes a new layer.
    pub fn init(&self, device: &Device) -> Rnn {
        let (d_input, d_hidden, initializer) = (self.d_input, self.d_hidden, &self.initializer);
        Rnn {
            gate: GateController::new(d_input, d_hidden, self.bias, initializer.clone(), device),
            d_hidden,
            batch_first: self.batch_first,
            reverse: self.reverse,
            clip: self.clip,
            hidden_activation: self.hidden_activation.init(device),
        }
    }
}

impl Rnn {
    /// Applies the forward pass on the input tensor: the hidden state of each time step, and the last one.
    ///
    /// # Shapes
    /// - `batched_input`: `[batch, length, d_input]` if `batch_first`, else `[length, batch, d_input]`
    /// - `state`, of the result too: `[batch, d_hidden]`; zeros if there is none
    /// - result: as the input, of `d_hidden` features
    pub fn forward(
        &self,
        batched_input: Tensor<3>,
        state: Option<RnnState<2>>,
    ) -> (Tensor<3>, RnnState<2>) {
        let input = swap_unless(self.batch_first, batched_input);
        let (states, last) = self.run(input, state.map(|state| state.hidden), self.reverse);
        (swap_unless(self.batch_first, states), RnnState::new(last))
    }

    /// Over a sequence with its batch first.
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
            let product = self.gate.gate_product(input, hidden.clone());
            hidden = self.hidden_activation.forward(product);
            if let Some(clip) = self.clip {
                hidden = hidden.clone().clamp(-clip, clip);
            }
            hidden.clone()
        });
        (states, hidden)
    }
}

impl ModuleDisplay for Rnn {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, _] = dims(&self.gate.input_transform.weight);
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &self.gate.input_transform.bias.is_some())
            .optional()
    }
}

/// Configuration to create a [`BiRnn`] with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct BiRnnConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// If a bias should be applied during the transformation.
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Whether the input is `[batch, length, d_input]` instead of `[length, batch, d_input]`.
    #[config(default = true)]
    pub batch_first: bool,
    /// Clips the hidden state to `[-clip, clip]` after each time step.
    pub clip: Option<f64>,
    /// Activation function of the hidden state. Default: Tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
}

/// Burn's bidirectional basic recurrent layer ([`BiRnn`](burn_nn::basic::BiRnn)).
///
/// Should be created with [`BiRnnConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BiRnn {
    /// RNN for the forward direction.
    pub forward: Rnn,
    /// RNN for the reverse direction.
    pub reverse: Rnn,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the input is `[batch, length, d_input]` instead of `[length, batch, d_input]`.
    pub batch_first: bool,
}

impl BiRnnConfig {
    /// Initializes a new layer.
    pub fn init(&self, device: &Device) -> BiRnn {
        let config = RnnConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_initializer(self.initializer.clone())
            .with_clip(self.clip)
            .with_hidden_activation(self.hidden_activation.clone());
        BiRnn {
            forward: config.init(device),
            reverse: config.init(device),
            d_hidden: self.d_hidden,
            batch_first: self.batch_first,
        }
    }
}

impl BiRnn {
    /// Applies the forward pass on the input tensor: the hidden states of each time step, and the last one
    /// of each direction.
    ///
    /// # Shapes
    /// - `batched_input`: `[batch, length, d_input]` if `batch_first`, else `[length, batch, d_input]`
    /// - `state`, of the result too: `[2, batch, d_hidden]`; zeros if there is none
    /// - result: as the input, of `2 · d_hidden` features
    pub fn forward(
        &self,
        batched_input: Tensor<3>,
        state: Option<RnnState<3>>,
    ) -> (Tensor<3>, RnnState<3>) {
        let input = swap_unless(self.batch_first, batched_input);
        let [forward, reverse] = match state {
            Some(state) => halves(state.hidden).map(Some),
            None => [None, None],
        };
        let (forward, last_forward) = self.forward.run(input.clone(), forward, false);
        let (reverse, last_reverse) = self.reverse.run(input, reverse, true);
        let states = Tensor::cat(vec![forward, reverse], 2);
        let last = Tensor::stack(vec![last_forward, last_reverse], 0);
        (swap_unless(self.batch_first, states), RnnState::new(last))
    }
}

impl ModuleDisplay for BiRnn {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        self.forward.custom_settings()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        self.forward.custom_content(content)
    }
}
