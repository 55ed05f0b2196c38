//! How a network's layers follow each other, for programs that run it without Burn.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use burn_nn::pool::{AdaptiveAvgPool2d, AvgPool2d, MaxPool2d};
use burn_nn::{BatchNorm, PaddingConfig2d};
use multibit::cpu::{Activation, Arithmetic, Conv2dOptions, Pool2dOptions};
use multibit::file::{Input, Layer, Norm, Op, PackedFile, Step, container};
use multibit::runtime::Plan;

use super::product::products;
use super::{Coding, PackModelError, PackedModel, body};
use crate::nn::conv::Conv2d;
use crate::nn::{Linear, MultiBitActivation, MultiBitConv2d, MultiBitLinear};

/// The layers of a network, one after the other, by the paths of their parameters.
///
/// Value 0 is the input; each step makes the next value from the one before, or from
/// [another](Self::from).
///
/// ```
/// use burn_alq::file::Chain;
/// use burn_alq::{Activation, MultiBitConv2d, MultiBitLinear};
///
/// fn chain(conv: &MultiBitConv2d, fc: &MultiBitLinear) -> Chain {
///     Chain::new()
///         .layer("conv", conv)
///         .function(Activation::Relu)
///         .flatten()
///         .layer("fc", fc)
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chain {
    steps: Vec<Step<String>>,
    /// What the next step takes, if not the value before.
    input: Option<usize>,
    /// The first thing that a chain cannot say.
    error: Option<(String, &'static str)>,
}

/// A layer with a packed weight that a [`Chain`] can hold.
pub trait ChainLayer {
    /// The step that computes it.
    ///
    /// # Errors
    /// If a chain cannot say what it does; says why.
    fn op(&self, path: &str) -> Result<Op<String>, &'static str>;
}

fn layer(path: &str, has_bias: bool, arithmetic: Arithmetic) -> Layer<String> {
    Layer {
        weight: format!("{path}.weight"),
        bias: has_bias.then(|| format!("{path}.bias")),
        norm: None,
        arithmetic: (arithmetic != Arithmetic::Exact).then_some(arithmetic),
    }
}

impl ChainLayer for MultiBitLinear {
    fn op(&self, path: &str) -> Result<Op<String>, &'static str> {
        Ok(Op::Linear(layer(
            path,
            self.bias.is_some(),
            self.arithmetic,
        )))
    }
}

impl ChainLayer for Linear {
    fn op(&self, path: &str) -> Result<Op<String>, &'static str> {
        Ok(Op::Linear(layer(
            path,
            self.bias.is_some(),
            Arithmetic::Exact,
        )))
    }
}

/// Why an own size of the padding cannot be said.
const SAME: &str = "its padding depends on the size of the input; give it explicitly";

/// Padding before and behind height and width.
fn padding(
    padding: &PaddingConfig2d,
    kernel: [usize; 2],
    stride: [usize; 2],
) -> Result<[(usize, usize); 2], &'static str> {
    match padding {
        PaddingConfig2d::Same if stride != [1, 1] => Err(SAME),
        // At stride 1 the size does not matter.
        _ => Ok(crate::nn::padding_pairs(padding, [1, 1], kernel, stride)),
    }
}

macro_rules! convolution {
    ($layer:ty, $arithmetic:expr) => {
        impl ChainLayer for $layer {
            fn op(&self, path: &str) -> Result<Op<String>, &'static str> {
                let options = Conv2dOptions {
                    stride: self.stride,
                    padding: padding(&self.padding, self.kernel_size, self.stride)?,
                    dilation: self.dilation,
                    groups: self.groups,
                };
                let arithmetic: fn(&Self) -> Arithmetic = $arithmetic;
                let layer = layer(path, self.bias.is_some(), arithmetic(self));
                Ok(Op::Conv2d(layer, options))
            }
        }
    };
}

convolution!(MultiBitConv2d, |layer| layer.arithmetic);
convolution!(Conv2d, |_| Arithmetic::Exact);

impl Chain {
    /// No step yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The last value: that of the last step, 0 for the input.
    pub fn value(&self) -> usize {
        self.steps.len()
    }

    /// The next step takes this value, not the last.
    #[must_use]
    pub fn from(mut self, value: usize) -> Self {
        self.input = (value != self.value()).then_some(value);
        self
    }

    fn step(mut self, op: Op<String>) -> Self {
        let input = self.input.take();
        self.steps.push(Step { input, op });
        self
    }

    fn wrong(mut self, path: &str, reason: &'static str) -> Self {
        self.error.get_or_insert_with(|| (path.to_string(), reason));
        self
    }

    /// A linear layer or a convolution at a path, with its bias.
    #[must_use]
    pub fn layer(self, path: &str, layer: &impl ChainLayer) -> Self {
        match layer.op(path) {
            Ok(op) => self.step(op),
            Err(reason) => self.wrong(path, reason),
        }
    }

    /// Batch norm in evaluation, behind the layer before.
    #[must_use]
    pub fn norm(mut self, path: &str, norm: &BatchNorm) -> Self {
        let last = self.steps.last_mut().map(|step| &mut step.op);
        let Some(Op::Linear(layer) | Op::Conv2d(layer, _)) = last else {
            return self.wrong(path, "batch norm follows a linear layer or a convolution");
        };
        let tensor = |name: &str| format!("{path}.{name}");
        layer.norm = Some(Norm {
            gamma: tensor("gamma"),
            beta: tensor("beta"),
            mean: tensor("running_mean"),
            variance: tensor("running_var"),
            epsilon: norm.epsilon as f32,
        });
        self
    }

    /// A multi-bit activation at a path: its levels, or a ReLU where it is switched off.
    #[must_use]
    pub fn activation(self, path: &str, _: &MultiBitActivation) -> Self {
        let state = format!("{path}.{}", MultiBitActivation::STATE);
        self.step(Op::Levels(state))
    }

    /// A function of each value.
    #[must_use]
    pub fn function(self, activation: Activation) -> Self {
        self.step(Op::Activation(activation))
    }

    /// Max pooling.
    #[must_use]
    pub fn max_pool2d(self, pool: &MaxPool2d) -> Self {
        let options = options(pool.kernel_size, pool.stride, &pool.padding, pool.dilation);
        match options {
            Ok(options) if !pool.ceil_mode => self.step(Op::MaxPool2d(options)),
            Ok(_) => self.wrong("max_pool2d", CEIL),
            Err(reason) => self.wrong("max_pool2d", reason),
        }
    }

    /// Average pooling.
    #[must_use]
    pub fn avg_pool2d(self, pool: &AvgPool2d) -> Self {
        match options(pool.kernel_size, pool.stride, &pool.padding, [1, 1]) {
            Ok(_) if pool.ceil_mode => self.wrong("avg_pool2d", CEIL),
            Ok(options) if !pool.count_include_pad && options.padding != [0, 0] => {
                self.wrong("avg_pool2d", "its average must count the padding")
            }
            Ok(options) => self.step(Op::AvgPool2d(options)),
            Err(reason) => self.wrong("avg_pool2d", reason),
        }
    }

    /// The average over all places of each channel: an adaptive pool of one output.
    #[must_use]
    pub fn adaptive_avg_pool2d(self, pool: &AdaptiveAvgPool2d) -> Self {
        match pool.output_size {
            [1, 1] => self.step(Op::GlobalAvgPool2d),
            _ => self.wrong("adaptive_avg_pool2d", "its output must have one place"),
        }
    }

    /// `[channels, height, width]` as `[features]`.
    #[must_use]
    pub fn flatten(self) -> Self {
        self.step(Op::Flatten)
    }

    /// The sum with another value.
    #[must_use]
    pub fn plus(self, value: usize) -> Self {
        self.step(Op::Add(value))
    }
}

/// Why a pool cannot be said.
const CEIL: &str = "its windows must lie within the padded input (ceil_mode)";

fn options(
    kernel: [usize; 2],
    stride: [usize; 2],
    pads: &PaddingConfig2d,
    dilation: [usize; 2],
) -> Result<Pool2dOptions, &'static str> {
    let padding = padding(pads, kernel, stride)?;
    if padding.iter().any(|(before, behind)| before != behind) {
        return Err("its padding must be the same on both sides");
    }
    Ok(Pool2dOptions {
        kernel,
        stride,
        padding: padding.map(|(before, _)| before),
        dilation,
    })
}

impl PackedModel {
    /// The same model with a name for people.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same model with what a sample is, and how raw values become it.
    ///
    /// # Errors
    /// If it describes no samples, or those of another chain than the model's.
    pub fn with_input(mut self, input: Input) -> Result<Self, PackModelError> {
        input.check()?;
        self.input = Some(input);
        self.checked()
    }

    /// The same model with the names of its outputs, in their order.
    ///
    /// # Errors
    /// If the model's chain has another number of outputs.
    pub fn with_labels(
        mut self,
        labels: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, PackModelError> {
        self.labels = labels.into_iter().map(Into::into).collect();
        self.checked()
    }

    /// The same model with its layers, so that programs without Burn can run it
    /// (`multibit::runtime`). Say first what a sample is ([`with_input`](Self::with_input)).
    ///
    /// # Errors
    /// If the chain cannot be said, names a parameter that the model does not have or that is not
    /// multi-bit, or does not fit the weights or the input.
    pub fn with_chain(mut self, chain: Chain) -> Result<Self, PackModelError> {
        if let Some((path, reason)) = chain.error {
            return Err(PackModelError::Chain { path, reason });
        }
        for step in &chain.steps {
            step.rename(|list, path| {
                self.index(list, path).map_err(|path| {
                    let float = self.tensors.iter().any(|(other, _)| *other == path);
                    let product = products(&self).any(|product| product.path == path);
                    match (float, product) {
                        (true, _) => PackModelError::Float { path },
                        (_, true) => PackModelError::Product { path },
                        _ => PackModelError::Missing { path },
                    }
                })
            })?;
        }
        self.chain = chain.steps;
        self.checked()
    }

    /// Whether the chain, if there is one, runs.
    fn checked(self) -> Result<Self, PackModelError> {
        if self.chain.is_empty() {
            return Ok(self);
        }
        let invalid = |reason: String| PackModelError::Unwritten { reason };
        let body = body::body(&self, Coding::Plain).map_err(|error| invalid(error.to_string()))?;
        let file = container(&body);
        let file = PackedFile::read(&file).map_err(|error| invalid(error.to_string()))?;
        Plan::new(&file)?;
        Ok(self)
    }
}
