//! One line an epoch, where there is no terminal for Burn's dashboard.

use std::boxed::Box;
use std::collections::HashMap;
use std::io::Write;
use std::string::String;
use std::time::Instant;
use std::vec::Vec;

use burn_train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn_train::metric::{MetricDefinition, MetricId, MetricName};
use burn_train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};

/// Whether Burn's Learner would show its dashboard.
pub(super) fn has_dashboard() -> bool {
    use std::io::IsTerminal;

    cfg!(feature = "tui") && std::io::stdout().is_terminal()
}

/// Writes one line at the end of each epoch: every metric's value, of training and validation.
pub struct LineRenderer {
    out: Box<dyn Write + Send + Sync>,
    names: HashMap<MetricId, MetricName>,
    /// Names and values, in the order in which they first came.
    train: Vec<(String, String)>,
    valid: Vec<(String, String)>,
    epochs: usize,
    start: Instant,
}

impl LineRenderer {
    /// Writes to a file, a pipe or standard output. What cannot be written is logged as a warning.
    pub fn new(out: impl Write + Send + Sync + 'static) -> Self {
        Self {
            out: Box::new(out),
            names: HashMap::new(),
            train: Vec::new(),
            valid: Vec::new(),
            epochs: 0,
            start: Instant::now(),
        }
    }

    fn line(&mut self, text: &str) {
        let written = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
        if let Err(error) = written {
            log::warn!("the progress of the training cannot be written: {error}");
        }
    }

    fn named(&self, state: MetricState) -> (String, String) {
        let entry = match state {
            MetricState::Generic(entry) | MetricState::Numeric(entry, _) => entry,
        };
        // Burn writes "epoch 0.5 - batch 0.4"; the line is about the epoch.
        let formatted = entry.serialized_entry.formatted;
        let value = formatted.split(" - batch").next().unwrap_or_default();
        let value = value.strip_prefix("epoch ").unwrap_or(value).trim();
        let name = self.names.get(&entry.metric_id);
        let name = name.map_or(String::new(), |name| name.to_lowercase());
        (name, value.into())
    }
}

fn put(values: &mut Vec<(String, String)>, (name, value): (String, String)) {
    match values.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = value,
        None => values.push((name, value)),
    }
}

fn join(values: &[(String, String)]) -> String {
    let values: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    values.join(", ")
}

impl MetricsRendererTraining for LineRenderer {
    fn update_train(&mut self, state: MetricState) {
        let value = self.named(state);
        put(&mut self.train, value);
    }

    fn update_valid(&mut self, state: MetricState) {
        let value = self.named(state);
        put(&mut self.valid, value);
    }
}

impl TrainingProgressLogger for LineRenderer {
    fn start(
        &mut self,
        total_epochs: usize,
        _starting_epoch: usize,
        _total_items: Option<usize>,
        _label: Option<&str>,
    ) {
        self.epochs = total_epochs;
        self.start = Instant::now();
    }

    fn update_epoch(&mut self, epoch: usize) {
        let seconds = self.start.elapsed().as_secs_f64();
        let (train, valid) = (join(&self.train), join(&self.valid));
        let valid = if valid.is_empty() {
            valid
        } else {
            format!(" | valid: {valid}")
        };
        self.line(&format!(
            "epoch {epoch}/{} | {train}{valid} | {seconds:.1} s",
            self.epochs
        ));
    }

    fn start_split(&mut self, _split: &str, _total_items: usize) {}

    fn update_split(&mut self, _items_processed: usize) {}

    fn end_split(&mut self) {}

    fn end(&mut self) {}

    /// Writes nothing: Burn tells of every batch this way.
    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for LineRenderer {
    fn update_test(&mut self, name: EvaluationName, state: MetricState) {
        let (metric, value) = self.named(state);
        put(&mut self.valid, (format!("{name} {metric}"), value));
    }
}

impl EvaluationProgressLogger for LineRenderer {
    fn start_global_progress(&mut self, _total_tests: usize) {
        self.valid.clear();
    }

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {
        let text = join(&self.valid);
        self.line(&format!("test: {text}"));
    }

    /// Writes nothing, as in training.
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for LineRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name);
    }
}
