use alloc::format;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn_core::tensor::module::conv_transpose2d;
use burn_core::tensor::ops::ConvTransposeOptions;
use burn_core::tensor::{Device, Tensor};
use burn_nn::{Initializer, conv as burns};

use super::{Epilogue, Quantized, add_bits, dense, describe, same_device};
use crate::weight::{GroupingRule, QuantizeError, attach};

/// Configuration to create a [`ConvTranspose2d`] layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct ConvTranspose2dConfig {
    /// The number of channels, `[in, out]`.
    pub channels: [usize; 2],
    /// The size of the kernel.
    pub kernel_size: [usize; 2],
    /// The stride of the convolution.
    #[config(default = "[1, 1]")]
    pub stride: [usize; 2],
    /// Spacing between kernel elements.
    #[config(default = "[1, 1]")]
    pub dilation: [usize; 2],
    /// Controls the connections between input and output channels.
    #[config(default = "1")]
    pub groups: usize,
    /// The padding configuration.
    #[config(default = "[0, 0]")]
    pub padding: [usize; 2],
    /// The padding output configuration.
    #[config(default = "[0, 0]")]
    pub padding_out: [usize; 2],
    /// If bias should be added to the output.
    #[config(default = true)]
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/libm::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
}

/// Burn's 2-D transposed convolution ([`ConvTranspose2d`](burns::ConvTranspose2d)).
///
/// There is no kernel for it on bits: once packed, the weight is unpacked, once or at each use
/// ([`Unpacking`](crate::Unpacking)), and Burn's own operation runs on that.
///
/// Should be created with [`ConvTranspose2dConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct ConvTranspose2d {
    /// Tensor of shape `[channels_in, channels_out / groups, k_h, k_w]`.
    pub weight: Param<Tensor<4>>,
    /// Tensor of shape `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the convolution.
    pub stride: [usize; 2],
    /// Size of the kernel.
    pub kernel_size: [usize; 2],
    /// Spacing between kernel elements.
    pub dilation: [usize; 2],
    /// Controls the connections between input and output channels.
    pub groups: usize,
    /// Padding configuration.
    pub padding: [usize; 2],
    /// Padding output configuration.
    pub padding_out: [usize; 2],
    /// Number of channels, `[in, out]`.
    pub channels: [usize; 2],
}

drop_in!(ConvTranspose2d, ConvTranspose2dConfig of burns::ConvTranspose2d, burns::ConvTranspose2dConfig {
    channels, kernel_size, stride, dilation, groups, padding, padding_out, bias, initializer
} => { weight, bias, stride, kernel_size, dilation, groups, padding, padding_out, channels });

impl ConvTranspose2d {
    /// Applies the forward pass on the input tensor.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, height_in, width_in]`
    /// - result: `[batch, channels_out, height_out, width_out]`
    ///
    /// # Panics
    /// If the input does not have `channels_in` channels.
    pub fn forward(&self, input: impl Into<Quantized<4>>) -> Tensor<4> {
        self.forward_then(input, Epilogue::default())
    }

    /// [`forward`](Self::forward), then batch norm, a residual and an activation, each at choice:
    /// `layer.forward_then(x, Activation::Relu)`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and if the batch norm or the residual does not fit the output.
    pub fn forward_then<'a>(
        &self,
        input: impl Into<Quantized<4>>,
        epilogue: impl Into<Epilogue<'a, 4>>,
    ) -> Tensor<4> {
        self.parts().forward(input.into(), epilogue.into())
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            layer: "ConvTranspose2d",
            weight: &self.weight,
            bias: self.bias.as_ref(),
            stride: self.stride,
            kernel_size: self.kernel_size,
            dilation: self.dilation,
            groups: self.groups,
            padding: self.padding,
            padding_out: self.padding_out,
            channels: self.channels,
        }
    }
}

/// Configuration to create a [`MultiBitConvTranspose2d`] layer with [`init`](Self::init), or from a
/// trained [`ConvTranspose2d`](burns::ConvTranspose2d) with [`quantize`](Self::quantize).
#[derive(Config, Debug)]
pub struct MultiBitConvTranspose2dConfig {
    /// The number of channels, `[in, out]`.
    pub channels: [usize; 2],
    /// The size of the kernel.
    pub kernel_size: [usize; 2],
    /// The stride of the convolution.
    #[config(default = "[1, 1]")]
    pub stride: [usize; 2],
    /// Spacing between kernel elements.
    #[config(default = "[1, 1]")]
    pub dilation: [usize; 2],
    /// Controls the connections between input and output channels.
    #[config(default = "1")]
    pub groups: usize,
    /// The padding configuration.
    #[config(default = "[0, 0]")]
    pub padding: [usize; 2],
    /// The padding output configuration.
    #[config(default = "[0, 0]")]
    pub padding_out: [usize; 2],
    /// If bias should be added to the output.
    #[config(default = true)]
    pub bias: bool,
    /// How the weight is cut into groups that share coordinates. Outputs are axis 1 of the weight;
    /// with `groups` above 1, one place of it stands for an output channel in every group.
    #[config(default = "GroupingRule::Kernelwise")]
    pub grouping: GroupingRule,
    /// Bases of a group before pruning, 1 to 8.
    #[config(default = 6)]
    pub max_bits: usize,
    /// The type of function used to initialize the weight before it is sketched.
    #[config(default = "Initializer::KaimingUniform{gain:0.5773502691896257, fan_out_only:false}")]
    pub initializer: Initializer,
}

/// A 2-D transposed convolution with a multi-bit weight.
///
/// Packed, it is small as a file and while loading; there is no kernel for it yet: the weight is
/// unpacked, once or at each use ([`Unpacking`](crate::Unpacking)), and Burn's own operation runs on
/// that.
///
/// Should be created with [`MultiBitConvTranspose2dConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MultiBitConvTranspose2d {
    /// The reconstructed weight `[channels_in, channels_out / groups, k_h, k_w]`, with its
    /// [`MultiBit`](crate::MultiBit) state attached while training, or its bits once packed.
    pub weight: Param<Tensor<4>>,
    /// Tensor of shape `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the convolution.
    pub stride: [usize; 2],
    /// Size of the kernel.
    pub kernel_size: [usize; 2],
    /// Spacing between kernel elements.
    pub dilation: [usize; 2],
    /// Controls the connections between input and output channels.
    pub groups: usize,
    /// Padding configuration.
    pub padding: [usize; 2],
    /// Padding output configuration.
    pub padding_out: [usize; 2],
    /// Number of channels, `[in, out]`.
    pub channels: [usize; 2],
}

impl MultiBitConvTranspose2dConfig {
    fn float(&self, device: &Device) -> burns::ConvTranspose2d {
        burns::ConvTranspose2dConfig::new(self.channels, self.kernel_size)
            .with_stride(self.stride)
            .with_dilation(self.dilation)
            .with_groups(self.groups)
            .with_padding(self.padding)
            .with_padding_out(self.padding_out)
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .init(device)
    }

    fn wrap(&self, conv: burns::ConvTranspose2d) -> MultiBitConvTranspose2d {
        MultiBitConvTranspose2d {
            weight: conv.weight,
            bias: conv.bias,
            stride: conv.stride,
            kernel_size: conv.kernel_size,
            dilation: conv.dilation,
            groups: conv.groups,
            padding: conv.padding,
            padding_out: conv.padding_out,
            channels: conv.channels,
        }
    }
}

constructors!(MultiBitConvTranspose2d, MultiBitConvTranspose2dConfig from burns::ConvTranspose2d, default |conv| MultiBitConvTranspose2dConfig::new(conv.channels, conv.kernel_size));

impl MultiBitConvTranspose2d {
    /// Applies the forward pass on the input tensor.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, height_in, width_in]`
    /// - result: `[batch, channels_out, height_out, width_out]`
    ///
    /// # Panics
    /// If the input does not have `channels_in` channels.
    pub fn forward(&self, input: impl Into<Quantized<4>>) -> Tensor<4> {
        self.forward_then(input, Epilogue::default())
    }

    /// [`forward`](Self::forward), then batch norm, a residual and an activation, each at choice:
    /// `layer.forward_then(x, Activation::Relu)`.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and if the batch norm or the residual does not fit the output.
    pub fn forward_then<'a>(
        &self,
        input: impl Into<Quantized<4>>,
        epilogue: impl Into<Epilogue<'a, 4>>,
    ) -> Tensor<4> {
        self.parts().forward(input.into(), epilogue.into())
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            layer: "MultiBitConvTranspose2d",
            weight: &self.weight,
            bias: self.bias.as_ref(),
            stride: self.stride,
            kernel_size: self.kernel_size,
            dilation: self.dilation,
            groups: self.groups,
            padding: self.padding,
            padding_out: self.padding_out,
            channels: self.channels,
        }
    }
}

/// A 2-D transposed convolution, whichever type it is.
struct Parts<'a> {
    /// The name of the type.
    layer: &'static str,
    weight: &'a Param<Tensor<4>>,
    bias: Option<&'a Param<Tensor<1>>>,
    stride: [usize; 2],
    kernel_size: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
    padding: [usize; 2],
    padding_out: [usize; 2],
    channels: [usize; 2],
}

impl Parts<'_> {
    fn forward(&self, input: Quantized<4>, epilogue: Epilogue<'_, 4>) -> Tensor<4> {
        let input = input.into_tensor();
        same_device(self.layer, self.weight, &input.device());
        let (weight, bias) = dense(self.weight, self.bias, &input);
        let options = ConvTransposeOptions::new(
            self.stride,
            self.padding,
            self.padding_out,
            self.dilation,
            self.groups,
        );
        epilogue.apply(conv_transpose2d(input, weight, bias, options))
    }

    /// What a display says of the layer, as Burn's says it.
    fn describe(&self, content: Content) -> Content {
        content
            .add("channels", &format!("{:?}", self.channels))
            .add("stride", &format!("{:?}", self.stride))
            .add("kernel_size", &format!("{:?}", self.kernel_size))
            .add("dilation", &format!("{:?}", self.dilation))
            .add("groups", &self.groups)
            .add("padding", &format!("{:?}", self.padding))
            .add("padding_out", &format!("{:?}", self.padding_out))
    }
}

impl ModuleDisplay for ConvTranspose2d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        add_bits(self.parts().describe(content), &self.weight).optional()
    }
}

impl ModuleDisplay for MultiBitConvTranspose2d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = self.parts().describe(content);
        content.add("bits", &describe(&self.weight)).optional()
    }
}
