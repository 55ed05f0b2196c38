use alloc::format;

use burn_core as burn;
use burn_core::backend::Dispatch;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn_core::tensor::{Device, Tensor};
use burn_nn::{BatchNorm, Initializer, PaddingConfig2d, conv as burns};
use multibit::cpu::{Activation, Conv2dOptions, Levels, Mode, conv2d_output_shape};

use super::quantized::BitPlanes;
use super::{
    Arithmetic, Epilogue, MultiBitActivation, Packed, Quantized, add_kernel, affine, arithmetic_of,
    describe, dims, mode, packed, padding_pairs, same_device,
};
use crate::ops::{Activations, AlqOps, PackedConv2d};
use crate::weight::{GroupingRule, QuantizeError, attach};

/// Configuration to create a [`Conv2d`] layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct Conv2dConfig {
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
    #[config(default = "PaddingConfig2d::Valid")]
    pub padding: PaddingConfig2d,
    /// If bias should be added to the output.
    #[config(default = true)]
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/libm::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
}

/// Burn's 2-D convolution ([`Conv2d`](burns::Conv2d)), which runs on the bits once packed.
///
/// Should be created with [`Conv2dConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Conv2d {
    /// Tensor of shape `[channels_out, channels_in / groups, k_h, k_w]`.
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
    /// The padding configuration.
    #[module(skip)]
    pub padding: PaddingConfig2d,
}

drop_in!(Conv2d, Conv2dConfig of burns::Conv2d, burns::Conv2dConfig {
    channels, kernel_size, stride, dilation, groups, padding, bias, initializer
} => { weight, bias, stride, kernel_size, dilation, groups, padding });

impl Conv2d {
    /// Applies the forward pass on the input tensor; on the bits once packed.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, height_in, width_in]`
    /// - result: `[batch, channels_out, height_out, width_out]`
    ///
    /// # Panics
    /// If the input does not have `channels_in` channels, or the layer is packed for bitwise
    /// arithmetic and the input not from a [`MultiBitActivation`](crate::MultiBitActivation).
    pub fn forward(&self, input: impl Into<Quantized<4>>) -> Tensor<4> {
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
        input: impl Into<Quantized<4>>,
        epilogue: impl Into<Epilogue<'a, 4>>,
    ) -> Tensor<4> {
        self.parts().forward(input.into(), epilogue.into())
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            layer: "Conv2d",
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

/// Configuration to create a [`MultiBitConv2d`] layer with [`init`](Self::init), or from a trained
/// [`Conv2d`](burns::Conv2d) with [`quantize`](Self::quantize).
#[derive(Config, Debug)]
pub struct MultiBitConv2dConfig {
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
    #[config(default = "PaddingConfig2d::Valid")]
    pub padding: PaddingConfig2d,
    /// If bias should be added to the output.
    #[config(default = true)]
    pub bias: bool,
    /// How the weight is cut into groups that share coordinates.
    #[config(default = "GroupingRule::Kernelwise")]
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

/// A 2-D convolution with a multi-bit weight.
///
/// Should be created with [`MultiBitConv2dConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MultiBitConv2d {
    /// The reconstructed weight `[channels_out, channels_in / groups, k_h, k_w]`, with its
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
    /// The padding configuration.
    #[module(skip)]
    pub padding: PaddingConfig2d,
    /// The arithmetic once packed, where the weight says none of its own.
    #[module(skip)]
    pub arithmetic: Arithmetic,
}

impl MultiBitConv2dConfig {
    fn float(&self, device: &Device) -> burns::Conv2d {
        burns::Conv2dConfig::new(self.channels, self.kernel_size)
            .with_stride(self.stride)
            .with_dilation(self.dilation)
            .with_groups(self.groups)
            .with_padding(self.padding.clone())
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .init(device)
    }

    fn wrap(&self, conv: burns::Conv2d) -> MultiBitConv2d {
        MultiBitConv2d {
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

constructors!(MultiBitConv2d, MultiBitConv2dConfig from burns::Conv2d, default |conv| MultiBitConv2dConfig::new([1, 1], conv.kernel_size));

impl MultiBitConv2d {
    /// Applies the forward pass on the input tensor; on the bits once packed.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, height_in, width_in]`
    /// - result: `[batch, channels_out, height_out, width_out]`
    ///
    /// # Panics
    /// If the input does not have `channels_in` channels, or the arithmetic is bitwise, the layer
    /// packed and the input not from a [`MultiBitActivation`](crate::MultiBitActivation).
    pub fn forward(&self, input: impl Into<Quantized<4>>) -> Tensor<4> {
        self.forward_then(input, Epilogue::default())
    }

    /// [`forward`](Self::forward), then batch norm.
    ///
    /// Once packed, `norm` folds into the scale and the offset of each channel and costs nothing;
    /// the weight and `norm` stay as they are.
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and if `norm` has another number of features.
    pub fn forward_norm(&self, input: impl Into<Quantized<4>>, norm: &BatchNorm) -> Tensor<4> {
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
        input: impl Into<Quantized<4>>,
        epilogue: impl Into<Epilogue<'a, 4>>,
    ) -> Tensor<4> {
        self.parts().forward(input.into(), epilogue.into())
    }

    /// [`forward_norm`](Self::forward_norm), then `+ residual`, then an activation: what lies
    /// between two layers, in training and in evaluation.
    ///
    /// Once packed and in evaluation, the activations come as bits, which a next layer in bitwise
    /// arithmetic takes as they are; in bitwise and int8 arithmetic they are made from a layer's sums
    /// at once, without a value in f32 between (a residual must have levels for that).
    ///
    /// # Shapes
    /// - `input`: `[batch, channels_in, height_in, width_in]`
    /// - `residual`, result: `[batch, channels_out, height_out, width_out]`
    ///
    /// # Panics
    /// As [`forward_norm`](Self::forward_norm) and [`MultiBitActivation::forward`].
    pub fn forward_act(
        &self,
        input: impl Into<Quantized<4>>,
        norm: Option<&BatchNorm>,
        residual: Option<Quantized<4>>,
        activation: &MultiBitActivation,
    ) -> Quantized<4> {
        let parts = self.parts();
        parts.forward_act(input.into(), norm, residual, activation)
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            layer: "MultiBitConv2d",
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

/// A 2-D convolution, whichever type it is.
struct Parts<'a> {
    /// The name of the type.
    layer: &'static str,
    weight: &'a Param<Tensor<4>>,
    bias: Option<&'a Param<Tensor<1>>>,
    stride: [usize; 2],
    kernel_size: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
    padding: &'a PaddingConfig2d,
    /// The arithmetic once packed, where the weight says none of its own.
    arithmetic: Arithmetic,
}

/// What a packed layer does with its outputs.
struct End {
    residual: Activations<Dispatch>,
    /// Of a residual that is bits.
    residual_levels: Option<Levels>,
    activation: Activation,
    /// Of outputs that are bits.
    levels: Option<Levels>,
}

impl Parts<'_> {
    fn forward(&self, input: Quantized<4>, epilogue: Epilogue<'_, 4>) -> Tensor<4> {
        same_device(self.layer, self.weight, &input.device());
        match packed(self.weight, 0) {
            Some(packed) => self.forward_packed(packed, input, epilogue),
            None => {
                let input = input.into_tensor();
                let y = self.forward_dense(input.clone());
                #[cfg(feature = "train")]
                {
                    let rows = |places: &[usize]| {
                        let options = self.options(input.dims());
                        super::watch::patches(input, places, self.kernel_size, &options)
                    };
                    let (y, groups) = ((&y, 1), self.groups);
                    super::watch::see(self.weight, self.bias, y, &epilogue, rows, groups);
                }
                epilogue.apply(y)
            }
        }
    }

    /// On a dense weight.
    fn forward_dense(&self, input: Tensor<4>) -> Tensor<4> {
        #[cfg(feature = "train")]
        if input.device().is_autodiff() {
            let (options, bias) = (self.options(input.dims()), self.bias.map(Param::val));
            return super::training::conv2d(input, self.weight.val(), bias, options);
        }
        self.as_burns().forward(input)
    }

    fn forward_act(
        &self,
        input: Quantized<4>,
        norm: Option<&BatchNorm>,
        residual: Option<Quantized<4>>,
        activation: &MultiBitActivation,
    ) -> Quantized<4> {
        same_device(self.layer, self.weight, &input.device());
        let packed = packed(self.weight, 0);
        let could_fuse = packed
            .is_some_and(|packed| packed.arithmetic_or(self.arithmetic) != Arithmetic::Exact)
            && !input.device().is_autodiff();
        let levels = could_fuse.then(|| activation.fixed_levels()).flatten();
        // Values that are added are added as values.
        let residual = if levels.is_some() {
            residual.map(Quantized::pack)
        } else {
            residual
        };
        let is_ready = residual.as_ref().is_none_or(|x| x.planes().is_some());
        if let (Some(packed), Some(levels), true) = (packed, levels, is_ready) {
            let residual = residual.and_then(|residual| residual.planes().cloned());
            let residual_levels = residual.as_ref().map(|residual| residual.levels.clone());
            let residual = residual.map_or(Activations::None, |residual| {
                Activations::Planes(residual.words.into_dispatch())
            });
            let end = End {
                residual,
                residual_levels,
                activation: Activation::Identity,
                levels: Some(levels.clone()),
            };
            let dtype = input.dtype();
            let output = self.run(packed, input, norm, end);
            let Activations::Planes(words) = output else {
                unreachable!("with levels the outputs are bits")
            };
            return BitPlanes {
                words: Tensor::from_dispatch(words),
                channels: dims(self.weight)[0],
                levels,
                dtype,
            }
            .into();
        }
        let end = Epilogue {
            norm,
            residual: residual.map(Quantized::into_tensor),
            activation: Activation::Identity,
        };
        let y = activation.forward(self.forward(input, end));
        match packed {
            Some(_) => y.pack(),
            None => y,
        }
    }

    fn forward_packed(
        &self,
        packed: &Packed,
        input: Quantized<4>,
        epilogue: Epilogue<'_, 4>,
    ) -> Tensor<4> {
        let dtype = input.dtype();
        let input_shape = input.dims();
        let options = self.options(input_shape);
        let shape = conv2d_output_shape(input_shape, &dims(self.weight), &options);
        let residual = epilogue.residual(self.layer, shape);
        let end = End {
            residual: residual.map_or(Activations::None, |residual| {
                Activations::Values(residual.into_dispatch())
            }),
            residual_levels: None,
            activation: epilogue.activation,
            levels: None,
        };
        match self.run(packed, input, epilogue.norm, end) {
            Activations::Values(values) => Tensor::<4>::from_dispatch(values).cast(dtype),
            _ => unreachable!("without levels the outputs are values"),
        }
    }

    /// The packed layer; to bits, if there are levels.
    fn run(
        &self,
        packed: &Packed,
        input: Quantized<4>,
        norm: Option<&BatchNorm>,
        end: End,
    ) -> Activations<Dispatch> {
        let weight = &packed.weight;
        let arithmetic = packed.arithmetic_or(self.arithmetic);
        let options = self.options(input.dims());
        let takes_planes = arithmetic == Arithmetic::Bitwise
            && weight.conv2d(arithmetic, self.groups).takes_planes();
        // A layer whose outputs are bits takes bits where it can.
        let input = if takes_planes && end.levels.is_some() {
            input.pack()
        } else {
            input
        };
        let bias = self.bias.map(Param::val);
        let [scale, offset] = affine(dims(self.weight)[0], bias, norm, || input.device());
        let (input, mode) = match input.planes().filter(|_| takes_planes).cloned() {
            Some(planes) => {
                let words = Activations::Planes(planes.words.into_dispatch());
                (words, Mode::Bitwise(planes.levels))
            }
            None => {
                let (values, mode) = mode(self.layer, arithmetic, input);
                (Activations::Values(values.into_dispatch()), mode)
            }
        };
        let conv2d = PackedConv2d {
            options,
            mode,
            residual: end.residual_levels,
            activation: end.activation,
            levels: end.levels,
        };
        let residual = end.residual;
        <Dispatch as AlqOps>::alq_conv2d(input, scale, offset, residual, weight.clone(), conv2d)
    }

    fn options(&self, input: [usize; 4]) -> Conv2dOptions {
        let [_, group_in, ..] = dims(self.weight);
        let [_, channels_in, height, width] = input;
        assert_eq!(
            channels_in,
            group_in * self.groups,
            "{}: axis 1 of the input must have {} channels",
            self.layer,
            group_in * self.groups
        );
        Conv2dOptions {
            stride: self.stride,
            padding: padding_pairs(self.padding, [height, width], self.kernel_size, self.stride),
            dilation: self.dilation,
            groups: self.groups,
        }
    }

    /// What a display says of the layer, as Burn's says it.
    fn describe(&self, content: Content) -> Content {
        let [channels_out, group_in, ..] = dims(self.weight);
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
    fn as_burns(&self) -> burns::Conv2d {
        burns::Conv2d {
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

impl ModuleDisplay for Conv2d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        add_kernel(self.parts().describe(content), &self.weight).optional()
    }
}

impl ModuleDisplay for MultiBitConv2d {
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
