//! Attention between its linear layers: what it is, and its default body.

use alloc::vec;

use burn_core as burn;
use burn_core::backend::tensor::FloatTensor;
use burn_core::backend::{Backend, ExtensionType, TensorMetadata, get_device_settings};
use burn_core::tensor::Shape;

use super::{Mask, Term};

/// How queries attend to keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Heads, side by side in the rows; divides `d_model`.
    pub heads: usize,
    /// What scores are multiplied by: `1/√(d_model / heads)` in Burn's modules.
    pub scale: f64,
    /// The score of a pair that is masked, before the softmax.
    pub min_float: f64,
    /// Quiet softmax: `e^x / (1 + Σ e^x)`.
    pub quiet: bool,
    /// Whether the weights are wanted too: they take memory that the context alone does not.
    pub weights: bool,
}

/// What an attention gives.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Attended<B: Backend> {
    /// Values by their weights, `[batch, queries, d_model]`.
    pub context: FloatTensor<B>,
    /// The softmax, `[batch, heads, queries, keys]`, if it was asked for.
    #[extension_type]
    pub weights: Term<B>,
}

impl Attention {
    /// `[batch, queries, keys, values of a head]`.
    ///
    /// # Panics
    /// If the heads do not divide the rows, or keys or values have other rows.
    pub(super) fn sizes(&self, [query, key, value]: [Shape; 3]) -> [usize; 4] {
        let [batch, queries, d_model] = query.dims();
        let [_, keys, _] = key.dims();
        assert!(
            self.heads > 0 && d_model.is_multiple_of(self.heads),
            "attention: rows of {d_model} do not fall into {} heads",
            self.heads
        );
        for (name, shape) in [("key", key), ("value", value)] {
            let found: [usize; 3] = shape.dims();
            let expected = [batch, keys, d_model];
            assert_eq!(found, expected, "attention: the shape of `{name}`");
        }
        [batch, queries, keys, d_model / self.heads]
    }
}

pub(super) fn attend<B: Backend>(
    rows: [FloatTensor<B>; 3],
    [pad, pairs]: [Mask<B>; 2],
    attention: &Attention,
) -> Attended<B> {
    let shapes = rows.each_ref().map(TensorMetadata::shape);
    let [batch, queries, keys, width] = attention.sizes(shapes);
    let heads = attention.heads;
    let [query, key, value] = rows.map(|rows| {
        let length = rows.shape()[1];
        let split = B::float_reshape(rows, [batch, length, heads, width].into());
        B::float_swap_dims(split, 1, 2)
    });
    let scores = B::float_matmul(query, B::float_swap_dims(key, 2, 3));
    let mut scores = B::float_mul_scalar(scores, attention.scale.into());
    for (mask, rows) in [(pad, 1), (pairs, queries)] {
        if let Mask::Tensor(mask) = mask {
            let mask = B::bool_reshape(mask, [batch, 1, rows, keys].into());
            let mask = B::bool_expand(mask, [batch, heads, queries, keys].into());
            scores = B::float_mask_fill(scores, mask, attention.min_float.into());
        }
    }
    let weights = if attention.quiet {
        quiet_softmax::<B>(scores)
    } else {
        B::softmax(scores, 3)
    };
    let context = B::float_swap_dims(B::float_matmul(weights.clone(), value), 1, 2);
    Attended {
        context: B::float_reshape(context, Shape::from(vec![batch, queries, heads * width])),
        weights: if attention.weights {
            Term::Tensor(weights)
        } else {
            Term::None
        },
    }
}

/// As Burn's function of this name, over axis 3.
fn quiet_softmax<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let largest = B::float_max_dim(B::float_detach(x.clone()), 3);
    let bool_dtype = get_device_settings::<B>(&x.device()).bool_dtype;
    let none = B::float_equal_elem(largest.clone(), f32::NEG_INFINITY.into(), bool_dtype);
    let largest = B::float_mask_fill(largest, none, 0f32.into());
    let e = B::float_exp(B::float_sub(x, largest.clone()));
    let rest = B::float_exp(B::float_neg(largest));
    let sum = B::float_add(B::float_sum_dim(e.clone(), 3), rest);
    B::float_div(e, sum)
}
