//! Single layers.

use std::rc::Rc;
use std::sync::Arc;

use burn::module::Param;
use burn::nn::conv::Conv2dConfig;
use burn::nn::{LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::{
    Arithmetic, MultiBitActivation, MultiBitConv2dConfig, MultiBitLinearConfig, PackedModel,
    Quantized,
};
use multibit::cpu::Levels;
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

    /// How far a layer may be from Burn's f32 layer on what the arithmetic makes of its input, by
    /// the norm. Cards may round factors of f32 products to tf32. Rounding to int8 is no input of
    /// Burn's layer, so that there its error counts too: half a step of 1/127 of the largest input.
    fn room(self, device: &Device) -> f32 {
        match self {
            // Four coordinates of about one size are the farthest from multiples of a step.
            Self::Int8 => 2e-2,
            _ if *device == Device::flex() => 1e-5,
            _ => 1e-3,
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

/// What a layer is, and how much of it is asked.
#[derive(Clone)]
pub enum Shape {
    /// `[d_in, d_out]`, and rows of inputs.
    Linear([usize; 2], usize),
    /// Of one image.
    Conv(Conv),
}

/// A convolution with "same" padding.
#[derive(Clone)]
pub struct Conv {
    /// In and out.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    pub stride: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Height and width of the input.
    pub size: [usize; 2],
}

impl Conv {
    /// A square kernel with stride 1, in one group.
    pub fn square([input, output]: [usize; 2], kernel: usize, size: usize) -> Self {
        Self {
            channels: [input, output],
            kernel: [kernel; 2],
            stride: 1,
            groups: 1,
            size: [size; 2],
        }
    }

    /// One input channel for each output.
    pub fn depthwise(channels: usize, kernel: usize, size: usize) -> Self {
        Self {
            groups: channels,
            ..Self::square([channels; 2], kernel, size)
        }
    }

    fn padding(&self) -> PaddingConfig2d {
        let [height, width] = self.kernel.map(|size| size / 2);
        PaddingConfig2d::Explicit(height, width, height, width)
    }

    /// Height and width of the output.
    fn out_size(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let (size, kernel) = (self.size[axis], self.kernel[axis]);
            (size + kernel / 2 * 2 - kernel) / self.stride + 1
        })
    }
}

/// A layer with random weights, each output one group or cut into groups of `group` weights.
#[derive(Clone)]
pub struct Layer {
    pub shape: Shape,
    pub bits: f64,
    pub group: Option<usize>,
    pub inputs: Inputs,
}

impl Layer {
    /// Outputs that are one group each.
    pub fn new(shape: Shape, bits: f64, inputs: Inputs) -> Self {
        Self {
            shape,
            bits,
            group: None,
            inputs,
        }
    }

    /// Outputs in groups of so many weights.
    pub fn groupwise(self, group: usize) -> Self {
        Self {
            group: Some(group),
            ..self
        }
    }

    fn weight_shape(&self) -> Vec<usize> {
        match &self.shape {
            Shape::Linear(shape, _) => shape.to_vec(),
            Shape::Conv(conv) => {
                let [input, output] = conv.channels;
                let [height, width] = conv.kernel;
                vec![output, input / conv.groups, height, width]
            }
        }
    }

    /// The case: packed against the same weights in Burn's f32 layer.
    pub fn case(&self, device: &Device) -> Case {
        let shape = self.weight_shape();
        let grouping = match (self.group, &self.shape) {
            (Some(group), _) => Grouping::groupwise(&shape, group),
            (None, Shape::Linear(..)) => Grouping::subchannelwise(&shape, 1),
            (None, Shape::Conv(_)) => Grouping::channelwise(&shape),
        };
        let grouping = grouping.expect("it divides");
        let mut random = Random::new(1);
        let weight = Arc::new(random.weight(&shape, grouping, self.bits));
        match &self.shape {
            Shape::Linear(shape, rows) => self.linear(device, *shape, *rows, &weight, random),
            Shape::Conv(conv) => self.conv(device, conv, &weight, random),
        }
    }

    fn linear(
        &self,
        device: &Device,
        [d_in, d_out]: [usize; 2],
        rows: usize,
        weight: &Arc<PackedWeight>,
        mut random: Random,
    ) -> Case {
        let layer = MultiBitLinearConfig::new(d_in, d_out)
            .with_bias(false)
            .with_arithmetic(self.inputs.arithmetic())
            .init_float(device);
        let layer = one_weight(weight).apply(layer).expect("it fits");
        let config = LinearConfig::new(d_in, d_out).with_bias(false);
        let mut float = config.init(device);
        float.weight = dense(weight, device);
        let x = TensorData::new(random.values(rows * d_in), [rows, d_in]);
        self.sides(
            Tensor::<2>::from_data(x, device),
            move |x| layer.forward(x),
            move |x| float.forward(x),
            work(weight, rows * (d_in + d_out), rows * d_in * d_out),
        )
    }

    fn conv(
        &self,
        device: &Device,
        conv: &Conv,
        weight: &Arc<PackedWeight>,
        mut random: Random,
    ) -> Case {
        let layer = MultiBitConv2dConfig::new(conv.channels, conv.kernel)
            .with_stride([conv.stride; 2])
            .with_padding(conv.padding())
            .with_groups(conv.groups)
            .with_bias(false)
            .with_arithmetic(self.inputs.arithmetic())
            .init_float(device);
        let layer = one_weight(weight).apply(layer).expect("it fits");
        let mut float = Conv2dConfig::new(conv.channels, conv.kernel)
            .with_stride([conv.stride; 2])
            .with_padding(conv.padding())
            .with_groups(conv.groups)
            .with_bias(false)
            .init(device);
        float.weight = dense(weight, device);
        let [input, output] = conv.channels;
        let [height, width] = conv.size;
        let positions: usize = conv.out_size().iter().product();
        let dims = [1, input, height, width];
        let x = TensorData::new(random.values(input * height * width), dims);
        let products = positions * weight.shape().iter().product::<usize>();
        let values = input * height * width + output * positions;
        self.sides(
            Tensor::<4>::from_data(x, device),
            move |x| layer.forward(x),
            move |x| float.forward(x),
            work(weight, values, products),
        )
    }

    /// Both sides on the same input. What proves ours is the other on what the arithmetic makes of
    /// the input.
    fn sides<const D: usize>(
        &self,
        input: Tensor<D>,
        ours: impl Fn(Quantized<D>) -> Tensor<D> + 'static,
        other: impl Fn(Tensor<D>) -> Tensor<D> + Clone + 'static,
        work: Work,
    ) -> Case {
        let device = input.device();
        let activation = self.inputs.activation(&device);
        let rounded = match &activation {
            Some(activation) => activation.forward(input.clone()).into_tensor(),
            None => input.clone(),
        };
        let ours = {
            let input = input.clone();
            Rc::new(move || match &activation {
                Some(activation) => ours(activation.forward(input.clone())),
                None => ours(input.clone().into()),
            })
        };
        let check = {
            let (ours, other, room) = (ours.clone(), other.clone(), self.inputs.room(&device));
            move || {
                let found = values(ours().into_data());
                same(&found, &values(other(rounded).into_data()), room)
            }
        };
        Case {
            work,
            ours: timed(&device, move || ours()),
            other: timed(&device, move || other(input.clone())),
            side: Side::BurnF32,
            check: Box::new(check),
        }
    }
}

/// A packed model with one weight and nothing else.
fn one_weight(weight: &Arc<PackedWeight>) -> PackedModel {
    PackedModel {
        tied: Default::default(),
        arithmetic: Default::default(),
        weights: vec![("weight".into(), weight.clone())],
        tensors: Vec::new(),
        config: Default::default(),
        name: String::new(),
        input: None,
        labels: Vec::new(),
        chain: Vec::new(),
    }
}

/// The weight in f32.
fn dense<const D: usize>(weight: &PackedWeight, device: &Device) -> Param<Tensor<D>> {
    let data = TensorData::new(weight.unpack(), weight.shape().to_vec());
    Param::from_data(data, device)
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
