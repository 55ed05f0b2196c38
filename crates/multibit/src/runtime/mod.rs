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
use crate::file::{FileTensor, FileWeight, Input, PackedFile};
use place::Memory;

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
struct Weights {
    weight: usize,
    bias: Option<usize>,
    /// γ, β, μ, σ², and ε.
    norm: Option<([usize; 4], f32)>,
    arithmetic: Arithmetic,
    /// Of the input, in bitwise arithmetic.
    levels: Option<LevelState>,
}

/// A convolution, with what it is computed by.
#[derive(Clone, Debug)]
struct Conv2d {
    weights: Weights,
    options: Conv2dOptions,
    /// The input's shape, and the output's before it is pooled.
    from: [usize; 3],
    to: [usize; 3],
    way: scalar::Way,
    /// What the largest are taken of at once.
    pool: Option<Pool2dOptions>,
}

/// A step as it runs.
#[derive(Clone, Debug)]
enum Work {
    Linear(Weights, [usize; 2]),
    Conv2d(Conv2d),
    MaxPool2d(Pool2dOptions, [usize; 3]),
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

/// A step, the value that it takes, and the shape of the one that it makes.
#[derive(Clone, Debug)]
struct Planned {
    input: usize,
    work: Work,
}

/// How a file's chain runs: every shape is known, every value has its place.
///
/// Takes some hundred bytes for each step.
#[derive(Debug)]
pub struct Plan<'f, 'a> {
    file: &'f PackedFile<'a>,
    input: &'f Input,
    steps: Vec<Planned>,
    values: Vec<Value>,
    memory: Memory,
}

impl<'f, 'a> Plan<'f, 'a> {
    /// Checks the chain against the file's weights and plans it.
    ///
    /// # Errors
    /// If the file has no chain or no input, or a step does not fit.
    pub fn new(file: &'f PackedFile<'a>) -> Result<Self, PlanError> {
        let about = file.about();
        if about.chain.is_empty() {
            return Err(PlanError::NoChain);
        }
        let input = about.input.as_ref().ok_or(PlanError::NoInput)?;
        let (steps, values) = shapes::plan(file, input, &about.chain)?;
        let memory = Memory::new(file, &steps, &values).ok_or(PlanError::TooLarge)?;
        let plan = Self {
            file,
            input,
            steps,
            values,
            memory,
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
        self.values.last().map_or(0, |value| value.shape.size())
    }

    /// Words of the buffer of [`run`](Self::run): all that it works in, beside its stack.
    pub fn words(&self) -> usize {
        self.memory.words
    }

    /// The same in bytes.
    pub fn bytes(&self) -> usize {
        self.memory.words * size_of::<u32>()
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
        for (place, word) in buffer[self.range(0)].iter_mut().enumerate() {
            *word = value(place).to_bits();
        }
        for step in 0..self.steps.len() {
            self.step(step, buffer);
        }
        for (score, word) in scores.iter_mut().zip(&buffer[self.range(self.steps.len())]) {
            *score = f32::from_bits(*word);
        }
        Ok(())
    }

    /// Where a value lies in the buffer.
    fn range(&self, value: usize) -> Range<usize> {
        let start = self.memory.values[value];
        start..start + self.values[value].shape.size()
    }

    /// Makes value `step + 1`.
    fn step(&self, step: usize, buffer: &mut [u32]) {
        let planned = &self.steps[step];
        let value = match &planned.work {
            Work::Conv2d(conv) if conv.pool.is_some() => step + 2,
            _ => step + 1,
        };
        let (from, to) = (self.range(planned.input), self.range(value));
        let places = [from.clone(), to.clone(), self.memory.scratch[step].clone()];
        match &planned.work {
            Work::Linear(weights, sizes) => apart(buffer, places, |from, to, scratch| {
                scalar::linear(&self.layer(weights), *sizes, from, to, scratch);
            }),
            Work::Conv2d(conv) => apart(buffer, places, |from, to, scratch| {
                scalar::conv2d(&self.layer(&conv.weights), conv, from, to, scratch);
            }),
            Work::MaxPool2d(options, size) => apart(buffer, places, |from, to, _| {
                scalar::max_pool(from, *size, options, to);
            }),
            Work::AvgPool2d(options, size) => apart(buffer, places, |from, to, _| {
                scalar::avg_pool(from, *size, options, to);
            }),
            Work::Activation(activation) => {
                let values = in_place(buffer, from, to);
                scalar::activate(*activation, values);
            }
            Work::Levels(state) if BITWISE => {
                let values = in_place(buffer, from, to);
                if let Some(levels) = scalar::Levels::of(self.file, *state) {
                    levels.quantize(values);
                }
            }
            Work::Nothing | Work::Levels(_) => {}
            Work::Add(other) => {
                let other = self.range(*other);
                let to = to.start;
                if to != from.start {
                    buffer.copy_within(from.clone(), to);
                }
                for (i, place) in other.enumerate() {
                    let sum = f32::from_bits(buffer[to + i]) + f32::from_bits(buffer[place]);
                    buffer[to + i] = sum.to_bits();
                }
            }
        }
    }

    fn layer<'p>(&'p self, weights: &'p Weights) -> LayerView<'p, 'a> {
        LayerView {
            file: self.file,
            weight: &self.file.weights()[weights.weight],
            weights,
        }
    }
}

/// Runs a step on its input, its output and its scratch.
fn apart(
    buffer: &mut [u32],
    places: [Range<usize>; 3],
    run: impl FnOnce(&[u32], &mut [u32], &mut [u32]),
) {
    // Places of what lives at a time are apart: `Memory` has seen to it.
    if let Ok([from, to, scratch]) = buffer.get_disjoint_mut(places) {
        run(from, to, scratch);
    }
}

/// The values of a step that works in place, brought there if they lie elsewhere.
fn in_place(buffer: &mut [u32], from: Range<usize>, to: Range<usize>) -> &mut [u32] {
    if from.start != to.start {
        buffer.copy_within(from, to.start);
    }
    &mut buffer[to]
}

/// A layer's tensors in the file.
#[derive(Clone, Copy)]
struct LayerView<'p, 'a> {
    file: &'p PackedFile<'a>,
    weight: &'p FileWeight<'a>,
    weights: &'p Weights,
}

impl<'a> LayerView<'_, 'a> {
    fn tensor(&self, index: usize) -> &FileTensor<'a> {
        &self.file.tensors()[index]
    }

    /// Scale and offset of an output: the bias, and batch norm behind it, as burn-alq folds them.
    fn affine(&self, output: usize) -> (f32, f32) {
        let bias = self
            .weights
            .bias
            .map(|bias| self.tensor(bias).float(output));
        let Some((norm, epsilon)) = self.weights.norm else {
            return (1.0, bias.unwrap_or(0.0));
        };
        let [gamma, beta, mean, variance] = norm.map(|tensor| self.tensor(tensor).float(output));
        let scale = gamma / crate::math::sqrt(variance + epsilon);
        let center = match bias {
            Some(bias) => bias - mean,
            None => -mean,
        };
        (scale, center * scale + beta)
    }
}
