//! Steps as the directory holds them.

use super::cbor::{Reader, Result, Writer};
use super::{Flaw, Layer, Norm, Op, Step};
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

/// The arithmetic of a code.
pub(super) fn arithmetic(reader: &mut Reader<'_>) -> Result<Arithmetic> {
    let place = reader.at();
    let arithmetic = ARITHMETICS.get(reader.size()?).copied();
    arithmetic.ok_or_else(|| reader.wrong(place, Flaw::Code))
}

// Keys of a step.
const OP: usize = 0;
const INPUT: usize = 1;
const WEIGHT: usize = 2;
const BIAS: usize = 3;
/// γ, β, μ, σ².
const NORM: usize = 4;
/// The bits of an f32.
const EPSILON: usize = 5;
const ARITHMETIC: usize = 6;
const WINDOW: usize = 7;
const STRIDE: usize = 8;
/// Before and behind each axis.
const PADDING: usize = 9;
const DILATION: usize = 10;
const GROUPS: usize = 11;
const FUNCTION: usize = 12;
const STATE: usize = 13;
const OTHER: usize = 14;
const KEYS: usize = 15;

/// Where the numbers of each key begin among all, and where the last end; one alone is no array.
const PLACES: [usize; KEYS + 1] = [0, 1, 2, 3, 4, 8, 9, 10, 12, 14, 18, 20, 21, 22, 23, 24];

/// Numbers of all keys.
const NUMBERS: usize = PLACES[KEYS];

/// What is left out.
fn left_out(key: usize) -> &'static [usize] {
    match key {
        STRIDE | DILATION => &[1, 1],
        PADDING => &[0; 4],
        GROUPS => &[1],
        _ => &[],
    }
}

/// The keys of a step as they lie.
#[derive(Default)]
struct Fields {
    numbers: [usize; NUMBERS],
    /// A bit for each key that is there.
    there: u16,
}

impl Fields {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        let mut keys = reader.keys()?;
        while let Some(key) = reader.key(&mut keys)? {
            let place = reader.at();
            if key >= KEYS {
                return Err(reader.wrong(place, Flaw::StepKey));
            }
            self.there |= 1 << key;
            match self.of(key) {
                [bits] if key == EPSILON => *bits = reader.f32()?.to_bits() as usize,
                [number] => *number = reader.size()?,
                numbers => reader.exactly(numbers)?,
            }
            let codes = match key {
                ARITHMETIC => Some(ARITHMETICS.len()),
                FUNCTION => Some(ACTIVATIONS.len()),
                _ => None,
            };
            let numbers = self.of(key);
            if codes.is_some_and(|codes| codes <= numbers[0]) {
                return Err(reader.wrong(place, Flaw::Code));
            }
            if numbers == left_out(key) {
                return Err(reader.wrong(place, Flaw::LeftOut));
            }
        }
        Ok(())
    }

    /// The numbers of a key.
    fn of(&mut self, key: usize) -> &mut [usize] {
        &mut self.numbers[PLACES[key]..PLACES[key + 1]]
    }

    fn has(&self, key: usize) -> bool {
        self.there >> key & 1 != 0
    }

    /// What a key has, or what is left out; then it is not left.
    fn take<const N: usize>(&mut self, key: usize) -> Option<[usize; N]> {
        let is_there = self.has(key);
        self.there &= !(1 << key);
        let numbers = match is_there {
            true => &*self.of(key),
            false => left_out(key),
        };
        numbers.first_chunk().copied()
    }

    /// The one number of a key.
    fn one(&mut self, key: usize) -> Option<usize> {
        self.take(key).map(|[number]| number)
    }

    fn layer(&mut self) -> Option<Layer<usize>> {
        let norm = match (self.take(NORM), self.one(EPSILON)) {
            (Some([gamma, beta, mean, variance]), Some(epsilon)) => Some(Norm {
                gamma,
                beta,
                mean,
                variance,
                epsilon: f32::from_bits(epsilon as u32),
            }),
            (None, None) => None,
            _ => return None,
        };
        Some(Layer {
            weight: self.one(WEIGHT)?,
            bias: self.one(BIAS),
            norm,
            arithmetic: self.one(ARITHMETIC).map(|code| ARITHMETICS[code]),
        })
    }

    /// Stride, padding and dilation, in one group.
    fn slide(&mut self) -> Conv2dOptions {
        let [top, bottom, left, right] = self.take(PADDING).unwrap_or_default();
        Conv2dOptions {
            stride: self.take(STRIDE).unwrap_or_default(),
            padding: [(top, bottom), (left, right)],
            dilation: self.take(DILATION).unwrap_or_default(),
            groups: 1,
        }
    }

    fn pool(&mut self) -> Option<Pool2dOptions> {
        let kernel = self.take(WINDOW)?;
        let slide = self.slide();
        let symmetric = slide
            .padding
            .iter()
            .all(|(before, behind)| before == behind);
        symmetric.then_some(Pool2dOptions {
            kernel,
            stride: slide.stride,
            padding: slide.padding.map(|(before, _)| before),
            dilation: slide.dilation,
        })
    }

    /// The step, if the keys are those that it has, and no other.
    fn step(&mut self) -> Option<Step<usize>> {
        let op = match u8::try_from(self.one(OP)?).ok()? {
            LINEAR => Op::Linear(self.layer()?),
            CONV2D => {
                let groups = self.one(GROUPS).unwrap_or(1);
                let slide = self.slide();
                Op::Conv2d(self.layer()?, Conv2dOptions { groups, ..slide })
            }
            MAX_POOL2D => Op::MaxPool2d(self.pool()?),
            AVG_POOL2D if !self.has(WINDOW) => Op::GlobalAvgPool2d,
            AVG_POOL2D => Op::AvgPool2d(self.pool()?),
            FLATTEN => Op::Flatten,
            ACTIVATION => Op::Activation(ACTIVATIONS[self.one(FUNCTION)?]),
            LEVELS => Op::Levels(self.one(STATE)?),
            ADD => Op::Add(self.one(OTHER)?),
            _ => return None,
        };
        let input = self.one(INPUT);
        (self.there == 0).then_some(Step { input, op })
    }
}

impl Step<usize> {
    #[inline(never)]
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let start = reader.at();
        let mut fields = Fields::default();
        fields.read(reader)?;
        fields.step().ok_or_else(|| reader.wrong(start, Flaw::Step))
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let mut fields = Fields::default();
        fields.set_one(INPUT, self.input);
        let op = match &self.op {
            Op::Linear(layer) => {
                fields.set_layer(layer);
                LINEAR
            }
            Op::Conv2d(layer, options) => {
                fields.set_layer(layer);
                fields.set_slide(options);
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
                fields.set_one(FUNCTION, Some(code(&ACTIVATIONS, activation).into()));
                ACTIVATION
            }
            Op::Levels(state) => {
                fields.set_one(STATE, Some(*state));
                LEVELS
            }
            Op::Add(other) => {
                fields.set_one(OTHER, Some(*other));
                ADD
            }
        };
        fields.set_one(OP, Some(op.into()));
        writer.keys(|keys| {
            for key in 0..KEYS {
                let is_there = fields.has(key);
                let numbers = fields.of(key);
                if !is_there || numbers == left_out(key) {
                    continue;
                }
                let writer = keys.at(key as u8);
                match numbers {
                    [bits] if key == EPSILON => writer.f32(f32::from_bits(*bits as u32)),
                    [number] => writer.uint(*number as u64),
                    numbers => writer.sizes(numbers),
                }
            }
        });
    }
}

impl Fields {
    fn set(&mut self, key: usize, numbers: &[usize]) {
        self.of(key).copy_from_slice(numbers);
        self.there |= 1 << key;
    }

    fn set_one(&mut self, key: usize, number: Option<usize>) {
        if let Some(number) = number {
            self.set(key, &[number]);
        }
    }

    fn set_layer(&mut self, layer: &Layer<usize>) {
        self.set_one(WEIGHT, Some(layer.weight));
        self.set_one(BIAS, layer.bias);
        let arithmetic = layer.arithmetic.map(|kind| code(&ARITHMETICS, &kind));
        self.set_one(ARITHMETIC, arithmetic.map(usize::from));
        if let Some(norm) = &layer.norm {
            self.set(NORM, &[norm.gamma, norm.beta, norm.mean, norm.variance]);
            self.set_one(EPSILON, Some(norm.epsilon.to_bits() as usize));
        }
    }

    fn set_slide(&mut self, options: &Conv2dOptions) {
        let [(top, bottom), (left, right)] = options.padding;
        self.set(STRIDE, &options.stride);
        self.set(PADDING, &[top, bottom, left, right]);
        self.set(DILATION, &options.dilation);
        self.set_one(GROUPS, Some(options.groups));
    }

    fn set_pool(&mut self, options: &Pool2dOptions) {
        self.set(WINDOW, &options.kernel);
        self.set_slide(&Conv2dOptions {
            stride: options.stride,
            padding: options.padding.map(|size| (size, size)),
            dilation: options.dilation,
            groups: 1,
        });
    }
}
