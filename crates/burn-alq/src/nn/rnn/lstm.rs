//! Long Short-Term Memory module.

use alloc::vec;
use alloc::vec::Vec;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn_core::tensor::{Device, Tensor};
use burn_nn::Initializer;
pub use burn_nn::lstm::{LstmState, OptionalInitialLstmState};

use super::{GateController, halves, hidden_states, steps, swap_unless};
use crate::nn::activation::{Activation, ActivationConfig};
use crate::nn::dims;

/// Configuration to create an [`Lstm`] with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct LstmConfig {
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
    /// Clips the cell state to `[-clip, clip]` after each time step.
    pub clip: Option<f64>,
    /// If true, couples the input and forget gates, `f = 1 - i`, and omits the separate forget gate.
    #[config(default = false)]
    pub input_forget: bool,
    /// Activation function of the input, forget and output gates. Default: Sigmoid
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// Activation function of the cell gate. Default: Tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub cell_activation: ActivationConfig,
    /// Activation function of the cell state in the hidden state. Default: Tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
}

/// Burn's long short-term memory ([`Lstm`](burn_nn::lstm::Lstm)).
///
/// Should be created with [`LstmConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Lstm {
    /// The input gate regulates which information to store in the cell state at each time step.
    pub input_gate: GateController,
    /// The forget gate controls which information to discard from the cell state at each time step. Absent
    /// when `input_forget` is true.
    pub forget_gate: Option<GateController>,
    /// The output gate determines which information of the cell state to output at each time step.
    pub output_gate: GateController,
    /// The cell gate computes the candidate for the cell state.
    pub cell_gate: GateController,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the input is `[batch, length, d_input]` instead of `[length, batch, d_input]`.
    pub batch_first: bool,
    /// If true, process the sequence in reverse order.
    pub reverse: bool,
    /// Clips the cell state to `[-clip, clip]` after each time step.
    pub clip: Option<f64>,
    /// If true, couples the input and forget gates, `f = 1 - i`.
    pub input_forget: bool,
    /// Activation function of the input, forget and output gates.
    pub gate_activation: Activation,
    /// Activation function of the cell gate.
    pub cell_activation: Activation,
    /// Activation function of the cell state in the hidden state.
    pub hidden_activation: Activation,
}

impl LstmConfig {
    /// Initializes a new layer.
    pub fn init(&self, device: &Device) -> Lstm {
        let (d_input, d_hidden, initializer) = (self.d_input, self.d_hidden, &self.initializer);
        let gate =
            || GateController::new(d_input, d_hidden, self.bias, initializer.clone(), device);
        Lstm {
            input_gate: gate(),
            forget_gate: (!self.input_forget).then(gate),
            output_gate: gate(),
            cell_gate: gate(),
            d_hidden,
            batch_first: self.batch_first,
            reverse: self.reverse,
            clip: self.clip,
            input_forget: self.input_forget,
            gate_activation: self.gate_activation.init(device),
            cell_activation: self.cell_activation.init(device),
            hidden_activation: self.hidden_activation.init(device),
        }
    }
}

impl Lstm {
    /// Applies the forward pass on the input tensor: the hidden state of each time step, and the last
    /// states.
    ///
    /// # Shapes
    /// - `batched_input`: `[batch, length, d_input]` if `batch_first`, else `[length, batch, d_input]`
    /// - `state`, of the result too: `[batch, d_hidden]` each; zeros if there is none
    /// - result: as the input, of `d_hidden` features
    pub fn forward(
        &self,
        batched_input: Tensor<3>,
        state: Option<LstmState<2>>,
    ) -> (Tensor<3>, LstmState<2>) {
        let input = swap_unless(self.batch_first, batched_input);
        let (states, last) = self.run(input, state, self.reverse);
        (swap_unless(self.batch_first, states), last)
    }

    /// Over a sequence with its batch first.
    fn run(
        &self,
        input: Tensor<3>,
        state: Option<LstmState<2>>,
        reverse: bool,
    ) -> (Tensor<3>, LstmState<2>) {
        let device = input.device();
        let [batch, length, _] = input.dims();
        let steps = steps(input, reverse).into_iter();
        self.forward_iter(steps, state, batch, length, &device)
    }

    /// Applies the forward pass on the time steps of a sequence.
    ///
    /// # Shapes
    /// - `input_timestep_iter`: the place of each time step, and its input `[batch, 1, d_input]`
    /// - `state`, of the result too: `[batch, d_hidden]` each; zeros if there is none
    /// - result: `[batch, length, d_hidden]`
    ///
    /// # Panics
    /// If the layer has no forget gate although `input_forget` is false.
    pub fn forward_iter<I: Iterator<Item = (usize, Tensor<3>)>>(
        &self,
        input_timestep_iter: I,
        state: Option<LstmState<2>>,
        batch_size: usize,
        seq_length: usize,
        device: &Device,
    ) -> (Tensor<3>, LstmState<2>) {
        let state = state.unwrap_or_initial([batch_size, self.d_hidden], device);
        let (mut cell, mut hidden) = state.unpack();
        let shape = [batch_size, seq_length, self.d_hidden];
        let states = hidden_states(input_timestep_iter, shape, device, |input| {
            (cell, hidden) = self.step(input, cell.clone(), hidden.clone());
            hidden.clone()
        });
        (states, LstmState::new(cell, hidden))
    }

    /// The next cell state and hidden state.
    fn step(&self, input: Tensor<2>, cell: Tensor<2>, hidden: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let forget_gate = (!self.input_forget).then(|| {
            let gate = self.forget_gate.as_ref();
            gate.expect("Lstm: there is no `forget_gate`, but `input_forget` is false")
        });
        let gates = [&self.input_gate, &self.output_gate, &self.cell_gate];
        let gates: Vec<_> = gates.into_iter().chain(forget_gate).collect();
        let products = GateController::transforms(&gates, input, hidden).into_iter();
        let mut products = products.map(|[input, hidden]| input + hidden);
        let mut next = || products.next().expect("one for each gate");
        let activate = |product| self.gate_activation.forward(product);
        let stored = activate(next());
        let shown = activate(next());
        let candidate = self.cell_activation.forward(next());
        let kept = match products.next() {
            Some(forget) => activate(forget),
            None => stored.clone().neg().add_scalar(1.0),
        };
        let mut cell = kept * cell + stored * candidate;
        if let Some(clip) = self.clip {
            cell = cell.clamp(-clip, clip);
        }
        let hidden = shown * self.hidden_activation.forward(cell.clone());
        (cell, hidden)
    }
}

impl ModuleDisplay for Lstm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, _] = dims(&self.input_gate.input_transform.weight);
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &self.input_gate.input_transform.bias.is_some())
            .optional()
    }
}

/// Configuration to create a [`BiLstm`] with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct BiLstmConfig {
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
    /// Clips the cell state to `[-clip, clip]` after each time step.
    pub clip: Option<f64>,
    /// If true, couples the input and forget gates, `f = 1 - i`, and omits the separate forget gate.
    #[config(default = false)]
    pub input_forget: bool,
    /// Activation function of the input, forget and output gates. Default: Sigmoid
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// Activation function of the cell gate. Default: Tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub cell_activation: ActivationConfig,
    /// Activation function of the cell state in the hidden state. Default: Tanh
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
}

/// Burn's bidirectional long short-term memory ([`BiLstm`](burn_nn::lstm::BiLstm)).
///
/// Should be created with [`BiLstmConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BiLstm {
    /// LSTM for the forward direction.
    pub forward: Lstm,
    /// LSTM for the reverse direction.
    pub reverse: Lstm,
    /// The size of the hidden state.
    pub d_hidden: usize,
    /// Whether the input is `[batch, length, d_input]` instead of `[length, batch, d_input]`.
    pub batch_first: bool,
}

impl BiLstmConfig {
    /// Initializes a new layer.
    pub fn init(&self, device: &Device) -> BiLstm {
        let config = LstmConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_initializer(self.initializer.clone())
            .with_clip(self.clip)
            .with_input_forget(self.input_forget)
            .with_gate_activation(self.gate_activation.clone())
            .with_cell_activation(self.cell_activation.clone())
            .with_hidden_activation(self.hidden_activation.clone());
        BiLstm {
            forward: config.init(device),
            reverse: config.init(device),
            d_hidden: self.d_hidden,
            batch_first: self.batch_first,
        }
    }
}

impl BiLstm {
    /// Applies the forward pass on the input tensor: the hidden states of each time step, and the last
    /// states of each direction.
    ///
    /// # Shapes
    /// - `batched_input`: `[batch, length, d_input]` if `batch_first`, else `[length, batch, d_input]`
    /// - `state`, of the result too: `[2, batch, d_hidden]` each; zeros if there is none
    /// - result: as the input, of `2 · d_hidden` features
    pub fn forward(
        &self,
        batched_input: Tensor<3>,
        state: Option<LstmState<3>>,
    ) -> (Tensor<3>, LstmState<3>) {
        let input = swap_unless(self.batch_first, batched_input);
        let [forward, reverse] = match state {
            Some(LstmState { cell, hidden }) => {
                let [cell, reverse_cell] = halves(cell);
                let [hidden, reverse_hidden] = halves(hidden);
                let reverse = LstmState::new(reverse_cell, reverse_hidden);
                [LstmState::new(cell, hidden), reverse].map(Some)
            }
            None => [None, None],
        };
        let (forward, last_forward) = self.forward.run(input.clone(), forward, false);
        let (reverse, last_reverse) = self.reverse.run(input, reverse, true);
        let states = Tensor::cat(vec![forward, reverse], 2);
        let last = LstmState::stack(vec![last_forward, last_reverse], 0);
        (swap_unless(self.batch_first, states), last)
    }
}

impl ModuleDisplay for BiLstm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        self.forward.custom_settings()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        self.forward.custom_content(content)
    }
}
