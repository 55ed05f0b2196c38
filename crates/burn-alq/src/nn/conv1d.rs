use alloc::format;

use burn_core as burn;
use burn_core::backend::Dispatch;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn_core::tensor::{Device, Tensor};
use burn_nn::{BatchNorm, Initializer, PaddingConfig1d, PaddingConfig2d, conv as burns};
use multibit::cpu::{Conv2dOptions, conv2d_output_shape};

use super::{
    Arithmetic, Epilogue, Packed, Quantized, add_kernel, affine, arithmetic_of, describe, dims,
    mode, packed, padding_pairs, same_device,
};
use crate::ops::{Activations, AlqOps, PackedConv2d};
use crate::weight::{GroupingRule, QuantizeError, attach};

/// Configuration to create a [`Conv1d`] layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct Conv1dConfig {
    /// The number of input channels.
    pub channels_in: usize,
    /// The number of output channels.
    pub channels_out: usize,
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
    #[config(default = "PaddingConfig1d::Valid")]
    pub padding: PaddingConfig1d,
    /// If bias should be added to the output.
    #[config(default = true)]
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/libm::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
}

/// Burn's 1-D convolution ([`Conv1d`](burns::Conv1d)), which runs on the bits once packed, as
/// [`MultiBitConv1d`] does.
///
/// Should be created with [`Conv1dConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Conv1d {
    /// Tensor of shape `[channels_out, channels_in / groups, kernel_size]`.
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
    /// The padding configuration.
    #[module(skip)]
    pub padding: PaddingConfig1d,
}

drop_in!(Conv1d, Conv1dConfig of burns::Conv1d, burns::Conv1dConfig {
    channels_in, channels_out, kernel_size, stride, dilation, groups, padding, bias, initializer
} => { weight, bias, stride, kernel_size, dilation, groups, padding });

impl Conv1d {
    /// Applies the forward pass on the input tensor; on the bits once packed.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, length_in]`
    /// - result: `[batch, channels_out, length_out]`
    ///
    /// # Panics
    /// If the input does not have `channels_in` channels, or the layer is packed for bitwise
    /// arithmetic and the input not from a [`MultiBitActivation`](crate::MultiBitActivation).
    pub fn forward(&self, input: impl Into<Quantized<3>>) -> Tensor<3> {
        self.forward_then(input, Epilogue::default())
    }

    /// [`forward`](Self::forward), then batch norm, a residual and an activation, each at choice:
    /// `layer.forward_then(x, Activation::Relu)`.
    ///
    /// Once packed, all of it happens where an output is written.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), if `norm` has another number of features, and if the residual
    /// has another shape than the output.
    pub fn forward_then<'a>(
        &self,
        input: impl Into<Quantized<3>>,
        epilogue: impl Into<Epilogue<'a, 3>>,
    ) -> Tensor<3> {
        self.parts().forward(input.into(), epilogue.into())
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            layer: "Conv1d",
            weight: &self.weight,
            bias: self.bias.as_ref(),
            stride: self.stride,
            kernel_size: self.kernel_size,
            dilation: self.dilation,
            groups: self.groups,
            padding: &self.padding,
            arithmetic: Arithmetic::Exact,
        }
    }
}

/// Configuration to create a [`MultiBitConv1d`] layer with [`init`](Self::init), or from a trained
/// [`Conv1d`](burns::Conv1d) with [`quantize`](Self::quantize).
#[derive(Config, Debug)]
pub struct MultiBitConv1dConfig {
    /// The number of input channels.
    pub channels_in: usize,
    /// The number of output channels.
    pub channels_out: usize,
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
    #[config(default = "PaddingConfig1d::Valid")]
    pub padding: PaddingConfig1d,
    /// If bias should be added to the output.
    #[config(default = true)]
    pub bias: bool,
    /// How the weight is cut into groups that share coordinates.
    #[config(default = "GroupingRule::Channelwise")]
    pub grouping: GroupingRule,
    /// Bases of a group before pruning, 1 to 8.
    #[config(default = 6)]
    pub max_bits: usize,
    /// The arithmetic once packed.
    #[config(default = "Arithmetic::Exact")]
    pub arithmetic: Arithmetic,
    /// The type of function used to initialize the weight before it is sketched.
    #[config(default = "Initializer::KaimingUniform{gain:0.5773502691896257, fan_out_only:false}")]
    pub initializer: Initializer,
}

/// A 1-D convolution with a multi-bit weight.
///
/// Once packed it runs on the kernels of the 2-D convolution, at height 1.
///
/// Should be created with [`MultiBitConv1dConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MultiBitConv1d {
    /// The reconstructed weight `[channels_out, channels_in / groups, kernel_size]`, with its
    /// [`MultiBit`](crate::MultiBit) state attached while training, or its bits once packed.
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
    /// The padding configuration.
    #[module(skip)]
    pub padding: PaddingConfig1d,
    /// The arithmetic once packed, where the weight says none of its own.
    #[module(skip)]
    pub arithmetic: Arithmetic,
}

impl MultiBitConv1dConfig {
    fn float(&self, device: &Device) -> burns::Conv1d {
        burns::Conv1dConfig::new(self.channels_in, self.channels_out, self.kernel_size)
            .with_stride(self.stride)
            .with_dilation(self.dilation)
            .with_groups(self.groups)
            .with_padding(self.padding.clone())
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .init(device)
    }

    fn wrap(&self, conv: burns::Conv1d) -> MultiBitConv1d {
        MultiBitConv1d {
            weight: conv.weight,
            bias: conv.bias,
            stride: conv.stride,
            kernel_size: conv.kernel_size,
            dilation: conv.dilation,
            groups: conv.groups,
            padding: conv.padding,
            arithmetic: self.arithmetic,
        }
    }
}

constructors!(MultiBitConv1d, MultiBitConv1dConfig from burns::Conv1d, default |_| MultiBitConv1dConfig::new(1, 1, 1));

impl MultiBitConv1d {
    /// Applies the forward pass on the input tensor; on the bits once packed.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, length_in]`
    /// - result: `[batch, channels_out, length_out]`
    ///
    /// # Panics
    /// If the input does not have `channels_in` channels, or the arithmetic is bitwise, the layer
    /// packed and the input not from a [`MultiBitActivation`](crate::MultiBitActivation).
    pub fn forward(&self, input: impl Into<Quantized<3>>) -> Tensor<3> {
        self.forward_then(input, Epilogue::default())
    }

    /// [`forward`](Self::forward), then batch norm.
    ///
    /// Once packed, `norm` folds into the scale and the offset of each channel and costs nothing;
    /// the weight and `norm` stay as they are.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and if `norm` has another number of features.
    pub fn forward_norm(&self, input: impl Into<Quantized<3>>, norm: &BatchNorm) -> Tensor<3> {
        self.forward_then(input, Epilogue::norm(norm))
    }

    /// [`forward`](Self::forward), then batch norm, a residual and an activation, each at choice:
    /// `layer.forward_then(x, Activation::Relu)`.
    ///
    /// Once packed, all of it happens where an output is written.
    ///
    /// # Panics
    /// As [`forward_norm`](Self::forward_norm), and if the residual has another shape than the
    /// output.
    pub fn forward_then<'a>(
        &self,
        input: impl Into<Quantized<3>>,
        epilogue: impl Into<Epilogue<'a, 3>>,
    ) -> Tensor<3> {
        self.parts().forward(input.into(), epilogue.into())
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            layer: "MultiBitConv1d",
            weight: &self.weight,
            bias: self.bias.as_ref(),
            stride: self.stride,
            kernel_size: self.kernel_size,
            dilation: self.dilation,
            groups: self.groups,
            padding: &self.padding,
            arithmetic: self.arithmetic,
        }
    }
}

/// A 1-D convolution, whichever type it is.
struct Parts<'a> {
    /// The name of the type.
    layer: &'static str,
    weight: &'a Param<Tensor<3>>,
    bias: Option<&'a Param<Tensor<1>>>,
    stride: usize,
    kernel_size: usize,
    dilation: usize,
    groups: usize,
    padding: &'a PaddingConfig1d,
    /// The arithmetic once packed, where the weight says none of its own.
    arithmetic: Arithmetic,
}

impl Parts<'_> {
    fn forward(&self, input: Quantized<3>, epilogue: Epilogue<'_, 3>) -> Tensor<3> {
        same_device(self.layer, self.weight, &input.device());
        match packed(self.weight, 0) {
            Some(packed) => self.forward_packed(packed, input, epilogue),
            None => {
                let input = input.into_tensor();
                let y = self.forward_dense(input.clone());
                #[cfg(feature = "train")]
                {
                    let rows = |places: &[usize]| {
                        let (options, kernel) = (self.options(input.dims()), [1, self.kernel_size]);
                        super::watch::patches(input.unsqueeze_dim(2), places, kernel, &options)
                    };
                    let (y, groups) = ((&y, 1), self.groups);
                    super::watch::see(self.weight, self.bias, y, &epilogue, rows, groups);
                }
                epilogue.apply(y)
            }
        }
    }

    /// On a dense weight.
    fn forward_dense(&self, input: Tensor<3>) -> Tensor<3> {
        #[cfg(feature = "train")]
        if input.device().is_autodiff() {
            let (options, weight) = (self.options(input.dims()), self.weight.val());
            let (image, weight) = (input.unsqueeze_dim(2), weight.unsqueeze_dim(2));
            let bias = self.bias.map(Param::val);
            return super::training::conv2d(image, weight, bias, options).squeeze_dim(2);
        }
        self.as_burns().forward(input)
    }

    /// Of the same convolution over an image of height 1.
    fn options(&self, [_, channels_in, length]: [usize; 3]) -> Conv2dOptions {
        let [_, group_in, _] = dims(self.weight);
        assert_eq!(
            channels_in,
            group_in * self.groups,
            "{}: axis 1 of the input must have {} channels",
            self.layer,
            group_in * self.groups
        );
        let padding = match *self.padding {
            PaddingConfig1d::Valid => PaddingConfig2d::Valid,
            PaddingConfig1d::Same => PaddingConfig2d::Same,
            PaddingConfig1d::Explicit(left, right) => PaddingConfig2d::Explicit(0, left, 0, right),
        };
        let (kernel, stride) = ([1, self.kernel_size], [1, self.stride]);
        Conv2dOptions {
            stride,
            padding: padding_pairs(&padding, [1, length], kernel, stride),
            dilation: [1, self.dilation],
            groups: self.groups,
        }
    }

    fn forward_packed(
        &self,
        packed: &Packed,
        input: Quantized<3>,
        epilogue: Epilogue<'_, 3>,
    ) -> Tensor<3> {
        let (input, mode) = mode(self.layer, packed.arithmetic_or(self.arithmetic), input);
        let [channels_out, ..] = dims(self.weight);
        let [batch, channels_in, length] = input.dims();
        let options = self.options([batch, channels_in, length]);
        let bias = self.bias.map(Param::val);
        let [scale, offset] = affine(channels_out, bias, epilogue.norm, || input.device());
        let weight = packed.weight.with_height();
        let shape = [batch, channels_in, 1, length];
        let [.., out] = conv2d_output_shape(shape, weight.shape(), &options);
        let residual = epilogue.residual(self.layer, [batch, channels_out, out]);
        let residual = residual.map_or(Activations::None, |residual| {
            Activations::Values(residual.unsqueeze_dim::<4>(2).into_dispatch())
        });
        let input = input.unsqueeze_dim::<4>(2);
        let output = <Dispatch as AlqOps>::alq_conv2d(
            Activations::Values(input.into_dispatch()),
            scale,
            offset,
            residual,
            weight,
            PackedConv2d {
                options,
                mode,
                residual: None,
                activation: epilogue.activation,
                levels: None,
            },
        );
        let Activations::Values(output) = output else {
            unreachable!("without levels the outputs are values")
        };
        let output: Tensor<4> = Tensor::from_dispatch(output);
        output.squeeze_dim(2)
    }

    /// What a display says of the layer, as Burn's says it.
    fn describe(&self, content: Content) -> Content {
        let [channels_out, group_in, _] = dims(self.weight);
        content
            .add("ch_in", &(group_in * self.groups))
            .add("ch_out", &channels_out)
            .add("stride", &format!("{:?}", self.stride))
            .add("kernel_size", &format!("{:?}", self.kernel_size))
            .add("dilation", &format!("{:?}", self.dilation))
            .add("groups", &self.groups)
            .add_debug_attribute("padding", self.padding)
    }

    /// The same layer as Burn's, sharing its parameters.
    fn as_burns(&self) -> burns::Conv1d {
        burns::Conv1d {
            weight: self.weight.clone(),
            bias: self.bias.cloned(),
            stride: self.stride,
            kernel_size: self.kernel_size,
            dilation: self.dilation,
            groups: self.groups,
            padding: self.padding.clone(),
        }
    }
}

impl ModuleDisplay for Conv1d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        add_kernel(self.parts().describe(content), &self.weight).optional()
    }
}

impl ModuleDisplay for MultiBitConv1d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let arithmetic = arithmetic_of(&self.weight, self.arithmetic);
        let content = self.parts().describe(content);
        content
            .add("bits", &describe(&self.weight))
            .add_debug_attribute("arithmetic", &arithmetic)
            .optional()
    }
}
