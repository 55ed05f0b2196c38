//! The time that a whole job takes: float training, every target's quantization, evaluations.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn_alq::Schedule;
use burn_alq::optim::PhaseKind;
use burn_alq::train::{Progress, Run};

/// Networks that look at the test images at the end, each like a validation.
const EVALUATED: f64 = 4.0;

/// Work of which each unit takes about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// A step in a phase.
    Step(PhaseKind),
    /// A look at the validation images.
    Validation,
}

/// What is left, and what a unit of it took so far.
#[derive(Debug, Clone, Default)]
struct Estimate {
    left: BTreeMap<Work, f64>,
    /// Units and their seconds.
    taken: BTreeMap<Work, (f64, f64)>,
    /// Validation images for each image of a batch.
    validation: f64,
}

impl Estimate {
    fn add(&mut self, work: Work, units: f64) {
        *self.left.entry(work).or_default() += units;
    }

    fn done(&mut self, work: Work, units: f64) {
        if let Some(left) = self.left.get_mut(&work) {
            *left = (*left - units).max(0.0);
        }
    }

    fn took(&mut self, work: Work, units: f64, seconds: f64) {
        let (all, sum) = self.taken.entry(work).or_default();
        *all += units;
        *sum += seconds;
    }

    /// Seconds of a unit; none as long as nothing of the kind was timed.
    fn unit(&self, work: Work) -> Option<f64> {
        let (units, seconds) = self.taken.get(&work)?;
        (*units > 0.0).then(|| seconds / units)
    }

    /// What is left. Phases that were not timed yet count as the slowest of the others.
    fn eta(&self) -> Option<Eta> {
        let steps = self
            .taken
            .keys()
            .filter(|work| matches!(work, Work::Step(_)));
        let slowest = steps.filter_map(|&step| self.unit(step)).reduce(f64::max)?;
        let mut eta = Eta {
            seconds: 0.0,
            is_guess: false,
        };
        for (&work, &left) in self.left.iter().filter(|(_, left)| **left > 0.0) {
            let unit = self.unit(work);
            eta.is_guess |= unit.is_none();
            eta.seconds += left
                * unit.unwrap_or(match work {
                    Work::Step(_) => slowest,
                    // Forward alone is a third of a step.
                    Work::Validation => slowest * self.validation / 3.0,
                });
        }
        Some(eta)
    }

    /// Steps that are left.
    fn steps(&self) -> usize {
        let steps = self
            .left
            .iter()
            .filter(|(work, _)| matches!(work, Work::Step(_)));
        steps.map(|(_, left)| *left as usize).sum()
    }
}

/// The time until the job is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Eta {
    seconds: f64,
    /// Whether something that is left was never timed.
    is_guess: bool,
}

impl fmt::Display for Eta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds.round() as u64;
        let (minutes, hours) = (seconds / 60, seconds / 3600);
        let (days, seconds) = (hours / 24, seconds % 60);
        f.write_str(if self.is_guess { "ETA ~" } else { "ETA " })?;
        match (days, hours) {
            (0, 0) => write!(f, "{minutes}:{seconds:02}"),
            (0, _) => write!(f, "{hours}:{:02}:{seconds:02}", minutes % 60),
            _ => write!(f, "{days} d {}:{:02} h", hours % 24, minutes % 60),
        }
    }
}

/// Sizes of a job's parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// Batches in an epoch.
    pub batches: usize,
    pub batch_size: usize,
    pub validation_images: usize,
    pub test_images: usize,
}

/// Follows a job through its stages, in the order of the stages.
pub(crate) struct Clock {
    estimate: RefCell<Estimate>,
    batches: usize,
    /// Steps of the whole job.
    steps: usize,
    /// Validations that one evaluation takes as long as.
    evaluation: f64,
    last: RefCell<Instant>,
}

impl Clock {
    /// A clock for schedules one after the other, and so many evaluations.
    pub fn new(schedules: &[Schedule], evaluations: usize, sizes: Sizes) -> Self {
        let Sizes { batches, .. } = sizes;
        let validation = sizes.validation_images as f64;
        let evaluation = EVALUATED * sizes.test_images as f64 / validation;
        let mut estimate = Estimate {
            validation: validation / sizes.batch_size as f64,
            ..Estimate::default()
        };
        for epoch in schedules.iter().flat_map(|schedule| schedule.epochs()) {
            estimate.add(Work::Step(epoch.kind), batches as f64);
            estimate.add(Work::Validation, 1.0);
        }
        estimate.add(Work::Validation, evaluations as f64 * evaluation);
        Self {
            steps: estimate.steps(),
            estimate: RefCell::new(estimate),
            batches,
            evaluation,
            last: RefCell::new(Instant::now()),
        }
    }

    /// A stage begins, or goes on after what was done and timed of it before.
    pub fn begin<M: Module>(&self, run: &Run<M>) {
        let estimate = &mut *self.estimate.borrow_mut();
        let (epoch, batch) = run.position();
        let epochs = run.schedule().epochs();
        for plan in &epochs[..epoch] {
            estimate.done(Work::Step(plan.kind), self.batches as f64);
        }
        if let Some(plan) = epochs.get(epoch) {
            estimate.done(Work::Step(plan.kind), batch as f64);
        }
        estimate.done(Work::Validation, epoch as f64);
        let mut validation = 0.0;
        for (phase, timing) in run.timings() {
            let mut kinds = epochs.iter().map(|plan| plan.kind);
            if let Some(kind) = kinds.find(|kind| kind.to_string() == phase) {
                let seconds = timing.forward_backward + timing.optimizer;
                estimate.took(Work::Step(kind), timing.steps as f64, seconds);
            }
            validation += timing.evaluation;
        }
        estimate.took(Work::Validation, epoch as f64, validation);
        self.last.replace(Instant::now());
    }

    /// A step is done, and what is told of it.
    pub fn step(&self, progress: &Progress) {
        let step = Work::Step(progress.plan.kind);
        let seconds = self.lap();
        let estimate = &mut *self.estimate.borrow_mut();
        estimate.done(step, 1.0);
        if progress.metric.is_none() {
            estimate.took(step, 1.0, seconds);
            return;
        }
        // The last of an epoch, with the validation after it.
        let unit = estimate
            .unit(step)
            .map_or(seconds, |unit| unit.min(seconds));
        estimate.took(step, 1.0, unit);
        estimate.took(Work::Validation, 1.0, seconds - unit);
        estimate.done(Work::Validation, 1.0);
    }

    /// An evaluation is done, or was before.
    pub fn evaluated(&self) {
        self.estimate
            .borrow_mut()
            .done(Work::Validation, self.evaluation);
    }

    /// The time until the job is done; none before something was timed.
    pub fn eta(&self) -> Option<Eta> {
        self.estimate.borrow().eta()
    }

    /// Seconds of what is left, where a step of a float network takes so long, and one of a multi-bit network.
    pub fn seconds(&self, float: f64, quantized: f64) -> f64 {
        let mut estimate = self.estimate.borrow().clone();
        let steps = estimate.left.keys().copied().collect::<Vec<_>>();
        for work in steps {
            match work {
                Work::Step(PhaseKind::Fixed) => estimate.took(work, 1.0, float),
                Work::Step(_) => estimate.took(work, 1.0, quantized),
                Work::Validation => {}
            }
        }
        estimate.eta().map_or(0.0, |eta| eta.seconds)
    }

    /// Steps of the whole job, and those that are done.
    pub fn steps(&self) -> [usize; 2] {
        [self.steps, self.steps - self.estimate.borrow().steps()]
    }

    fn lap(&self) -> f64 {
        let now = Instant::now();
        let passed: Duration = now - self.last.replace(now);
        passed.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASIS: Work = Work::Step(PhaseKind::Basis);
    const FLOAT: Work = Work::Step(PhaseKind::Fixed);

    /// Ten float epochs, then twenty slower ones, of 100 batches; a validation takes as long as 5.
    #[test]
    fn all_that_is_left_counts() {
        let mut estimate = Estimate {
            validation: 6.0,
            ..Estimate::default()
        };
        estimate.add(FLOAT, 1000.0);
        estimate.add(BASIS, 2000.0);
        estimate.add(Work::Validation, 34.0);
        assert_eq!(estimate.eta(), None);
        estimate.took(FLOAT, 10.0, 1.0);
        estimate.done(FLOAT, 10.0);
        let eta = estimate.eta().unwrap();
        // 2990 steps of a tenth, 34 validations of six batches at a third of it.
        assert!((eta.seconds - (299.0 + 34.0 * 0.2)).abs() < 1e-9, "{eta}");
        assert_eq!(eta.to_string(), "ETA ~5:06");

        estimate.took(BASIS, 10.0, 2.0);
        estimate.took(Work::Validation, 2.0, 1.0);
        estimate.done(FLOAT, 2000.0);
        estimate.done(BASIS, 10.0);
        let eta = estimate.eta().unwrap();
        assert!((eta.seconds - (1990.0 * 0.2 + 17.0)).abs() < 1e-9, "{eta}");
        assert_eq!(
            (eta.to_string().as_str(), estimate.steps()),
            ("ETA 6:55", 1990)
        );
    }

    #[test]
    fn long_times_are_read_at_a_glance() {
        for (seconds, expected) in [
            (0.4, "ETA 0:00"),
            (3599.0, "ETA 59:59"),
            (3601.0, "ETA 1:00:01"),
            (200_000.0, "ETA 2 d 7:33 h"),
        ] {
            let is_guess = false;
            assert_eq!(Eta { seconds, is_guess }.to_string(), expected);
        }
    }
}
