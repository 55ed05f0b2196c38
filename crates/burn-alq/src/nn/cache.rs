//! What decoding token by token keeps of the tokens before.

use alloc::vec;

use burn_core::tensor::Tensor;

/// A cache for a tensor: Burn's [`TensorCache`](burn_nn::cache::TensorCache).
pub struct TensorCache<const D: usize>(Option<Tensor<D>>);

impl<const D: usize> TensorCache<D> {
    /// Creates a new empty cache.
    pub fn empty() -> Self {
        Self(None)
    }

    /// What `f` makes of all tokens, of which only the last one is computed once there is something to
    /// append it to, along `axis`.
    pub(super) fn forward_autoregressive(
        &mut self,
        input: Tensor<3>,
        axis: usize,
        f: impl Fn(Tensor<3>) -> Tensor<D>,
    ) -> Tensor<D> {
        let output = match self.0.take() {
            Some(before) => {
                let [_, length, _] = input.dims();
                let last = f(input.narrow(1, length - 1, 1));
                Tensor::cat(vec![before, last], axis)
            }
            None => f(input),
        };
        self.0.insert(output).clone()
    }

    /// What `f` makes of the first input.
    pub(super) fn forward_full(
        &mut self,
        input: Tensor<3>,
        f: impl Fn(Tensor<3>) -> Tensor<D>,
    ) -> Tensor<D> {
        self.0.get_or_insert_with(|| f(input)).clone()
    }
}
