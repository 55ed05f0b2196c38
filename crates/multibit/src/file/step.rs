//! Steps as the directory holds them.

use super::cbor::{Reader, Writer};
use super::{Layer, Malformed, Norm, Op, Step};
use crate::cpu::{Activation, Arithmetic, Conv2dOptions, Pool2dOptions};

/// The functions by their codes.
const ACTIVATIONS: [Activation; 9] = [
    Activation::Identity,
    Activation::Relu,
    Activation::Relu6,
    Activation::HardSwish,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluApproximate,
    Activation::Sigmoid,
    Activation::Tanh,
];

/// The arithmetics by their codes.
pub(super) const ARITHMETICS: [Arithmetic; 3] =
    [Arithmetic::Exact, Arithmetic::Int8, Arithmetic::Bitwise];

/// Codes of what a step does.
const LINEAR: u8 = 0;
const CONV2D: u8 = 1;
const MAX_POOL2D: u8 = 2;
const AVG_POOL2D: u8 = 3;
const FLATTEN: u8 = 4;
const ACTIVATION: u8 = 5;
const LEVELS: u8 = 6;
const ADD: u8 = 7;

/// The place of a value among the codes.
pub(super) fn code<T: PartialEq>(codes: &[T], value: &T) -> u8 {
    let place = codes.iter().position(|known| known == value);
    place.expect("a code for each") as u8
}

pub(super) fn unless<T: PartialEq>(place: &Reader<'_>, value: T, none: T) -> Result<T, Malformed> {
    match value == none {
        true => Err(place.wrong("a value that is left out")),
        false => Ok(value),
    }
}

/// The keys of a step as they lie.
#[derive(Default)]
struct Fields {
    op: Option<u8>,
    input: Option<usize>,
    weight: Option<usize>,
    bias: Option<usize>,
    norm: Option<[usize; 4]>,
    epsilon: Option<f32>,
    arithmetic: Option<Arithmetic>,
    window: Option<[usize; 2]>,
    stride: Option<[usize; 2]>,
    /// Before and behind each axis.
    padding: Option<[usize; 4]>,
    dilation: Option<[usize; 2]>,
    groups: Option<usize>,
    function: Option<Activation>,
    state: Option<usize>,
    other: Option<usize>,
}

impl Fields {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        let mut keys = reader.keys()?;
        while let Some(key) = reader.key(&mut keys)? {
            let place = reader.clone();
            let nothing = || place.wrong("a code that stands for nothing");
            match key {
                0 => fields.op = Some(reader.u8()?),
                1 => fields.input = Some(reader.size()?),
                2 => fields.weight = Some(reader.size()?),
                3 => fields.bias = Some(reader.size()?),
                4 => fields.norm = Some(reader.exactly()?),
                5 => fields.epsilon = Some(reader.f32()?),
                6 => {
                    let code = ARITHMETICS.get(usize::from(reader.u8()?));
                    fields.arithmetic = Some(*code.ok_or_else(nothing)?);
                }
                7 => fields.window = Some(reader.exactly()?),
                8 => fields.stride = Some(unless(&place, reader.exactly()?, [1; 2])?),
                9 => fields.padding = Some(unless(&place, reader.exactly()?, [0; 4])?),
                10 => fields.dilation = Some(unless(&place, reader.exactly()?, [1; 2])?),
                11 => fields.groups = Some(unless(&place, reader.size()?, 1)?),
                12 => {
                    let code = ACTIVATIONS.get(usize::from(reader.u8()?));
                    fields.function = Some(*code.ok_or_else(nothing)?);
                }
                13 => fields.state = Some(reader.size()?),
                14 => fields.other = Some(reader.size()?),
                _ => return Err(place.wrong("an unknown key of a step")),
            }
        }
        Ok(fields)
    }

    fn layer(&mut self) -> Option<Layer<usize>> {
        let norm = match (self.norm.take(), self.epsilon.take()) {
            (Some([gamma, beta, mean, variance]), Some(epsilon)) => Some(Norm {
                gamma,
                beta,
                mean,
                variance,
                epsilon,
            }),
            (None, None) => None,
            _ => return None,
        };
        Some(Layer {
            weight: self.weight.take()?,
            bias: self.bias.take(),
            norm,
            arithmetic: self.arithmetic.take(),
        })
    }

    /// Stride, padding before and behind, dilation.
    fn slide(&mut self) -> ([usize; 2], [(usize, usize); 2], [usize; 2]) {
        let [top, bottom, left, right] = self.padding.take().unwrap_or_default();
        (
            self.stride.take().unwrap_or([1; 2]),
            [(top, bottom), (left, right)],
            self.dilation.take().unwrap_or([1; 2]),
        )
    }

    fn pool(&mut self) -> Option<Pool2dOptions> {
        let kernel = self.window.take()?;
        let (stride, padding, dilation) = self.slide();
        let symmetric = padding.iter().all(|(before, behind)| before == behind);
        symmetric.then_some(Pool2dOptions {
            kernel,
            stride,
            padding: padding.map(|(before, _)| before),
            dilation,
        })
    }

    /// The step, if the keys are those that it has, and no other.
    fn step(mut self) -> Option<Step<usize>> {
        let op = match self.op.take()? {
            LINEAR => Op::Linear(self.layer()?),
            CONV2D => {
                let layer = self.layer()?;
                let (stride, padding, dilation) = self.slide();
                let groups = self.groups.take().unwrap_or(1);
                let options = Conv2dOptions {
                    stride,
                    padding,
                    dilation,
                    groups,
                };
                Op::Conv2d(layer, options)
            }
            MAX_POOL2D => Op::MaxPool2d(self.pool()?),
            AVG_POOL2D if self.window.is_none() => Op::GlobalAvgPool2d,
            AVG_POOL2D => Op::AvgPool2d(self.pool()?),
            FLATTEN => Op::Flatten,
            ACTIVATION => Op::Activation(self.function.take()?),
            LEVELS => Op::Levels(self.state.take()?),
            ADD => Op::Add(self.other.take()?),
            _ => return None,
        };
        let input = self.input.take();
        let Self {
            op: None,
            input: None,
            weight: None,
            bias: None,
            norm: None,
            epsilon: None,
            arithmetic: None,
            window: None,
            stride: None,
            padding: None,
            dilation: None,
            groups: None,
            function: None,
            state: None,
            other: None,
        } = self
        else {
            return None;
        };
        Some(Step { input, op })
    }
}

impl Step<usize> {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = reader.clone();
        let step = Fields::read(reader)?.step();
        step.ok_or(start.wrong("a step that lacks a key or has one of another"))
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let index = |index: usize| index as u64;
        let mut fields = Fields {
            input: self.input,
            ..Fields::default()
        };
        let op = match &self.op {
            Op::Linear(layer) => {
                fields.set_layer(layer);
                LINEAR
            }
            Op::Conv2d(layer, options) => {
                fields.set_layer(layer);
                fields.groups = Some(options.groups);
                fields.set_slide(options.stride, options.padding, options.dilation);
                CONV2D
            }
            Op::MaxPool2d(options) => {
                fields.set_pool(options);
                MAX_POOL2D
            }
            Op::AvgPool2d(options) => {
                fields.set_pool(options);
                AVG_POOL2D
            }
            Op::GlobalAvgPool2d => AVG_POOL2D,
            Op::Flatten => FLATTEN,
            Op::Activation(activation) => {
                fields.function = Some(*activation);
                ACTIVATION
            }
            Op::Levels(state) => {
                fields.state = Some(*state);
                LEVELS
            }
            Op::Add(other) => {
                fields.other = Some(*other);
                ADD
            }
        };
        writer.keys(|keys| {
            keys.at(0).uint(op);
            for (key, number) in [(1, fields.input), (2, fields.weight), (3, fields.bias)] {
                keys.maybe(key, number.map(index), Writer::uint);
            }
            keys.maybe(4, fields.norm, |writer, norm| writer.sizes(&norm));
            keys.maybe(5, fields.epsilon, Writer::f32);
            let arithmetic = fields.arithmetic.map(|kind| code(&ARITHMETICS, &kind));
            keys.maybe(6, arithmetic, Writer::uint);
            keys.maybe(7, fields.window, |writer, window| writer.sizes(&window));
            let sizes = |writer: &mut Writer, sizes: &[usize]| writer.sizes(sizes);
            let [stride, dilation] = [fields.stride, fields.dilation].map(|x| x.unwrap_or([1; 2]));
            let padding = fields.padding.unwrap_or_default();
            keys.unless(&[1; 2][..], 8, &stride[..], sizes);
            keys.unless(&[0; 4][..], 9, &padding[..], sizes);
            keys.unless(&[1; 2][..], 10, &dilation[..], sizes);
            keys.unless(1, 11, index(fields.groups.unwrap_or(1)), Writer::uint);
            let function = fields.function.map(|kind| code(&ACTIVATIONS, &kind));
            keys.maybe(12, function, Writer::uint);
            for (key, number) in [(13, fields.state), (14, fields.other)] {
                keys.maybe(key, number.map(index), Writer::uint);
            }
        });
    }
}

impl Fields {
    fn set_layer(&mut self, layer: &Layer<usize>) {
        self.weight = Some(layer.weight);
        self.bias = layer.bias;
        self.arithmetic = layer.arithmetic;
        let norm = layer.norm.as_ref();
        self.norm = norm.map(|norm| [norm.gamma, norm.beta, norm.mean, norm.variance]);
        self.epsilon = norm.map(|norm| norm.epsilon);
    }

    fn set_slide(
        &mut self,
        stride: [usize; 2],
        [(top, bottom), (left, right)]: [(usize, usize); 2],
        dilation: [usize; 2],
    ) {
        self.stride = Some(stride);
        self.padding = Some([top, bottom, left, right]);
        self.dilation = Some(dilation);
    }

    fn set_pool(&mut self, options: &Pool2dOptions) {
        self.window = Some(options.kernel);
        let padding = options.padding.map(|size| (size, size));
        self.set_slide(options.stride, padding, options.dilation);
    }
}
