//! A packed file that holds its chain of layers, run without a framework.
//!
//! [`Plan`] checks the chain against the weights, knows every shape, and places every value in one
//! buffer; it says before how much that is. Then there are two ways to run it:
//!
//! - [`Plan::run`]: one sample, without an allocation, reading the bits where they lie in the file.
//!   For processors without vectors, and programs without a heap to spare.
//! - [`Prepared`]: any number of samples by the kernels of [`cpu`](crate::cpu), with an instruction set
//!   of choice; these lay weights out once and take memory while they run.
//!
//! # The same bits
//! `Prepared` computes what the packed layers of burn-alq compute with the same instruction set and as
//! many samples, bit for bit. `Plan::run` computes what `Prepared` computes for one sample on
//! [`Isa::PORTABLE`](crate::cpu::Isa::PORTABLE), bit for bit, on every machine: it adds the same numbers
//! in the same order, without a fused multiply-add. Inputs must be finite: what an infinity or NaN
//! becomes may differ where a group has no bits, as the kernels say. Functions that are not cut lines
//! ([`Activation::Gelu`] and its like) are the kernels' own.
//!
//! ```
//! use multibit::file::PackedFile;
//! use multibit::runtime::Plan;
//!
//! fn classify(file: &[u8], image: &[u8]) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
//!     let file = PackedFile::read(file)?;
//!     let plan = Plan::new(&file)?;
//!     let mut buffer = vec![0; plan.words()];
//!     let mut scores = vec![0.0; plan.scores()];
//!     plan.run_raw(image, &mut buffer, &mut scores)?;
//!     Ok(scores)
//! }
//! ```

mod error;
mod place;
#[cfg(feature = "runtime")]
mod prepared;
mod scalar;
mod shapes;

use alloc::vec::Vec;
use core::ops::Range;

use crate::cpu::{Activation, Arithmetic, Conv2dOptions, Pool2dOptions};
use crate::file::{FileWeight, Input, Layer, PackedFile};

pub use error::{PlanError, RunError, StepError};
#[cfg(feature = "runtime")]
pub use prepared::Prepared;

/// What this build can run beside cut lines and exact arithmetic; plans refuse the rest.
const FUNCTIONS: bool = cfg!(feature = "functions");
const INT8: bool = cfg!(feature = "int8");
const BITWISE: bool = cfg!(feature = "bitwise");

/// The shape of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Features(usize),
    /// Channels, height, width.
    Image([usize; 3]),
}

impl Shape {
    /// The number of values, if it fits.
    fn len(self) -> Option<usize> {
        match self {
            Self::Features(len) => Some(len),
            Self::Image([channels, height, width]) => {
                channels.checked_mul(height)?.checked_mul(width)
            }
        }
    }

    /// A shape that was checked.
    fn size(self) -> usize {
        self.len().unwrap_or(0)
    }
}

/// Levels that values have taken: the tensor of their state, and bits.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LevelState {
    tensor: usize,
    bits: usize,
}

/// What a layer needs beside its input.
#[derive(Clone, Debug)]
struct Weights<'f> {
    layer: &'f Layer<usize>,
    arithmetic: Arithmetic,
    /// Of the input, in bitwise arithmetic.
    levels: Option<LevelState>,
}

/// A convolution, with what it is computed by.
#[derive(Clone, Debug)]
struct Conv2d<'f> {
    weights: Weights<'f>,
    options: &'f Conv2dOptions,
    /// The input's shape, and the output's before it is pooled.
    from: [usize; 3],
    to: [usize; 3],
    way: scalar::Way,
    /// What the largest are taken of at once.
    pool: Option<&'f Pool2dOptions>,
}

/// A step as it runs.
#[derive(Clone, Debug)]
enum Work<'f> {
    Linear(Weights<'f>, [usize; 2]),
    Conv2d(Conv2d<'f>),
    MaxPool2d(&'f Pool2dOptions, [usize; 3]),
    AvgPool2d(Pool2dOptions, [usize; 3]),
    /// The same values in another shape, or done by the step before.
    Nothing,
    Activation(Activation),
    Levels(LevelState),
    Add(usize),
}

/// A value of a chain.
#[derive(Clone, Copy, Debug)]
struct Value {
    shape: Shape,
    levels: Option<LevelState>,
}

/// A step, the value that it takes, and where it works beside that and the one that it makes.
#[derive(Clone, Debug)]
struct Planned<'f> {
    input: usize,
    work: Work<'f>,
    scratch: Range<usize>,
}

/// How a file's chain runs: every shape is known, every value has its place.
///
/// Takes some hundred bytes for each step.
#[derive(Debug)]
pub struct Plan<'f, 'a> {
    file: &'f PackedFile<'a>,
    input: &'f Input,
    steps: Vec<Planned<'f>>,
    /// Where each value lies in the buffer.
    values: Vec<Range<usize>>,
    words: usize,
}

impl<'f, 'a> Plan<'f, 'a> {
    /// Checks the chain against the file's weights and plans it.
    ///
    /// # Errors
    /// If the file has no chain or no input, or a step does not fit.
    // Apart from its caller, so that its stack is free again when the plan runs.
    #[inline(never)]
    pub fn new(file: &'f PackedFile<'a>) -> Result<Self, PlanError> {
        let about = file.about();
        if about.chain.is_empty() {
            return Err(PlanError::NoChain);
        }
        let input = about.input.as_ref().ok_or(PlanError::NoInput)?;
        // What stays takes its room before what does not, which then comes back as one.
        let mut steps = Vec::with_capacity(about.chain.len());
        let mut places = Vec::with_capacity(about.chain.len() + 1);
        let values = shapes::plan(file, input, &mut steps)?;
        let words = place::place(file, &mut steps, &values, &mut places);
        let plan = Self {
            file,
            input,
            steps,
            values: places,
            words: words.ok_or(PlanError::TooLarge)?,
        };
        let (labels, outputs) = (about.labels.len(), plan.scores());
        if labels > 0 && labels != outputs {
            return Err(PlanError::Labels { labels, outputs });
        }
        Ok(plan)
    }

    /// The file.
    pub fn file(&self) -> &'f PackedFile<'a> {
        self.file
    }

    /// What a sample is.
    pub fn input(&self) -> &'f Input {
        self.input
    }

    /// Values of a score for each output.
    pub fn scores(&self) -> usize {
        self.values.last().map_or(0, Range::len)
    }

    /// Words of the buffer of [`run`](Self::run): all that it works in, beside its stack.
    pub fn words(&self) -> usize {
        self.words
    }

    /// The same in bytes.
    pub fn bytes(&self) -> usize {
        self.words * size_of::<u32>()
    }

    /// The scores of one sample.
    ///
    /// # Shapes
    /// - `input`: [`Input::shape`], values, not raw
    /// - `buffer`: [`words`](Self::words) or more, of any content
    /// - `scores`: [`scores`](Self::scores), written whole
    ///
    /// # Errors
    /// If one has another length.
    pub fn run(
        &self,
        input: &[f32],
        buffer: &mut [u32],
        scores: &mut [f32],
    ) -> Result<(), RunError> {
        self.run_from(input.len(), |place| input[place], buffer, scores)
    }

    /// The scores of one sample of raw bytes, as [`Input`] says that they become values.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_raw(
        &self,
        raw: &[u8],
        buffer: &mut [u32],
        scores: &mut [f32],
    ) -> Result<(), RunError> {
        let value = |place| {
            self.input
                .value(place, |raw_place| f32::from(raw[raw_place]))
        };
        self.run_from(raw.len(), value, buffer, scores)
    }

    fn run_from(
        &self,
        found: usize,
        value: impl Fn(usize) -> f32,
        buffer: &mut [u32],
        scores: &mut [f32],
    ) -> Result<(), RunError> {
        let expected = self.input.len();
        if found != expected {
            return Err(RunError::Input { expected, found });
        }
        let (expected, found) = (self.words(), buffer.len());
        let buffer = buffer.get_mut(..expected);
        let buffer = buffer.ok_or(RunError::Buffer { expected, found })?;
        let (expected, found) = (self.scores(), scores.len());
        if found != expected {
            return Err(RunError::Scores { expected, found });
        }
        for (place, word) in buffer[self.values[0].clone()].iter_mut().enumerate() {
            *word = value(place).to_bits();
        }
        for step in 0..self.steps.len() {
            self.step(step, buffer);
        }
        let made = self.values[self.steps.len()].clone();
        for (score, word) in scores.iter_mut().zip(&buffer[made]) {
            *score = f32::from_bits(*word);
        }
        Ok(())
    }

    /// Makes value `step + 1`.
    #[inline(never)]
    fn step(&self, step: usize, buffer: &mut [u32]) {
        let planned = &self.steps[step];
        let value = match &planned.work {
            Work::Conv2d(conv) if conv.pool.is_some() => step + 2,
            _ => step + 1,
        };
        let [from, to] = [planned.input, value].map(|value| self.values[value].clone());
        // What works in place has its values where they go.
        let is_there = from.start == to.start;
        let taken = if is_there { 0..0 } else { from };
        let places = [taken, to.clone(), planned.scratch.clone()];
        // Places of what lives at a time are apart: `place` has seen to it.
        let Ok([from, output, scratch]) = buffer.get_disjoint_mut(places) else {
            return;
        };
        match &planned.work {
            Work::Linear(weights, sizes) => {
                scalar::linear(&self.layer(weights), *sizes, from, output, scratch);
            }
            Work::Conv2d(conv) => {
                scalar::conv2d(&self.layer(&conv.weights), conv, from, output, scratch);
            }
            Work::MaxPool2d(options, size) => scalar::pool(false, from, *size, options, output),
            Work::AvgPool2d(options, size) => scalar::pool(true, from, *size, options, output),
            Work::Nothing => {}
            Work::Activation(_) | Work::Levels(_) | Work::Add(_) if !is_there => {
                output.copy_from_slice(from);
            }
            _ => {}
        }
        match &planned.work {
            Work::Activation(activation) => scalar::activate(*activation, output),
            Work::Levels(state) if BITWISE => {
                if let Some(levels) = scalar::Levels::of(self.file, *state) {
                    levels.quantize(output);
                }
            }
            Work::Add(other) => {
                let other = self.values[*other].clone();
                for (place, other) in to.zip(other) {
                    let sum = f32::from_bits(buffer[place]) + f32::from_bits(buffer[other]);
                    buffer[place] = sum.to_bits();
                }
            }
            _ => {}
        }
    }

    fn layer<'p>(&'p self, weights: &'p Weights<'p>) -> LayerView<'p, 'a> {
        LayerView {
            file: self.file,
            weight: &self.file.weights()[weights.layer.weight],
            weights,
        }
    }
}

/// A layer's tensors in the file.
#[derive(Clone, Copy)]
struct LayerView<'p, 'a> {
    file: &'p PackedFile<'a>,
    weight: &'p FileWeight<'a>,
    weights: &'p Weights<'p>,
}

impl LayerView<'_, '_> {
    /// Scale and offset of an output: the bias, and batch norm behind it, as burn-alq folds them.
    fn affine(&self, output: usize) -> (f32, f32) {
        let layer = self.weights.layer;
        let number = |tensor: usize| self.file.tensors()[tensor].float(output);
        let bias = layer.bias.map(number);
        let Some(norm) = &layer.norm else {
            return (1.0, bias.unwrap_or(0.0));
        };
        let tensors = [norm.gamma, norm.beta, norm.mean, norm.variance];
        let [gamma, beta, mean, variance] = tensors.map(number);
        let scale = gamma / crate::math::sqrt(variance + norm.epsilon);
        let center = match bias {
            Some(bias) => bias - mean,
            None => -mean,
        };
        (scale, center * scale + beta)
    }
}
