use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn_core::tensor::{Bool, Device, Tensor, assert_shape};
use burn_nn::attention::MhaOutput;
use burn_nn::{Dropout, DropoutConfig, Gelu, Initializer};

use super::scores::{Masks, Weighting, join_heads, split_heads};
use crate::nn::cache::TensorCache;
use crate::nn::{Epilogue, Linear, LinearConfig};

/// Configuration to create a [`MultiHeadAttention`] layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct MultiHeadAttentionConfig {
    /// The size of each linear layer.
    pub d_model: usize,
    /// The number of heads.
    pub n_heads: usize,
    /// The dropout rate. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// What masked attention scores become before the softmax. Default: -1.0e4
    #[config(default = -1.0e4)]
    pub min_float: f64,
    /// Use "quiet softmax" instead of regular softmax.
    #[config(default = false)]
    pub quiet_softmax: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/libm::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
    /// Enable bias for the key [`Linear`] layer.
    #[config(default = true)]
    pub key_bias: bool,
    /// Enable bias for the value [`Linear`] layer.
    #[config(default = true)]
    pub value_bias: bool,
    /// Enable bias for the query [`Linear`] layer.
    #[config(default = true)]
    pub query_bias: bool,
    /// Enable bias for the output [`Linear`] layer.
    #[config(default = true)]
    pub output_bias: bool,
}

/// Burn's multi-head attention ([`MultiHeadAttention`](burn_nn::attention::MultiHeadAttention)).
///
/// Should be created with [`MultiHeadAttentionConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MultiHeadAttention {
    /// Linear layer to transform the input features into the query space.
    pub query: Linear,
    /// Linear layer to transform the input features into the key space.
    pub key: Linear,
    /// Linear layer to transform the input features into the value space.
    pub value: Linear,
    /// Linear layer to transform the output features back to the original space.
    pub output: Linear,
    /// Dropout layer.
    pub dropout: Dropout,
    /// Activation function.
    pub activation: Gelu,
    /// The size of each linear layer.
    pub d_model: usize,
    /// The number of heads.
    pub n_heads: usize,
    /// Size of the key and query vectors.
    pub d_k: usize,
    /// Minimum value a float can take.
    pub min_float: f64,
    /// Use "quiet softmax" instead of regular softmax.
    pub quiet_softmax: bool,
}

/// [`MultiHeadAttention`] forward pass input argument.
#[derive(Debug, Clone)]
pub struct MhaInput {
    /// `[batch, seq_length_1, d_model]`.
    query: Tensor<3>,
    /// `[batch, seq_length_2, d_model]`; none where it is the query.
    key: Option<Tensor<3>>,
    /// As the key; none where it is the key. Linear layers on the same tensor share what they make
    /// of it first.
    value: Option<Tensor<3>>,
    masks: Masks,
}

impl MhaInput {
    /// Creates an input argument whose query, key and value are the given tensor.
    ///
    /// # Shapes
    /// - `tensor`: `[batch, seq_length, d_model]`
    pub fn self_attn(tensor: Tensor<3>) -> Self {
        Self::of(tensor, None, None)
    }

    /// An input argument whose key and value are one tensor.
    pub(in crate::nn) fn cross_attn(query: Tensor<3>, memory: Tensor<3>) -> Self {
        Self::of(query, Some(memory), None)
    }

    /// Creates an input argument.
    ///
    /// # Shapes
    /// - `query`: `[batch, seq_length_1, d_model]`
    /// - `key`, `value`: `[batch, seq_length_2, d_model]`
    pub fn new(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Self {
        Self::of(query, Some(key), Some(value))
    }

    fn of(query: Tensor<3>, key: Option<Tensor<3>>, value: Option<Tensor<3>>) -> Self {
        Self {
            query,
            key,
            value,
            masks: Masks::default(),
        }
    }

    /// Registers the padding mask, `[batch, seq_length_2]`: what is true is masked out.
    pub fn mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.masks.pad = Some(mask_pad);
        self
    }

    /// Registers the attention mask, `[batch, seq_length_1, seq_length_2]`: what is true is masked out.
    pub fn mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.masks.attn = Some(mask_attn);
        self
    }

    /// Both masks, if there are any.
    pub(in crate::nn) fn masked(
        mut self,
        (pad, attn): (Option<Tensor<2, Bool>>, Option<Tensor<3, Bool>>),
    ) -> Self {
        self.masks = Masks { pad, attn };
        self
    }
}

impl MultiHeadAttentionConfig {
    /// Initializes a new layer.
    ///
    /// # Panics
    /// If `n_heads` does not divide `d_model`.
    pub fn init(&self, device: &Device) -> MultiHeadAttention {
        let (d_model, n_heads) = (self.d_model, self.n_heads);
        assert!(
            n_heads > 0 && d_model.is_multiple_of(n_heads),
            "MultiHeadAttentionConfig: a `d_model` of {d_model} does not fall into {n_heads} `n_heads`"
        );
        let linear = |bias| {
            LinearConfig::new(d_model, d_model)
                .with_initializer(self.initializer.clone())
                .with_bias(bias)
                .init(device)
        };
        MultiHeadAttention {
            query: linear(self.query_bias),
            key: linear(self.key_bias),
            value: linear(self.value_bias),
            output: linear(self.output_bias),
            dropout: DropoutConfig::new(self.dropout).init(),
            activation: Gelu::new(),
            d_model,
            n_heads,
            d_k: d_model / n_heads,
            min_float: self.min_float,
            quiet_softmax: self.quiet_softmax,
        }
    }
}

impl MultiHeadAttention {
    /// Applies the forward pass on the input tensors.
    ///
    /// # Shapes
    /// - query: `[batch, seq_length_1, d_model]`
    /// - key, value: `[batch, seq_length_2, d_model]`
    /// - context: `[batch, seq_length_1, d_model]`
    ///
    /// # Panics
    /// If an axis of the query, the key, the value or a mask is another one.
    pub fn forward(&self, input: MhaInput) -> MhaOutput {
        self.with_weights(input, None)
    }

    /// Applies the forward pass using a cache.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_cache(&self, input: MhaInput, cache: &mut MhaCache) -> MhaOutput {
        self.with_weights(input, Some(cache))
    }

    fn with_weights(&self, input: MhaInput, cache: Option<&mut MhaCache>) -> MhaOutput {
        let (context, weights) = self.run(input, cache, Epilogue::default(), true);
        MhaOutput {
            weights: weights.expect("they were asked for"),
            context,
        }
    }

    /// The context, with what follows the output layer, and the weights if they are asked for; with a
    /// cache if there is one.
    pub(in crate::nn) fn run(
        &self,
        input: MhaInput,
        cache: Option<&mut MhaCache>,
        end: Epilogue<'_, 3>,
        weights: bool,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        let MhaInput {
            query,
            key,
            value,
            masks,
        } = input;
        let [batch_size, ..] = query.dims();
        assert_shape!(query, [_, _, self.d_model]);
        if let Some(key) = &key {
            assert_shape!(key, [batch_size, _, self.d_model]);
        }
        if let Some(value) = &value {
            let [_, seq_length_2, _] = key.as_ref().unwrap_or(&query).dims();
            assert_shape!(value, [batch_size, seq_length_2, self.d_model]);
        }
        match cache {
            None => {
                let (context, weights) =
                    self.attend(self.project(query, key, value), masks, weights);
                (self.output.forward_then(context, end), weights)
            }
            Some(cache) => {
                let key = key.unwrap_or_else(|| query.clone());
                let value = value.unwrap_or_else(|| key.clone());
                let inputs = [
                    cache.query.forward(query, &self.query),
                    cache.key.forward(key, &self.key),
                    cache.value.forward(value, &self.value),
                ];
                let (context, weights) = self.attend(inputs, masks, weights);
                let context = cache.output.forward(context, &self.output);
                (end.apply(context), weights)
            }
        }
    }

    /// Query, key and value behind their linear layers.
    fn project(
        &self,
        query: Tensor<3>,
        key: Option<Tensor<3>>,
        value: Option<Tensor<3>>,
    ) -> [Tensor<3>; 3] {
        let Self {
            query: q,
            key: k,
            value: v,
            ..
        } = self;
        let [key, value] = match (key, value) {
            (None, None) => return all([q, k, v], query),
            (Some(memory), None) => all([k, v], memory),
            (key, Some(value)) => {
                let key = key.unwrap_or_else(|| query.clone());
                [k.forward(key), v.forward(value)]
            }
        };
        [q.forward(query), key, value]
    }

    /// Context and, if asked for, weights of the attention itself, from what the linear layers give.
    fn attend(
        &self,
        inputs: [Tensor<3>; 3],
        masks: Masks,
        weights: bool,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        let weighting = Weighting {
            layer: "MultiHeadAttention",
            min_float: self.min_float,
            quiet_softmax: self.quiet_softmax,
            dropout: &self.dropout,
        };
        let projections = [&self.query, &self.key, &self.value];
        if projections.iter().all(|layer| layer.on_bits(&inputs[0])) {
            return weighting.attend(inputs, masks, self.n_heads, weights);
        }
        let [query, key, value] = inputs.map(|input| split_heads(input, self.n_heads));
        let scores = query
            .matmul(key.transpose())
            .div_scalar(libm::sqrtf(self.d_k as f32));
        let found = weighting.weights(scores, masks);
        let context = join_heads(found.clone().matmul(value));
        (context, weights.then_some(found))
    }
}

impl ModuleDisplay for MultiHeadAttention {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("d_model", &self.d_model)
            .add("n_heads", &self.n_heads)
            .add("d_k", &self.d_k)
            .add("dropout", &self.dropout.prob)
            .add("min_float", &self.min_float)
            .add("quiet_softmax", &self.quiet_softmax)
            .optional()
    }
}

/// What several layers make of one input.
fn all<const N: usize>(layers: [&Linear; N], input: Tensor<3>) -> [Tensor<3>; N] {
    let outputs = Linear::forward_each(&layers, input);
    outputs.try_into().expect("one for each layer")
}

/// Cache of a [`MultiHeadAttention`] layer, for decoding token by token.
pub struct MhaCache {
    query: LinearCache,
    key: LinearCache,
    value: LinearCache,
    output: LinearCache,
}

/// What is kept of a linear layer's outputs.
enum LinearCache {
    /// All; a call appends one.
    Autoregressive(TensorCache<3>),
    /// Those of the first call.
    Full(TensorCache<3>),
}

impl LinearCache {
    fn autoregressive() -> Self {
        Self::Autoregressive(TensorCache::empty())
    }

    fn forward(&mut self, input: Tensor<3>, linear: &Linear) -> Tensor<3> {
        match self {
            Self::Autoregressive(cache) => {
                cache.forward_autoregressive(input, 1, |input| linear.forward(input))
            }
            Self::Full(cache) => cache.forward_full(input, |input| linear.forward(input)),
        }
    }
}

impl MhaCache {
    /// Creates an empty cache for autoregressive inference.
    pub fn autoregressive() -> Self {
        Self {
            query: LinearCache::autoregressive(),
            key: LinearCache::autoregressive(),
            value: LinearCache::autoregressive(),
            output: LinearCache::autoregressive(),
        }
    }

    /// Creates an empty cache for autoregressive inference with a fixed memory for keys and values, as
    /// in cross-attention.
    pub fn autoregressive_cross_attention() -> Self {
        Self {
            key: LinearCache::Full(TensorCache::empty()),
            value: LinearCache::Full(TensorCache::empty()),
            ..Self::autoregressive()
        }
    }
}
