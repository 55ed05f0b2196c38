//! What was measured: medians, and shares of the machine's limits.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

/// One case on one instruction set.
pub struct Row {
    pub name: &'static str,
    pub isa: &'static str,
    /// The median of all runs.
    pub ms: f64,
    pub products: f64,
    pub limit: &'static str,
}

/// All that was measured.
pub struct Report {
    machine: String,
    threads: usize,
    /// What one core does at best, in billions a second, by instruction set.
    pub limits: BTreeMap<&'static str, BTreeMap<&'static str, f64>>,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(threads: usize) -> Self {
        Self {
            machine: machine(),
            threads,
            limits: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    pub fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The share of the limit that products reach, on as many cores as there are threads.
    fn share(&self, row: &Row) -> f64 {
        let rate = row.products / row.ms / 1e6;
        rate / self.limits[row.isa][row.limit] / self.threads as f64
    }

    /// Tables to read.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("{}, {} thread(s)\n\n", self.machine, self.threads);
        text.push_str("Limits of one core, in billions a second:\n\n");
        for (isa, limits) in &self.limits {
            let _ = write!(text, "- {isa}:");
            for (name, limit) in limits {
                let _ = write!(text, " {name} {limit:.0}");
            }
            text.push('\n');
        }
        text.push_str("\n| case | instructions | ms | share of limit |\n|---|---|---|---|\n");
        for row in &self.rows {
            let share = 100.0 * self.share(row);
            let _ = writeln!(
                text,
                "| {} | {} | {:.3} | {share:.0} % {} |",
                row.name, row.isa, row.ms, row.limit
            );
        }
        text
    }

    /// Writes the same as JSON.
    pub fn write(&self, file: &Path) -> Result<(), String> {
        let rows = self.rows.iter().map(|row| {
            json!({
                "name": row.name,
                "isa": row.isa,
                "ms": row.ms,
                "limit": row.limit,
                "share_of_limit": self.share(row),
            })
        });
        let result = json!({
            "machine": self.machine,
            "threads": self.threads,
            "limits": self.limits,
            "cases": rows.collect::<Vec<Value>>(),
        });
        let written = std::fs::write(file, format!("{result:#}\n"));
        written.map_err(|error| format!("{}: {error}", file.display()))
    }
}

/// The value in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The processor's name.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    name.map_or(std::env::consts::ARCH, |name| {
        name.trim_start_matches([' ', '\t', ':'])
    })
    .into()
}
