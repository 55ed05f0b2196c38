//! The main job: float training, quantization, packing, evaluation, report.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn_alq::analysis::{GroupingChoice, LocalModel};
use burn_alq::optim::Size;
use burn_alq::optim::{average_bits, sizes};
use burn_alq::train::{Distillation, Run, Task};
use burn_alq::{AlqOptimizerConfig, PackedModel, Quantizer, Schedule, ScheduleConfig};

use crate::cli::TrainFlags;
use crate::data::fingerprint;
use crate::document::{Document as _, write_json};
use crate::network::{Config, load_float};
use crate::packed::{MODEL, load, print_skipped, unpack};
use crate::progress::Display;
use crate::report::{Accuracies, Report};
use crate::score::{Counts, Tally, visit};
use crate::task::Classify;
use crate::{Dataset, Failure, Network, Plan, folder};

/// The user stopped the run.
#[derive(Debug, thiserror::Error)]
#[error(
    "stopped; a checkpoint is in {}, the same command with --resume continues",
    out.display()
)]
pub struct Interrupted {
    out: PathBuf,
}

/// Puts trained values into a fresh network.
type Pretrained<'a, N> = Box<dyn Fn(N) -> Result<N, Failure> + 'a>;

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
}

/// Trains, quantizes, packs, evaluates.
///
/// # Errors
/// If a flag asks for the impossible, data or a checkpoint cannot be read, a file not be written, or
/// the user stops the run.
pub fn train<N: Network>(job: Job<'_, N>) -> Result<(), Failure> {
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
        write_json(file, &report)?;
    }
    println!("{}", report.to_markdown());
    println!("{}", report.result_line());
    Ok(())
}

/// Batches over which the loss around the float network is measured.
const MEASURED: usize = 64;

pub(crate) const FLOAT: &str = "float.bpk";
pub(crate) const FLOAT_CHECKPOINT: &str = "float-checkpoint.bpk";
pub(crate) const CHECKPOINT: &str = "checkpoint.bpk";

/// One target of a run.
pub(crate) struct Goal {
    /// Folder of its model, report and checkpoint.
    pub out: PathBuf,
    /// The schedule to the target.
    pub schedule: ScheduleConfig,
    /// What it starts from, if not from the float network; a part of its fingerprint.
    pub after: String,
}

/// What the targets of a job share.
pub(crate) struct Runner<'a, N> {
    stop: Arc<AtomicBool>,
    /// The device without autodiff.
    device: Device,
    /// The file of a trained float network, and its fingerprint.
    float: Option<(&'a Path, u64)>,
    job: &'a Job<'a, N>,
}

impl<'a, N: Network> Runner<'a, N> {
    pub(crate) fn new(job: &'a Job<'a, N>) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        // Ctrl-C and a polite kill.
        ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst))?;
        let device = job.flags.device.device()?;
        let float = job
            .flags
            .float
            .as_deref()
            .map(|file| -> Result<_, Failure> {
                let bytes = std::fs::read(file);
                let bytes =
                    bytes.map_err(|error| format!("--float {}: {error}", file.display()))?;
                Ok((file, fingerprint(bytes.iter())))
            });
        Ok(Self {
            stop,
            device,
            float: float.transpose()?,
            job,
        })
    }

    /// What a resumed float training must share with the one that it continues.
    fn float_fingerprint(&self) -> String {
        let job = self.job;
        let (flags, plan) = (job.flags, &job.plan);
        format!(
            "data {:016x}, seed {}, batches {:?} of {}, {} shards, {} float epochs at {:?} × {:?}, \
             {:?}{}",
            job.data.fingerprint,
            flags.seed,
            plan.epoch_batches,
            plan.batch_size,
            job.shards,
            plan.float_epochs,
            plan.float_lr,
            plan.float_decay,
            job.config,
            match (&self.float, &job.pretrained) {
                (Some((_, fingerprint)), _) => format!(", float {fingerprint:016x}"),
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
            (Some((file, _)), _) => load_float(network, file),
            (None, Some(load)) => load(network),
            (None, None) => Ok(network),
        }
    }

    /// The sizes that a quantization starts from, so that a target that cannot be met is refused
    /// before anything is trained: what a weight takes after sketching hardly depends on its values.
    pub(crate) fn check(&self) -> Result<Vec<Size>, Failure> {
        self.job.flags.levers.distillation()?;
        let model = self.job.quantizer.quantize(self.network(&self.device)?)?.0;
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
            Some((file, _)) => println!("float network: {}", file.display()),
            None => println!("float training: {} epochs", plan.float_epochs),
        }
        let out = &self.job.flags.out;
        let run = self.run(run, &out.join(FLOAT_CHECKPOINT), None, &device)?;
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
        let (epochs, bits) = (schedule.epochs().len(), average_bits(&start));
        println!("quantization: {epochs} epochs, from {bits:.2} bits per weight");
        let optimizer = AlqOptimizerConfig::new().init();
        let run = Run::new(model, optimizer, schedule, self.fingerprint(goal));
        let distillation = self.job.flags.levers.distillation()?;
        let teacher = distillation.map(|distillation| (kept.clone(), distillation));
        let run = self.run(run, &goal.out.join(CHECKPOINT), teacher, &device)?;
        report.add_run(&run);
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
        let quantizer = self.job.quantizer.clone();
        if !self.job.flags.levers.auto_grouping {
            return Ok(quantizer);
        }
        let task = self.task(None, &self.device.clone().autodiff());
        let local = LocalModel::measure(float, &task, MEASURED, schedule.lr);
        let local = task.explained(local)?;
        let (quantizer, choices) = quantizer.regroup(float, &local, schedule)?;
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
        let mut run = if flags.resume && checkpoint.exists() {
            run.resume(checkpoint, device)?
        } else {
            run
        };
        let display = Display::new(&run, task.batches());
        if !flags.device.is_synchronous() {
            run = run.read_loss_every(display.loss_every());
        }
        let mut saved = Instant::now();
        while let Some(progress) = task.explained(run.advance(&task))? {
            display.show(&progress);
            let stop = self.stop.load(Ordering::SeqCst);
            let due = saved.elapsed() >= Duration::from_secs(flags.checkpoint_seconds);
            if stop || due || progress.metric.is_some() {
                run.save(checkpoint)?;
                saved = Instant::now();
            }
            if stop {
                let out = checkpoint.parent().unwrap_or(&flags.out).to_path_buf();
                return Err(Box::new(Interrupted { out }));
            }
        }
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
            top5: N::TOP5.then_some(top5),
            changed,
            images: float.images,
        };
        Ok(())
    }
}
