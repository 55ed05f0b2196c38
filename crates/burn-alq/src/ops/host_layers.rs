//! Float layers in training by the kernels of `multibit`, on tensors in the host's memory. What those do not
//! do, groups of channels and other types than f32, the back end does.

use alloc::vec;

use burn_core::backend::tensor::FloatTensor;
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::{DType, Shape, TensorData};
use multibit::cpu::{BatchNorm, Conv2dOptions, DenseConv2d, Isa, Statistics};

use super::host::{Elements, Memory};
use super::packed::conv_options;
use super::{NormGrads, Normed};

/// The kernel, if it serves.
fn kernel<B: Backend>(
    input: &FloatTensor<B>,
    weight: &FloatTensor<B>,
    options: &Conv2dOptions,
) -> Option<DenseConv2d> {
    let single = [input, weight].iter().all(|x| x.dtype() == DType::F32);
    (single && options.groups == 1).then(|| {
        let [input, weight] = [input, weight].map(|x| x.shape().dims());
        DenseConv2d::new(input, weight, options)
    })
}

/// A tensor in f32 that `fill` writes.
fn filled<B: Backend, M: Memory<B>>(
    shape: impl Into<Shape>,
    device: &B::Device,
    fill: impl FnOnce(&mut [f32]),
) -> FloatTensor<B> {
    let shape = shape.into();
    let mut values = vec![0.0; shape.num_elements()];
    fill(&mut values);
    M::tensor(values, shape, DType::F32, device)
}

pub(crate) fn dense_conv2d<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    options: &Conv2dOptions,
) -> FloatTensor<B> {
    let Some(kernel) = kernel::<B>(&input, &weight, options) else {
        return B::conv2d(input, weight, None, conv_options(options));
    };
    let device = input.device();
    let [input, weight] = [input, weight].map(M::floats);
    filled::<B, M>(kernel.output_shape(), &device, |output| {
        kernel.forward(Isa::best(), input.f32(), weight.f32(), output);
    })
}

pub(crate) fn dense_conv2d_input_grad<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    options: &Conv2dOptions,
) -> FloatTensor<B> {
    let Some(kernel) = kernel::<B>(&input, &weight, options) else {
        return B::conv2d_x_backward(input, weight, grad, conv_options(options));
    };
    let [weight, grad] = [weight, grad].map(M::floats);
    filled::<B, M>(input.shape(), &input.device(), |input_grad| {
        kernel.input_grad(Isa::best(), weight.f32(), grad.f32(), input_grad);
    })
}

pub(crate) fn dense_conv2d_weight_grad<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad: FloatTensor<B>,
    options: &Conv2dOptions,
) -> FloatTensor<B> {
    let Some(kernel) = kernel::<B>(&input, &weight, options) else {
        return B::conv2d_weight_backward(input, weight, grad, conv_options(options));
    };
    let [input, grad] = [input, grad].map(M::floats);
    filled::<B, M>(weight.shape(), &weight.device(), |weight_grad| {
        kernel.weight_grad(Isa::best(), input.f32(), grad.f32(), weight_grad);
    })
}

/// The kernel for values `[batch, channels, ...]`.
fn norm<B: Backend>(input: &FloatTensor<B>, epsilon: f64) -> BatchNorm {
    let shape = input.shape();
    BatchNorm {
        batch: shape[0],
        channels: shape[1],
        len: shape[2..].iter().product(),
        epsilon,
    }
}

fn term<B: Backend>(values: vec::Vec<f32>, device: &B::Device) -> FloatTensor<B> {
    let shape = [values.len()];
    B::float_from_data(TensorData::new(values, shape), device)
}

pub(crate) fn batch_norm<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: FloatTensor<B>,
    epsilon: f64,
) -> Normed<B> {
    if input.dtype() != DType::F32 {
        return B::batch_norm_train(input, gamma, beta, epsilon).into();
    }
    let (norm, shape) = (norm::<B>(&input, epsilon), input.shape());
    let device = input.device();
    let [input, gamma, beta] = [input, gamma, beta].map(M::floats);
    let terms = [gamma.f32(), beta.f32()];
    let mut output = vec![0.0; shape.num_elements()];
    let statistics = norm.forward(Isa::best(), input.f32(), terms, &mut output);
    let Statistics { mean, variance } = statistics;
    Normed {
        output: M::tensor(output, shape, DType::F32, &device),
        mean: term::<B>(mean, &device),
        variance: term::<B>(variance, &device),
    }
}

pub(crate) fn batch_norm_grads<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    gamma: FloatTensor<B>,
    [mean, variance]: [FloatTensor<B>; 2],
    epsilon: f64,
    grad: FloatTensor<B>,
) -> NormGrads<B> {
    if input.dtype() != DType::F32 {
        return B::batch_norm_train_backward(input, gamma, mean, variance, epsilon, grad).into();
    }
    let (norm, shape) = (norm::<B>(&input, epsilon), input.shape());
    let device = input.device();
    let [input, gamma, grad] = [input, gamma, grad].map(M::floats);
    let [mean, variance] = [mean, variance].map(|term| M::floats(term).f32().to_vec());
    let statistics = Statistics { mean, variance };
    let values = [input.f32(), grad.f32()];
    let mut input_grad = vec![0.0; shape.num_elements()];
    let isa = Isa::best();
    let terms = norm.backward(isa, values, gamma.f32(), &statistics, &mut input_grad);
    NormGrads {
        input: M::tensor(input_grad, shape, DType::F32, &device),
        gamma: term::<B>(terms.gamma, &device),
        beta: term::<B>(terms.beta, &device),
    }
}
