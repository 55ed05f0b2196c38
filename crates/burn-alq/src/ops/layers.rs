//! Float layers in training, where a step spends most of its time.

use burn_core as burn;
use burn_core::backend::ops::{BatchNormTrain, BatchNormTrainBackward};
use burn_core::backend::tensor::FloatTensor;
use burn_core::backend::{Backend, ExtensionType, backend_extension};
use multibit::cpu::Conv2dOptions;

use super::packed::conv_options;

/// A batch norm in training.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Normed<B: Backend> {
    /// In the shape of the input.
    pub output: FloatTensor<B>,
    /// Of each channel, `[channels]`.
    pub mean: FloatTensor<B>,
    /// The mean of squared differences, `[channels]`.
    pub variance: FloatTensor<B>,
}

/// Gradients of a batch norm.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct NormGrads<B: Backend> {
    /// In the shape of the input.
    pub input: FloatTensor<B>,
    /// Of `γ`, `[channels]`.
    pub gamma: FloatTensor<B>,
    /// Of `β`, `[channels]`.
    pub beta: FloatTensor<B>,
}

impl<B: Backend> From<BatchNormTrain<B>> for Normed<B> {
    fn from(normed: BatchNormTrain<B>) -> Self {
        Self {
            output: normed.output,
            mean: normed.mean,
            variance: normed.variance,
        }
    }
}

impl<B: Backend> From<BatchNormTrainBackward<B>> for NormGrads<B> {
    fn from(grads: BatchNormTrainBackward<B>) -> Self {
        Self {
            input: grads.x_grad,
            gamma: grads.gamma_grad,
            beta: grads.beta_grad,
        }
    }
}

/// Float layers in training. Every device can run the defaults.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Remote: cfg(feature = "remote"),
    Autodiff: cfg(feature = "autodiff"),
    Fusion: cfg(feature = "fusion"),
)]
pub trait LayerOps: Backend {
    /// 2-D convolution with a dense weight.
    ///
    /// # Shapes
    /// - `input`: `[batch, in, h, w]`
    /// - `weight`: `[out, in / groups, k_h, k_w]`
    /// - result: `[batch, out, h_out, w_out]`
    #[fusion(default)]
    fn alq_dense_conv2d(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        Self::conv2d(input, weight, None, conv_options(&options))
    }

    /// The gradient of [`alq_dense_conv2d`](Self::alq_dense_conv2d) with regard to the input, of which the
    /// shape counts.
    #[fusion(default)]
    fn alq_dense_conv2d_input_grad(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        Self::conv2d_x_backward(input, weight, grad, conv_options(&options))
    }

    /// The same with regard to the weight, of which the shape counts.
    #[fusion(default)]
    fn alq_dense_conv2d_weight_grad(
        input: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        options: Conv2dOptions,
    ) -> FloatTensor<Self> {
        Self::conv2d_weight_backward(input, weight, grad, conv_options(&options))
    }

    /// `γ·(x − mean)/√(variance + ε) + β` with the statistics of the batch.
    ///
    /// # Shapes
    /// - `input`: `[batch, channels, ...]`
    /// - `gamma`, `beta`: `[channels]`
    #[fusion(default)]
    fn alq_batch_norm(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> Normed<Self> {
        Self::batch_norm_train(input, gamma, beta, epsilon).into()
    }

    /// The gradients of [`alq_batch_norm`](Self::alq_batch_norm), with the statistics that it returned.
    #[fusion(default)]
    fn alq_batch_norm_grads(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        epsilon: f64,
        grad: FloatTensor<Self>,
    ) -> NormGrads<Self> {
        Self::batch_norm_train_backward(input, gamma, mean, variance, epsilon, grad).into()
    }
}
