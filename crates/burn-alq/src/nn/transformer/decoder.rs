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

/// Configuration to create a [`TransformerDecoder`] with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct TransformerDecoderConfig {
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

/// Burn's transformer decoder ([`TransformerDecoder`](burn_nn::transformer::TransformerDecoder)).
///
/// Should be created with [`TransformerDecoderConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct TransformerDecoder {
    /// The layers.
    pub layers: Vec<TransformerDecoderLayer>,
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

impl TransformerDecoderConfig {
    /// Initializes a new transformer decoder.
    ///
    /// # Panics
    /// If `n_heads` does not divide `d_model`.
    pub fn init(&self, device: &Device) -> TransformerDecoder {
        let layers = (0..self.n_layers).map(|_| TransformerDecoderLayer::new(self, device));
        TransformerDecoder {
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

impl ModuleDisplay for TransformerDecoder {
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

/// [`TransformerDecoder`] forward pass input argument.
#[derive(Debug)]
pub struct TransformerDecoderInput {
    target: Tensor<3>,
    target_mask_pad: Option<Tensor<2, Bool>>,
    target_mask_attn: Option<Tensor<3, Bool>>,
    memory: Tensor<3>,
    memory_mask_pad: Option<Tensor<2, Bool>>,
    memory_mask_attn: Option<Tensor<3, Bool>>,
}

impl TransformerDecoderInput {
    /// Creates an input argument.
    ///
    /// # Shapes
    /// - `target`: `[batch, seq_length_1, d_model]`
    /// - `memory`: `[batch, seq_length_2, d_model]`
    pub fn new(target: Tensor<3>, memory: Tensor<3>) -> Self {
        Self {
            target,
            target_mask_pad: None,
            target_mask_attn: None,
            memory,
            memory_mask_pad: None,
            memory_mask_attn: None,
        }
    }

    /// Registers the memory padding mask, `[batch, seq_length_2]`.
    pub fn memory_mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.memory_mask_pad = Some(mask_pad);
        self
    }

    /// Registers the memory attention mask, `[batch, seq_length_1, seq_length_2]`.
    pub fn memory_mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.memory_mask_attn = Some(mask_attn);
        self
    }

    /// Registers the target padding mask, `[batch, seq_length_1]`.
    pub fn target_mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.target_mask_pad = Some(mask_pad);
        self
    }

    /// Registers the target attention mask, `[batch, seq_length_1, seq_length_1]`.
    pub fn target_mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.target_mask_attn = Some(mask_attn);
        self
    }
}

/// A layer of a [`TransformerDecoder`].
#[derive(Module, Debug)]
pub struct TransformerDecoderLayer {
    /// Cross-attention module.
    pub cross_attn: MultiHeadAttention,
    /// Self-attention module.
    pub self_attn: MultiHeadAttention,
    /// Position-wise feed-forward module.
    pub pwff: PositionWiseFeedForward,
    /// First layer norm.
    pub norm_1: LayerNorm,
    /// Second layer norm.
    pub norm_2: LayerNorm,
    /// Third layer norm.
    pub norm_3: LayerNorm,
    /// Dropout.
    pub dropout: Dropout,
    /// Whether to apply norm first.
    pub norm_first: bool,
}

/// Autoregressive cache of a [`TransformerDecoderLayer`].
pub struct TransformerDecoderLayerAutoregressiveCache {
    /// Cross-attention cache.
    pub cross_attn: MhaCache,
    /// Self-attention cache.
    pub self_attn: MhaCache,
    /// Position-wise feed-forward cache.
    pub pwff: TensorCache<3>,
    /// First layer norm cache.
    pub norm_1: TensorCache<3>,
    /// Second layer norm cache.
    pub norm_2: TensorCache<3>,
    /// Third layer norm cache.
    pub norm_3: TensorCache<3>,
}

impl TransformerDecoderLayerAutoregressiveCache {
    /// Creates an empty cache.
    pub fn empty() -> Self {
        Self {
            cross_attn: MhaCache::autoregressive_cross_attention(),
            self_attn: MhaCache::autoregressive(),
            pwff: TensorCache::empty(),
            norm_1: TensorCache::empty(),
            norm_2: TensorCache::empty(),
            norm_3: TensorCache::empty(),
        }
    }
}

/// Autoregressive cache of a [`TransformerDecoder`].
pub struct TransformerDecoderAutoregressiveCache {
    layers: Vec<TransformerDecoderLayerAutoregressiveCache>,
}

impl TransformerDecoderLayer {
    /// Creates a new layer from the configuration of its decoder.
    pub fn new(config: &TransformerDecoderConfig, device: &Device) -> Self {
        let attention = || {
            MultiHeadAttentionConfig::new(config.d_model, config.n_heads)
                .with_initializer(config.initializer.clone())
                .with_dropout(config.dropout)
                .with_quiet_softmax(config.quiet_softmax)
                .init(device)
        };
        let norm = || {
            LayerNormConfig::new(config.d_model)
                .with_epsilon(config.layer_norm_eps)
                .init(device)
        };
        Self {
            self_attn: attention(),
            cross_attn: attention(),
            norm_1: norm(),
            norm_2: norm(),
            norm_3: norm(),
            pwff: PositionWiseFeedForwardConfig::new(config.d_model, config.d_ff)
                .with_initializer(config.initializer.clone())
                .with_dropout(config.dropout)
                .with_activation(config.activation.clone())
                .init(device),
            dropout: DropoutConfig::new(config.dropout).init(),
            norm_first: config.norm_first,
        }
    }

    /// Applies the forward pass; the result's target is the layer's output.
    ///
    /// # Panics
    /// If an axis of the target, the memory or a mask is another one.
    pub fn forward(&self, input: TransformerDecoderInput) -> TransformerDecoderInput {
        self.run(input, None)
    }

    /// Applies the forward pass using an autoregressive cache.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_autoregressive_inference(
        &self,
        input: TransformerDecoderInput,
        cache: &mut TransformerDecoderLayerAutoregressiveCache,
    ) -> TransformerDecoderInput {
        self.run(input, Some(cache))
    }

    fn run(
        &self,
        mut input: TransformerDecoderInput,
        mut cache: Option<&mut TransformerDecoderLayerAutoregressiveCache>,
    ) -> TransformerDecoderInput {
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
        let x = input.target;
        let query = block.first(&x, &self.norm_3, part!(norm_3));
        let masks = (
            input.target_mask_pad.clone(),
            input.target_mask_attn.clone(),
        );
        let own = MhaInput::self_attn(query).masked(masks);
        let x = block.attend(x, &self.self_attn, own, part!(self_attn));
        let [x, query] = block.next(x, &self.norm_1, part!(norm_1));
        let masks = (
            input.memory_mask_pad.clone(),
            input.memory_mask_attn.clone(),
        );
        let memory = MhaInput::cross_attn(query, input.memory.clone()).masked(masks);
        let x = block.attend(x, &self.cross_attn, memory, part!(cross_attn));
        let [x, inner] = block.next(x, &self.norm_2, part!(norm_2));
        let x = block.feed_forward(x, &self.pwff, inner, part!(pwff));
        input.target = block.last(x, &self.norm_3, part!(norm_3));
        input
    }
}

impl TransformerDecoder {
    /// Applies the forward pass.
    ///
    /// # Shapes
    /// - result: `[batch, seq_length_1, d_model]`
    ///
    /// # Panics
    /// If an axis of the target, the memory or a mask is another one.
    pub fn forward(&self, mut input: TransformerDecoderInput) -> Tensor<3> {
        for layer in &self.layers {
            input = layer.forward(input);
        }
        input.target
    }

    /// Applies the forward pass on the input using an autoregressive cache: of all tokens so far, only
    /// the last one is computed.
    ///
    /// # Shapes
    /// - result: `[batch, seq_length_1, d_model]`
    ///
    /// # Panics
    /// If an axis of the target, the memory or a mask is another one, or the cache is of
    /// another transformer.
    pub fn forward_autoregressive_inference(
        &self,
        mut input: TransformerDecoderInput,
        cache: &mut TransformerDecoderAutoregressiveCache,
    ) -> Tensor<3> {
        assert_eq!(
            cache.layers.len(),
            self.layers.len(),
            "TransformerDecoder: the cache is of a transformer with another number of layers"
        );
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            input = layer.forward_autoregressive_inference(input, cache);
        }
        input.target
    }

    /// Creates an empty autoregressive cache.
    pub fn new_autoregressive_cache(&self) -> TransformerDecoderAutoregressiveCache {
        let layers = self.layers.iter();
        TransformerDecoderAutoregressiveCache {
            layers: layers
                .map(|_| TransformerDecoderLayerAutoregressiveCache::empty())
                .collect(),
        }
    }
}
