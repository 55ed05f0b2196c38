//! Default bodies of the packed layers.
//!
//! In exact arithmetic the weight is unpacked to the device and Burn's own layer runs. What only the
//! kernels of `multibit` can compute runs on the host.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter;

use burn_core::backend::tensor::FloatTensor;
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::ops::ConvOptions;
use burn_core::tensor::{Shape, Slice, TensorData};
use multibit::PackedWeight;
use multibit::cpu::{Activation, Conv2dOptions, Levels, Mode};

use super::host::{self, Copied};
use super::{Activations, AlqOps, PackedConv2d, Term};
use crate::weight::PreparedWeight;

pub(super) fn dense<B: Backend>(like: &FloatTensor<B>, weight: &PackedWeight) -> FloatTensor<B> {
    let data = TensorData::new(weight.unpack(), weight.shape().to_vec());
    B::float_from_data(data.convert_dtype(like.dtype()), &like.device())
}

/// `scale·x + offset` along axis 1, in the type of `x`.
pub(crate) fn affine<B: Backend>(
    x: FloatTensor<B>,
    [scale, offset]: [Term<B>; 2],
) -> FloatTensor<B> {
    let mut shape = alloc::vec![1; x.shape().num_dims()];
    shape[1] = x.shape()[1];
    let (shape, dtype) = (Shape::from(shape), x.dtype());
    let along = |term: FloatTensor<B>| {
        let term = if term.dtype() == dtype {
            term
        } else {
            B::float_cast(term, dtype.into())
        };
        B::float_reshape(term, shape.clone())
    };
    let mut y = x;
    if let Term::Tensor(scale) = scale {
        y = B::float_mul(y, along(scale));
    }
    if let Term::Tensor(offset) = offset {
        y = B::float_add(y, along(offset));
    }
    y
}

/// `activation(x + residual)`, in the type of `x`.
pub(crate) fn epilogue<B: AlqOps>(
    x: FloatTensor<B>,
    residual: Term<B>,
    activation: Activation,
) -> FloatTensor<B> {
    let y = match residual {
        Term::None => x,
        Term::Tensor(residual) => {
            let dtype = x.dtype();
            let residual = if residual.dtype() == dtype {
                residual
            } else {
                B::float_cast(residual, dtype.into())
            };
            B::float_add(x, residual)
        }
    };
    B::alq_activate(y, activation)
}

/// [`epilogue`] of a convolution to values.
///
/// # Panics
/// If the residual is bits.
pub(crate) fn conv2d_epilogue<B: AlqOps>(
    x: FloatTensor<B>,
    residual: Activations<B>,
    activation: Activation,
) -> FloatTensor<B> {
    let residual = match residual {
        Activations::None => Term::None,
        Activations::Values(values) => Term::Tensor(values),
        Activations::Planes(_) => panic!("a residual that is bits is added to bits"),
    };
    epilogue::<B>(x, residual, activation)
}

/// One layer after the other.
pub(super) fn linears<B: AlqOps>(
    input: FloatTensor<B>,
    affine: [Term<B>; 2],
    weights: &[Arc<PreparedWeight>],
    mode: &Mode,
) -> FloatTensor<B> {
    let mut first = 0;
    let outputs: Vec<_> = weights
        .iter()
        .map(|weight| {
            let outputs = first..first + weight.shape()[1];
            first = outputs.end;
            let [scale, offset] = affine.clone().map(|term| match term {
                Term::None => Term::None,
                Term::Tensor(term) => {
                    Term::Tensor(B::float_slice(term, &[Slice::from(outputs.clone())]))
                }
            });
            let (input, weight, mode) = (input.clone(), weight.clone(), mode.clone());
            B::alq_linear(
                input,
                scale,
                offset,
                Term::None,
                weight,
                mode,
                Activation::Identity,
            )
        })
        .collect();
    B::float_cat(outputs, 1)
}

pub(super) fn linear<B: Backend>(
    input: FloatTensor<B>,
    affine: [Term<B>; 2],
    weight: &PreparedWeight,
    mode: &Mode,
) -> FloatTensor<B> {
    if *mode != Mode::Exact {
        let none = (Term::None, Activation::Identity);
        return host::linears::<B, Copied>(input, affine, none, iter::once(weight), mode);
    }
    let weight = dense::<B>(&input, weight);
    self::affine::<B>(B::float_matmul(input, weight), affine)
}

pub(super) fn conv2d<B: AlqOps>(
    input: Activations<B>,
    affine: [Term<B>; 2],
    residual: Activations<B>,
    weight: &PreparedWeight,
    conv2d: &PackedConv2d,
) -> Activations<B> {
    match (input, &conv2d.mode, &conv2d.levels) {
        (Activations::Values(input), Mode::Exact, None) => {
            let weight = dense::<B>(&input, weight);
            let y = B::conv2d(input, weight, None, conv_options(&conv2d.options));
            let y = self::affine::<B>(y, affine);
            Activations::Values(conv2d_epilogue::<B>(y, residual, conv2d.activation))
        }
        (input, ..) => host::conv2d::<B, Copied>(input, affine, residual, weight, conv2d),
    }
}

pub(crate) fn conv_options(options: &Conv2dOptions) -> ConvOptions<2> {
    ConvOptions::new_with_padding(
        options.stride,
        options.padding,
        options.dilation,
        options.groups,
    )
}

pub(super) fn quantize<B: Backend>(input: FloatTensor<B>, levels: &Levels) -> FloatTensor<B> {
    let dtype = input.dtype();
    let mut sum = B::float_add_scalar(
        B::float_zeros(input.shape(), &input.device(), dtype.into()),
        levels.values()[0].into(),
    );
    for (&threshold, pair) in levels.thresholds().iter().zip(levels.values().windows(2)) {
        let bool_dtype = burn_core::backend::get_device_settings::<B>(&input.device()).bool_dtype;
        let above = B::float_greater_elem(input.clone(), threshold.into(), bool_dtype);
        let above = B::bool_into_float(above, dtype.into());
        let step = B::float_mul_scalar(above, (pair[1] - pair[0]).into());
        sum = B::float_add(sum, step);
    }
    sum
}
