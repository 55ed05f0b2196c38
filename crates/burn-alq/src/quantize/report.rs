//! What became of each parameter of a quantized module.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};

use serde::Serialize;

/// How a weight was quantized.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    /// `‖w − ŵ‖ / ‖w‖`.
    pub relative_error: f64,
}

/// What became of one parameter or activation, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
            Self::Quantized(converted) => write!(f, "multi-bit: rule {}", converted.rule),
            Self::LowRank => write!(f, "float: a bias or a norm"),
            Self::NoRule => write!(f, "float: no rule matches"),
            Self::KeptFloat { rule } => write!(f, "float: rule {rule}"),
            Self::SwitchedOn { bits } => write!(f, "switched on: {bits} bits"),
            Self::Activation { bits: 0 } => write!(f, "off: a ReLU"),
            Self::Activation { bits } => write!(f, "as before: {bits} bits"),
        }
    }
}

/// What became of every parameter of a module.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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

    pub(super) fn fill(&mut self, path: &str, average_bits: f64, relative_error: f64) {
        let mut parameters = self.parameters.iter_mut();
        if let Some((_, _, Outcome::Quantized(converted))) =
            parameters.find(|(found, ..)| found == path)
        {
            converted.average_bits = average_bits;
            converted.relative_error = relative_error;
        }
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
            !shape.is_empty() && !matches!(outcome, Outcome::Quantized(_))
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
            "error",
            "outcome",
        ];
        let mut rows = alloc::vec![head.map(ToString::to_string)];
        for (path, shape, outcome) in &self.parameters {
            let [grouping, groups, bits, error] = match outcome {
                Outcome::Quantized(converted) => [
                    converted.grouping.clone(),
                    converted.groups.to_string(),
                    format!("{:.3}", converted.average_bits),
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
                error,
                outcome.to_string(),
            ]);
        }
        table(&rows)
    }
}

/// A Markdown table with aligned columns; the first row is the head, numbers stand right.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] = core::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(widths) {
            let number = index > 0 && cell.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            let _ = if number {
                write!(text, "| {cell:>width$} ")
            } else {
                write!(text, "| {cell:<width$} ")
            };
        }
        text.push_str("|\n");
        if index == 0 {
            for width in widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}
