//! Float layers in training: Burn's, by operations that are faster on CPUs.

use burn_core::backend::Dispatch;
use burn_core::tensor::Tensor;
use burn_nn::BatchNorm;
use multibit::cpu::Conv2dOptions;

use crate::ops::{LayerOps, Normed};

/// A convolution with a dense weight.
pub(super) fn conv2d(
    input: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: Conv2dOptions,
) -> Tensor<4> {
    let (input, weight) = (input.into_dispatch(), weight.into_dispatch());
    let y = <Dispatch as LayerOps>::alq_dense_conv2d(input, weight, options);
    let y = Tensor::<4>::from_dispatch(y);
    match bias {
        Some(bias) => y + bias.reshape([1, -1, 1, 1]),
        None => y,
    }
}

/// [`BatchNorm::forward`], which in training takes the statistics of the batch, and keeps a running mean of
/// them.
pub(super) fn batch_norm<const D: usize>(norm: &BatchNorm, input: Tensor<D>) -> Tensor<D> {
    let device = input.device();
    if !(device.is_autodiff() && norm.training.is_enabled()) {
        return norm.forward(input);
    }
    let channels = norm.gamma.dims()[0];
    assert!(
        D >= 2 && input.dims()[1] == channels,
        "batch norm: axis 1 of the input must have {channels} channels"
    );
    let Normed {
        output,
        mean,
        variance,
    } = <Dispatch as LayerOps>::alq_batch_norm(
        input.into_dispatch(),
        norm.gamma.val().into_dispatch(),
        norm.beta.val().into_dispatch(),
        norm.epsilon,
    );
    let running = [&norm.running_mean, &norm.running_var].into_iter();
    for (state, new) in running.zip([mean, variance]) {
        let old = state.value_sync().to_device(&device);
        let new = Tensor::<1>::from_dispatch(new).detach();
        let (keep, take) = (1.0 - norm.momentum, norm.momentum);
        state.update((old * keep + new * take).detach());
    }
    Tensor::from_dispatch(output)
}
