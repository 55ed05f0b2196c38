//! Float layers in training by the kernels of `multibit`, on tensors in the host's memory. What those do not
//! do, groups of channels and other types than f32, the back end does.

use alloc::vec;

use burn_core::backend::tensor::FloatTensor;
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::{DType, TensorData};
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
    let shapes = || [input, weight].map(|x| x.shape().dims());
    (single && options.groups == 1).then(|| {
        let [input, weight] = shapes();
        DenseConv2d::new(input, weight, options)
    })
}

pub(crate) fn dense_conv2d<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    weight: FloatTensor<B>,
    options: &Conv2dOptions,
) -> FloatTensor<B> {
    let Some(kernel) = kernel::<B>(&input, &weight, options) else {
        return B::conv2d(input, weight, None, conv_options(options));
    };
    let (shape, device) = (kernel.output_shape(), input.device());
    let mut output = vec![0.0; shape.iter().product()];
    let [input, weight] = [input, weight].map(M::floats);
    kernel.forward(Isa::best(), input.f32(), weight.f32(), &mut output);
    M::tensor(output, shape, DType::F32, &device)
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
    let (shape, device) = (input.shape(), input.device());
    let mut input_grad = vec![0.0; shape.num_elements()];
    let [weight, grad] = [weight, grad].map(M::floats);
    kernel.input_grad(Isa::best(), weight.f32(), grad.f32(), &mut input_grad);
    M::tensor(input_grad, shape, DType::F32, &device)
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
    let (shape, device) = (weight.shape(), input.device());
    let mut weight_grad = vec![0.0; shape.num_elements()];
    let [input, grad] = [input, grad].map(M::floats);
    kernel.weight_grad(Isa::best(), input.f32(), grad.f32(), &mut weight_grad);
    M::tensor(weight_grad, shape, DType::F32, &device)
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
    let [output, mean, variance] = if input.dtype() == DType::F32 {
        let (norm, shape) = (norm::<B>(&input, epsilon), input.shape());
        let device = input.device();
        let [input, gamma, beta] = [input, gamma, beta].map(M::floats);
        let mut output = vec![0.0; shape.num_elements()];
        let terms = [gamma.f32(), beta.f32()];
        let statistics = norm.forward(Isa::best(), input.f32(), terms, &mut output);
        let Statistics { mean, variance } = statistics;
        let [mean, variance] = [mean, variance].map(|values| term::<B>(values, &device));
        let output = M::tensor(output, shape, DType::F32, &device);
        [output, mean, variance]
    } else {
        let normed = B::batch_norm_train(input, gamma, beta, epsilon);
        [normed.output, normed.mean, normed.variance]
    };
    Normed {
        output,
        mean,
        variance,
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
        let grads = B::batch_norm_train_backward(input, gamma, mean, variance, epsilon, grad);
        return NormGrads {
            input: grads.x_grad,
            gamma: grads.gamma_grad,
            beta: grads.beta_grad,
        };
    }
    let (norm, shape) = (norm::<B>(&input, epsilon), input.shape());
    let device = input.device();
    let [input, gamma, grad] = [input, gamma, grad].map(M::floats);
    let [mean, variance] = [mean, variance].map(|term| M::floats(term).f32().to_vec());
    let statistics = Statistics { mean, variance };
    let mut input_grad = vec![0.0; shape.num_elements()];
    let values = [input.f32(), grad.f32()];
    let isa = Isa::best();
    let terms = norm.backward(isa, values, gamma.f32(), &statistics, &mut input_grad);
    NormGrads {
        input: M::tensor(input_grad, shape, DType::F32, &device),
        gamma: term::<B>(terms.gamma, &device),
        beta: term::<B>(terms.beta, &device),
    }
}
