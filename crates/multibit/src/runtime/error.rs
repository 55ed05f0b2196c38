//! Why a chain cannot run.

use thiserror::Error;

use crate::cpu::{KernelError, LevelsError};

/// Why a file has no plan.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The file does not say what its layers are.
    #[error("the file holds no chain of layers; write it with PackedModel::with_chain")]
    NoChain,
    /// The file does not say what a sample is.
    #[error("the file does not describe its input; write it with PackedModel::with_input")]
    NoInput,
    /// Other names than outputs.
    #[error("{labels} labels for {outputs} outputs")]
    Labels {
        /// Names of outputs.
        labels: usize,
        /// Values of the last step.
        outputs: usize,
    },
    /// More memory than there are addresses.
    #[error("the chain takes more memory than there are addresses")]
    TooLarge,
    /// A step does not fit.
    #[error("step {step} of the chain, {name}: {source}")]
    Step {
        /// The step, counted from 1.
        step: usize,
        /// What it is.
        name: &'static str,
        /// What does not fit.
        source: StepError,
    },
}

/// Why a step does not fit its tensors or its input.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum StepError {
    /// An input of another rank.
    #[error("the input must be {expected}")]
    Rank {
        /// What it must be.
        expected: &'static str,
    },
    /// An input of another size.
    #[error("the input has {found} {axis}, but the step takes {expected}")]
    Size {
        /// What is counted.
        axis: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// The weight, as kernels say it.
    #[error(transparent)]
    Weight(#[from] KernelError),
    /// Groups of channels that do not divide the outputs.
    #[error("{outputs} outputs do not fall into {groups} groups")]
    Groups {
        /// Outputs.
        outputs: usize,
        /// Groups of channels.
        groups: usize,
    },
    /// A tensor that is not one float an output.
    #[error("{name} must hold a float for each of {outputs} outputs")]
    Outputs {
        /// Which tensor.
        name: &'static str,
        /// Outputs of the layer.
        outputs: usize,
    },
    /// A window that is empty, does not move, or is larger than the padded input.
    #[error("the window does not fit the {axis} of the input")]
    Window {
        /// The axis.
        axis: &'static str,
    },
    /// Bitwise arithmetic over values without levels.
    #[error("bitwise arithmetic takes what a multi-bit activation has made")]
    NoLevels,
    /// The state of a multi-bit activation.
    #[error("the state of a multi-bit activation holds six floats, the first its bits")]
    State,
    /// Levels that are none.
    #[error(transparent)]
    Levels(#[from] LevelsError),
    /// Two levels have the same value.
    #[error("two levels of the activation have one value; train it on, or with fewer bits")]
    Coincide,
    /// A part of the runtime that this program was built without.
    #[error("this program was built without it; enable the feature {feature} of multibit")]
    Feature {
        /// The feature.
        feature: &'static str,
    },
    /// Values of other shapes.
    #[error("values of different shapes have no sum")]
    Add,
}

/// Why a plan did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RunError {
    /// An input of another length.
    #[error("the input holds {found} values, but the model takes {expected}")]
    Input {
        /// Values of all samples.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// A buffer that is too small.
    #[error("the buffer holds {found} words, but the plan needs {expected}")]
    Buffer {
        /// Words that the plan needs.
        expected: usize,
        /// Words given.
        found: usize,
    },
    /// Room for another number of scores.
    #[error("there is room for {found} scores, but the model gives {expected}")]
    Scores {
        /// Values of the last step, of all samples.
        expected: usize,
        /// Room given.
        found: usize,
    },
}
