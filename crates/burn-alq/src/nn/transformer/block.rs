//! What encoder and decoder layers are made of: sub-layers with a residual around and a norm before or
//! behind.

use burn_core::tensor::Tensor;
use burn_nn::{Dropout, LayerNorm};

use super::PositionWiseFeedForward;
use crate::nn::Epilogue;
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

    /// `x` and an attention layer's output.
    pub fn attend(
        &self,
        x: Tensor<3>,
        attention: &MultiHeadAttention,
        input: MhaInput,
        cache: Option<&mut MhaCache>,
    ) -> Tensor<3> {
        self.add(x, |end| attention.run(input, cache, end, false).0)
    }

    /// `x` and the output of the feed-forward network.
    pub fn feed_forward(
        &self,
        x: Tensor<3>,
        network: &PositionWiseFeedForward,
        input: Tensor<3>,
        cache: Option<&mut TensorCache<3>>,
    ) -> Tensor<3> {
        self.add(x, |end| match cache {
            None => network.forward_then(input, end),
            cache => end.apply(cached(cache, input, |input| network.forward(input))),
        })
    }

    /// Behind a sub-layer and its residual `x`: the residual and the input of the next one.
    pub fn next(
        &self,
        x: Tensor<3>,
        norm: &LayerNorm,
        cache: Option<&mut TensorCache<3>>,
    ) -> [Tensor<3>; 2] {
        let normed = cached(cache, x.clone(), |x| norm.forward(x));
        let x = if self.norm_first { x } else { normed.clone() };
        [x, normed]
    }

    /// Behind the last sub-layer and its residual.
    pub fn last(
        &self,
        x: Tensor<3>,
        norm: &LayerNorm,
        cache: Option<&mut TensorCache<3>>,
    ) -> Tensor<3> {
        if self.norm_first {
            x
        } else {
            cached(cache, x, |x| norm.forward(x))
        }
    }

    /// `x` and what a sub-layer gives, which adds it itself where dropout between them does nothing.
    fn add(&self, x: Tensor<3>, sub_layer: impl FnOnce(Epilogue<'_, 3>) -> Tensor<3>) -> Tensor<3> {
        if x.device().is_autodiff() {
            return x + self.dropout.forward(sub_layer(Epilogue::default()));
        }
        sub_layer(Epilogue {
            residual: Some(x),
            ..Epilogue::default()
        })
    }
}

/// What `f` makes of a sequence, of which a cache has all but the last token.
fn cached(
    cache: Option<&mut TensorCache<3>>,
    x: Tensor<3>,
    f: impl Fn(Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    match cache {
        Some(cache) => cache.forward_autoregressive(x, 1, f),
        None => f(x),
    }
}
