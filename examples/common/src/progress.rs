//! Progress of a run: a bar on a terminal, a line an epoch without one.

use std::cell::Cell;

use burn::module::Module;
use burn_alq::train::{Progress, Run};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar on a terminal, hidden without one.
pub fn bar(template: &str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Shows where a run is. The bar goes with it.
pub struct Display {
    bar: ProgressBar,
    epochs: usize,
    /// The accuracy after the last epoch.
    accuracy: Cell<Option<f64>>,
}

impl Display {
    pub fn new<M: Module>(run: &Run<M>, batches: usize) -> Self {
        let epochs = run.schedule().epochs().len();
        let (epoch, batch) = run.position();
        let template = "{prefix:<22} {bar:24} {pos}/{len} ETA {eta} {msg}";
        let bar = bar(template, epochs * batches);
        bar.set_position((epoch * batches + batch) as u64);
        bar.reset_eta();
        Self {
            bar,
            epochs,
            accuracy: Cell::new(None),
        }
    }

    /// After how many batches another loss is read. Without a bar only the last one of an epoch is
    /// shown, but what is unread takes memory, and a run that failed should stop.
    pub fn loss_every(&self) -> usize {
        if self.bar.is_hidden() { 100 } else { 20 }
    }

    pub fn show(&self, progress: &Progress) {
        let (plan, loss) = (&progress.plan, progress.loss);
        let round = plan
            .round
            .map_or(String::new(), |round| format!(" {}", round + 1));
        let phase = format!("{}{round}", plan.kind);
        let bits = if progress.bits > 0.0 {
            format!("  {:.3} bits", progress.bits)
        } else {
            String::new()
        };
        let (epoch, epochs) = (progress.epoch + 1, self.epochs);
        let accuracy = self.accuracy.get();
        let accuracy = accuracy.map_or(String::new(), |a| format!("  validation {a:.2} %"));
        self.bar.set_prefix(format!("{phase} ({epoch}/{epochs})"));
        self.bar
            .set_message(format!("loss {loss:.4}{accuracy}{bits}"));
        self.bar.inc(1);
        let Some(accuracy) = progress.metric else {
            return;
        };
        self.accuracy.set(Some(accuracy));
        let line = format!(
            "epoch {epoch:>3}/{epochs}  {phase:<12}  lr {:.2e}  loss {loss:.4}  validation \
             {accuracy:.2} %{bits}",
            plan.lr
        );
        if self.bar.is_hidden() {
            let left = self.bar.eta().as_secs();
            println!("{line}  ETA {}:{:02}", left / 60, left % 60);
        } else {
            self.bar.println(line);
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
