use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_core as burn;
use burn_core::backend::Dispatch;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn_core::tensor::module::linear;
use burn_core::tensor::{DType, Device, Tensor, assert_shape};
use burn_nn::{BatchNorm, Initializer, Linear, LinearConfig, LinearLayout};

use super::functional::term;
use super::{
    Arithmetic, Epilogue, Quantized, affine, describe, dims, here, mode, packed, same_device,
};
use crate::ops::{AlqOps, Term};
use crate::weight::{GroupingRule, PreparedWeight, QuantizeError, attach};

/// Configuration to create a [`MultiBitLinear`] layer with [`init`](Self::init), or from a trained
/// [`Linear`] with [`quantize`](Self::quantize).
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
    /// The arithmetic once packed.
    #[module(skip)]
    pub arithmetic: Arithmetic,
}

impl MultiBitLinearConfig {
    fn float(&self, device: &Device) -> Linear {
        LinearConfig::new(self.d_input, self.d_output)
            .with_bias(self.bias)
            .with_initializer(self.initializer.clone())
            .with_layout(self.layout)
            .init(device)
    }

    fn wrap(&self, linear: Linear) -> MultiBitLinear {
        MultiBitLinear {
            weight: linear.weight,
            bias: linear.bias,
            arithmetic: self.arithmetic,
        }
    }
}

constructors!(MultiBitLinear, MultiBitLinearConfig from Linear, default |_| MultiBitLinearConfig::new(1, 1));

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
        let input = here("MultiBitLinear", &self.weight, input);
        let epilogue = epilogue.into();
        assert!(
            epilogue.norm.is_none() || D == 2,
            "MultiBitLinear: batch norm needs an input of rank 2, not {D}"
        );
        match packed(&self.weight) {
            Some(packed) => self.forward_packed(&packed.weight, input, epilogue),
            None => epilogue.apply(self.forward_dense(input)),
        }
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
        let input = input.into();
        let first = layers.first().expect("MultiBitLinear: no layer");
        let share = |layer: &&&Self| {
            layer.arithmetic == first.arithmetic && dims(&layer.weight)[0] == dims(&first.weight)[0]
        };
        let weights = layers.iter().filter(share).filter_map(|layer| {
            let input = input.device();
            same_device("MultiBitLinear", &layer.weight, &input);
            packed(&layer.weight).map(|packed| packed.weight.clone())
        });
        let weights: Vec<Arc<PreparedWeight>> = weights.collect();
        let mut shape = input.dims();
        if weights.len() < layers.len() || shape.contains(&0) {
            let outputs = layers.iter().map(|layer| layer.forward(input.clone()));
            return Tensor::cat(outputs.collect(), D - 1);
        }
        let (input, mode) = mode("MultiBitLinear", first.arithmetic, input);
        let [d_input, _] = dims(&first.weight);
        assert_shape!(input, [.., d_input]);
        let device = input.device();
        let biases = layers.iter().map(|layer| match &layer.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([dims(&layer.weight)[1]], &device),
        });
        let has_bias = layers.iter().any(|layer| layer.bias.is_some());
        let bias =
            has_bias.then(|| Tensor::cat(biases.map(|bias| bias.cast(DType::F32)).collect(), 0));
        let batch = shape[..D - 1].iter().product();
        shape[D - 1] = layers.iter().map(|layer| dims(&layer.weight)[1]).sum();
        let output: Tensor<2> = Tensor::from_dispatch(<Dispatch as AlqOps>::alq_linears(
            input.reshape([batch, d_input]).into_dispatch(),
            Term::None,
            term(bias),
            weights,
            mode,
        ));
        output.reshape(shape)
    }

    fn forward_dense<const D: usize>(&self, input: Quantized<D>) -> Tensor<D> {
        let [d_input, _] = self.weight.dims();
        let input = input.into_tensor();
        assert_shape!(input, [.., d_input]);
        linear(input, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    fn forward_packed<const D: usize>(
        &self,
        weight: &Arc<PreparedWeight>,
        input: Quantized<D>,
        epilogue: Epilogue<'_, D>,
    ) -> Tensor<D> {
        let [d_input, d_output] = dims(&self.weight);
        let (input, mode) = mode("MultiBitLinear", self.arithmetic, input);
        assert_shape!(input, [.., d_input]);
        let mut shape = input.dims();
        let elements = input.shape().num_elements();
        shape[D - 1] = d_output;
        if elements == 0 {
            // The kernels compute no empty product; Burn's layers give one.
            return Tensor::zeros(shape, (&input.device(), input.dtype()));
        }
        let batch = elements / d_input;
        let bias = self.bias.as_ref().map(Param::val);
        let [scale, offset] = affine(d_output, bias, epilogue.norm, &input.device());
        let residual = epilogue.residual("MultiBitLinear", shape);
        let residual = residual.map(|residual| residual.reshape([batch, d_output]));
        let output: Tensor<2> = Tensor::from_dispatch(<Dispatch as AlqOps>::alq_linear(
            input.reshape([batch, d_input]).into_dispatch(),
            scale,
            offset,
            term::<2>(residual),
            weight.clone(),
            mode,
            epilogue.activation,
        ));
        output.reshape(shape)
    }
}

impl ModuleDisplay for MultiBitLinear {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, d_output] = dims(&self.weight);
        content
            .add("d_input", &d_input)
            .add("d_output", &d_output)
            .add("bias", &self.bias.is_some())
            .add("bits", &describe(&self.weight))
            .add_debug_attribute("arithmetic", &self.arithmetic)
            .optional()
    }
}
