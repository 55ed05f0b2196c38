//! Attention between projections: the products with keys and values and the softmax between them.

use alloc::vec::Vec;

use super::generic::{AttendHead, Head};
use super::threads::{self, Shared};
use super::{Isa, assert_len, product};

/// Rows of queries that are worth packing keys and values for, if there are threads without a head.
const ROWS: usize = 48;

/// Rows `[batch, length, width]` that need not lie side by side.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The first row and all behind it.
    pub values: &'a [f32],
    /// Distance of neighbouring rows; that of batches is `length` times it.
    pub stride: usize,
}

/// What is left out of a softmax, one byte a score; other than 0 means out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Masks<'a> {
    /// Keys, `[batch, keys]`.
    pub pad: Option<&'a [u8]>,
    /// Pairs, `[batch, queries, keys]`.
    pub pairs: Option<&'a [u8]>,
}

/// `softmax(scale·q kᵀ) v` for some heads, each with its own part of every row.
///
/// Scores that a mask leaves out are `min_float` before the softmax: as in Burn's
/// `MultiHeadAttention`. Products are sums in f32; the softmax is wrong as
/// [`softmax`](super::softmax).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention {
    /// Sequences.
    pub batch: usize,
    /// Heads, side by side in a row.
    pub heads: usize,
    /// Queries of a sequence.
    pub queries: usize,
    /// Keys, and values, of a sequence.
    pub keys: usize,
    /// Values of a head in a row of queries, keys and values.
    pub width: usize,
    /// What scores are multiplied by, `1/√width` as a rule.
    pub scale: f32,
    /// The score of a pair that is masked.
    pub min_float: f32,
    /// Quiet softmax: one more score, of 0, without a value.
    pub quiet: bool,
}

impl Attention {
    /// Computes the context, and the weights if they are asked for.
    ///
    /// # Shapes
    /// - `query`: `[batch, queries, heads·width]`
    /// - `key`, `value`: `[batch, keys, heads·width]`
    /// - `context`: `[batch, queries, heads·width]`, written whole
    /// - `weights`: `[batch, heads, queries, keys]`, written whole
    ///
    /// # Panics
    /// If there are no keys, a row is longer than its stride, or a slice has another length.
    pub fn forward(
        &self,
        isa: Isa,
        [query, key, value]: [Rows<'_>; 3],
        masks: &Masks<'_>,
        context: &mut [f32],
        weights: Option<&mut [f32]>,
    ) {
        self.check([query, key, value], masks, context, weights.as_deref());
        let &Self {
            batch,
            heads,
            queries,
            keys,
            width,
            ..
        } = self;
        if context.is_empty() {
            return;
        }
        // Some heads each, or some queries of a head where there are more threads than heads.
        let cuts = threads::parts().div_ceil(batch * heads);
        let rows = queries.div_ceil(cuts).max(ROWS);
        let cuts = queries.div_ceil(rows);
        let cost = context.len() / 8 * keys;
        let context = Shared::new(context);
        let weights = weights.map(Shared::new);
        threads::for_each_with(batch * heads * cuts, cost, Vec::new, |room, task| {
            let (cut, head) = (task % cuts, task / cuts % heads);
            let n = task / cuts / heads;
            let first = cut * rows;
            let count = rows.min(queries - first);
            let row = n * queries + first;
            let at = |rows: Rows<'_>, row: usize| row * rows.stride + head * width;
            isa.run(AttendHead {
                attention: self,
                head: Head {
                    query: &query.values[at(query, row)..],
                    key: &key.values[at(key, n * keys)..],
                    value: &value.values[at(value, n * keys)..],
                    strides: [query.stride, key.stride, value.stride],
                    queries: count,
                    pad: masks.pad.map(|mask| &mask[n * keys..][..keys]),
                    pairs: masks.pairs.map(|mask| &mask[row * keys..][..count * keys]),
                },
                context: &context,
                start: row * heads * width + head * width,
                weights: weights.as_ref().map(|weights| {
                    let row = (n * heads + head) * queries + first;
                    // SAFETY: each task has weights of its own.
                    unsafe { weights.part(row * keys, count * keys) }
                }),
                room,
            });
        });
    }

    fn check(
        &self,
        rows: [Rows<'_>; 3],
        masks: &Masks<'_>,
        context: &[f32],
        weights: Option<&[f32]>,
    ) {
        let name = "attention";
        let batch = ("batch", self.batch);
        let (queries, keys) = (("queries", self.queries), ("keys", self.keys));
        let heads = ("heads", self.heads);
        assert!(self.keys > 0 || context.is_empty(), "{name}: no keys");
        let width = product([self.heads, self.width]).unwrap_or(usize::MAX);
        let lengths = [self.queries, self.keys, self.keys];
        for ((what, rows), length) in ["query", "key", "value"].iter().zip(rows).zip(lengths) {
            assert!(
                width <= rows.stride,
                "{name}: a row of `{what}` has {width} values, but the next is {} further",
                rows.stride
            );
            let last = product([self.batch, length]).map(|rows| rows.saturating_sub(1));
            let reach = last.and_then(|last| last.checked_mul(rows.stride));
            let reach = reach.and_then(|reach| reach.checked_add(width));
            assert!(
                self.batch * length == 0 || reach.is_some_and(|reach| reach <= rows.values.len()),
                "{name}: `{what}` holds {} values, too few for {} times {length} rows",
                rows.values.len(),
                self.batch
            );
        }
        assert_len(
            name,
            "context",
            context.len(),
            &[batch, queries, heads, ("width", self.width)],
        );
        if let Some(weights) = weights {
            assert_len(
                name,
                "weights",
                weights.len(),
                &[batch, heads, queries, keys],
            );
        }
        if let Some(mask) = masks.pad {
            assert_len(name, "masks.pad", mask.len(), &[batch, keys]);
        }
        if let Some(mask) = masks.pairs {
            assert_len(name, "masks.pairs", mask.len(), &[batch, queries, keys]);
        }
    }
}
