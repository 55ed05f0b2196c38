//! What all attention layers do between their linear layers.

use burn_core::tensor::activation::{quiet_softmax, softmax};
use burn_core::tensor::{Bool, Tensor};
use burn_nn::Dropout;

/// The masks of an attention layer; what is true in one is masked out.
#[derive(Debug, Clone, Default)]
pub(super) struct Masks {
    /// `[batch, seq_length_2]`, or 1 in the place of the batch.
    pub pad: Option<Tensor<2, Bool>>,
    /// `[batch, seq_length_1, seq_length_2]`, or 1 in the place of any.
    pub attn: Option<Tensor<3, Bool>>,
}

/// How attention weights come from scores.
pub(super) struct Weighting<'a> {
    /// The name of the layer.
    pub layer: &'static str,
    /// What masked scores become.
    pub min_float: f64,
    pub quiet_softmax: bool,
    pub dropout: &'a Dropout,
}

impl Weighting<'_> {
    /// Attention weights from scores `[batch, heads, seq_length_1, seq_length_2]`.
    ///
    /// # Panics
    /// If a mask has another shape.
    pub fn weights(&self, mut scores: Tensor<4>, masks: Masks) -> Tensor<4> {
        let [batch, _, queries, keys] = scores.dims();
        if let Some(mask) = masks.pad {
            let [masks, length] = mask.dims();
            self.check_mask(
                "mask_pad",
                ["batch", "seq_length_2"],
                [masks, length],
                [batch, keys],
            );
            scores = scores.mask_fill(mask.reshape([masks, 1, 1, length]), self.min_float);
        }
        if let Some(mask) = masks.attn {
            let shape = mask.dims();
            let names = ["batch", "seq_length_1", "seq_length_2"];
            self.check_mask("mask_attn", names, shape, [batch, queries, keys]);
            let [masks, rows, columns] = shape;
            scores = scores.mask_fill(mask.reshape([masks, 1, rows, columns]), self.min_float);
        }
        let weights = if self.quiet_softmax {
            quiet_softmax(scores, 3)
        } else {
            softmax(scores, 3)
        };
        self.dropout.forward(weights)
    }

    fn check_mask<const D: usize>(
        &self,
        mask: &str,
        names: [&str; D],
        found: [usize; D],
        expected: [usize; D],
    ) {
        for axis in 0..D {
            assert!(
                found[axis] == expected[axis] || found[axis] == 1,
                "{}: axis {axis} of {mask} ({}) must be {}, or 1, not {}",
                self.layer,
                names[axis],
                expected[axis],
                found[axis]
            );
        }
    }
}

/// `[batch, length, heads · d]` as `[batch, heads, length, d]`.
pub(super) fn split_heads(tensor: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, length, width] = tensor.dims();
    tensor
        .reshape([batch, length, heads, width / heads])
        .swap_dims(1, 2)
}

/// The inverse of [`split_heads`].
pub(super) fn join_heads(tensor: Tensor<4>) -> Tensor<3> {
    let [batch, heads, length, width] = tensor.dims();
    tensor
        .swap_dims(1, 2)
        .reshape([batch, length, heads * width])
}
