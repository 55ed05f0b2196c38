//! What encoder and decoder layers are made of: sub-layers with a residual around and a norm before or
//! behind.

use burn_core::tensor::{Bool, Tensor};
use burn_nn::{Dropout, LayerNorm};

use crate::nn::attention::{MhaCache, MhaInput, MultiHeadAttention};
use crate::nn::cache::TensorCache;

/// A layer's way to add and to normalize.
pub(super) struct Block<'a> {
    pub dropout: &'a Dropout,
    /// Whether norms come before sub-layers instead of behind the sums.
    pub norm_first: bool,
}

impl Block<'_> {
    /// The input of a layer's first sub-layer.
    pub fn first(
        &self,
        x: &Tensor<3>,
        norm: &LayerNorm,
        cache: Option<&mut TensorCache<3>>,
    ) -> Tensor<3> {
        if self.norm_first {
            cached(cache, x.clone(), |x| norm.forward(x))
        } else {
            x.clone()
        }
    }

    /// Behind a sub-layer: the sum, and the input of the next one.
    pub fn next(
        &self,
        x: Tensor<3>,
        output: Tensor<3>,
        norm: &LayerNorm,
        cache: Option<&mut TensorCache<3>>,
    ) -> [Tensor<3>; 2] {
        let x = self.add(x, output);
        let normed = cached(cache, x.clone(), |x| norm.forward(x));
        let x = if self.norm_first { x } else { normed.clone() };
        [x, normed]
    }

    /// Behind the last sub-layer.
    pub fn last(
        &self,
        x: Tensor<3>,
        output: Tensor<3>,
        norm: &LayerNorm,
        cache: Option<&mut TensorCache<3>>,
    ) -> Tensor<3> {
        let x = self.add(x, output);
        if self.norm_first {
            x
        } else {
            cached(cache, x, |x| norm.forward(x))
        }
    }

    fn add(&self, x: Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        x + self.dropout.forward(output)
    }
}

/// What an attention layer with masks makes of query, key and value.
pub(super) fn attend(
    attention: &MultiHeadAttention,
    input: MhaInput,
    (mask_pad, mask_attn): (Option<Tensor<2, Bool>>, Option<Tensor<3, Bool>>),
    cache: Option<&mut MhaCache>,
) -> Tensor<3> {
    attention
        .run(input.masked(mask_pad, mask_attn), cache)
        .context
}

/// What `f` makes of a sequence, of which a cache has all but the last token.
pub(super) fn cached(
    cache: Option<&mut TensorCache<3>>,
    x: Tensor<3>,
    f: impl Fn(Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    match cache {
        Some(cache) => cache.forward_autoregressive(x, 1, f),
        None => f(x),
    }
}
