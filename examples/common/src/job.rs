//! The main job: float training, quantization, packing, evaluation, report.

mod finish;
mod minutes;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, ModuleOptimizer, SgdConfig};
use burn::tensor::Device;
use burn_alq::analysis::{GroupingChoice, LocalModel};
use burn_alq::optim::{Size, average_bits};
use burn_alq::train::{CheckpointError, Distillation, Run, Task, TrainError};
use burn_alq::{AlqOptimizerConfig, Quantizer, Schedule, ScheduleConfig, Target, sizes};

use crate::cli::TrainFlags;
use crate::data::fingerprint;
use crate::document::{Document as _, check_json, write_json};
use crate::eta::{Clock, Sizes};
use crate::folder::Folder;
use crate::network::{Config, load_float};
use crate::progress::Display;
use crate::report::Report;
use crate::say::say;
use crate::settings::{DATA, Settings, difference};
use crate::stop::Stop;
use crate::task::Classify;
use crate::{Dataset, Failure, Network, Plan, Reference};

pub(crate) use minutes::fit;

/// The user stopped the run.
#[derive(Debug, thiserror::Error)]
#[error(
    "stopped; a checkpoint is in {}, the same command with --resume continues",
    out.display()
)]
pub struct Interrupted {
    out: PathBuf,
}

/// Trained values in a file, and what puts them into a fresh network.
pub struct Pretrained<'a, N> {
    /// The file of `--pretrained`.
    pub file: &'a Path,
    /// Reads it.
    pub load: fn(N, &Path) -> Result<N, Failure>,
}

/// What to train, and how.
pub struct Job<'a, N> {
    /// When the program began.
    pub start: Instant,
    /// The command line.
    pub flags: &'a TrainFlags,
    /// The name of the preset, for the report.
    pub preset: &'static str,
    /// The numbers, flags included.
    pub plan: Plan,
    /// Groupings of the weights.
    pub quantizer: Quantizer,
    /// What the network is built from.
    pub config: Config,
    /// What it learns.
    pub data: Dataset,
    /// Threads that share a batch.
    pub shards: usize,
    /// What puts other weights than random ones into the network.
    pub pretrained: Option<Pretrained<'a, N>>,
    /// The share of the preset's epochs that `--minutes` leaves.
    pub(crate) part: Option<f64>,
    /// Networks of others, to compare with.
    pub references: Vec<Reference>,
}

/// Trains, quantizes, packs, evaluates.
///
/// # Errors
/// If a flag asks for the impossible, data or a checkpoint cannot be read, a file not be written, or
/// the user stops the run.
pub fn train<N: Network>(job: Job<'_, N>) -> Result<(), Failure> {
    let (job, goals) = fit(job, |job| {
        let schedule = job.plan.schedule.clone();
        let mut settings = Settings::default();
        match schedule.target {
            Target::Bits(bits) => settings.set("--target-bits", bits),
            Target::Bytes(bytes) => settings.set("--target-bytes", bytes),
            Target::Ratio(ratio) => settings.set("target ratio", ratio),
        }
        Ok(vec![Goal {
            out: job.flags.out.clone(),
            name: None,
            schedule,
            settings,
        }])
    })?;
    let runner = Runner::new(&job, &goals)?;
    let goal = &goals[0];
    say!("data: {}", job.data.name);
    let mut report = Report::new(&job);

    let float = runner.float(&mut report)?;
    // Clones of a module share batch norm's running statistics; validation mode has its own, which
    // the training of the quantized network does not move.
    let kept = float.valid();
    let models = Models {
        quantized: runner.sketch(&float, &goal.schedule)?,
        control: runner.control()?,
    };
    let (_, report) = runner.reach(models, &kept, goal, job.start, report)?;
    if let Some(file) = &job.flags.json {
        write_json(file, &report)?;
    }
    say!("{}", report.to_markdown());
    say!("{}", report.result_line());
    Ok(())
}

/// Of a float network that is trained in one cycle.
const WEIGHT_DECAY: f32 = 5e-4;

/// Batches over which the loss around the float network is measured.
const MEASURED: usize = 64;

pub(crate) const FLOAT: &str = "float.bpk";
pub(crate) const FLOAT_CHECKPOINT: &str = "float-checkpoint.bpk";
pub(crate) const CHECKPOINT: &str = "checkpoint.bpk";
pub(crate) const CONTROL_CHECKPOINT: &str = "control-checkpoint.bpk";
const PACKED: &str = "model.bpk";

/// One target of a run.
pub(crate) struct Goal {
    /// Folder of its model, report and checkpoint.
    pub out: PathBuf,
    /// The name in errors, if it is one of several.
    pub name: Option<String>,
    /// The schedule to the target.
    pub schedule: ScheduleConfig,
    /// What a resumed run must share beside that: the target, and those before it.
    pub settings: Settings,
}

impl Goal {
    /// A failure on the way to it; a stop by the user is none.
    fn named(&self, error: Failure) -> Failure {
        match &self.name {
            Some(name) if !error.is::<Interrupted>() => format!("{name}: {error}").into(),
            _ => error,
        }
    }
}

/// What is trained to a target, and then on to the next.
pub(crate) struct Models<N> {
    pub quantized: N,
    /// The float network that is trained on as long, if it was asked for.
    pub control: Option<N>,
}

/// What the targets of a job share.
pub(crate) struct Runner<'a, N> {
    stop: Stop,
    /// When it stops all the same.
    deadline: Option<Instant>,
    /// The device without autodiff.
    device: Device,
    /// The flag that named a file of trained values, and the fingerprint of the file.
    start: Option<(&'static str, u64)>,
    clock: Clock,
    job: &'a Job<'a, N>,
    /// Held until the end.
    _folder: Folder,
}

impl<'a, N: Network> Runner<'a, N> {
    /// Checks all that can be checked before the work, and makes the folder.
    ///
    /// # Errors
    /// If something is wrong with a flag or with what it names; no folder is left behind.
    pub(crate) fn new(job: &'a Job<'a, N>, goals: &[Goal]) -> Result<Self, Failure> {
        let flags = job.flags;
        let stop = Stop::listen()?;
        let device = flags.device.device()?;
        let start = match (&flags.float, &job.pretrained) {
            (Some(file), _) => Some(("--float", file.as_path())),
            (None, Some(pretrained)) => Some(("--pretrained", pretrained.file)),
            (None, None) => None,
        };
        let start = start.map(|(flag, file)| match std::fs::read(file) {
            Ok(bytes) => Ok((flag, fingerprint(bytes.iter()))),
            Err(error) => Err(format!("{flag} {}: {error}", file.display())),
        });
        let start = start.transpose()?;
        flags.levers.distillation()?;
        // A target that cannot be met is refused before anything is trained: what a weight takes
        // after sketching hardly depends on its values.
        let model = job.quantizer.quantize(network(job, &device)?)?.0;
        let schedules = schedules(goals, &sizes(&model))?;
        for Goal { out, .. } in goals {
            if out.exists() && !out.is_dir() {
                return Err(format!("--out: {} is not a folder", out.display()).into());
            }
        }
        let folder = Folder::of_run(&flags.out, flags.resume)?;
        check_json(flags.json.as_deref())?;
        minutes::keep(job)?;
        let runner = Self {
            stop,
            deadline: minutes::deadline(job),
            clock: clock(job, &schedules, &device),
            device,
            start,
            job,
            _folder: folder,
        };
        for (goal, schedule) in goals.iter().zip(&schedules) {
            runner.check_checkpoint(&model, goal, schedule)?;
        }
        Ok(runner)
    }

    /// Refuses a target's checkpoint of another run before the work that leads to it. What else may be
    /// wrong with it is said once it is needed.
    fn check_checkpoint(&self, model: &N, goal: &Goal, schedule: &Schedule) -> Result<(), Failure> {
        let checkpoint = goal.out.join(CHECKPOINT);
        if !(self.job.flags.resume && checkpoint.exists()) {
            return Ok(());
        }
        let (optimizer, schedule) = (AlqOptimizerConfig::new().init(), schedule.clone());
        let fingerprint = self.settings(goal).fingerprint();
        let run = Run::new(model.clone(), optimizer, schedule, fingerprint);
        let resumed = run.resume(&checkpoint, &self.device);
        match resumed
            .err()
            .and_then(|error| other_run(&error, &checkpoint))
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// What a resumed float training must share with the one that it continues.
    fn float_settings(&self) -> Settings {
        let job = self.job;
        let mut settings = Settings::default();
        let Dataset {
            name, fingerprint, ..
        } = &job.data;
        settings.set(DATA, format!("{name} {fingerprint:016x}"));
        settings.set("--preset", job.preset);
        settings.set("--seed", job.flags.seed);
        settings.set("--shards", job.shards);
        settings.flag("--minutes", job.flags.minutes);
        settings.numbers(&job.plan);
        for (key, value) in &job.config {
            settings.set(&format!("--{}", key.replace('_', "-")), value);
        }
        if let Some((flag, fingerprint)) = self.start {
            settings.set(flag, format!("a file with checksum {fingerprint:016x}"));
        }
        settings
    }

    /// The same for a quantization.
    fn settings(&self, goal: &Goal) -> Settings {
        let mut settings = self.float_settings();
        settings.numbers(&goal.schedule);
        self.job.flags.levers.note(&mut settings);
        settings.extend(&goal.settings);
        settings
    }

    /// The float network: trained, or read from the folder if that is done already.
    pub(crate) fn float(&self, report: &mut Report) -> Result<N, Failure> {
        let device = self.device.clone().autodiff();
        self.device.seed(self.job.flags.seed);
        let model = network(self.job, &device)?;
        let plan = &self.job.plan;
        let (optimizer, schedule) = float_training(plan);
        let optimizer = AlqOptimizerConfig::new().init_with(optimizer);
        let fingerprint = self.float_settings().fingerprint();
        let run = Run::new(model, optimizer, schedule, fingerprint);
        match &self.job.flags.float {
            Some(file) => say!("float network: {}", file.display()),
            None => say!("float training: {} epochs", plan.float_epochs),
        }
        let out = &self.job.flags.out;
        let run = self.run(run, &out.join(FLOAT_CHECKPOINT), None, &device, report)?;
        report.add_run(&run);
        let model = run.into_model();
        let file = out.join(FLOAT);
        // Written once, when the float training was done.
        if !(self.job.flags.resume && file.exists()) {
            model.clone().save_file(file)?;
        }
        Ok(model)
    }

    /// The float network as a multi-bit network, before it is trained.
    pub(crate) fn sketch(&self, float: &N, schedule: &ScheduleConfig) -> Result<N, Failure> {
        let quantizer = self.quantizer(float, schedule)?;
        let (model, conversion) = quantizer.quantize(float.clone())?;
        say!("\n{}", conversion.to_markdown());
        Ok(model)
    }

    /// The float network as it was written, which shares nothing with the one that is quantized; none if no
    /// control was asked for.
    pub(crate) fn control(&self) -> Result<Option<N>, Failure> {
        if !self.job.flags.control {
            return Ok(None);
        }
        let model = N::from_config(&self.job.config, &self.device.clone().autodiff())?;
        load_float(model, &self.job.flags.out.join(FLOAT)).map(Some)
    }

    /// A multi-bit network, trained to a target, packed, evaluated and reported, if that was not done
    /// before, and its control. `kept` is the float network in validation mode, a teacher where there is to
    /// be one.
    pub(crate) fn reach(
        &self,
        models: Models<N>,
        kept: &N,
        goal: &Goal,
        start: Instant,
        mut report: Report,
    ) -> Result<(Models<N>, Report), Failure> {
        // Its checkpoint says whether it was made with these flags.
        let files = [CHECKPOINT, PACKED].map(|name| goal.out.join(name));
        let begun = self.job.flags.resume && files.iter().all(|file| file.exists());
        let trained = self
            .trained(models, kept, goal, &mut report)
            .map_err(|error| goal.named(error))?;
        // One that is finished was evaluated, and its test images are not looked at twice.
        if begun && Report::is_in(&goal.out) {
            say!("finished before: {}", goal.out.display());
            report = Report::read(&goal.out)?;
        } else {
            self.finish(&trained, kept, goal, start, &mut report)?;
        }
        self.clock.evaluated();
        Ok((trained, report))
    }

    fn trained(
        &self,
        models: Models<N>,
        kept: &N,
        goal: &Goal,
        report: &mut Report,
    ) -> Result<Models<N>, Failure> {
        let device = self.device.clone().autodiff();
        let start = sizes(&models.quantized);
        let schedule = goal.schedule.init(&start)?;
        let (epochs, bits) = (schedule.epochs().len(), average_bits(&start));
        let fingerprint = self.settings(goal).fingerprint();
        let run = |model, schedule| {
            let optimizer = AlqOptimizerConfig::new().init();
            Run::new(model, optimizer, schedule, fingerprint.clone())
        };
        let control = match models.control {
            Some(model) => {
                say!("control: the float network, {epochs} epochs more");
                let run = run(model, schedule.control());
                let checkpoint = goal.out.join(CONTROL_CHECKPOINT);
                let run = self.run(run, &checkpoint, None, &device, report)?;
                Some(run.into_model())
            }
            None => None,
        };
        say!("quantization: {epochs} epochs, from {bits:.2} bits per weight");
        let run = run(models.quantized, schedule);
        let distillation = self.job.flags.levers.distillation()?;
        let teacher = distillation.map(|distillation| (kept.clone(), distillation));
        let run = self.run(run, &goal.out.join(CHECKPOINT), teacher, &device, report)?;
        report.add_run(&run);
        Ok(Models {
            quantized: run.into_model(),
            control,
        })
    }

    /// The example's rules, or groupings chosen by the loss around the float network.
    fn quantizer(&self, float: &N, schedule: &ScheduleConfig) -> Result<Quantizer, Failure> {
        let quantizer = self.job.quantizer.clone();
        if !self.job.flags.levers.auto_grouping {
            return Ok(quantizer);
        }
        let task = task(self.job, None, &self.device.clone().autodiff());
        let local = LocalModel::measure(float, &task, MEASURED, schedule.lr);
        let local = task.explained(local)?;
        let (quantizer, choices) = quantizer.regroup(float, &local, schedule)?;
        say!("\n{}", GroupingChoice::to_markdown(&choices));
        Ok(quantizer)
    }

    /// Runs to the end, with checkpoints.
    fn run(
        &self,
        mut run: Run<N>,
        checkpoint: &Path,
        teacher: Option<(N, Distillation)>,
        device: &Device,
        report: &mut Report,
    ) -> Result<Run<N>, Failure> {
        let flags = self.job.flags;
        let task = task(self.job, teacher, device);
        if flags.resume && checkpoint.exists() {
            run = run
                .resume(checkpoint, device)
                .map_err(|error| other_run(&error, checkpoint).unwrap_or_else(|| error.into()))?;
            report.resume(&run);
        }
        let display = Display::new(&run, &self.clock);
        if !flags.device.is_synchronous() {
            run = run.read_loss_every(display.loss_every());
        }
        let mut saved = Instant::now();
        while let Some(progress) = task.explained(run.advance(&task))? {
            display.show(&progress);
            let over = self.deadline.is_some_and(|end| Instant::now() >= end);
            let stop = over || self.stop.is_asked();
            let due = saved.elapsed() >= Duration::from_secs(flags.checkpoint_seconds);
            if stop || due || progress.metric.is_some() {
                run.save(checkpoint)?;
                saved = Instant::now();
            }
            if over {
                say!("the time of --minutes is over");
            }
            if stop {
                return Err(interrupted(checkpoint));
            }
        }
        Ok(run)
    }
}

/// The schedules to some targets from a network with weights of these sizes.
fn schedules(goals: &[Goal], sizes: &[Size]) -> Result<Vec<Schedule>, Failure> {
    let schedule = |goal: &Goal| {
        let schedule = goal.schedule.init(sizes);
        schedule.map_err(|error| goal.named(error.into()))
    };
    goals.iter().map(schedule).collect()
}

/// The time of a whole job, with these schedules to its targets.
fn clock<N: Network>(job: &Job<'_, N>, schedules: &[Schedule], device: &Device) -> Clock {
    let mut stages = vec![float_training(&job.plan).1];
    if job.flags.control {
        stages.extend(schedules.iter().map(Schedule::control));
    }
    stages.extend(schedules.iter().cloned());
    let sizes = Sizes {
        batches: task(job, None, device).batches(),
        batch_size: job.plan.batch_size,
        validation_images: job.data.valid.count(),
        test_images: job.data.test.count(),
    };
    Clock::new(&stages, schedules.len(), sizes)
}

/// A float network, random or of trained values.
fn network<N: Network>(job: &Job<'_, N>, device: &Device) -> Result<N, Failure> {
    let network = N::from_config(&job.config, device)?;
    match (&job.flags.float, &job.pretrained) {
        (Some(file), _) => float_flag(network, file),
        (None, Some(Pretrained { file, load })) => load(network, file),
        (None, None) => Ok(network),
    }
}

/// What `--float` names.
///
/// # Errors
/// As [`load_float`].
pub(crate) fn float_flag<N: Network>(network: N, file: &Path) -> Result<N, Failure> {
    load_float(network, file).map_err(|error| format!("--float {error}").into())
}

/// How a float network is trained.
fn float_training(plan: &Plan) -> (ModuleOptimizer, Schedule) {
    let (epochs, lr) = (plan.float_epochs, plan.float_lr);
    let Some(warm_up) = plan.float_warm_up else {
        let schedule = Schedule::float(epochs, lr, plan.float_decay);
        return (AdamConfig::new().init(), schedule);
    };
    let momentum = MomentumConfig::new()
        .with_dampening(0.0)
        .with_nesterov(true);
    let optimizer = SgdConfig::new()
        .with_momentum(Some(momentum))
        .with_weight_decay(Some(WeightDecayConfig::new(WEIGHT_DECAY)));
    (optimizer.init(), Schedule::one_cycle(epochs, lr, warm_up))
}

fn task<N: Network>(
    job: &Job<'_, N>,
    teacher: Option<(N, Distillation)>,
    device: &Device,
) -> Classify<N> {
    let Job { flags, plan, .. } = job;
    Classify::new(
        &job.data,
        plan.batch_size,
        plan.epoch_batches,
        job.shards,
        flags.seed,
        device.clone(),
    )
    .with_label_smoothing(plan.label_smoothing)
    .with_teacher(teacher)
}

fn interrupted(checkpoint: &Path) -> Failure {
    let out = checkpoint.parent().unwrap_or(checkpoint).to_path_buf();
    Box::new(Interrupted { out })
}

/// What differs, if a checkpoint is refused because it is of another run.
fn other_run(error: &TrainError, checkpoint: &Path) -> Option<Failure> {
    let TrainError::Checkpoint(CheckpointError::File { source, .. }) = error else {
        return None;
    };
    match &**source {
        CheckpointError::Run { found, expected } => {
            Some(difference(checkpoint, found, expected).into())
        }
        _ => None,
    }
}
