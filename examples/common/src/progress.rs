//! Progress of a job: a line an epoch, and a bar on a terminal.

use std::cell::Cell;

use burn::module::Module;
use burn_alq::train::{Progress, Run};
use indicatif::{ProgressBar, ProgressStyle};

use crate::eta::Clock;
use crate::say::say;

/// A bar on a terminal, hidden without one.
pub fn bar(template: &str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Shows where a job is. The bar goes with it.
pub struct Display<'a> {
    /// Steps of the whole job.
    bar: ProgressBar,
    clock: &'a Clock,
    epochs: usize,
    /// The accuracy after the last epoch.
    accuracy: Cell<Option<f64>>,
}

impl<'a> Display<'a> {
    pub fn new<M: Module>(run: &Run<M>, clock: &'a Clock) -> Self {
        clock.begin(run);
        let [all, _] = clock.steps();
        Self {
            bar: bar("{prefix:<22} {bar:24} {pos}/{len} {msg}", all),
            clock,
            epochs: run.schedule().epochs().len(),
            accuracy: Cell::new(None),
        }
    }

    /// After how many batches another loss is read. Without a bar only the last one of an epoch is
    /// shown, but what is unread takes memory, and a run that failed should stop.
    pub fn loss_every(&self) -> usize {
        if self.bar.is_hidden() { 100 } else { 20 }
    }

    pub fn show(&self, progress: &Progress) {
        self.clock.step(progress);
        let eta = self.clock.eta();
        let eta = eta.map_or(String::new(), |eta| eta.to_string());
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
            .set_message(format!("{eta} loss {loss:.4}{accuracy}{bits}"));
        let [_, done] = self.clock.steps();
        self.bar.set_position(done as u64);
        let Some(accuracy) = progress.metric else {
            return;
        };
        self.accuracy.set(Some(accuracy));
        // Above the bar, if there is one; in a log of the output, if that goes there.
        self.bar.suspend(|| {
            say!(
                "epoch {epoch:>3}/{epochs}  {phase:<12}  lr {:.2e}  loss {loss:.4}  validation \
                 {accuracy:.2} %{bits}  {eta}",
                plan.lr
            );
        });
    }
}

impl Drop for Display<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
