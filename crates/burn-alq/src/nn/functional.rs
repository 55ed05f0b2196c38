//! What stands between the layers of a model, on tensors: on CPUs by kernels of `multibit`, elsewhere
//! by Burn's own operations. All of it has gradients.

use burn_core::backend::Dispatch;
use burn_core::tensor::{Bool, Tensor};
use multibit::cpu::Activation;

pub use crate::ops::Attention;
use crate::ops::{AlqOps, Attended, Mask, Term};

/// An activation of each value.
pub fn activate<const D: usize>(input: Tensor<D>, activation: Activation) -> Tensor<D> {
    let input = input.into_dispatch();
    Tensor::from_dispatch(<Dispatch as AlqOps>::alq_activate(input, activation))
}

/// Layer norm over the last axis, `γ·(x − mean)/√(variance + ε) + β`.
///
/// # Shapes
/// - `input`, result: `[..., d_model]`
/// - `gamma`, `beta`: `[d_model]`
///
/// # Panics
/// If `gamma` or `beta` has another length than the last axis.
pub fn layer_norm<const D: usize>(
    input: Tensor<D>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    let d_model = input.dims()[D - 1];
    for (name, term) in [("gamma", Some(&gamma)), ("beta", beta.as_ref())] {
        if let Some(term) = term {
            assert_eq!(term.dims(), [d_model], "layer_norm: the shape of `{name}`");
        }
    }
    Tensor::from_dispatch(<Dispatch as AlqOps>::alq_layer_norm(
        input.into_dispatch(),
        gamma.into_dispatch(),
        term(beta),
        epsilon,
    ))
}

/// What Burn's `MultiHeadAttention` computes between its linear layers: the context, and the weights
/// if `attention` asks for them.
///
/// Queries, keys and values may be parts of the last axis of one tensor: on Flex they are read where
/// they lie.
///
/// # Shapes
/// - `query`, context: `[batch, queries, d_model]`
/// - `key`, `value`: `[batch, keys, d_model]`
/// - `mask_pad`: `[batch, keys]`, `mask_attn`: `[batch, queries, keys]`; true is masked
/// - weights: `[batch, heads, queries, keys]`
///
/// # Panics
/// If the heads do not divide `d_model`, or a shape does not fit.
pub fn attention(
    [query, key, value]: [Tensor<3>; 3],
    mask_pad: Option<Tensor<2, Bool>>,
    mask_attn: Option<Tensor<3, Bool>>,
    attention: Attention,
) -> (Tensor<3>, Option<Tensor<4>>) {
    let [batch, queries, _] = query.dims();
    let keys = key.dims()[1];
    if let Some(mask) = &mask_pad {
        assert_eq!(
            mask.dims(),
            [batch, keys],
            "attention: the shape of `mask_pad`"
        );
    }
    if let Some(mask) = &mask_attn {
        let expected = [batch, queries, keys];
        assert_eq!(mask.dims(), expected, "attention: the shape of `mask_attn`");
    }
    let Attended { context, weights } = <Dispatch as AlqOps>::alq_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
        mask(mask_pad),
        mask(mask_attn),
        attention,
    );
    let weights = match weights {
        Term::None => None,
        Term::Tensor(weights) => Some(Tensor::from_dispatch(weights)),
    };
    (Tensor::from_dispatch(context), weights)
}

/// A tensor that an operation may lack.
pub(super) fn term<const D: usize>(tensor: Option<Tensor<D>>) -> Term<Dispatch> {
    tensor.map_or(Term::None, |tensor| Term::Tensor(tensor.into_dispatch()))
}

fn mask<const D: usize>(mask: Option<Tensor<D, Bool>>) -> Mask<Dispatch> {
    mask.map_or(Mask::None, |mask| Mask::Tensor(mask.into_dispatch()))
}
