use alloc::vec::Vec;

use burn_core as burn;
use burn_core::backend::Dispatch;
use burn_core::backend::tensor::FloatTensor;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn_core::tensor::module::linear;
use burn_core::tensor::{DType, Device, Tensor, assert_shape};
use burn_nn::{BatchNorm, Initializer, LinearLayout};

use super::functional::term;
use super::{
    Arithmetic, Epilogue, Packed, Quantized, add_kernel, affine, arithmetic_of, describe, dims,
    mode, packed, product, same_device,
};
use crate::ops::{AlqOps, Term};
use crate::weight::{GroupingRule, Product, QuantizeError, attach};

/// Configuration to create a [`Linear`] layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the output features.
    pub d_output: usize,
    /// If a bias should be applied during the linear transformation.
    #[config(default = true)]
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/libm::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
    /// The layout in which the linear parameters are stored.
    #[config(default = "LinearLayout::Row")]
    pub layout: LinearLayout,
}

/// Burn's [`Linear`](burn_nn::Linear), `O = I W + b`, which runs on the bits once packed.
///
/// Should be created with [`LinearConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Linear {
    /// Matrix of shape `[d_input, d_output]`.
    pub weight: Param<Tensor<2>>,
    /// Vector of size `d_output`.
    pub bias: Option<Param<Tensor<1>>>,
}

drop_in!(Linear, LinearConfig of burn_nn::Linear, burn_nn::LinearConfig {
    d_input, d_output, bias, initializer, layout
} => { weight, bias });

impl Linear {
    /// Applies the forward pass on the input tensor; on the bits once packed.
    ///
    /// # Shapes
    /// - input: `[..., d_input]`
    /// - output: `[..., d_output]`
    ///
    /// # Panics
    /// If the last axis of `input` is not `d_input`, or the layer is packed for bitwise arithmetic
    /// and the input not from a [`MultiBitActivation`](crate::MultiBitActivation).
    pub fn forward<const D: usize>(&self, input: impl Into<Quantized<D>>) -> Tensor<D> {
        self.forward_then(input, Epilogue::default())
    }

    /// [`forward`](Self::forward), then batch norm, a residual and an activation, each at choice:
    /// `layer.forward_then(x, Activation::Gelu)`.
    ///
    /// Once packed, all of it happens where an output is written.
    ///
    /// # Shapes
    /// - input: `[..., d_input]`
    /// - residual, output: `[..., d_output]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward), if the residual has another shape than the output, or if there
    /// is a batch norm and it has another number of features or the input another rank than 2.
    pub fn forward_then<'a, const D: usize>(
        &self,
        input: impl Into<Quantized<D>>,
        epilogue: impl Into<Epilogue<'a, D>>,
    ) -> Tensor<D> {
        self.parts().forward(input.into(), epilogue.into())
    }

    /// Several layers of one input, their outputs side by side: query, key and value of an attention,
    /// which are parts of the last axis of the result
    /// ([`attention`](super::functional::attention) reads them there).
    ///
    /// Once packed with one arithmetic, they share what is made of their input.
    ///
    /// # Shapes
    /// - input: `[..., d_input]`
    /// - output: `[..., Σ d_output]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and if there is no layer.
    pub fn forward_all<const D: usize>(
        layers: &[&Self],
        input: impl Into<Quantized<D>>,
    ) -> Tensor<D> {
        let parts: Vec<_> = layers.iter().map(|layer| layer.parts()).collect();
        Parts::forward_all(&parts, input.into())
    }

    /// [`forward_all`](Self::forward_all), each layer's output by itself.
    pub(super) fn forward_each<const D: usize>(
        layers: &[&Self],
        input: Tensor<D>,
    ) -> Vec<Tensor<D>> {
        let parts: Vec<_> = layers.iter().map(|layer| layer.parts()).collect();
        Parts::forward_each(&parts, input.into())
    }

    /// Whether the layer computes on bits where no gradients are asked for, so that what follows it may
    /// be computed by kernels too. Else a model gives what Burn's operations give, bit for bit.
    pub(super) fn on_bits<const D: usize>(&self, input: &Tensor<D>) -> bool {
        let on_bits = packed(&self.weight, 1).is_some() || product(&self.weight).is_some();
        on_bits && !input.device().is_autodiff()
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            layer: "Linear",
            weight: &self.weight,
            bias: self.bias.as_ref(),
            arithmetic: Arithmetic::Exact,
        }
    }
}

/// Configuration to create a [`MultiBitLinear`] layer with [`init`](Self::init), or from a trained
/// [`Linear`](burn_nn::Linear) with [`quantize`](Self::quantize).
#[derive(Config, Debug)]
pub struct MultiBitLinearConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the output features.
    pub d_output: usize,
    /// If a bias should be applied during the linear transformation.
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
    /// The layout in which the weight is recorded. Burn 0.22.1 refuses a record of
    /// [`LinearLayout::Col`] for a layer that has its weight already, unless it is square.
    #[config(default = "LinearLayout::Row")]
    pub layout: LinearLayout,
}

/// A linear layer with a multi-bit weight, `O = I Ŵ + b` with `Ŵ = B α` in each group.
///
/// Should be created with [`MultiBitLinearConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MultiBitLinear {
    /// The reconstructed weight `[d_input, d_output]`, with its [`MultiBit`](crate::MultiBit) state
    /// attached while training, or its bits once packed.
    pub weight: Param<Tensor<2>>,
    /// Vector of size `d_output`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The arithmetic once packed, where the weight says none of its own.
    #[module(skip)]
    pub arithmetic: Arithmetic,
}

impl MultiBitLinearConfig {
    fn float(&self, device: &Device) -> burn_nn::Linear {
        burn_nn::LinearConfig::new(self.d_input, self.d_output)
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .with_layout(self.layout)
            .init(device)
    }

    fn wrap(&self, linear: burn_nn::Linear) -> MultiBitLinear {
        MultiBitLinear {
            weight: linear.weight,
            bias: linear.bias,
            arithmetic: self.arithmetic,
        }
    }
}

constructors!(MultiBitLinear, MultiBitLinearConfig from burn_nn::Linear, default |_| MultiBitLinearConfig::new(1, 1));

impl MultiBitLinear {
    /// Applies the forward pass on the input tensor; on the bits once packed.
    ///
    /// # Shapes
    /// - input: `[..., d_input]`
    /// - output: `[..., d_output]`
    ///
    /// # Panics
    /// If the last axis of `input` is not `d_input`, or the arithmetic is bitwise, the layer packed
    /// and the input not from a [`MultiBitActivation`](crate::MultiBitActivation).
    pub fn forward<const D: usize>(&self, input: impl Into<Quantized<D>>) -> Tensor<D> {
        self.forward_then(input, Epilogue::default())
    }

    /// [`forward`](Self::forward), then batch norm over the outputs.
    ///
    /// Once packed, `norm` folds into the scale and the offset of each output and costs nothing; the
    /// weight and `norm` stay as they are.
    ///
    /// # Shapes
    /// - input: `[batch, d_input]`
    /// - output: `[batch, d_output]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and if `norm` has another number of features.
    pub fn forward_norm(&self, input: impl Into<Quantized<2>>, norm: &BatchNorm) -> Tensor<2> {
        self.forward_then(input, Epilogue::norm(norm))
    }

    /// [`forward`](Self::forward), then batch norm, a residual and an activation, each at choice:
    /// `layer.forward_then(x, Activation::Gelu)`.
    ///
    /// Once packed, all of it happens where an output is written.
    ///
    /// # Shapes
    /// - input: `[..., d_input]`
    /// - residual, output: `[..., d_output]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward), if the residual has another shape than the output, or if there
    /// is a batch norm and it has another number of features or the input another rank than 2.
    pub fn forward_then<'a, const D: usize>(
        &self,
        input: impl Into<Quantized<D>>,
        epilogue: impl Into<Epilogue<'a, D>>,
    ) -> Tensor<D> {
        self.parts().forward(input.into(), epilogue.into())
    }

    /// Several layers of one input, their outputs side by side: query, key and value of an attention,
    /// which are parts of the last axis of the result
    /// ([`attention`](super::functional::attention) reads them there).
    ///
    /// Once packed with one arithmetic, they share what is made of their input.
    ///
    /// # Shapes
    /// - input: `[..., d_input]`
    /// - output: `[..., Σ d_output]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward), and if there is no layer.
    pub fn forward_all<const D: usize>(
        layers: &[&Self],
        input: impl Into<Quantized<D>>,
    ) -> Tensor<D> {
        let parts: Vec<_> = layers.iter().map(|layer| layer.parts()).collect();
        Parts::forward_all(&parts, input.into())
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            layer: "MultiBitLinear",
            weight: &self.weight,
            bias: self.bias.as_ref(),
            arithmetic: self.arithmetic,
        }
    }
}

/// A linear layer, whichever type it is.
struct Parts<'a> {
    /// The name of the type.
    layer: &'static str,
    weight: &'a Param<Tensor<2>>,
    bias: Option<&'a Param<Tensor<1>>>,
    /// The arithmetic once packed, where the weight says none of its own.
    arithmetic: Arithmetic,
}

impl Parts<'_> {
    fn forward<const D: usize>(&self, input: Quantized<D>, epilogue: Epilogue<'_, D>) -> Tensor<D> {
        same_device(self.layer, self.weight, &input.device());
        assert!(
            epilogue.norm.is_none() || D == 2,
            "{}: batch norm needs an input of rank 2, not {D}",
            self.layer
        );
        if let Some(product) = product(self.weight) {
            return self.forward_product(product, input, epilogue);
        }
        match packed(self.weight, 1) {
            Some(packed) => self.forward_packed(packed, input, epilogue),
            None => {
                let y = self.forward_dense(input.clone());
                #[cfg(feature = "train")]
                {
                    let rows = |kept: &[usize]| {
                        let [d_input, _] = dims(self.weight);
                        let rows = input.dims()[..D - 1].iter().product();
                        let inputs = input.clone().into_tensor().reshape([rows, d_input]);
                        super::watch::take(inputs, kept)
                    };
                    let y = (&y, D - 1);
                    super::watch::see(self.weight, self.bias, y, &epilogue, rows, 1);
                }
                epilogue.apply(y)
            }
        }
    }

    fn forward_all<const D: usize>(layers: &[Self], input: Quantized<D>) -> Tensor<D> {
        Self::forward_together(layers, &input)
            .unwrap_or_else(|| Tensor::cat(Self::forward_apart(layers, &input), D - 1))
    }

    fn forward_each<const D: usize>(layers: &[Self], input: Quantized<D>) -> Vec<Tensor<D>> {
        let Some(outputs) = Self::forward_together(layers, &input) else {
            return Self::forward_apart(layers, &input);
        };
        let widths = layers.iter().map(|layer| dims(layer.weight)[1]).collect();
        outputs.split_with_sizes(widths, D - 1)
    }

    fn forward_apart<const D: usize>(layers: &[Self], input: &Quantized<D>) -> Vec<Tensor<D>> {
        let forward = |layer: &Self| layer.forward(input.clone(), Epilogue::default());
        layers.iter().map(forward).collect()
    }

    /// The outputs of several layers side by side, by one operation, if they share an input and an
    /// arithmetic on bits and no gradients are asked for.
    fn forward_together<const D: usize>(
        layers: &[Self],
        input: &Quantized<D>,
    ) -> Option<Tensor<D>> {
        let first = layers.first().expect("there is a layer");
        let mut shape = input.dims();
        if shape.contains(&0) || input.device().is_autodiff() {
            return None;
        }
        let [d_input, _] = dims(first.weight);
        let arithmetic = arithmetic_of(first.weight, first.arithmetic);
        let weights = layers.iter().map(|layer| {
            let shares = dims(layer.weight)[0] == d_input
                && arithmetic_of(layer.weight, layer.arithmetic) == arithmetic;
            let packed = packed(layer.weight, 1).filter(|_| shares)?;
            same_device(layer.layer, layer.weight, &input.device());
            Some(packed.weight.clone())
        });
        let weights: Vec<_> = weights.collect::<Option<_>>()?;
        let (input, mode) = mode(first.layer, arithmetic, input.clone());
        assert_shape!(input, [.., d_input]);
        let device = input.device();
        let biases = layers.iter().map(|layer| match layer.bias {
            Some(bias) => bias.val().cast(DType::F32),
            None => Tensor::zeros([dims(layer.weight)[1]], (&device, DType::F32)),
        });
        let has_bias = layers.iter().any(|layer| layer.bias.is_some());
        let bias = has_bias.then(|| Tensor::cat(biases.collect(), 0));
        let batch = shape[..D - 1].iter().product();
        shape[D - 1] = layers.iter().map(|layer| dims(layer.weight)[1]).sum();
        let output = <Dispatch as AlqOps>::alq_linears(
            as_rows(input, [batch, d_input]),
            Term::None,
            term(bias),
            weights,
            mode,
        );
        Some(from_rows(output, shape))
    }

    fn forward_dense<const D: usize>(&self, input: Quantized<D>) -> Tensor<D> {
        let weight = self.weight.val();
        let [d_input, _] = weight.dims();
        let input = input.into_tensor();
        assert_shape!(input, [.., d_input]);
        linear(input, weight, self.bias.map(Param::val))
    }

    /// Two layers of one bit, one after the other.
    fn forward_product<const D: usize>(
        &self,
        product: &Product,
        input: Quantized<D>,
        epilogue: Epilogue<'_, D>,
    ) -> Tensor<D> {
        let [d_input, _] = dims(self.weight);
        let input = input.into_tensor();
        assert_shape!(input, [.., d_input]);
        let mut shape = [1; D];
        shape[D - 1] = d_input;
        let scale = product.scale.val().cast(input.dtype()).reshape(shape);
        let layer = |weight, bias| Parts {
            weight,
            bias,
            ..*self
        };
        let hidden =
            layer(&product.first, None).forward((input * scale).into(), Epilogue::default());
        layer(&product.second, self.bias).forward(hidden.into(), epilogue)
    }

    fn forward_packed<const D: usize>(
        &self,
        packed: &Packed,
        input: Quantized<D>,
        epilogue: Epilogue<'_, D>,
    ) -> Tensor<D> {
        let [d_input, d_output] = packed.shape();
        let (input, mode) = mode(self.layer, packed.arithmetic_or(self.arithmetic), input);
        let mut shape = input.dims();
        if shape[D - 1] != d_input {
            assert_shape!(input, [.., d_input]);
        }
        let batch = shape[..D - 1].iter().product();
        shape[D - 1] = d_output;
        if batch == 0 || d_input == 0 {
            // The kernels compute no empty product; Burn's layers give one.
            return Tensor::zeros(shape, (&input.device(), input.dtype()));
        }
        let bias = self.bias.map(Param::val);
        let [scale, offset] = affine(d_output, bias, epilogue.norm, || input.device());
        let residual = match epilogue.residual(self.layer, shape) {
            Some(residual) => Term::Tensor(as_rows(residual, [batch, d_output])),
            None => Term::None,
        };
        let output = <Dispatch as AlqOps>::alq_linear(
            as_rows(input, [batch, d_input]),
            scale,
            offset,
            residual,
            packed.weight.clone(),
            mode,
            epilogue.activation,
        );
        from_rows(output, shape)
    }
}

/// What an operation takes as rows: itself, if it has rank 2.
fn as_rows<const D: usize>(tensor: Tensor<D>, shape: [usize; 2]) -> FloatTensor<Dispatch> {
    match D {
        2 => tensor.into_dispatch(),
        _ => tensor.reshape(shape).into_dispatch(),
    }
}

/// Rows that an operation gives, in their shape.
fn from_rows<const D: usize>(rows: FloatTensor<Dispatch>, shape: [usize; D]) -> Tensor<D> {
    match D {
        2 => Tensor::from_dispatch(rows),
        _ => Tensor::<2>::from_dispatch(rows).reshape(shape),
    }
}

impl ModuleDisplay for Linear {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, d_output] = dims(&self.weight);
        let content = content
            .add("d_input", &d_input)
            .add("d_output", &d_output)
            .add("bias", &self.bias.is_some());
        add_kernel(content, &self.weight).optional()
    }
}

impl ModuleDisplay for MultiBitLinear {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let arithmetic = arithmetic_of(&self.weight, self.arithmetic);
        let [d_input, d_output] = dims(&self.weight);
        content
            .add("d_input", &d_input)
            .add("d_output", &d_output)
            .add("bias", &self.bias.is_some())
            .add("bits", &describe(&self.weight))
            .add_debug_attribute("arithmetic", &arithmetic)
            .optional()
    }
}
