use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::Module;
use burn_core::tensor::{Bool, Device, Tensor, assert_shape};
use burn_nn::{Dropout, DropoutConfig, Initializer};

use super::scores::{Masks, Weighting, join_heads, split_heads};
use crate::nn::cache::TensorCache;
use crate::nn::{Linear, LinearConfig};

/// Configuration to create a [`CrossAttention`] layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct CrossAttentionConfig {
    /// Size of the query.
    pub d_model: usize,
    /// Size of the context.
    pub d_context: usize,
    /// Number of heads of the query.
    pub n_heads: usize,
    /// Number of heads of key and value: 1 for multi-query attention, `n_heads` for multi-head.
    pub n_heads_kv: usize,
    /// Size of a single head.
    pub d_head: usize,
    /// Dropout rate.
    #[config(default = 0.1)]
    pub dropout: f64,
    /// What masked scores become before the softmax.
    #[config(default = -1.0e4)]
    pub min_float: f64,
    /// Use "quiet softmax" instead of regular softmax.
    #[config(default = false)]
    pub quiet_softmax: bool,
}

/// Burn's cross-attention ([`CrossAttention`](burn_nn::attention::CrossAttention)), with groups of
/// queries that share a key and a value.
///
/// Should be created with [`CrossAttentionConfig`].
#[derive(Module, Debug)]
pub struct CrossAttention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    dropout: Dropout,
    n_heads: usize,
    n_heads_kv: usize,
    d_head: usize,
    scale: f64,
    min_float: f64,
    quiet_softmax: bool,
}

/// Cache of a [`CrossAttention`] layer, for a context that stays.
pub struct CrossAttentionCache {
    /// Cached key tensor, `[batch, n_heads_kv, seq_length, d_head]`.
    pub k: TensorCache<4>,
    /// Cached value tensor, `[batch, n_heads_kv, seq_length, d_head]`.
    pub v: TensorCache<4>,
}

impl CrossAttentionCache {
    /// Creates a new empty cache.
    pub fn new() -> Self {
        Self {
            k: TensorCache::empty(),
            v: TensorCache::empty(),
        }
    }
}

impl Default for CrossAttentionCache {
    fn default() -> Self {
        Self::new()
    }
}

impl CrossAttentionConfig {
    /// Initializes a new layer.
    ///
    /// # Panics
    /// If `n_heads_kv` does not divide `n_heads`.
    pub fn init(&self, device: &Device) -> CrossAttention {
        assert!(
            self.n_heads_kv > 0 && self.n_heads.is_multiple_of(self.n_heads_kv),
            "CrossAttentionConfig: {} `n_heads` do not fall into {} `n_heads_kv`",
            self.n_heads,
            self.n_heads_kv
        );
        let root = libm::sqrt(self.d_head as f64);
        let initializer = Initializer::KaimingUniform {
            gain: 1.0 / root,
            fan_out_only: false,
        };
        let linear = |d_input, d_output| {
            LinearConfig::new(d_input, d_output)
                .with_initializer(initializer.clone())
                .init(device)
        };
        let (width, width_kv) = (self.n_heads * self.d_head, self.n_heads_kv * self.d_head);
        CrossAttention {
            query: linear(self.d_model, width),
            key: linear(self.d_context, width_kv),
            value: linear(self.d_context, width_kv),
            output: linear(width, self.d_model),
            dropout: DropoutConfig::new(self.dropout).init(),
            n_heads: self.n_heads,
            n_heads_kv: self.n_heads_kv,
            d_head: self.d_head,
            scale: root.recip(),
            min_float: self.min_float,
            quiet_softmax: self.quiet_softmax,
        }
    }
}

impl CrossAttention {
    /// Applies cross-attention to a query, with a context as key and value.
    ///
    /// # Shapes
    /// - `query`, result: `[batch, seq_length_1, d_model]`
    /// - `context`: `[batch, seq_length_2, d_context]`
    /// - `mask`: `[batch, seq_length_2]`; what is true is masked out
    ///
    /// # Panics
    /// If an axis of the query, the context or the mask is another one.
    pub fn forward(
        &self,
        query: Tensor<3>,
        context: Tensor<3>,
        mask: Option<Tensor<2, Bool>>,
    ) -> Tensor<3> {
        // Kept for this call alone.
        self.forward_cache(query, context, mask, &mut CrossAttentionCache::new())
    }

    /// [`forward`](Self::forward) with key and value of the first call that used the cache.
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    pub fn forward_cache(
        &self,
        query: Tensor<3>,
        context: Tensor<3>,
        mask: Option<Tensor<2, Bool>>,
        cache: &mut CrossAttentionCache,
    ) -> Tensor<3> {
        let [batch, ..] = query.dims();
        assert_shape!(context, [batch, _, _]);
        let query = split_heads(self.query.forward(query), self.n_heads);
        let heads = |layer: &Linear, context| split_heads(layer.forward(context), self.n_heads_kv);
        let context_of_key = context.clone();
        let key = cache
            .k
            .forward_full(context_of_key, |c| heads(&self.key, c));
        let value = cache.v.forward_full(context, |c| heads(&self.value, c));
        let [key, value] = [key, value].map(|tensor| self.repeat_heads(tensor));
        let weighting = Weighting {
            layer: "CrossAttention",
            min_float: self.min_float,
            quiet_softmax: self.quiet_softmax,
            dropout: &self.dropout,
        };
        let masks = Masks {
            pad: mask,
            attn: None,
        };
        let projections = [&self.query, &self.key, &self.value];
        if projections.iter().all(|layer| layer.on_bits(&query)) {
            let rows = [query, key, value].map(join_heads);
            let (context, _) = weighting.attend(rows, masks, self.n_heads, false);
            return self.output.forward(context);
        }
        let scores = query.matmul(key.transpose()) * self.scale;
        let weights = weighting.weights(scores, masks);
        self.output.forward(join_heads(weights.matmul(value)))
    }

    /// Each head of a key or a value once for every query that shares it.
    fn repeat_heads(&self, tensor: Tensor<4>) -> Tensor<4> {
        if self.n_heads == self.n_heads_kv {
            return tensor;
        }
        let [batch, heads, length, width] = tensor.dims();
        let queries = self.n_heads / self.n_heads_kv;
        tensor
            .reshape([batch, heads, 1, length, width])
            .expand([batch, heads, queries, length, width])
            .reshape([batch, heads * queries, length, width])
    }
}
