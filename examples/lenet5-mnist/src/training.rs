//! The main job: float training, quantization, packing, evaluation, report.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use burn::module::{Module, ParamGroup};
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn_alq::optim::sizes;
use burn_alq::train::{Run, Task};
use burn_alq::{AlqOptimizerConfig, GroupingRule, PackedModel, Quantizer, Schedule, Target};

use crate::Failure;
use crate::cli::{DataArgs, DemoArgs, Plan, Preset, TrainArgs};
use crate::data::Dataset;
use crate::model::{ACT_BITS, Classify, LeNet5, accuracy, predictions, scores};
use crate::progress::Display;
use crate::report::{Accuracies, Report, add_timings};

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

/// Trains on the subset inside the program.
pub fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let out = args.out.clone().unwrap_or_else(|| {
        let free = |out: &PathBuf| !out.exists();
        let numbered = (2..).map(|number| PathBuf::from(format!("runs/demo-{number}")));
        let mut names = std::iter::once(PathBuf::from("runs/demo")).chain(numbered);
        names.find(free).expect("names do not end")
    });
    train(&TrainArgs {
        data: DataArgs {
            data_dir: None,
            download: false,
        },
        preset: Preset::Quick,
        seed: args.seed,
        out,
        resume: false,
        target_bits: None,
        target_bytes: None,
        batch_size: 64,
        act_bits: 0,
        shards: None,
        checkpoint_seconds: 60,
        json: args.json.clone(),
    })
}

/// Trains, quantizes, packs, evaluates.
pub fn train(args: &TrainArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let data = args.data.load()?;
    let bits = args.target_bits.map(Target::Bits);
    let target = bits.or(args.target_bytes.map(Target::Bytes));
    let job = Job {
        plan: args.preset.plan(target),
        stop: stop_on_signal()?,
        data: &data,
        args,
    };
    job.check()?;
    prepare_folder(&args.out, args.resume)?;
    println!("data: {}", data.name);
    let mut report = Report::new(args, &data);

    let float = job.float(&mut report)?;
    let trained = job.quantize(&float, &mut report)?;

    let mut packed = PackedModel::pack(&trained)?;
    packed.config.insert("model".into(), "lenet5".into());
    packed.config.insert("data".into(), data.name.clone());
    if args.act_bits > 0 {
        let bits = args.act_bits.to_string();
        packed.config.insert(ACT_BITS.into(), bits);
    }
    let file = args.out.join("model.bpk");
    packed.save(&file)?;
    job.evaluate(&float, &trained, &packed, &file, &mut report)?;
    report.finish(&packed, &float, &file, start.elapsed())?;
    report.write(&args.out, args.json.as_deref())?;
    println!("{}", report.to_markdown());
    println!("{}", report.result_line());
    Ok(())
}

/// Makes the output folder, or checks that there is a run to resume in it.
fn prepare_folder(out: &Path, resume: bool) -> Result<(), Failure> {
    let error = |reason: String| -> Failure { format!("--out {}: {reason}", out.display()).into() };
    let begun = [FLOAT_CHECKPOINT, FLOAT, CHECKPOINT]
        .iter()
        .any(|name| out.join(name).exists());
    match (resume, out.exists()) {
        (true, _) if !begun => Err(error("there is no run to resume".into())),
        (true, _) => Ok(()),
        (false, true) => Err(error(
            "exists already; choose another folder, or --resume the run in it".into(),
        )),
        (false, false) => std::fs::create_dir_all(out)
            .map_err(|source| error(format!("cannot be made: {source}"))),
    }
}

/// A flag that Ctrl-C and a polite kill set.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst))?;
    Ok(stop)
}

/// The groupings of the paper.
fn quantizer(plan: &Plan) -> Quantizer {
    let path = |path: &str| ParamGroup::from_path(path);
    Quantizer::new(plan.max_bits)
        .rule(path("conv1.weight"), GroupingRule::Kernelwise)
        .rule(path("conv2.weight"), GroupingRule::Kernelwise)
        .rule(path("fc1.weight"), GroupingRule::Subchannelwise(2))
        .rule(path("fc2.weight"), GroupingRule::Subchannelwise(1))
}

const FLOAT: &str = "float.bpk";
const FLOAT_CHECKPOINT: &str = "float-checkpoint.bpk";
const CHECKPOINT: &str = "checkpoint.bpk";

struct Job<'a> {
    plan: Plan,
    stop: Arc<AtomicBool>,
    data: &'a Dataset,
    args: &'a TrainArgs,
}

impl Job<'_> {
    fn act_bits(&self) -> usize {
        usize::from(self.args.act_bits)
    }

    fn task(&self, device: &Device) -> Classify<'_> {
        Classify::new(
            self.data,
            self.args.batch_size as usize,
            usize::from(self.args.shards()),
            self.args.seed,
            device.clone(),
        )
    }

    /// What a resumed run must share with the one that it continues.
    fn fingerprint(&self) -> String {
        format!(
            "data {:016x}, seed {}, batch size {}, {} shards, {} activation bits, {:?}",
            self.data.fingerprint(),
            self.args.seed,
            self.args.batch_size,
            self.args.shards(),
            self.args.act_bits,
            self.plan,
        )
    }

    /// Refuses a target that cannot be met before anything is trained: what a weight takes after
    /// sketching hardly depends on its values.
    fn check(&self) -> Result<(), Failure> {
        if self.args.act_bits > 0 && self.args.shards() > 1 {
            return Err("--shards: multi-bit activations need one shard".into());
        }
        let model =
            quantizer(&self.plan).apply(LeNet5::new(self.act_bits(), &Device::default()))?;
        self.plan.schedule.init(&sizes(&model))?;
        Ok(())
    }

    /// The float network: trained, or read from the folder if that is done already.
    fn float(&self, report: &mut Report) -> Result<LeNet5, Failure> {
        let device = Device::default().autodiff();
        device.clone().without_autodiff().seed(self.args.seed);
        let model = LeNet5::new(self.act_bits(), &device);
        let schedule = Schedule::float(
            self.plan.float_epochs,
            self.plan.float_lr,
            self.plan.float_decay,
        );
        let optimizer = AlqOptimizerConfig::new().init_with(AdamConfig::new().init());
        let run = Run::new(model, optimizer, schedule, self.fingerprint());
        println!("float training: {} epochs", self.plan.float_epochs);
        let run = self.run(run, &self.args.out.join(FLOAT_CHECKPOINT), &device)?;
        add_timings(report, &run);
        let model = run.into_model();
        model.clone().save_file(self.args.out.join(FLOAT))?;
        Ok(model)
    }

    /// The float network as a multi-bit network, trained to its target.
    fn quantize(&self, float: &LeNet5, report: &mut Report) -> Result<LeNet5, Failure> {
        let device = Device::default().autodiff();
        let model = quantizer(&self.plan).apply(float.clone())?;
        let start = sizes(&model);
        let schedule = self.plan.schedule.init(&start)?;
        println!(
            "quantization: {} epochs, from {:.2} bits per weight",
            schedule.epochs().len(),
            burn_alq::optim::average_bits(&start)
        );
        let optimizer = AlqOptimizerConfig::new().init();
        let run = Run::new(model, optimizer, schedule, self.fingerprint());
        let run = self.run(run, &self.args.out.join(CHECKPOINT), &device)?;
        add_timings(report, &run);
        Ok(run.into_model())
    }

    /// Runs to the end, with checkpoints.
    fn run(
        &self,
        run: Run<LeNet5>,
        checkpoint: &Path,
        device: &Device,
    ) -> Result<Run<LeNet5>, Failure> {
        let task = self.task(device);
        let mut run = match self.args.resume && checkpoint.exists() {
            true => run.resume(checkpoint, device)?,
            false => run,
        };
        let display = Display::new(&run, task.batches());
        let mut saved = Instant::now();
        while let Some(progress) = run.advance(&task)? {
            display.show(&progress);
            let stop = self.stop.load(Ordering::SeqCst);
            let due = saved.elapsed() >= Duration::from_secs(self.args.checkpoint_seconds);
            if stop || due || progress.metric.is_some() {
                run.save(checkpoint)?;
                saved = Instant::now();
            }
            if stop {
                display.finish();
                return Err(Box::new(Interrupted {
                    out: self.args.out.clone(),
                }));
            }
        }
        display.finish();
        Ok(run)
    }

    /// The only use of the test images: the float network, the trained network, the packed form in
    /// memory and the file.
    fn evaluate(
        &self,
        float: &LeNet5,
        trained: &LeNet5,
        packed: &PackedModel,
        file: &Path,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let device = Device::default();
        let test = &self.data.test;
        println!("evaluation on {} test images", test.count);
        let float = predictions(&scores(&float.valid(), test, &device));
        let trained = predictions(&scores(&trained.valid(), test, &device));
        let memory = LeNet5::packed(packed, &device)?;
        let memory = scores(&memory, test, &device);
        let loaded = LeNet5::packed(&PackedModel::load(file)?, &device)?;
        let loaded = scores(&loaded, test, &device);
        let same_bits = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
        if !memory.iter().zip(&loaded).all(same_bits) {
            return Err("the packed file computes other scores than the model in memory".into());
        }
        let packed = predictions(&loaded);
        report.accuracies = Accuracies {
            float: accuracy(&float, test),
            trained: accuracy(&trained, test),
            packed: accuracy(&packed, test),
            changed: packed.iter().zip(&trained).filter(|(a, b)| a != b).count(),
            images: test.count,
        };
        Ok(())
    }
}
