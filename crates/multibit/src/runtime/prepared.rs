//! A plan by the kernels, for some samples at once.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::scalar::{self, Levels};
use super::{LayerView, Plan, RunError, Weights, Work};
use crate::cpu::{
    Affine, Arithmetic, Conv2dKernel, Conv2dOptions, Isa, LinearKernel, Mode, Pool2dOptions,
    activate, max_pool2d,
};
use crate::file::Layer;

/// A plan whose weights are laid out for the kernels of an instruction set.
///
/// Holds weights of its own: the file may go. Takes memory while it runs, as the kernels do.
pub struct Prepared {
    /// The shape of a sample's values, and of a score.
    input: usize,
    scores: usize,
    steps: Vec<Step>,
    isa: Isa,
}

/// A step with the values that it takes and those that nothing takes after it.
struct Step {
    input: usize,
    done: Vec<usize>,
    run: Run,
    /// Values that it makes of a sample.
    len: usize,
}

enum Run {
    Linear(Box<(LinearKernel, Tail)>),
    Conv2d(Box<(Conv2dKernel, Tail)>, Conv2dOptions, [usize; 3]),
    MaxPool2d(Pool2dOptions, [usize; 3]),
    AvgPool2d(Pool2dOptions, [usize; 3]),
    Nothing,
    Activation(crate::cpu::Activation),
    Levels(crate::cpu::Levels),
    Add(usize),
}

/// The mode of a layer, and what follows its sums.
struct Tail {
    mode: Mode,
    scale: Option<Vec<f32>>,
    offset: Option<Vec<f32>>,
}

impl Tail {
    fn new(layer: &LayerView<'_, '_>, outputs: usize) -> Self {
        let Weights {
            layer: Layer { bias, norm, .. },
            arithmetic,
            levels,
        } = layer.weights;
        let levels = levels.and_then(|state| Levels::of(layer.file, state)?.kernels());
        let mode = match (arithmetic, levels) {
            (Arithmetic::Bitwise, Some(levels)) => Mode::Bitwise(levels),
            (Arithmetic::Int8, _) => Mode::Int8,
            _ => Mode::Exact,
        };
        let affine = (0..outputs).map(|output| layer.affine(output));
        let (scale, offset): (Vec<f32>, Vec<f32>) = affine.unzip();
        Self {
            mode,
            scale: norm.is_some().then_some(scale),
            offset: (norm.is_some() || bias.is_some()).then_some(offset),
        }
    }

    fn affine(&self) -> Affine<'_> {
        Affine {
            scale: self.scale.as_deref(),
            offset: self.offset.as_deref(),
            ..Affine::default()
        }
    }
}

impl Prepared {
    /// Lays the weights of a plan out for an instruction set.
    pub fn new(plan: &Plan<'_, '_>, isa: Isa) -> Self {
        let mut steps = Vec::new();
        for (number, planned) in plan.steps.iter().enumerate() {
            let layer = |weights: &Weights<'_>| {
                let layer = plan.layer(weights);
                let weight = layer.weight.decode();
                let outputs = weight.shape()[weight.grouping().axes()[0]];
                (weight, Tail::new(&layer, outputs))
            };
            let fits = "the plan has checked the weight";
            let run = match &planned.work {
                Work::Linear(weights, _) => {
                    let (weight, tail) = layer(weights);
                    let kernel = LinearKernel::new(&weight, weights.arithmetic).expect(fits);
                    Run::Linear(Box::new((kernel.on(isa), tail)))
                }
                Work::Conv2d(conv) => {
                    let (weight, tail) = layer(&conv.weights);
                    let groups = conv.options.groups;
                    let arithmetic = conv.weights.arithmetic;
                    let kernel = Conv2dKernel::new(Arc::new(weight), groups, arithmetic);
                    let layer = Box::new((kernel.expect(fits).on(isa), tail));
                    Run::Conv2d(layer, *conv.options, conv.from)
                }
                Work::MaxPool2d(options, size) => Run::MaxPool2d(**options, *size),
                Work::AvgPool2d(options, size) => Run::AvgPool2d(*options, *size),
                // The largest of a convolution's sums are taken after it here.
                Work::Nothing => match number.checked_sub(1).map(|before| &plan.steps[before].work)
                {
                    Some(Work::Conv2d(conv)) if conv.pool.is_some() => {
                        Run::MaxPool2d(*conv.pool.expect("just seen"), conv.to)
                    }
                    _ => Run::Nothing,
                },
                Work::Activation(activation) => Run::Activation(*activation),
                Work::Levels(state) => {
                    let levels = Levels::of(plan.file, *state).and_then(|levels| levels.kernels());
                    Run::Levels(levels.expect("the plan has checked the levels"))
                }
                Work::Add(other) => Run::Add(*other),
            };
            steps.push(Step {
                input: planned.input,
                done: Vec::new(),
                run,
                len: plan.values[number + 1].len(),
            });
        }
        for value in 0..steps.len() {
            let takes = |step: &Step| {
                step.input == value || matches!(step.run, Run::Add(other) if other == value)
            };
            if let Some(last) = steps.iter().rposition(takes) {
                steps[last].done.push(value);
            }
        }
        Self {
            input: plan.input.len(),
            scores: plan.scores(),
            steps,
            isa,
        }
    }

    /// Values of a sample.
    pub fn input(&self) -> usize {
        self.input
    }

    /// Scores of a sample.
    pub fn scores(&self) -> usize {
        self.scores
    }

    /// The scores of some samples.
    ///
    /// # Shapes
    /// - `input`: `[batch, …]`, values, not raw; the batch may be 0
    /// - `scores`: `[batch, scores]`, written whole
    ///
    /// # Errors
    /// If one has another length.
    pub fn run(&self, input: &[f32], batch: usize, scores: &mut [f32]) -> Result<(), RunError> {
        let expected = self.input.saturating_mul(batch);
        if input.len() != expected {
            let found = input.len();
            return Err(RunError::Input { expected, found });
        }
        let expected = self.scores.saturating_mul(batch);
        if scores.len() != expected {
            let found = scores.len();
            return Err(RunError::Scores { expected, found });
        }
        let mut values = vec![input.to_vec()];
        for step in &self.steps {
            let made = self.step(step, &mut values, batch);
            for &done in &step.done {
                values[done] = Vec::new();
            }
            values.push(made);
        }
        if let Some(last) = values.last() {
            scores.copy_from_slice(last);
        }
        Ok(())
    }

    fn step(&self, step: &Step, values: &mut [Vec<f32>], batch: usize) -> Vec<f32> {
        let planes = |size: [usize; 3]| [batch * size[0], size[1], size[2]];
        let new = || vec![0.0; batch * step.len];
        let input = values[step.input].as_slice();
        match &step.run {
            Run::Linear(layer) => {
                let (kernel, tail) = &**layer;
                let mut output = new();
                kernel.forward(&tail.mode, input, batch, &tail.affine(), &mut output);
                output
            }
            Run::Conv2d(layer, options, [channels, height, width]) => {
                let (kernel, tail) = &**layer;
                let mut output = new();
                let shape = [batch, *channels, *height, *width];
                kernel.forward(
                    &tail.mode,
                    input,
                    shape,
                    &tail.affine(),
                    options,
                    &mut output,
                );
                output
            }
            Run::MaxPool2d(options, size) => {
                let mut output = new();
                max_pool2d(self.isa, input, planes(*size), options, &mut output);
                output
            }
            Run::AvgPool2d(options, size) => {
                let words: Vec<u32> = input.iter().map(|x| x.to_bits()).collect();
                let mut output = vec![0; batch * step.len];
                scalar::pool(true, &words, planes(*size), options, &mut output);
                output.into_iter().map(f32::from_bits).collect()
            }
            Run::Add(other) => {
                let other = &values[*other];
                input.iter().zip(other).map(|(x, y)| x + y).collect()
            }
            Run::Nothing | Run::Activation(_) | Run::Levels(_) => {
                let mut made = match step.done.contains(&step.input) {
                    true => core::mem::take(&mut values[step.input]),
                    false => input.to_vec(),
                };
                match &step.run {
                    Run::Activation(activation) => activate(self.isa, *activation, &mut made),
                    Run::Levels(levels) => {
                        for x in &mut made {
                            *x = levels.quantize(*x);
                        }
                    }
                    _ => {}
                }
                made
            }
        }
    }
}
