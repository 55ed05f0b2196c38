//! The main job: float training, quantization, packing, evaluation, report.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn_alq::optim::sizes;
use burn_alq::step::prune::Size;
use burn_alq::train::{Distillation, GroupingChoice, LocalModel, Run, Task};
use burn_alq::{AlqOptimizerConfig, PackedModel, Quantizer, Schedule, ScheduleConfig};

use crate::cli::{Plan, TrainFlags};
use crate::data::fingerprint;
use crate::network::{ACT_BITS, Config, load_float};
use crate::packed::{MODEL, load, print_skipped, unpack};
use crate::progress::Display;
use crate::report::{Accuracies, Report, add_run};
use crate::score::{Counts, Tally, visit};
use crate::task::Classify;
use crate::{Dataset, Failure, Network, folder};

/// The user stopped the run.
#[derive(Debug)]
pub struct Interrupted {
    out: PathBuf,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stopped; a checkpoint is in {}, the same command with --resume continues",
            self.out.display()
        )
    }
}

impl std::error::Error for Interrupted {}

/// Puts trained values into a fresh network.
pub type Pretrained<'a, N> = Box<dyn Fn(N) -> Result<N, Failure> + 'a>;

/// What to train, and how.
pub struct Job<'a, N> {
    /// When the program began.
    pub start: Instant,
    /// The command line.
    pub flags: &'a TrainFlags,
    /// Of the plan, for the report.
    pub preset: String,
    /// The numbers, flags included.
    pub plan: Plan,
    /// Groupings of the weights.
    pub quantizer: Quantizer,
    /// What the network is built from, without the activations' bits.
    pub config: Config,
    /// What it learns.
    pub data: Dataset,
    /// Threads that share a batch.
    pub shards: usize,
    /// Where the network starts instead of random weights.
    pub pretrained: Option<Pretrained<'a, N>>,
    /// Whether the report gives top-5 accuracies.
    pub top5: bool,
}

impl<N: Network> Job<'_, N> {
    /// The job with the activations' bits in the network's configuration.
    pub(crate) fn configured(mut self) -> Self {
        if let Some(bits) = self.flags.act_bits {
            self.config.insert(ACT_BITS.into(), bits.to_string());
        }
        self
    }
}

/// Trains, quantizes, packs, evaluates.
///
/// # Errors
/// If a flag asks for the impossible, data or a checkpoint cannot be read, a file not be written, or
/// the user stops the run.
pub fn train<N: Network>(job: Job<'_, N>) -> Result<(), Failure> {
    let job = job.configured();
    let runner = Runner::new(&job)?;
    let goal = Goal {
        out: job.flags.out.clone(),
        schedule: job.plan.schedule.clone(),
        after: String::new(),
    };
    goal.schedule.init(&runner.check()?)?;
    folder::prepare(&goal.out, job.flags.resume)?;
    println!("data: {}", job.data.name);
    let mut report = Report::new(&job);

    let float = runner.float(&mut report)?;
    // Clones of a module share batch norm's running statistics; validation mode has its own, which
    // the training of the quantized network does not move.
    let kept = float.valid();
    let model = runner.sketch(&float, &goal.schedule)?;
    let trained = runner.quantize(model, &kept, &goal, &mut report)?;
    runner.finish(&trained, &kept, &goal, job.start, &mut report)?;
    if let Some(file) = &job.flags.json {
        report.write_json(file)?;
    }
    println!("{}", report.to_markdown());
    println!("{}", report.result_line());
    Ok(())
}

/// A flag that Ctrl-C and a polite kill set.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst))?;
    Ok(stop)
}

/// Batches over which the loss around the float network is measured.
const MEASURED: usize = 64;

pub(crate) const FLOAT: &str = "float.bpk";
pub(crate) const FLOAT_CHECKPOINT: &str = "float-checkpoint.bpk";
pub(crate) const CHECKPOINT: &str = "checkpoint.bpk";

/// A trained float network.
struct FloatFile<'a> {
    path: &'a Path,
    fingerprint: u64,
}

impl<'a> FloatFile<'a> {
    fn open(path: &'a Path) -> Result<Self, Failure> {
        let bytes = std::fs::read(path);
        let bytes = bytes.map_err(|error| format!("--float {}: {error}", path.display()))?;
        let fingerprint = fingerprint(bytes.iter());
        Ok(Self { path, fingerprint })
    }
}

/// One target of a run.
pub(crate) struct Goal {
    /// Folder of its model, report and checkpoint.
    pub out: PathBuf,
    /// To the target.
    pub schedule: ScheduleConfig,
    /// What it starts from, if not from the float network; a part of its fingerprint.
    pub after: String,
}

/// What the targets of a job share.
pub(crate) struct Runner<'a, N> {
    stop: Arc<AtomicBool>,
    /// Without autodiff.
    device: Device,
    float: Option<FloatFile<'a>>,
    job: &'a Job<'a, N>,
}

impl<'a, N: Network> Runner<'a, N> {
    pub(crate) fn new(job: &'a Job<'a, N>) -> Result<Self, Failure> {
        Ok(Self {
            stop: stop_on_signal()?,
            device: job.flags.device.device()?,
            float: job
                .flags
                .float
                .as_deref()
                .map(FloatFile::open)
                .transpose()?,
            job,
        })
    }

    /// What a resumed float training must share with the one that it continues.
    fn float_fingerprint(&self) -> String {
        let Job {
            flags, plan, data, ..
        } = self.job;
        format!(
            "data {:016x}, seed {}, batches {:?} of {}, {} shards, {} float epochs at {:?} × {:?}, \
             {:?}{}",
            data.fingerprint,
            flags.seed,
            plan.epoch_batches,
            plan.batch_size,
            self.job.shards,
            plan.float_epochs,
            plan.float_lr,
            plan.float_decay,
            self.job.config,
            match (&self.float, &self.job.pretrained) {
                (Some(file), _) => format!(", float {:016x}", file.fingerprint),
                (None, Some(_)) => ", pretrained".into(),
                (None, None) => String::new(),
            }
        )
    }

    /// The same for a quantization.
    pub(crate) fn fingerprint(&self, goal: &Goal) -> String {
        format!(
            "{}, {} bits, {:?}, {:?}{}",
            self.float_fingerprint(),
            self.job.plan.max_bits,
            goal.schedule,
            self.job.flags.levers,
            goal.after
        )
    }

    /// A float network, random or pretrained.
    fn network(&self, device: &Device) -> Result<N, Failure> {
        let network = N::from_config(&self.job.config, device)?;
        match (&self.float, &self.job.pretrained) {
            (Some(file), _) => load_float(network, file.path),
            (None, Some(load)) => load(network),
            (None, None) => Ok(network),
        }
    }

    /// The sizes that a quantization starts from, so that a target that cannot be met is refused
    /// before anything is trained: what a weight takes after sketching hardly depends on its values.
    pub(crate) fn check(&self) -> Result<Vec<Size>, Failure> {
        self.job.flags.levers.distillation()?;
        let model = self.job.quantizer.apply(self.network(&self.device)?)?;
        Ok(sizes(&model))
    }

    /// The float network: trained, or read from the folder if that is done already.
    pub(crate) fn float(&self, report: &mut Report) -> Result<N, Failure> {
        let device = self.device.clone().autodiff();
        self.device.seed(self.job.flags.seed);
        let model = self.network(&device)?;
        let plan = &self.job.plan;
        let schedule = Schedule::float(plan.float_epochs, plan.float_lr, plan.float_decay);
        let optimizer = AlqOptimizerConfig::new().init_with(AdamConfig::new().init());
        let run = Run::new(model, optimizer, schedule, self.float_fingerprint());
        match &self.float {
            Some(file) => println!("float network: {}", file.path.display()),
            None => println!("float training: {} epochs", plan.float_epochs),
        }
        let out = &self.job.flags.out;
        let run = self.run(run, &out.join(FLOAT_CHECKPOINT), None, &device)?;
        add_run(report, &run);
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
        let (model, conversion) = quantizer.convert(float.clone())?;
        println!("\n{}", conversion.to_markdown());
        Ok(model)
    }

    /// A multi-bit network, trained to a target. `kept` is the float network in validation mode, a
    /// teacher where there is to be one.
    pub(crate) fn quantize(
        &self,
        model: N,
        kept: &N,
        goal: &Goal,
        report: &mut Report,
    ) -> Result<N, Failure> {
        let device = self.device.clone().autodiff();
        let start = sizes(&model);
        let schedule = goal.schedule.init(&start)?;
        println!(
            "quantization: {} epochs, from {:.2} bits per weight",
            schedule.epochs().len(),
            burn_alq::optim::average_bits(&start)
        );
        let optimizer = AlqOptimizerConfig::new().init();
        let run = Run::new(model, optimizer, schedule, self.fingerprint(goal));
        let distillation = self.job.flags.levers.distillation()?;
        let teacher = distillation.map(|distillation| (kept.clone(), distillation));
        let run = self.run(run, &goal.out.join(CHECKPOINT), teacher, &device)?;
        add_run(report, &run);
        Ok(run.into_model())
    }

    /// Packs a trained network, evaluates it and writes file and report.
    pub(crate) fn finish(
        &self,
        trained: &N,
        kept: &N,
        goal: &Goal,
        start: Instant,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let job = self.job;
        let levers = &job.flags.levers;
        let packed = PackedModel::pack(trained)?;
        let mut packed = packed.with_coordinate_type(goal.schedule.coordinate_type)?;
        if let Some(float_type) = levers.biases {
            packed = packed.with_float_type(float_type)?;
        }
        packed.config.extend(job.config.clone());
        packed.config.insert(MODEL.into(), N::NAME.into());
        packed.config.insert("data".into(), job.data.name.clone());
        let file = goal.out.join("model.bpk");
        packed.save_with(&file, levers.coding())?;
        self.evaluate(kept, trained, &packed, &file, report)?;
        for images in [&job.data.train, &job.data.valid, &job.data.test] {
            print_skipped(images);
        }
        report.finish(&packed, kept, &file, start.elapsed())?;
        report.write(&goal.out)
    }

    /// The example's rules, or groupings chosen by the loss around the float network.
    fn quantizer(&self, float: &N, schedule: &ScheduleConfig) -> Result<Quantizer, Failure> {
        let Job {
            flags, quantizer, ..
        } = self.job;
        let quantizer = quantizer.clone();
        if !flags.levers.auto_grouping {
            return Ok(quantizer);
        }
        let task = self.task(None, &self.device.clone().autodiff());
        let local = LocalModel::measure(float, &task, MEASURED, schedule.lr);
        // Not the loss that could not be computed, but why.
        if let Some(failure) = task.failure() {
            return Err(failure);
        }
        let (quantizer, choices) = quantizer.regroup(float, &local?, schedule)?;
        println!("\n{}", GroupingChoice::to_markdown(&choices));
        Ok(quantizer)
    }

    fn task(&self, teacher: Option<(N, Distillation)>, device: &Device) -> Classify<N> {
        let Job { flags, plan, .. } = self.job;
        Classify::new(
            &self.job.data,
            plan.batch_size,
            plan.epoch_batches,
            self.job.shards,
            flags.seed,
            device.clone(),
        )
        .with_teacher(teacher)
    }

    /// Runs to the end, with checkpoints.
    fn run(
        &self,
        run: Run<N>,
        checkpoint: &Path,
        teacher: Option<(N, Distillation)>,
        device: &Device,
    ) -> Result<Run<N>, Failure> {
        let flags = self.job.flags;
        let task = self.task(teacher, device);
        let run = match flags.resume && checkpoint.exists() {
            true => run.resume(checkpoint, device)?,
            false => run,
        };
        let display = Display::new(&run, task.batches());
        let mut run = match flags.device.is_synchronous() {
            true => run,
            false => run.read_loss_every(display.loss_every()),
        };
        let mut saved = Instant::now();
        loop {
            let progress = run.advance(&task);
            // Not the loss that could not be computed, but why.
            if let Some(failure) = task.failure() {
                display.finish();
                return Err(failure);
            }
            let Some(progress) = progress? else {
                break;
            };
            display.show(&progress);
            let stop = self.stop.load(Ordering::SeqCst);
            let due = saved.elapsed() >= Duration::from_secs(flags.checkpoint_seconds);
            if stop || due || progress.metric.is_some() {
                run.save(checkpoint)?;
                saved = Instant::now();
            }
            if stop {
                display.finish();
                let out = checkpoint.parent().unwrap_or(&flags.out).to_path_buf();
                return Err(Box::new(Interrupted { out }));
            }
        }
        display.finish();
        Ok(run)
    }

    /// The only use of the test images: the float network, the trained network, the packed form in
    /// memory and the file.
    fn evaluate(
        &self,
        float: &N,
        trained: &N,
        packed: &PackedModel,
        file: &Path,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let device = &self.device;
        let test = &self.job.data.test;
        println!("evaluation on {} test images", test.count());
        let trained = trained.valid();
        let memory: N = unpack(packed, device)?;
        let (_, loaded) = load::<N>(file, device)?;
        let mut tallies: [Tally; 3] = Default::default();
        let mut counts = Counts::default();
        visit::<N>(test, device, true, |input, labels| {
            let scores = |model: &N| model.forward(input.clone());
            let [float, trained, memory, loaded] = [float, &trained, &memory, &loaded].map(scores);
            let [best, expected] = [&loaded, &trained].map(|scores| scores.clone().argmax(1));
            counts.add(vec![
                memory.not_equal(loaded.clone()).int().sum(),
                best.not_equal(expected).int().sum(),
            ]);
            for (tally, scores) in tallies.iter_mut().zip([float, trained, loaded]) {
                tally.add(scores, labels.clone());
            }
        })?;
        let [unequal, changed] = counts.read();
        if unequal > 0 {
            let error = "the packed file computes other scores than the model in memory";
            return Err(error.into());
        }
        let [float, trained, packed] = tallies.map(Tally::read);
        let top5 = [float, trained, packed].map(|accuracy| accuracy.top5);
        report.accuracies = Accuracies {
            float: float.top1,
            trained: trained.top1,
            packed: packed.top1,
            top5: self.job.top5.then_some(top5),
            changed,
            images: float.images,
        };
        Ok(())
    }
}
