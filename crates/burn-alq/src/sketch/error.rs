//! Why rules are not valid, and why a module could not be quantized.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use burn_core::store::RecordError;
use multibit::fit::SketchError;
use multibit::{GroupingError, MAX_BITS};

/// Why a rule is not valid.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RuleError {
    /// A regular expression does not parse.
    Regex {
        /// The expression.
        pattern: String,
        /// Where and why.
        source: Box<regex_lite::Error>,
    },
    /// A rule has not exactly one of `path`, `glob` and `regex`.
    Pattern,
    /// A rule neither chooses a grouping nor keeps a weight in float, or both.
    Action {
        /// The rule's pattern.
        rule: String,
    },
    /// `subchannels` without `grouping = "subchannelwise"`, or the reverse.
    Subchannels {
        /// The rule's pattern.
        rule: String,
    },
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Regex { pattern, source } => write!(f, "regex `{pattern}`: {source}"),
            Self::Pattern => write!(f, "a rule needs exactly one of `path`, `glob` and `regex`"),
            Self::Action { rule } => write!(
                f,
                "rule {rule}: needs either `grouping` or `keep_float = true`, the latter without \
                 `max_bits`, `subchannels` and `layout`"
            ),
            Self::Subchannels { rule } => write!(
                f,
                "rule {rule}: `subchannels` and `grouping = \"subchannelwise\"` go together"
            ),
        }
    }
}

impl core::error::Error for RuleError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Regex { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why a module could not be quantized. Every error leaves the caller's own clone as it was.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum QuantizeError {
    /// A rule does not fit a weight.
    Grouping {
        /// Path of the weight.
        path: String,
        /// What does not fit.
        source: GroupingError,
    },
    /// A weight holds NaN or infinity.
    Weight {
        /// Path of the weight.
        path: String,
        /// Where.
        source: SketchError,
    },
    /// More bases were asked for than a code can hold, or none.
    MaxBits {
        /// Path of the weight.
        path: String,
        /// The number asked for.
        max_bits: usize,
    },
    /// No rule quantizes any weight of the module.
    Nothing,
    /// A rule matches no weight of rank 2 or more.
    Unmatched {
        /// The rule.
        rule: String,
    },
    /// A rule for activations matches no [`MultiBitActivation`](crate::MultiBitActivation).
    UnmatchedActivation {
        /// The rule.
        rule: String,
    },
    /// Bits of an activation out of range.
    ActivationBits {
        /// The rule.
        rule: String,
        /// The number asked for.
        bits: usize,
    },
    /// The module holds multi-bit or packed weights, or an activation that is on, already.
    Already {
        /// Path of the first.
        path: String,
    },
    /// A matched weight carries another reparameterization, for example LoRA.
    Reparameterized {
        /// Path of the weight.
        path: String,
        /// Name of the other one.
        by: String,
    },
    /// A matched weight is not a parameter but a running state, which cannot carry bits.
    RunningState {
        /// Path of the state.
        path: String,
    },
    /// A float record does not fit the module.
    Record(RecordError),
}

impl fmt::Display for QuantizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grouping { path, source } => write!(f, "{path}: {source}"),
            Self::Weight { path, source } => write!(f, "{path}: {source}"),
            Self::MaxBits { path, max_bits } => {
                write!(
                    f,
                    "{path}: max_bits is {max_bits}, but must be 1 to {MAX_BITS}"
                )
            }
            Self::Nothing => write!(f, "no rule matches any weight of rank 2 or more"),
            Self::Unmatched { rule } => {
                write!(f, "rule {rule} matches no weight of rank 2 or more")
            }
            Self::UnmatchedActivation { rule } => {
                write!(f, "rule {rule} matches no MultiBitActivation")
            }
            Self::ActivationBits { rule, bits } => {
                write!(f, "rule {rule}: an activation has 1 to 4 bits, not {bits}")
            }
            Self::Already { path } => write!(f, "{path} is multi-bit already"),
            Self::Reparameterized { path, by } => write!(
                f,
                "{path} carries the reparameterization {by}; materialize the module first"
            ),
            Self::RunningState { path } => {
                write!(f, "{path} is a running state, not a weight; keep it float")
            }
            Self::Record(source) => write!(f, "the float record does not fit: {source}"),
        }
    }
}

impl core::error::Error for QuantizeError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Grouping { source, .. } => Some(source),
            Self::Weight { source, .. } => Some(source),
            Self::Record(source) => Some(source),
            _ => None,
        }
    }
}
