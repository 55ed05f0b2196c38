//! Why a weight or a module could not be quantized.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

#[cfg(feature = "train")]
use burn_core::store::RecordError;
use multibit::fit::{HessianError, SketchError};
use multibit::{GroupingError, MAX_BITS};
use thiserror::Error;

/// Why a module could not be quantized. Every error leaves the caller's own clone as it was.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A rule does not fit a weight.
    #[error("{path}: {source}")]
    Grouping {
        /// Path of the weight.
        path: String,
        /// What does not fit.
        source: GroupingError,
    },
    /// A weight holds NaN or infinity.
    #[error("{path}: {}", not_finite(.index, .source))]
    Weight {
        /// Path of the weight.
        path: String,
        /// The first number of it that is not finite, by the weight's own axes.
        index: Vec<usize>,
        /// The same, in the order of groups.
        source: SketchError,
    },
    /// What was measured of the model's outputs along a weight is no curvature.
    #[error("{path}: {source}; check the inputs and the float weights")]
    Curvature {
        /// Path of the weight.
        path: String,
        /// What is wrong.
        source: HessianError,
    },
    /// More bases were asked for than a code can hold, or none.
    #[error("{path}: max_bits is {max_bits}, but must be 1 to {MAX_BITS}")]
    MaxBits {
        /// Path of the weight.
        path: String,
        /// The number asked for.
        max_bits: usize,
    },
    /// No rule quantizes any weight of the module.
    #[error("no rule matches any weight of rank 2 or more")]
    Nothing,
    /// A rule matches no layer's weight of rank 2 or more.
    #[error(
        "rule {rule} matches no weight of rank 2 or more of a layer; one of no layer is named by its \
         whole path"
    )]
    Unmatched {
        /// The rule.
        rule: String,
    },
    /// A rule for activations matches no [`MultiBitActivation`](crate::MultiBitActivation).
    #[error("rule {rule} matches no MultiBitActivation")]
    UnmatchedActivation {
        /// The rule.
        rule: String,
    },
    /// Bits of an activation out of range.
    #[error("rule {rule}: an activation has 1 to 4 bits, not {bits}")]
    ActivationBits {
        /// The rule.
        rule: String,
        /// The number asked for.
        bits: usize,
    },
    /// The module holds multi-bit or packed weights, or an activation that is on, already.
    #[error("{path} is multi-bit already")]
    Already {
        /// Path of the first.
        path: String,
    },
    /// A matched weight carries another reparameterization, for example LoRA.
    #[error("{path} carries the reparameterization {by}; materialize the module first")]
    Reparameterized {
        /// Path of the weight.
        path: String,
        /// Name of the other one.
        by: String,
    },
    /// A matched weight was quantized by Burn.
    #[error("{path} is quantized by Burn already; convert the float model instead")]
    BurnsOwn {
        /// Path of the weight.
        path: String,
    },
    /// A weight that cannot be a product.
    #[error("{path}: {source}")]
    Product {
        /// Path of the weight.
        path: String,
        /// Why not.
        source: ProductError,
    },
    /// One parameter in two places, of which rules convert one and keep the other float.
    #[error("{path} and {first} are one parameter; the rules convert one and keep the other float")]
    Tied {
        /// Path of the second place.
        path: String,
        /// Path of the first.
        first: String,
    },
    /// A matched weight is not a parameter but a running state, which cannot carry bits.
    #[error("{path} is a running state, not a weight; keep it float")]
    RunningState {
        /// Path of the state.
        path: String,
    },
    /// A float record does not fit the module.
    #[cfg(feature = "train")]
    #[error("the float record does not fit: {0}")]
    Record(#[source] RecordError),
}

/// Why a weight cannot be a product.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ProductError {
    /// What its axes mean.
    #[error(
        "only the weight of a linear layer or of a convolution becomes a product, not a table nor that of a \
         transposed convolution"
    )]
    Layout,
    /// The number of bits is no number of bits.
    #[error("a product of {bits} bits a weight; say more than 0 and at most {MAX_BITS}")]
    Bits {
        /// The number asked for.
        bits: f64,
    },
    /// The bits are not enough for a rank of one.
    #[error(
        "a product of {bits} bits a weight has no rank: {least:.3} are the least for this shape; say more, \
         or keep it float"
    )]
    TooFew {
        /// The number asked for.
        bits: f64,
        /// Bits of a weight at rank one.
        least: f64,
    },
    /// Bitwise arithmetic was asked for.
    #[error(
        "bitwise arithmetic needs levels between the factors, which a product has not; say int8"
    )]
    Bitwise,
}

impl QuantizeError {
    /// Why a weight of a shape could not be sketched.
    pub(crate) fn of_sketch(
        path: &str,
        shape: &[usize],
        weight: &[f32],
        source: SketchError,
    ) -> Self {
        let place = weight.iter().position(|value| !value.is_finite());
        let index = place.map_or_else(Vec::new, |mut place| {
            let mut index: Vec<usize> = shape.to_vec();
            for axis in index.iter_mut().rev() {
                (place, *axis) = (place / *axis, place % *axis);
            }
            index
        });
        Self::Weight {
            path: path.to_string(),
            index,
            source,
        }
    }
}

/// What is wrong with a weight, by its own axes where they are known.
pub(crate) fn not_finite(index: &[usize], source: &SketchError) -> String {
    match index {
        [] => source.to_string(),
        index => format!("the number at {index:?} is not finite"),
    }
}
