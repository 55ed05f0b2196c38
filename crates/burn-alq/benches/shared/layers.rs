//! Single layers.

use std::sync::Arc;

use burn::module::Param;
use burn::nn::conv::Conv2dConfig;
use burn::nn::{LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::{
    Arithmetic, MultiBitActivation, MultiBitConv2dConfig, MultiBitLinearConfig, PackedModel,
};
use multibit::cpu::{Affine, Conv2dOptions, Levels, Mode, reference};
use multibit::{Grouping, PackedWeight};

use super::case::{Case, Side, Work, same, timed, values};
use super::random::Random;

/// What a layer takes.
#[derive(Clone, Copy)]
pub enum Inputs {
    Exact,
    Int8,
    Bits(usize),
}

impl Inputs {
    fn arithmetic(self) -> Arithmetic {
        match self {
            Self::Exact => Arithmetic::Exact,
            Self::Int8 => Arithmetic::Int8,
            Self::Bits(_) => Arithmetic::Bitwise,
        }
    }

    /// What makes bits in front of a layer.
    fn activation(self, device: &Device) -> Option<MultiBitActivation> {
        match self {
            Self::Bits(bits) => Some(activation(bits, device)),
            _ => None,
        }
    }

    fn mode(self) -> Mode {
        match self {
            Self::Exact => Mode::Exact,
            Self::Int8 => Mode::Int8,
            Self::Bits(bits) => Mode::Bitwise(levels(bits)),
        }
    }
}

/// Levels for inputs in `[−1, 1)`.
pub fn levels(bits: usize) -> Levels {
    Levels::uniform(bits, 0.9).expect("bits in range")
}

/// An activation with these levels.
pub fn activation(bits: usize, device: &Device) -> MultiBitActivation {
    MultiBitActivation::with_levels(&levels(bits), device)
}

/// A packed model with one weight and nothing else.
fn one_weight(weight: &Arc<PackedWeight>) -> PackedModel {
    PackedModel {
        tied: Default::default(),
        arithmetic: Default::default(),
        weights: vec![("weight".into(), weight.clone())],
        tensors: Vec::new(),
        config: Default::default(),
    }
}

/// What a layer reads and writes: bytes of its weight in f32, and of inputs and outputs.
fn work(weight: &PackedWeight, values: usize, products: usize) -> Work {
    let dense = weight.shape().iter().product::<usize>();
    let packed = weight.encoded_bytes().total();
    Work {
        bytes: [packed, 4 * dense].map(|bytes| (bytes + 4 * values) as f64),
        operations: 2.0 * products as f64,
    }
}

/// How far a layer may be from the definition. Cards may round factors of f32 products to tf32.
fn room(device: &Device) -> f32 {
    if *device == Device::flex() {
        1e-5
    } else {
        1e-3
    }
}

/// A square linear layer.
pub fn linear(
    device: &Device,
    width: usize,
    batch: usize,
    bits: f64,
    subchannels: usize,
    inputs: Inputs,
) -> Case {
    let mut random = Random::new(1);
    let shape = [width, width];
    let grouping = Grouping::subchannelwise(&shape, subchannels).expect("it divides");
    let weight = Arc::new(random.weight(&shape, grouping, bits));
    let x = random.values(batch * width);
    let input = Tensor::<2>::from_data(TensorData::new(x.clone(), [batch, width]), device);
    let layer = MultiBitLinearConfig::new(width, width)
        .with_bias(false)
        .with_arithmetic(inputs.arithmetic())
        .init_float(device);
    let layer = one_weight(&weight).apply(layer).expect("it fits");
    let activation = inputs.activation(device);
    let forward = {
        let input = input.clone();
        move || match &activation {
            Some(activation) => layer.forward(activation.forward(input.clone())),
            None => layer.forward(input.clone()),
        }
    };
    let mut float = LinearConfig::new(width, width)
        .with_bias(false)
        .init(device);
    let dense = TensorData::new(weight.unpack(), shape);
    float.weight = Param::from_data(dense, device);
    let check = {
        let (forward, weight, room) = (forward.clone(), weight.clone(), room(device));
        move || {
            let found = values(forward().into_data());
            // The definition is slow: the first and the last row.
            for row in [0, batch - 1] {
                let mut expected = vec![0.0; width];
                let x = &x[row * width..][..width];
                let none = Affine::default();
                reference::linear(x, 1, &weight, &inputs.mode(), &none, &mut expected);
                same(&found[row * width..][..width], &expected, room)?;
            }
            Ok(())
        }
    };
    Case {
        work: work(&weight, 2 * batch * width, batch * width * width),
        ours: timed(device, forward),
        other: timed(device, move || float.forward(input.clone())),
        side: Side::BurnF32,
        check: Box::new(check),
    }
}

/// A convolution 3×3 of one image with padding, weights of 1 bit.
pub fn conv(device: &Device, channels: usize, size: usize, inputs: Inputs) -> Case {
    let mut random = Random::new(2);
    let shape = [channels, channels, 3, 3];
    let grouping = Grouping::channelwise(&shape).expect("a convolution");
    let weight = Arc::new(random.weight(&shape, grouping, 1.0));
    let x = random.values(channels * size * size);
    let dims = [1, channels, size, size];
    let input = Tensor::<4>::from_data(TensorData::new(x.clone(), dims), device);
    let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
    let layer = MultiBitConv2dConfig::new([channels; 2], [3, 3])
        .with_padding(padding.clone())
        .with_bias(false)
        .with_arithmetic(inputs.arithmetic())
        .init_float(device);
    let layer = one_weight(&weight).apply(layer).expect("it fits");
    let activation = inputs.activation(device);
    let forward = {
        let input = input.clone();
        move || match &activation {
            Some(activation) => layer.forward(activation.forward(input.clone())),
            None => layer.forward(input.clone()),
        }
    };
    let mut float = Conv2dConfig::new([channels; 2], [3, 3])
        .with_padding(padding)
        .with_bias(false)
        .init(device);
    float.weight = Param::from_data(TensorData::new(weight.unpack(), shape), device);
    let products = 9 * channels * channels * size * size;
    let check = {
        let (forward, weight, room) = (forward.clone(), weight.clone(), room(device));
        move || {
            let found = values(forward().into_data());
            let options = Conv2dOptions {
                padding: [(1, 1); 2],
                ..Conv2dOptions::default()
            };
            let mode = inputs.mode();
            let mut expected = vec![0.0; found.len()];
            let none = Affine::default();
            reference::conv2d(&x, dims, &weight, &mode, &none, &options, &mut expected);
            same(&found, &expected, room)
        }
    };
    Case {
        work: work(&weight, 2 * channels * size * size, products),
        ours: timed(device, forward),
        other: timed(device, move || float.forward(input.clone())),
        side: Side::BurnF32,
        check: Box::new(check),
    }
}
