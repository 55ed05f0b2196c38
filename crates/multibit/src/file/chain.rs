//! How a model is used: what goes in, what comes out, and the layers between.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

use super::Flaw;
use super::cbor::{self, Reader, Writer};
use crate::cpu::{Activation, Arithmetic, Conv2dOptions, Pool2dOptions};

/// What a file says of a model beside its tensors; all of it at choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct About<'a> {
    /// A name, for people; empty if there is none.
    pub name: Cow<'a, str>,
    /// What one sample is, and how raw values become one.
    pub input: Option<Input>,
    /// The names of the outputs, in their order; empty if they have none.
    pub labels: Vec<Cow<'a, str>>,
    /// The layers; empty if the file does not say.
    pub chain: Vec<Step<usize>>,
}

impl About<'_> {
    /// The same, in memory of its own.
    pub fn into_owned<'b>(self) -> About<'b> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        About {
            name: owned(self.name),
            input: self.input,
            labels: self.labels.into_iter().map(owned).collect(),
            chain: self.chain,
        }
    }
}

/// The order of raw values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// That of the sample: one channel after the other.
    #[default]
    ChannelsFirst = 0,
    /// All channels of a place after the other, as images are stored.
    ChannelsLast = 1,
}

/// One sample, without a batch, and how raw values become it:
/// `x = (raw / divisor − mean) / deviation`, in f32 and in this order.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// `[channels, height, width]`, or `[features]`.
    pub shape: Vec<usize>,
    /// The raw value that stands for 1: 255 of bytes.
    pub divisor: f32,
    /// The mean of each channel; none are 0.
    pub mean: Vec<f32>,
    /// The deviation of each channel; none are 1.
    pub deviation: Vec<f32>,
    /// The order of raw values.
    pub order: Order,
}

/// Why a description of inputs is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InputError {
    /// The shape has no axis, more than three, an empty one, or too many values.
    #[error("a sample has one to three axes, none of them empty, and fits the address space")]
    Shape,
    /// A divisor that divides nothing.
    #[error("the divisor must be finite and not 0")]
    Divisor,
    /// Means or deviations of other channels.
    #[error("mean and deviation have a finite number for each channel, no deviation is 0")]
    Channels,
}

impl Input {
    /// Samples of a shape, whose raw values are the values.
    pub fn new(shape: impl Into<Vec<usize>>) -> Self {
        Self {
            shape: shape.into(),
            divisor: 1.0,
            mean: Vec::new(),
            deviation: Vec::new(),
            order: Order::ChannelsFirst,
        }
    }

    /// Values of a sample.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none; a description that was [checked](Self::check) has some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it describes samples.
    ///
    /// # Errors
    /// If it does not.
    pub fn check(&self) -> Result<(), InputError> {
        let shape = &self.shape;
        let axes = (1..=3).contains(&shape.len()) && !shape.contains(&0);
        // So many bytes of f32 are a number too.
        let mut sizes = shape.iter();
        let bytes = sizes.try_fold(4usize, |bytes, &size| bytes.checked_mul(size));
        if !axes || bytes.is_none() {
            return Err(InputError::Shape);
        }
        if !self.divisor.is_finite() || self.divisor == 0.0 {
            return Err(InputError::Divisor);
        }
        let fits = |numbers: &[f32]| numbers.is_empty() || numbers.len() == shape[0];
        let finite = |numbers: &[f32]| numbers.iter().all(|x| x.is_finite());
        if !fits(&self.mean)
            || !fits(&self.deviation)
            || !finite(&self.mean)
            || !finite(&self.deviation)
            || self.deviation.contains(&0.0)
        {
            return Err(InputError::Channels);
        }
        Ok(())
    }

    /// The value at a place of the sample, from raw values by their places.
    #[inline]
    pub fn value(&self, place: usize, raw: impl Fn(usize) -> f32) -> f32 {
        let channels = self.shape[0];
        let pixels = self.len() / channels;
        let (channel, pixel) = (place / pixels, place % pixels);
        let raw = raw(match self.order {
            Order::ChannelsFirst => place,
            Order::ChannelsLast => pixel * channels + channel,
        });
        let of = |numbers: &[f32], none| numbers.get(channel).copied().unwrap_or(none);
        (raw / self.divisor - of(&self.mean, 0.0)) / of(&self.deviation, 1.0)
    }

    #[inline(never)]
    fn read(reader: &mut Reader<'_>) -> cbor::Result<Self> {
        let start = reader.at();
        let mut input = Self::new([]);
        let mut keys = reader.keys()?;
        while let Some(key) = reader.key(&mut keys)? {
            let place = reader.at();
            match key {
                0 => input.shape = reader.sizes()?,
                1 => {
                    input.divisor = reader.f32()?;
                    if input.divisor == 1.0 {
                        return Err(reader.wrong(place, Flaw::LeftOut));
                    }
                }
                2 => input.mean = reader.items(Reader::f32)?,
                3 => input.deviation = reader.items(Reader::f32)?,
                4 => {
                    if reader.size()? != Order::ChannelsLast as usize {
                        return Err(reader.wrong(place, Flaw::Code));
                    }
                    input.order = Order::ChannelsLast;
                }
                _ => return Err(reader.wrong(place, Flaw::InputKey)),
            }
        }
        match input.check() {
            Ok(()) => Ok(input),
            Err(error) => Err(reader.wrong(start, Flaw::Input(error))),
        }
    }

    fn write(&self, writer: &mut Writer) {
        let floats = |writer: &mut Writer, numbers: &[f32]| {
            writer.array(numbers, |writer, &number| writer.f32(number));
        };
        writer.keys(|keys| {
            keys.at(0).sizes(&self.shape);
            keys.unless(1.0, 1, self.divisor, Writer::f32);
            keys.unless(&[][..], 2, &self.mean[..], floats);
            keys.unless(&[][..], 3, &self.deviation[..], floats);
            keys.unless(0, 4, self.order as u8, Writer::uint);
        });
    }
}

/// A step of a chain. Value 0 is the input, step `i` makes value `i`, counted from 1.
///
/// `T` names a tensor: its index in the file ([`About::chain`]), or a path.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<T> {
    /// The value that it takes; none is the one before.
    pub input: Option<usize>,
    /// What it makes of it.
    pub op: Op<T>,
}

/// What a step makes of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Op<T> {
    /// A linear layer over `[features]`.
    Linear(Layer<T>),
    /// A convolution over `[channels, height, width]`.
    Conv2d(Layer<T>, Conv2dOptions),
    /// The largest of each window.
    MaxPool2d(Pool2dOptions),
    /// The sum of each window in row-major order, divided by its places, those of the padding
    /// included.
    AvgPool2d(Pool2dOptions),
    /// The same over all places of a channel.
    GlobalAvgPool2d,
    /// `[channels, height, width]` as `[features]`.
    Flatten,
    /// A function of each value.
    Activation(Activation),
    /// A multi-bit activation, by its state `[6]`: bits, of which 0 are a ReLU, `x_ref`, and `γ`.
    Levels(T),
    /// The sum with another value of the same shape.
    Add(usize),
}

/// A packed weight and what follows it in a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer<T> {
    /// The packed weight.
    pub weight: T,
    /// Added to each output.
    pub bias: Option<T>,
    /// Batch norm in evaluation behind it, folded when it runs.
    pub norm: Option<Norm<T>>,
    /// The arithmetic, where the weight's entry says none; none is exact.
    pub arithmetic: Option<Arithmetic>,
}

/// Batch norm, `γ·(y − μ)/√(σ² + ε) + β`, a number of each an output.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm<T> {
    /// `γ`.
    pub gamma: T,
    /// `β`.
    pub beta: T,
    /// `μ`.
    pub mean: T,
    /// `σ²`.
    pub variance: T,
    /// `ε`.
    pub epsilon: f32,
}

/// Which list of the directory a tensor is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Multi-bit weights.
    Weights,
    /// All others.
    Tensors,
}

impl<T> Step<T> {
    /// The same step with other names of its tensors.
    ///
    /// # Errors
    /// The first that `name` gives.
    pub fn rename<U, E>(
        &self,
        mut name: impl FnMut(List, &T) -> Result<U, E>,
    ) -> Result<Step<U>, E> {
        let op = match &self.op {
            Op::Linear(layer) => Op::Linear(layer.rename(&mut name)?),
            Op::Conv2d(layer, options) => Op::Conv2d(layer.rename(&mut name)?, *options),
            Op::MaxPool2d(options) => Op::MaxPool2d(*options),
            Op::AvgPool2d(options) => Op::AvgPool2d(*options),
            Op::GlobalAvgPool2d => Op::GlobalAvgPool2d,
            Op::Flatten => Op::Flatten,
            Op::Activation(activation) => Op::Activation(*activation),
            Op::Levels(state) => Op::Levels(name(List::Tensors, state)?),
            Op::Add(other) => Op::Add(*other),
        };
        let input = self.input;
        Ok(Step { input, op })
    }
}

impl<T> Layer<T> {
    fn rename<U, E>(&self, name: &mut impl FnMut(List, &T) -> Result<U, E>) -> Result<Layer<U>, E> {
        let weight = name(List::Weights, &self.weight)?;
        let mut tensor = |tensor: &T| name(List::Tensors, tensor);
        Ok(Layer {
            weight,
            bias: self.bias.as_ref().map(&mut tensor).transpose()?,
            norm: match &self.norm {
                Some(norm) => Some(Norm {
                    gamma: tensor(&norm.gamma)?,
                    beta: tensor(&norm.beta)?,
                    mean: tensor(&norm.mean)?,
                    variance: tensor(&norm.variance)?,
                    epsilon: norm.epsilon,
                }),
                None => None,
            },
            arithmetic: self.arithmetic,
        })
    }
}

/// Keys of the directory for [`About`].
pub(super) const NAME: u8 = 4;
pub(super) const INPUT: u8 = 5;
pub(super) const LABELS: u8 = 6;
pub(super) const CHAIN: u8 = 7;

impl<'a> About<'a> {
    /// The value of one of the keys.
    pub(super) fn read(&mut self, key: usize, reader: &mut Reader<'a>) -> cbor::Result<()> {
        let place = reader.at();
        match u8::try_from(key).unwrap_or(u8::MAX) {
            NAME => {
                self.name = reader.text()?.into();
                if self.name.is_empty() {
                    return Err(reader.wrong(place, Flaw::LeftOut));
                }
            }
            INPUT => self.input = Some(Input::read(reader)?),
            LABELS => self.labels = reader.items(|reader| reader.text().map(Cow::Borrowed))?,
            CHAIN => self.chain = reader.items(Step::read)?,
            _ => return Err(reader.wrong(place, Flaw::DirectoryKey)),
        }
        Ok(())
    }

    pub(super) fn write(&self, keys: &mut super::cbor::KeyWriter<'_>) {
        keys.unless("", NAME, &*self.name, Writer::text);
        if let Some(input) = &self.input {
            input.write(keys.at(INPUT));
        }
        if !self.labels.is_empty() {
            let text = |writer: &mut Writer, text: &Cow<'_, str>| writer.text(text);
            keys.at(LABELS).array(&self.labels, text);
        }
        if !self.chain.is_empty() {
            let step = |writer: &mut Writer, step: &Step<usize>| step.write(writer);
            keys.at(CHAIN).array(&self.chain, step);
        }
    }
}

/// A chain's steps as lines of text, for people.
pub fn describe<T: core::fmt::Display>(steps: &[Step<T>]) -> Vec<String> {
    steps.iter().map(Step::describe).collect()
}

impl<T: core::fmt::Display> Step<T> {
    fn describe(&self) -> String {
        use alloc::format;
        let from = self
            .input
            .map_or(String::new(), |value| format!(" of value {value}"));
        let layer = |name: &str, layer: &Layer<T>| {
            let norm = layer.norm.as_ref();
            let norm = norm.map_or(String::new(), |norm| format!(", norm {}", norm.gamma));
            let arithmetic = layer.arithmetic;
            let arithmetic = arithmetic.map_or(String::new(), |kind| format!(", {kind}"));
            format!("{name} {}{norm}{arithmetic}", layer.weight)
        };
        let window =
            |options: &Pool2dOptions| format!("{:?} every {:?}", options.kernel, options.stride);
        let what = match &self.op {
            Op::Linear(of) => layer("linear", of),
            Op::Conv2d(of, options) => {
                let Conv2dOptions {
                    stride,
                    padding,
                    dilation,
                    groups,
                } = options;
                let of = layer("conv2d", of);
                format!(
                    "{of}, stride {stride:?}, padding {padding:?}, dilation {dilation:?}, groups \
                     {groups}"
                )
            }
            Op::MaxPool2d(options) => format!("largest of {}", window(options)),
            Op::AvgPool2d(options) => format!("average of {}", window(options)),
            Op::GlobalAvgPool2d => "average of all places".into(),
            Op::Flatten => "flatten".into(),
            Op::Activation(activation) => format!("{activation:?}"),
            Op::Levels(state) => format!("levels {state}"),
            Op::Add(other) => format!("plus value {other}"),
        };
        what + &from
    }
}
