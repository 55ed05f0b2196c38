//! Why a grouping cannot be, or does not fit a weight.

use alloc::vec::Vec;
use core::fmt;

/// Why a grouping cannot be, or does not fit a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupingError {
    /// The axes are not a permutation of `0..rank`.
    NotAPermutation {
        /// What was given.
        axes: Vec<usize>,
    },
    /// A run has no weights.
    EmptyRun,
    /// The weight has another rank than the grouping has axes.
    Rank {
        /// Axes of the grouping.
        expected: usize,
        /// Rank of the weight.
        found: usize,
    },
    /// A structure of convolutions for a weight that is not `[out, in, k…]`.
    NotAConvolution {
        /// Rank of the weight.
        rank: usize,
    },
    /// A structure of linear layers for a weight that is not `[d_in, d_out]`.
    NotLinear {
        /// Rank of the weight.
        rank: usize,
    },
    /// An axis of the weight has no elements.
    EmptyAxis {
        /// Which.
        axis: usize,
    },
    /// The inputs of a linear layer do not fall into `s` equal runs.
    Subchannels {
        /// Inputs.
        d_in: usize,
        /// Runs asked for.
        s: usize,
    },
    /// One output does not hold a whole number of runs.
    Indivisible {
        /// Weights of one output.
        weights: usize,
        /// Weights of one run.
        len: usize,
    },
    /// The number of weights does not fit the address space.
    TooLarge {
        /// The weight's shape.
        shape: Vec<usize>,
    },
}

impl fmt::Display for GroupingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPermutation { axes } => {
                write!(
                    f,
                    "axes {axes:?} are not a permutation of 0..{}",
                    axes.len()
                )
            }
            Self::EmptyRun => write!(f, "a group needs at least one weight"),
            Self::Rank { expected, found } => write!(
                f,
                "the grouping permutes {expected} axes, but the weight has {found}"
            ),
            Self::NotAConvolution { rank } => write!(
                f,
                "a convolution weight [out, in, k…] has rank 3 or more, this one has {rank}"
            ),
            Self::NotLinear { rank } => write!(
                f,
                "a linear weight [d_in, d_out] has rank 2, this one has {rank}"
            ),
            Self::EmptyAxis { axis } => write!(f, "axis {axis} of the weight is empty"),
            Self::Subchannels { d_in, s } => {
                write!(f, "{d_in} inputs do not fall into {s} equal groups")
            }
            Self::Indivisible { weights, len } => write!(
                f,
                "{weights} weights of one output do not fall into groups of {len}"
            ),
            Self::TooLarge { shape } => write!(f, "a weight of shape {shape:?} is too large"),
        }
    }
}

impl core::error::Error for GroupingError {}
