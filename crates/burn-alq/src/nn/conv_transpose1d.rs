use alloc::format;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn_core::tensor::module::conv_transpose1d;
use burn_core::tensor::ops::ConvTransposeOptions;
use burn_core::tensor::{Device, Tensor};
use burn_nn::{Initializer, conv as burns};

use super::{Quantized, add_bits, dense, same_device};

/// Configuration to create a [`ConvTranspose1d`] layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct ConvTranspose1dConfig {
    /// The number of channels, `[in, out]`.
    pub channels: [usize; 2],
    /// The size of the kernel.
    pub kernel_size: usize,
    /// The stride of the convolution.
    #[config(default = "1")]
    pub stride: usize,
    /// Spacing between kernel elements.
    #[config(default = "1")]
    pub dilation: usize,
    /// Controls the connections between input and output channels.
    #[config(default = "1")]
    pub groups: usize,
    /// The padding configuration.
    #[config(default = "0")]
    pub padding: usize,
    /// The padding output configuration.
    #[config(default = "0")]
    pub padding_out: usize,
    /// If bias should be added to the output.
    #[config(default = true)]
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/libm::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
}

/// Burn's 1-D transposed convolution ([`ConvTranspose1d`](burns::ConvTranspose1d)).
///
/// There is no kernel for it on bits: once packed, the weight is unpacked, once or at each use
/// ([`Unpacking`](crate::Unpacking)), and Burn's own operation runs on that.
///
/// Should be created with [`ConvTranspose1dConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct ConvTranspose1d {
    /// Tensor of shape `[channels_in, channels_out / groups, kernel_size]`.
    pub weight: Param<Tensor<3>>,
    /// Tensor of shape `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the convolution.
    pub stride: usize,
    /// Size of the kernel.
    pub kernel_size: usize,
    /// Spacing between kernel elements.
    pub dilation: usize,
    /// Controls the connections between input and output channels.
    pub groups: usize,
    /// Padding configuration.
    pub padding: usize,
    /// Padding output configuration.
    pub padding_out: usize,
    /// Number of channels, `[in, out]`.
    pub channels: [usize; 2],
}

drop_in!(ConvTranspose1d, ConvTranspose1dConfig of burns::ConvTranspose1d, burns::ConvTranspose1dConfig {
    channels, kernel_size, stride, dilation, groups, padding, padding_out, bias, initializer
} => { weight, bias, stride, kernel_size, dilation, groups, padding, padding_out, channels });

impl ConvTranspose1d {
    /// Applies the forward pass on the input tensor.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, length_in]`
    /// - result: `[batch, channels_out, length_out]`
    ///
    /// # Panics
    /// If the input does not have `channels_in` channels.
    pub fn forward(&self, input: impl Into<Quantized<3>>) -> Tensor<3> {
        let input = input.into().into_tensor();
        same_device("ConvTranspose1d", &self.weight, &input.device());
        let (weight, bias) = dense(&self.weight, self.bias.as_ref(), &input);
        let options = ConvTransposeOptions::new(
            [self.stride],
            [self.padding],
            [self.padding_out],
            [self.dilation],
            self.groups,
        );
        conv_transpose1d(input, weight, bias, options)
    }
}

impl ModuleDisplay for ConvTranspose1d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content
            .add("channels", &format!("{:?}", self.channels))
            .add("stride", &self.stride)
            .add("kernel_size", &self.kernel_size)
            .add("dilation", &self.dilation)
            .add("groups", &self.groups)
            .add("padding", &self.padding)
            .add("padding_out", &self.padding_out);
        add_bits(content, &self.weight).optional()
    }
}
