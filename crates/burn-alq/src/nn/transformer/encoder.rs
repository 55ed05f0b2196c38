use alloc::vec::Vec;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn_core::tensor::{Bool, Device, Tensor};
use burn_nn::{Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig};

use super::block::Block;
use super::{PositionWiseFeedForward, PositionWiseFeedForwardConfig};
use crate::nn::activation::ActivationConfig;
use crate::nn::attention::{MhaCache, MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use crate::nn::cache::TensorCache;

/// Configuration to create a [`TransformerEncoder`] with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct TransformerEncoderConfig {
    /// The size of the model.
    pub d_model: usize,
    /// The size of the position-wise feed-forward network.
    pub d_ff: usize,
    /// The number of attention heads.
    pub n_heads: usize,
    /// The number of layers.
    pub n_layers: usize,
    /// The dropout rate. Default: 0.1
    #[config(default = 0.1)]
    pub dropout: f64,
    /// Layer norm will be applied first instead of after the other modules.
    #[config(default = false)]
    pub norm_first: bool,
    /// Use "quiet softmax" instead of regular softmax.
    #[config(default = false)]
    pub quiet_softmax: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/libm::sqrt(3.0),fan_out_only:false}")]
    pub initializer: Initializer,
    /// The activation function used in the position-wise feed-forward network. Default: Gelu
    #[config(default = "ActivationConfig::Gelu")]
    pub activation: ActivationConfig,
    /// The epsilon value for layer normalization. Default: 1e-5
    #[config(default = 1e-5)]
    pub layer_norm_eps: f64,
}

/// Burn's transformer encoder ([`TransformerEncoder`](burn_nn::transformer::TransformerEncoder)).
///
/// Should be created with [`TransformerEncoderConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct TransformerEncoder {
    /// The layers.
    pub layers: Vec<TransformerEncoderLayer>,
    /// The size of the model.
    pub d_model: usize,
    /// The size of the position-wise feed-forward network.
    pub d_ff: usize,
    /// The number of attention heads.
    pub n_heads: usize,
    /// The number of layers.
    pub n_layers: usize,
    /// The dropout rate. Default: 0.1
    pub dropout: f64,
    /// Layer norm will be applied first instead of after the other modules.
    pub norm_first: bool,
    /// Use "quiet softmax" instead of regular softmax.
    pub quiet_softmax: bool,
}

impl TransformerEncoderConfig {
    /// Initializes a new transformer encoder.
    ///
    /// # Panics
    /// If `n_heads` does not divide `d_model`.
    pub fn init(&self, device: &Device) -> TransformerEncoder {
        let layers = (0..self.n_layers).map(|_| TransformerEncoderLayer::new(self, device));
        TransformerEncoder {
            layers: layers.collect(),
            d_model: self.d_model,
            d_ff: self.d_ff,
            n_heads: self.n_heads,
            n_layers: self.n_layers,
            dropout: self.dropout,
            norm_first: self.norm_first,
            quiet_softmax: self.quiet_softmax,
        }
    }
}

impl ModuleDisplay for TransformerEncoder {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        content
            .add("d_model", &self.d_model)
            .add("d_ff", &self.d_ff)
            .add("n_heads", &self.n_heads)
            .add("n_layers", &self.n_layers)
            .add("dropout", &self.dropout)
            .add("norm_first", &self.norm_first)
            .add("quiet_softmax", &self.quiet_softmax)
            .optional()
    }
}

/// [`TransformerEncoder`] forward pass input argument.
#[derive(Debug)]
pub struct TransformerEncoderInput {
    tensor: Tensor<3>,
    mask_pad: Option<Tensor<2, Bool>>,
    mask_attn: Option<Tensor<3, Bool>>,
}

impl TransformerEncoderInput {
    /// Creates an input argument, of shape `[batch, seq_length, d_model]`.
    pub fn new(tensor: Tensor<3>) -> Self {
        Self {
            tensor,
            mask_pad: None,
            mask_attn: None,
        }
    }

    /// Registers the padding mask, `[batch, seq_length]`.
    pub fn mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.mask_pad = Some(mask_pad);
        self
    }

    /// Registers the attention mask, `[batch, seq_length, seq_length]`.
    pub fn mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.mask_attn = Some(mask_attn);
        self
    }
}

impl TransformerEncoder {
    /// Applies the forward pass on the input tensor.
    ///
    /// # Shapes
    /// - input, result: `[batch, seq_length, d_model]`
    ///
    /// # Panics
    /// If an axis of the input or a mask is another one.
    pub fn forward(&self, input: TransformerEncoderInput) -> Tensor<3> {
        let mut x = input.tensor;
        for layer in &self.layers {
            x = layer.forward(x, input.mask_pad.clone(), input.mask_attn.clone());
        }
        x
    }

    /// Applies the forward pass on the input tensor using an autoregressive cache: of all tokens so far,
    /// only the last one is computed.
    ///
    /// # Shapes
    /// - input, result: `[batch, seq_length, d_model]`
    ///
    /// # Panics
    /// If an axis of the input or a mask is another one, or the cache is of another transformer.
    pub fn forward_autoregressive_inference(
        &self,
        input: TransformerEncoderInput,
        cache: &mut TransformerEncoderAutoregressiveCache,
    ) -> Tensor<3> {
        let mut x = input.tensor;
        assert_eq!(
            cache.layers.len(),
            self.layers.len(),
            "TransformerEncoder: the cache is of a transformer with another number of layers"
        );
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            let (mask_pad, mask_attn) = (input.mask_pad.clone(), input.mask_attn.clone());
            x = layer.forward_autoregressive_inference(x, mask_pad, mask_attn, cache);
        }
        x
    }

    /// Creates an empty autoregressive cache.
    pub fn new_autoregressive_cache(&self) -> TransformerEncoderAutoregressiveCache {
        let layers = self.layers.iter();
        TransformerEncoderAutoregressiveCache {
            layers: layers
                .map(|_| TransformerEncoderLayerAutoregressiveCache::empty())
                .collect(),
        }
    }
}

/// A layer of a [`TransformerEncoder`].
#[derive(Module, Debug)]
pub struct TransformerEncoderLayer {
    /// Multi-head self-attention sub-layer.
    pub mha: MultiHeadAttention,
    /// Position-wise feed-forward sub-layer.
    pub pwff: PositionWiseFeedForward,
    /// Layer normalization between the sub-layers.
    pub norm_1: LayerNorm,
    /// Layer normalization before the first sub-layer, or behind the last one.
    pub norm_2: LayerNorm,
    /// Dropout module applied to residual connections.
    pub dropout: Dropout,
    /// If `true`, apply layer normalization before sub-layers (pre-norm), otherwise apply it after
    /// (post-norm).
    pub norm_first: bool,
}

impl TransformerEncoderLayer {
    /// Creates a new layer from the configuration of its encoder.
    pub fn new(config: &TransformerEncoderConfig, device: &Device) -> Self {
        let norm = || {
            LayerNormConfig::new(config.d_model)
                .with_epsilon(config.layer_norm_eps)
                .init(device)
        };
        Self {
            mha: MultiHeadAttentionConfig::new(config.d_model, config.n_heads)
                .with_initializer(config.initializer.clone())
                .with_dropout(config.dropout)
                .with_quiet_softmax(config.quiet_softmax)
                .init(device),
            norm_1: norm(),
            norm_2: norm(),
            pwff: PositionWiseFeedForwardConfig::new(config.d_model, config.d_ff)
                .with_initializer(config.initializer.clone())
                .with_dropout(config.dropout)
                .with_activation(config.activation.clone())
                .init(device),
            dropout: DropoutConfig::new(config.dropout).init(),
            norm_first: config.norm_first,
        }
    }

    /// Applies the forward pass on the input tensor.
    ///
    /// # Shapes
    /// - `input`, result: `[batch, seq_length, d_model]`
    /// - `mask_pad`: `[batch, seq_length]`
    /// - `mask_attn`: `[batch, seq_length, seq_length]`
    ///
    /// # Panics
    /// If an axis of the input or a mask is another one.
    pub fn forward(
        &self,
        input: Tensor<3>,
        mask_pad: Option<Tensor<2, Bool>>,
        mask_attn: Option<Tensor<3, Bool>>,
    ) -> Tensor<3> {
        self.run(input, (mask_pad, mask_attn), None)
    }

    /// Applies the forward pass using an autoregressive cache.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_autoregressive_inference(
        &self,
        input: Tensor<3>,
        mask_pad: Option<Tensor<2, Bool>>,
        mask_attn: Option<Tensor<3, Bool>>,
        cache: &mut TransformerEncoderLayerAutoregressiveCache,
    ) -> Tensor<3> {
        self.run(input, (mask_pad, mask_attn), Some(cache))
    }

    fn run(
        &self,
        x: Tensor<3>,
        masks: (Option<Tensor<2, Bool>>, Option<Tensor<3, Bool>>),
        mut cache: Option<&mut TransformerEncoderLayerAutoregressiveCache>,
    ) -> Tensor<3> {
        let block = Block {
            dropout: &self.dropout,
            norm_first: self.norm_first,
        };
        /// The cache of one part.
        macro_rules! part {
            ($part:ident) => {
                cache.as_deref_mut().map(|cache| &mut cache.$part)
            };
        }
        let input = MhaInput::self_attn(block.first(&x, &self.norm_2, part!(norm_2)));
        let x = block.attend(x, &self.mha, input.masked(masks), part!(mha));
        let [x, input] = block.next(x, &self.norm_1, part!(norm_1));
        let x = block.feed_forward(x, &self.pwff, input, part!(pwff));
        block.last(x, &self.norm_2, part!(norm_2))
    }
}

/// Autoregressive cache of a [`TransformerEncoderLayer`].
pub struct TransformerEncoderLayerAutoregressiveCache {
    /// Multi-head attention cache.
    pub mha: MhaCache,
    /// Position-wise feed-forward cache.
    pub pwff: TensorCache<3>,
    /// First layer norm cache.
    pub norm_1: TensorCache<3>,
    /// Second layer norm cache.
    pub norm_2: TensorCache<3>,
}

impl TransformerEncoderLayerAutoregressiveCache {
    /// Creates an empty cache.
    pub fn empty() -> Self {
        Self {
            mha: MhaCache::autoregressive(),
            pwff: TensorCache::empty(),
            norm_1: TensorCache::empty(),
            norm_2: TensorCache::empty(),
        }
    }
}

/// Autoregressive cache of a [`TransformerEncoder`].
pub struct TransformerEncoderAutoregressiveCache {
    layers: Vec<TransformerEncoderLayerAutoregressiveCache>,
}
