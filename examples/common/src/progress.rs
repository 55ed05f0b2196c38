//! Progress of a run: a bar on a terminal, a line an epoch without one.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Instant;

use burn::module::Module;
use burn_alq::train::{Progress, Run};
use indicatif::{ProgressBar, ProgressStyle};

/// Shows where a run is.
pub struct Display {
    bar: Option<ProgressBar>,
    epochs: usize,
    batches: usize,
    first: u64,
    start: Instant,
    /// After the last epoch.
    accuracy: Cell<Option<f64>>,
}

impl Display {
    pub fn new<M: Module>(run: &Run<M>, batches: usize) -> Self {
        let epochs = run.schedule().epochs().len();
        let (epoch, batch) = run.position();
        let first = (epoch * batches + batch) as u64;
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{prefix:<22} {bar:24} {pos}/{len} ETA {eta} {msg}");
            let bar = ProgressBar::new((epochs * batches) as u64);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_position(first);
            bar.reset_eta();
            bar
        });
        Self {
            bar,
            epochs,
            batches,
            first,
            start: Instant::now(),
            accuracy: Cell::new(None),
        }
    }

    /// After how many batches another loss is read. Without a bar only the last one of an epoch is
    /// shown, but what is unread takes memory, and a run that failed should stop.
    pub fn loss_every(&self) -> usize {
        if self.bar.is_some() { 20 } else { 100 }
    }

    pub fn show(&self, progress: &Progress) {
        let plan = &progress.plan;
        let round = plan
            .round
            .map_or(String::new(), |round| format!(" {}", round + 1));
        let phase = format!("{}{round}", plan.kind);
        let bits = if progress.bits > 0.0 {
            format!("  {:.3} bits", progress.bits)
        } else {
            String::new()
        };
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("{phase} ({}/{})", progress.epoch + 1, self.epochs));
            let accuracy = self.accuracy.get();
            let accuracy = accuracy.map_or(String::new(), |a| format!("  validation {a:.2} %"));
            bar.set_message(format!("loss {:.4}{accuracy}{bits}", progress.loss));
            bar.inc(1);
        }
        let Some(accuracy) = progress.metric else {
            return;
        };
        self.accuracy.set(Some(accuracy));
        let line = format!(
            "epoch {:>3}/{}  {phase:<12}  lr {:.2e}  loss {:.4}  validation {accuracy:.2} %{bits}",
            progress.epoch + 1,
            self.epochs,
            plan.lr,
            progress.loss,
        );
        match &self.bar {
            Some(bar) => bar.println(line),
            None => println!("{line}  ETA {}", self.eta(progress)),
        }
    }

    /// Time left if it goes on like this.
    fn eta(&self, progress: &Progress) -> String {
        let done = (progress.epoch * self.batches + progress.batch + 1) as u64;
        let left = (self.epochs * self.batches) as u64 - done;
        let a_step = self.start.elapsed().as_secs_f64() / (done - self.first).max(1) as f64;
        let seconds = (a_step * left as f64) as u64;
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
