//! `--minutes`: as much of a preset as fits the time that there is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use burn_alq::optim::Size;
use burn_alq::train::{Run, Task as _};
use burn_alq::{AlqOptimizer, AlqOptimizerConfig, Schedule, sizes};
use serde::{Deserialize, Serialize};

use super::{Goal, Job, clock, float_training, network, schedules, task};
use crate::document::write_json;
use crate::folder::Folder;
use crate::say::say;
use crate::task::Classify;
use crate::{Failure, Network, Plan, at};

/// Steps that are timed; their median counts, as the first ones wait for data and kernels.
const TIMED: usize = 7;

/// The share of the time that is planned: sketching, packing and what else the machine does take the rest.
const PLANNED: f64 = 0.9;

/// What a resumed run does not measure again.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    /// The share of the preset's epochs that fitted.
    part: f64,
}

/// Where a run keeps it.
fn file(out: &Path) -> PathBuf {
    out.join("minutes.json")
}

/// A job cut to its `--minutes`, and its goals; as it is without the flag.
///
/// # Errors
/// If even the shortest training takes longer; says how long it takes. If the goals do not fit the network,
/// or a run is to be resumed that was not cut.
pub(crate) fn fit<N: Network>(
    mut job: Job<'_, N>,
    goals: impl Fn(&Job<'_, N>) -> Result<Vec<Goal>, Failure>,
) -> Result<(Job<'_, N>, Vec<Goal>), Failure> {
    let (Some(minutes), out) = (job.flags.minutes, &job.flags.out) else {
        let goals = goals(&job)?;
        return Ok((job, goals));
    };
    // Refused before anything is timed; a folder that was made for it goes again.
    drop(Folder::of_run(out, job.flags.resume)?);
    if job.flags.resume {
        let file = file(out);
        let text = std::fs::read(&file).map_err(|error| {
            let error = format!("{error}; the run has no --minutes, so resume it without");
            at(&file, error)
        })?;
        let kept: Part = serde_json::from_slice(&text).map_err(|error| at(&file, error))?;
        job.part = Some(kept.part);
        job.plan = job.plan.cut(kept.part);
    } else {
        let times = Times::measure(&job, &goals(&job)?)?;
        let whole = job.plan.clone();
        let mut seconds = |part: f64| {
            job.part = Some(part);
            job.plan = whole.cut(part);
            times.of(&job, &goals(&job)?)
        };
        let part = largest(&mut seconds, PLANNED * 60.0 * minutes)?;
        let part = part.map_err(|least| {
            format!(
                "--minutes {minutes}: too short: with {:.3} s for a float step and {:.3} s for a quantized one, \
                 the shortest training of this preset takes {:.1} minutes here; give as many, a smaller network \
                 or fewer images",
                times.float,
                times.quantized,
                least / PLANNED / 60.0
            )
        })?;
        let planned = seconds(part)? / 60.0;
        say!(
            "--minutes {minutes}: {:.1} % of the preset's epochs, about {planned:.1} minutes",
            100.0 * part
        );
    }
    let goals = goals(&job)?;
    Ok((job, goals))
}

/// Keeps the part that was found for a run that goes on, in the run's folder.
pub(super) fn keep<N: Network>(job: &Job<'_, N>) -> Result<(), Failure> {
    match job.part {
        Some(part) if !job.flags.resume => write_json(&file(&job.flags.out), &Part { part }),
        _ => Ok(()),
    }
}

/// When a run stops with a checkpoint, wherever it is.
pub(super) fn deadline<N: Network>(job: &Job<'_, N>) -> Option<Instant> {
    let minutes = job.flags.minutes?;
    Some(job.start + Duration::from_secs_f64(60.0 * minutes))
}

/// The largest part, up to the whole, whose time is within the limit; if there is none, the least time.
fn largest(
    mut seconds: impl FnMut(f64) -> Result<f64, Failure>,
    limit: f64,
) -> Result<Result<f64, f64>, Failure> {
    if seconds(1.0)? <= limit {
        return Ok(Ok(1.0));
    }
    let least = seconds(0.0)?;
    if least > limit {
        return Ok(Err(least));
    }
    let (mut fits, mut exceeds) = (0.0, 1.0);
    // To a thousandth: no preset has more epochs of a kind.
    for _ in 0..10 {
        let middle = (fits + exceeds) / 2.0;
        match seconds(middle)? <= limit {
            true => fits = middle,
            false => exceeds = middle,
        }
    }
    Ok(Ok(fits))
}

impl Plan {
    /// A part of the epochs, at least one of each kind that there is, at rates of the same mean; where a round
    /// would have less than one epoch of bases, fewer rounds.
    fn cut(&self, part: f64) -> Self {
        let mut plan = self.clone();
        let schedule = &mut plan.schedule;
        let rounds = schedule.rounds as f64 * part * schedule.basis_epochs as f64;
        schedule.rounds = (rounds as usize).clamp(schedule.rounds.min(1), schedule.rounds);
        let shorten = |epochs: usize| {
            let part = (epochs as f64 * part) as usize;
            part.clamp(epochs.min(1), epochs)
        };
        for (epochs, decay) in [
            (&mut plan.float_epochs, &mut plan.float_decay),
            (&mut schedule.basis_epochs, &mut schedule.basis_decay),
            (
                &mut schedule.coordinate_epochs,
                &mut schedule.coordinate_decay,
            ),
            (&mut schedule.ste_epochs, &mut schedule.ste_decay),
            (&mut schedule.final_epochs, &mut schedule.final_decay),
        ] {
            let all = std::mem::replace(epochs, shorten(*epochs));
            *decay = same_mean(*decay, all, *epochs);
        }
        plan.float_warm_up = plan.float_warm_up.map(shorten);
        plan
    }
}

/// The factor on a rate before each of fewer epochs, with which its mean is what it was. Were it to fall as far,
/// a single epoch would have the lowest rate of all.
fn same_mean(decay: f64, all: usize, left: usize) -> f64 {
    if all == left || decay >= 1.0 {
        return decay;
    }
    let mean = |decay: f64, epochs: usize| {
        let rates = (1..=epochs as i32).map(|epoch| decay.powi(epoch));
        rates.sum::<f64>() / epochs as f64
    };
    let aim = mean(decay, all);
    let (mut low, mut high) = (0.0, decay);
    // To the last bit.
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match mean(middle, left) <= aim {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

/// Seconds of a step, and what else the time of a job depends on.
struct Times {
    float: f64,
    quantized: f64,
    /// Of the quantized network's weights.
    sizes: Vec<Size>,
    device: Device,
}

impl Times {
    /// Takes some steps with networks that are then dropped.
    fn measure<N: Network>(job: &Job<'_, N>, goals: &[Goal]) -> Result<Self, Failure> {
        let device = job.flags.device.device()?;
        let task = task(job, None, &device);
        let autodiff = device.clone().autodiff();
        device.seed(job.flags.seed);
        let model = network(job, &autodiff)?;
        let (quantized, _) = job.quantizer.quantize(network(job, &autodiff)?)?;
        let sizes = sizes(&quantized);
        let schedule = schedules(goals, &sizes)?.swap_remove(0);
        let (optimizer, _) = float_training(&job.plan);
        let optimizer = AlqOptimizerConfig::new().init_with(optimizer);
        let float = median(model, optimizer, Schedule::float(1, 0.0, 1.0), &task)?;
        let optimizer = AlqOptimizerConfig::new().init();
        let quantized = median(quantized, optimizer, schedule, &task)?;
        Ok(Self {
            float,
            quantized,
            sizes,
            device,
        })
    }

    /// Seconds of a job.
    fn of<N: Network>(&self, job: &Job<'_, N>, goals: &[Goal]) -> Result<f64, Failure> {
        let schedules = schedules(goals, &self.sizes)?;
        Ok(clock(job, &schedules, &self.device).seconds(self.float, self.quantized))
    }
}

/// Seconds of a step, the median of some.
fn median<N: Network>(
    model: N,
    optimizer: AlqOptimizer,
    schedule: Schedule,
    task: &Classify<N>,
) -> Result<f64, Failure> {
    let mut run = Run::new(model, optimizer, schedule, "");
    let mut seconds = Vec::new();
    for _ in 0..TIMED.min(task.batches()) {
        let start = Instant::now();
        task.explained(run.advance(task))?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

#[cfg(test)]
mod tests {
    use burn_alq::{ScheduleConfig, Target};

    use super::*;

    #[test]
    fn a_part_keeps_rates_and_at_least_one_epoch_of_each_kind() {
        let plan = Plan::new(ScheduleConfig::new(Target::Bits(1.0)))
            .with_float_epochs(200)
            .with_float_decay(0.98);
        let epochs = |plan: &Plan| {
            let schedule = &plan.schedule;
            [
                plan.float_epochs,
                schedule.rounds,
                schedule.basis_epochs,
                schedule.coordinate_epochs,
                schedule.prune_epochs,
                schedule.ste_epochs,
                schedule.final_epochs,
            ]
        };
        assert_eq!(epochs(&plan), epochs(&plan.cut(1.0)));
        let half = plan.cut(0.5);
        assert_eq!(epochs(&half), [100, 4, 10, 5, 1, 25, 10]);
        // (0.8 + 0.8² + … + 0.8²⁰) / 20, and the same mean in ten epochs and in one.
        let mean = 0.8 * (1.0 - 0.8f64.powi(20)) / 0.2 / 20.0;
        let decay = half.schedule.basis_decay;
        let sum = decay * (1.0 - decay.powi(10)) / (1.0 - decay);
        assert!((sum / 10.0 - mean).abs() < 1e-9, "{decay}");
        assert!((plan.cut(0.0).schedule.basis_decay - mean).abs() < 1e-9);
        assert_eq!(plan.cut(1.0).float_decay, 0.98);
        assert_eq!(epochs(&plan.cut(0.03)), [6, 2, 1, 1, 1, 1, 1]);
        assert_eq!(epochs(&plan.cut(0.0)), [1, 1, 1, 1, 1, 1, 1]);
        // Nothing comes where nothing was: the float network of `--float` is not trained.
        assert_eq!(plan.with_float_epochs(0).cut(0.5).float_epochs, 0);
    }

    #[test]
    fn the_largest_part_that_fits_is_found() {
        let seconds = |part: f64| Ok(10.0 + 990.0 * part);
        assert_eq!(largest(seconds, 2000.0).unwrap(), Ok(1.0));
        assert_eq!(largest(seconds, 9.0).unwrap(), Err(10.0));
        let part = largest(seconds, 505.0).unwrap().unwrap();
        assert!((0.498..=0.5).contains(&part), "{part}");
    }
}
