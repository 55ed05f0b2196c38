//! What all attention layers do between their linear layers.

use burn_core::tensor::activation::{quiet_softmax, softmax};
use burn_core::tensor::{Bool, Tensor};
use burn_nn::Dropout;

use crate::nn::functional::{Attention, attention};

/// The masks of an attention layer; what is true in one is masked out.
#[derive(Debug, Clone, Default)]
pub(super) struct Masks {
    /// `[batch, seq_length_2]`, or 1 in the place of the batch.
    pub pad: Option<Tensor<2, Bool>>,
    /// `[batch, seq_length_1, seq_length_2]`, or 1 in the place of any.
    pub attn: Option<Tensor<3, Bool>>,
}

impl Masks {
    /// The same masks, one for each `[batch, seq_length_1, seq_length_2]`.
    ///
    /// # Panics
    /// If a mask of a layer has another shape.
    fn expand(self, layer: &str, [batch, queries, keys]: [usize; 3]) -> Self {
        let pad = self.pad.map(|mask| {
            let names = ["batch", "seq_length_2"];
            check_mask(layer, "mask_pad", names, mask.dims(), [batch, keys]);
            mask.expand([batch, keys])
        });
        let attn = self.attn.map(|mask| {
            let names = ["batch", "seq_length_1", "seq_length_2"];
            let expected = [batch, queries, keys];
            check_mask(layer, "mask_attn", names, mask.dims(), expected);
            mask.expand(expected)
        });
        Self { pad, attn }
    }
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
        let masks = masks.expand(self.layer, [batch, queries, keys]);
        if let Some(mask) = masks.pad {
            scores = scores.mask_fill(mask.reshape([batch, 1, 1, keys]), self.min_float);
        }
        if let Some(mask) = masks.attn {
            scores = scores.mask_fill(mask.unsqueeze_dim(1), self.min_float);
        }
        let weights = if self.quiet_softmax {
            quiet_softmax(scores, 3)
        } else {
            softmax(scores, 3)
        };
        self.dropout.forward(weights)
    }

    /// Context and, if asked for, weights of `heads` side by side in query, key and value, by the kernel:
    /// in evaluation, where dropout does nothing.
    ///
    /// # Shapes
    /// - `rows`: `[batch, seq_length, heads · d]`
    ///
    /// # Panics
    /// If a mask has another shape.
    pub fn attend(
        &self,
        rows: [Tensor<3>; 3],
        masks: Masks,
        heads: usize,
        weights: bool,
    ) -> (Tensor<3>, Option<Tensor<4>>) {
        let [batch, queries, width] = rows[0].dims();
        let Masks { pad, attn } = masks.expand(self.layer, [batch, queries, rows[1].dims()[1]]);
        let options = Attention {
            heads,
            scale: libm::sqrt((width / heads) as f64).recip(),
            min_float: self.min_float,
            quiet: self.quiet_softmax,
            weights,
        };
        attention(rows, pad, attn, options)
    }
}

fn check_mask<const D: usize>(
    layer: &str,
    mask: &str,
    names: [&str; D],
    found: [usize; D],
    expected: [usize; D],
) {
    for axis in 0..D {
        assert!(
            found[axis] == expected[axis] || found[axis] == 1,
            "{layer}: axis {axis} of {mask} ({}) must be {}, or 1, not {}",
            names[axis],
            expected[axis],
            found[axis]
        );
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
