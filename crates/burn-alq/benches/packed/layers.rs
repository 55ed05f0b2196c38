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

use crate::cases::{Case, Side, same, timed, values};
use crate::random::Random;

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
        weights: vec![("weight".into(), weight.clone())],
        tensors: Vec::new(),
        config: Default::default(),
    }
}

const WIDTH: usize = 4096;

/// A linear layer 4096 → 4096.
pub fn linear(batch: usize, bits: f64, subchannels: usize, inputs: Inputs) -> Case {
    let device = Device::flex();
    let mut random = Random::new(1);
    let shape = [WIDTH, WIDTH];
    let grouping = Grouping::subchannelwise(&shape, subchannels).expect("it divides");
    let weight = Arc::new(random.weight(&shape, grouping, bits));
    let x = random.values(batch * WIDTH);
    let input = Tensor::<2>::from_data(TensorData::new(x.clone(), [batch, WIDTH]), &device);
    let layer = MultiBitLinearConfig::new(WIDTH, WIDTH)
        .with_bias(false)
        .with_arithmetic(inputs.arithmetic())
        .init_float(&device);
    let layer = one_weight(&weight).apply(layer).expect("it fits");
    let activation = match inputs {
        Inputs::Bits(bits) => Some(activation(bits, &device)),
        _ => None,
    };
    let forward = {
        let input = input.clone();
        move || match &activation {
            Some(activation) => layer.forward(activation.forward(input.clone())),
            None => layer.forward(input.clone()),
        }
    };
    let mut float = LinearConfig::new(WIDTH, WIDTH)
        .with_bias(false)
        .init(&device);
    let dense = TensorData::new(weight.unpack(), shape);
    float.weight = Param::from_data(dense, &device);
    let (products, limit) = match inputs {
        Inputs::Exact if batch > 3 => (1.0, "f32_fma"),
        Inputs::Exact => (bits, "f32_lookup"),
        Inputs::Int8 => (bits, "int8_lookup"),
        Inputs::Bits(planes) => (bits * planes as f64, "xor_popcount"),
    };
    let check = {
        let forward = forward.clone();
        move || {
            let found = values(forward().into_data());
            // The definition is slow: the first and the last row.
            for row in [0, batch - 1] {
                let mut expected = vec![0.0; WIDTH];
                let x = &x[row * WIDTH..][..WIDTH];
                let none = Affine::default();
                reference::linear(x, 1, &weight, &inputs.mode(), &none, &mut expected);
                same(&found[row * WIDTH..][..WIDTH], &expected, 1e-5)?;
            }
            Ok(())
        }
    };
    Case {
        ours: timed(forward),
        other: timed(move || float.forward(input.clone())),
        side: Side::FlexF32,
        products: products * (batch * WIDTH * WIDTH) as f64,
        limit: Some(limit),
        check: Box::new(check),
    }
}

/// A convolution 3×3 of one image with padding, weights of 1 bit and activations of 2.
pub fn conv(channels: usize, size: usize) -> Case {
    let device = Device::flex();
    let mut random = Random::new(2);
    let shape = [channels, channels, 3, 3];
    let grouping = Grouping::channelwise(&shape).expect("a convolution");
    let weight = Arc::new(random.weight(&shape, grouping, 1.0));
    let x = random.values(channels * size * size);
    let dims = [1, channels, size, size];
    let input = Tensor::<4>::from_data(TensorData::new(x.clone(), dims), &device);
    let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
    let layer = MultiBitConv2dConfig::new([channels; 2], [3, 3])
        .with_padding(padding.clone())
        .with_bias(false)
        .with_arithmetic(Arithmetic::Bitwise)
        .init_float(&device);
    let layer = one_weight(&weight).apply(layer).expect("it fits");
    let activation = activation(2, &device);
    let forward = {
        let input = input.clone();
        move || layer.forward(activation.forward(input.clone()))
    };
    let mut float = Conv2dConfig::new([channels; 2], [3, 3])
        .with_padding(padding)
        .with_bias(false)
        .init(&device);
    float.weight = Param::from_data(TensorData::new(weight.unpack(), shape), &device);
    let check = {
        let forward = forward.clone();
        move || {
            let found = values(forward().into_data());
            let options = Conv2dOptions {
                padding: [(1, 1); 2],
                ..Conv2dOptions::default()
            };
            let mode = Mode::Bitwise(levels(2));
            let mut expected = vec![0.0; found.len()];
            let none = Affine::default();
            reference::conv2d(&x, dims, &weight, &mode, &none, &options, &mut expected);
            same(&found, &expected, 1e-5)
        }
    };
    Case {
        ours: timed(forward),
        other: timed(move || float.forward(input.clone())),
        side: Side::FlexF32,
        products: (2 * 9 * channels * channels * size * size) as f64,
        limit: Some("xor_popcount"),
        check: Box::new(check),
    }
}
