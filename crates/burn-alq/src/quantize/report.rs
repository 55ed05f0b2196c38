//! What became of each parameter of a quantized module.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use multibit::report::table;
use serde::{Deserialize, Serialize};

/// How a weight was quantized.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuantizedWeight {
    /// Number of the rule, from 1, and its pattern.
    pub rule: String,
    /// Name of the grouping.
    pub grouping: String,
    /// Number of groups.
    pub groups: usize,
    /// Bases that a group may have.
    pub max_bits: usize,
    /// Average bitwidth `I_W` after the sketch.
    pub average_bits: f64,
    /// Bits that a weight takes in a file: of its bases, and its part of coordinates and widths.
    pub effective_bits: f64,
    /// Bits that a weight took before, of its type.
    pub float_bits: usize,
    /// `‖w − ŵ‖ / ‖w‖`.
    pub relative_error: f64,
}

impl QuantizedWeight {
    /// Whether it takes more than half of what it took as float: its groups are too short.
    pub fn is_costly(&self) -> bool {
        2.0 * self.effective_bits > self.float_bits as f64
    }
}

/// What became of one parameter or activation, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Outcome {
    /// It is multi-bit now.
    Quantized(QuantizedWeight),
    /// Float: rank 0 or 1, a bias or a norm.
    LowRank,
    /// Float: no rule matches.
    NoRule,
    /// Float: a rule says so.
    KeptFloat {
        /// Number of the rule, from 1, and its pattern.
        rule: String,
    },
    /// Float: a rule matches it, but it is no layer's weight, and the rule does not name it exactly.
    NoLayer {
        /// Number of the rule, from 1, and its pattern.
        rule: String,
    },
    /// Float: a rule does not fit it, and says that it stays float then.
    Unfit {
        /// Number of the rule, from 1, and its pattern.
        rule: String,
        /// What does not fit.
        reason: String,
    },
    /// The same parameter as another, whatever became of that.
    Tied {
        /// Path of the other.
        to: String,
    },
    /// An activation that a rule switched on.
    SwitchedOn {
        /// Its bits.
        bits: usize,
    },
    /// An activation that no rule matches.
    Activation {
        /// Its bits, 0 where it is a ReLU.
        bits: usize,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantized(converted) => {
                write!(f, "multi-bit: rule {}", converted.rule)?;
                if converted.is_costly() {
                    write!(
                        f,
                        "; takes more than half of float, its groups are too short"
                    )?;
                }
                Ok(())
            }
            Self::LowRank => write!(f, "float: a bias or a norm"),
            Self::NoRule => write!(f, "float: no rule matches"),
            Self::KeptFloat { rule } => write!(f, "float: rule {rule}"),
            Self::NoLayer { rule } => write!(
                f,
                "float: no layer's weight, and rule {rule} does not name it exactly"
            ),
            Self::Unfit { rule, reason } => write!(f, "float: rule {rule} does not fit: {reason}"),
            Self::Tied { to } => write!(f, "tied to {to}"),
            Self::SwitchedOn { bits } => write!(f, "switched on: {bits} bits"),
            Self::Activation { bits: 0 } => write!(f, "off: a ReLU"),
            Self::Activation { bits } => write!(f, "as before: {bits} bits"),
        }
    }
}

/// What became of every parameter of a module.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QuantizeReport {
    /// Path, shape and outcome: weights in the order of the module tree, then activations, whose
    /// shape is empty.
    pub parameters: Vec<(String, Vec<usize>, Outcome)>,
}

impl QuantizeReport {
    pub(super) fn push(&mut self, path: &str, shape: &[usize], outcome: Outcome) {
        let parameter = (path.to_string(), shape.to_vec(), outcome);
        self.parameters.push(parameter);
    }

    pub(super) fn fill(
        &mut self,
        path: &str,
        [average_bits, effective_bits]: [f64; 2],
        relative_error: f64,
    ) {
        let Some(Outcome::Quantized(converted)) = self.outcome_mut(path) else {
            return;
        };
        converted.average_bits = average_bits;
        converted.effective_bits = effective_bits;
        converted.relative_error = relative_error;
        if converted.is_costly() {
            log::warn!(
                "{path}: {:.1} bits a weight with coordinates and widths, more than half of float; \
                 choose longer groups than {}, or keep it float",
                converted.effective_bits,
                converted.grouping
            );
        }
    }

    pub(super) fn set(&mut self, path: &str, outcome: Outcome) {
        if let Some(old) = self.outcome_mut(path) {
            *old = outcome;
        }
    }

    /// Bits of a weight before, once its type is known.
    #[cfg(feature = "store")]
    pub(super) fn set_float_bits(&mut self, path: &str, bits: usize) {
        if let Some(Outcome::Quantized(converted)) = self.outcome_mut(path) {
            converted.float_bits = bits;
        }
    }

    pub(super) fn outcome_mut(&mut self, path: &str) -> Option<&mut Outcome> {
        let mut parameters = self.parameters.iter_mut();
        let (.., outcome) = parameters.find(|(found, ..)| found == path)?;
        Some(outcome)
    }

    /// The quantized weights, with their paths and shapes.
    pub fn quantized(&self) -> impl Iterator<Item = (&str, &[usize], &QuantizedWeight)> {
        let parameters = self.parameters.iter();
        parameters.filter_map(|(path, shape, outcome)| match outcome {
            Outcome::Quantized(converted) => Some((path.as_str(), shape.as_slice(), converted)),
            _ => None,
        })
    }

    /// One line: how many weights were converted and how many parameters stay.
    pub fn summary(&self) -> String {
        let count = |shape: &[usize]| shape.iter().product::<usize>();
        let (tensors, weights) = self.quantized().fold((0, 0), |(n, sum), (_, shape, _)| {
            (n + 1, sum + count(shape))
        });
        let on = self.parameters.iter();
        let on = on.filter(|(.., outcome)| matches!(outcome, Outcome::SwitchedOn { .. }));
        let on = on.count();
        let kept = self.parameters.iter().filter(|(_, shape, outcome)| {
            !shape.is_empty() && !matches!(outcome, Outcome::Quantized(_) | Outcome::Tied { .. })
        });
        format!(
            "{weights} weights in {tensors} tensors are multi-bit now, {} tensors stay float, {on} \
             activations are switched on",
            kept.count()
        )
    }

    /// The parameters as a Markdown table.
    pub fn to_markdown(&self) -> String {
        let head = [
            "parameter",
            "shape",
            "grouping",
            "groups",
            "average bits",
            "effective bits",
            "error",
            "outcome",
        ];
        let mut rows = alloc::vec![head.map(ToString::to_string)];
        for (path, shape, outcome) in &self.parameters {
            let [grouping, groups, bits, effective, error] = match outcome {
                Outcome::Quantized(converted) => [
                    converted.grouping.clone(),
                    converted.groups.to_string(),
                    format!("{:.3}", converted.average_bits),
                    format!("{:.3}", converted.effective_bits),
                    format!("{:.3}", converted.relative_error),
                ],
                _ => core::array::from_fn(|_| String::from("-")),
            };
            rows.push([
                path.clone(),
                format!("{shape:?}"),
                grouping,
                groups,
                bits,
                effective,
                error,
                outcome.to_string(),
            ]);
        }
        table(&rows)
    }
}
