//! Why a grouping cannot be, or does not fit a weight.

use alloc::vec::Vec;

use thiserror::Error;

/// Why a grouping cannot be, or does not fit a weight.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GroupingError {
    /// The axes are not a permutation of `0..rank`.
    #[error("axes {axes:?} are not a permutation of 0..{}", axes.len())]
    NotAPermutation {
        /// What was given.
        axes: Vec<usize>,
    },
    /// A run has no weights.
    #[error("a group needs at least one weight")]
    EmptyRun,
    /// The weight has another rank than the grouping has axes.
    #[error("the grouping permutes {expected} axes, but the weight has {found}")]
    Rank {
        /// Axes of the grouping.
        expected: usize,
        /// Rank of the weight.
        found: usize,
    },
    /// A structure of convolutions for a weight that is not `[out, in, k…]`.
    #[error("a convolution weight [out, in, k…] has rank 3 or more, this one has {rank}")]
    NotAConvolution {
        /// Rank of the weight.
        rank: usize,
    },
    /// A weight without inputs.
    #[error("the weight of a layer has rank 2 or more, this one has {rank}")]
    Low {
        /// Rank of the weight.
        rank: usize,
    },
    /// An axis of the weight has no elements.
    #[error("axis {axis} of the weight is empty")]
    EmptyAxis {
        /// Which.
        axis: usize,
    },
    /// The inputs of a layer, or the input channels of a convolution, do not fall into `s` equal runs.
    #[error(
        "{inputs} inputs do not fall into {s} equal groups; `groupwise` takes the nearest size that fits"
    )]
    Subchannels {
        /// Inputs.
        inputs: usize,
        /// Runs asked for.
        s: usize,
    },
    /// One output does not hold a whole number of runs.
    #[error("{weights} weights of one output do not fall into groups of {len}")]
    Indivisible {
        /// Weights of one output.
        weights: usize,
        /// Weights of one run.
        len: usize,
    },
    /// The number of weights does not fit the address space.
    #[error("a weight of shape {shape:?} is too large")]
    TooLarge {
        /// The weight's shape.
        shape: Vec<usize>,
    },
}
