use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn_core::tensor::activation::silu;
use burn_core::tensor::{Device, Tensor};
use burn_nn::{Initializer, LinearLayout};

use crate::nn::{Linear, LinearConfig, dims};

/// Configuration to create a [`SwiGlu`] activation layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct SwiGluConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the output features.
    pub d_output: usize,
    /// If a bias should be applied during the linear transformations.
    #[config(default = false)]
    pub bias: bool,
    /// The type of function used to initialize the linear layers' parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/libm::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
    /// The layout in which the linear parameters are stored.
    #[config(default = "LinearLayout::Row")]
    pub layout: LinearLayout,
}

/// Burn's gated linear unit ([`SwiGlu`](burn_nn::SwiGlu)),
/// `Swish(x W_inner + b_inner) · (x W_outer + b_outer)`.
///
/// Should be created with [`SwiGluConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct SwiGlu {
    /// The linear layer below the Swish, from `d_input` to `d_output` features.
    pub linear_inner: Linear,
    /// The linear layer that it is multiplied with, from `d_input` to `d_output` features.
    pub linear_outer: Linear,
}

impl SwiGluConfig {
    /// Initializes a new layer.
    pub fn init(&self, device: &Device) -> SwiGlu {
        let linear = LinearConfig {
            d_input: self.d_input,
            d_output: self.d_output,
            bias: self.bias,
            initializer: self.initializer.clone(),
            layout: self.layout,
        };
        SwiGlu {
            linear_inner: linear.init(device),
            linear_outer: linear.init(device),
        }
    }
}

impl SwiGlu {
    /// Applies the activation to the input tensor.
    ///
    /// # Shapes
    /// - `input`: `[..., d_input]`
    /// - result: `[..., d_output]`
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let layers = [&self.linear_inner, &self.linear_outer];
        let outputs = Linear::forward_each(&layers, input);
        let [inner, outer]: [_; 2] = outputs.try_into().expect("one for each layer");
        silu(inner).mul(outer)
    }
}

impl ModuleDisplay for SwiGlu {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, d_output] = dims(&self.linear_inner.weight);
        content
            .add("d_input", &d_input)
            .add("d_output", &d_output)
            .add("bias", &self.linear_inner.bias.is_some())
            .optional()
    }
}
