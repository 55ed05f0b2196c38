use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn_core::tensor::{Device, Tensor, assert_shape};
use burn_nn::{Dropout, DropoutConfig, Initializer};

use crate::nn::activation::{Activation, ActivationConfig};
use crate::nn::{Epilogue, Linear, LinearConfig, dims};

/// Configuration to create a [`PositionWiseFeedForward`] layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct PositionWiseFeedForwardConfig {
    /// The size of the input and output features.
    pub d_model: usize,
    /// The size of the hidden inner features.
    pub d_ff: usize,
    /// The dropout rate. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/libm::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
    /// The activation function used between the two linear layers. Default: Gelu
    #[config(default = "ActivationConfig::Gelu")]
    pub activation: ActivationConfig,
}

/// Burn's position-wise feed-forward network
/// ([`PositionWiseFeedForward`](burn_nn::transformer::PositionWiseFeedForward)),
/// `activation(x W₁ + b₁) W₂ + b₂`.
///
/// As Burn's, it does not record its activation: the parameters of a `SwiGlu` there are neither saved,
/// nor trained or packed.
///
/// Should be created with [`PositionWiseFeedForwardConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct PositionWiseFeedForward {
    /// Linear layer with `d_model` input features and `d_ff` output features.
    pub linear_inner: Linear,
    /// Linear layer with `d_ff` input features and `d_model` output features.
    pub linear_outer: Linear,
    /// Dropout layer.
    pub dropout: Dropout,
    /// Activation function.
    #[module(skip)]
    pub activation: Activation,
}

impl PositionWiseFeedForwardConfig {
    /// Initializes a new layer.
    pub fn init(&self, device: &Device) -> PositionWiseFeedForward {
        let linear = |d_input, d_output| {
            LinearConfig::new(d_input, d_output)
                .with_initializer(self.initializer.clone())
                .init(device)
        };
        PositionWiseFeedForward {
            linear_inner: linear(self.d_model, self.d_ff),
            linear_outer: linear(self.d_ff, self.d_model),
            dropout: DropoutConfig::new(self.dropout).init(),
            activation: self.activation.init(device),
        }
    }
}

impl PositionWiseFeedForward {
    /// Applies the forward pass on the input tensor.
    ///
    /// # Shapes
    /// - `input`, result: `[..., d_model]`
    ///
    /// # Panics
    /// If the last axis of `input` is not `d_model`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.forward_then(input, Epilogue::default())
    }

    /// [`forward`](Self::forward), with what follows the outer layer.
    pub(super) fn forward_then<const D: usize>(
        &self,
        input: Tensor<D>,
        end: Epilogue<'_, D>,
    ) -> Tensor<D> {
        let [d_model, _] = dims(&self.linear_inner.weight);
        assert_shape!(input, [.., d_model]);
        let hidden = match self.activation.fused() {
            Some(activation) if self.linear_inner.on_bits(&input) => {
                self.linear_inner.forward_then(input, activation)
            }
            _ => self.activation.forward(self.linear_inner.forward(input)),
        };
        self.linear_outer
            .forward_then(self.dropout.forward(hidden), end)
    }
}

impl ModuleDisplay for PositionWiseFeedForward {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model, d_ff] = dims(&self.linear_inner.weight);
        content
            .add("d_model", &d_model)
            .add("d_ff", &d_ff)
            .add("prob", &self.dropout.prob)
            .optional()
    }
}
