//! What was measured: medians and ratios.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::shared::case::{Case, Side};
use crate::shared::output::{machine, median};

/// Runs of both sides, without the first of each block; and ours that were first.
#[derive(Default)]
pub struct Samples {
    /// The first run of all.
    pub first: Duration,
    pub ours: Vec<Duration>,
    pub other: Vec<Duration>,
    pub cold: Vec<Duration>,
}

/// One case in one start, in milliseconds.
#[derive(Serialize, Deserialize)]
pub struct Measured {
    name: String,
    first: f64,
    ours: f64,
    cold: f64,
    other: f64,
    against_adam: bool,
}

impl Measured {
    /// Medians of some runs.
    pub fn new(name: &str, case: &Case, samples: &Samples) -> Self {
        let ms = |runs: &[Duration]| median(runs.iter().map(|run| 1e3 * run.as_secs_f64()));
        Self {
            name: name.into(),
            first: ms(&[samples.first]),
            ours: ms(&samples.ours),
            cold: ms(&samples.cold),
            other: ms(&samples.other),
            against_adam: case.side == Side::Adam,
        }
    }
}

/// All that one start of the program has measured.
#[derive(Serialize, Deserialize)]
pub struct Start {
    pub cases: Vec<Measured>,
}

/// One row of the result.
#[derive(Clone, Serialize)]
struct Row {
    name: String,
    ms: f64,
    /// Of the first run after the other side, whose data fill the caches.
    cold_ms: f64,
    /// Of the first run of all, in which packed layers lay out their kernels.
    first_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    flex_f32_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adam_ms: Option<f64>,
    /// How many times as fast.
    ratio: f64,
    verified: bool,
}

/// The result.
#[derive(Serialize)]
pub struct Report {
    machine: String,
    isa: String,
    threads: usize,
    starts: usize,
    cases: Vec<Row>,
}

/// Medians over the starts.
pub fn merge(starts: &[Start], threads: usize) -> Report {
    let cases = starts[0].cases.iter().enumerate();
    let cases = cases.map(|(i, case)| {
        let all = || starts.iter().map(|start| &start.cases[i]);
        let other = median(all().map(|case| case.other));
        Row {
            name: case.name.clone(),
            ms: median(all().map(|case| case.ours)),
            cold_ms: median(all().map(|case| case.cold)),
            first_ms: median(all().map(|case| case.first)),
            flex_f32_ms: (!case.against_adam).then_some(other),
            adam_ms: case.against_adam.then_some(other),
            ratio: median(all().map(|case| case.other / case.ours)),
            verified: true,
        }
    });
    Report {
        machine: machine(),
        isa: multibit::cpu::Isa::best().name().into(),
        threads,
        starts: starts.len(),
        cases: cases.collect(),
    }
}

impl Report {
    /// Sorts the cases by their ratio, the worst first, and puts before them a row for the worst of
    /// each part of them.
    pub fn worst_first(&mut self, parts: impl Iterator<Item = (String, fn(&str) -> bool)>) {
        self.cases.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
        let rows = parts.filter_map(|(name, is_in)| {
            let worst = self.cases.iter().find(|row| is_in(&row.name))?;
            Some(Row {
                name,
                ..worst.clone()
            })
        });
        let rows: Vec<Row> = rows.collect();
        self.cases.splice(0..0, rows);
    }

    /// A table to read.
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}, {}, {} thread(s), medians of {} starts\n\n",
            self.machine, self.isa, self.threads, self.starts
        );
        text.push_str("| case | ms | cold ms | first ms | against ms | ratio |\n");
        text.push_str("|---|---|---|---|---|---|\n");
        for row in &self.cases {
            let (against, other) = match (row.flex_f32_ms, row.adam_ms) {
                (Some(flex), _) => ("Flex f32", flex),
                (None, adam) => ("Adam", adam.unwrap_or(f64::NAN)),
            };
            let _ = writeln!(
                text,
                "| {} | {:.3} | {:.3} | {:.3} | {other:.3} {against} | {:.2} |",
                row.name, row.ms, row.cold_ms, row.first_ms, row.ratio
            );
        }
        text
    }
}
