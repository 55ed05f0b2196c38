//! Default bodies of the packed layers: unpack to a dense weight, then Burn's own layer.

use burn_core::backend::tensor::FloatTensor;
use burn_core::backend::{Backend, TensorMetadata};
use burn_core::tensor::TensorData;
use burn_core::tensor::ops::ConvOptions;
use multibit::PackedWeight;
use multibit::cpu::Conv2dOptions;

fn unpack<B: Backend>(like: &FloatTensor<B>, weight: &PackedWeight) -> FloatTensor<B> {
    let data = TensorData::new(weight.unpack(), weight.shape().to_vec());
    B::float_from_data(data.convert_dtype(like.dtype()), &like.device())
}

pub(super) fn linear<B: Backend>(input: FloatTensor<B>, weight: &PackedWeight) -> FloatTensor<B> {
    let weight = unpack::<B>(&input, weight);
    B::float_matmul(input, weight)
}

pub(super) fn conv2d<B: Backend>(
    input: FloatTensor<B>,
    weight: &PackedWeight,
    options: &Conv2dOptions,
) -> FloatTensor<B> {
    let weight = unpack::<B>(&input, weight);
    let options = ConvOptions::new_with_padding(
        options.stride,
        options.padding,
        options.dilation,
        options.groups,
    );
    B::conv2d(input, weight, None, options)
}
