//! A training of Burn's Learner on one device or on several.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn_alq::train::learner::{Alq, resume_data};
use burn_alq::{PackedModel, ScheduleConfig, Target, average_bits, sizes};
use burn_train::metric::{AccuracyMetric, LossMetric};
use burn_train::{ExecutionStrategy, Learner, MultiDeviceOptim, SupervisedTraining};
use clap::{Args, ValueEnum};
use example_common::data::BatchOrder;
use example_common::say::say;
use example_common::{
    Config, DataFlags as _, Dataset, Example as _, Failure, MODEL, Network as _, at, writable,
};
use lenet5_mnist::{DataArgs, LeNet5};

use crate::data::Parts;
use crate::folder::open_folder;
use crate::model::Classifier;
use crate::servers::{Server, find_gone, introduce, parse_address};

/// Bases of a group before pruning.
const MAX_BITS: usize = 6;

/// How long a failed training waits for the word of a server that is gone.
const GRACE: Duration = Duration::from_secs(3);

/// Flags of a training.
#[derive(Args)]
pub struct TrainArgs {
    /// Server to compute on, ws://HOST:PORT; once for each of several. The first is the main device. Servers
    /// reach each other at the same addresses [default: none, this machine computes]
    #[arg(long = "server", value_name = "ADDRESS", value_parser = parse_address)]
    servers: Vec<String>,
    /// Where gradients are summed and parameters take their steps
    #[arg(long, value_enum, default_value_t = Strategy::Main)]
    strategy: Strategy,
    #[command(flatten)]
    data: DataArgs,
    /// Steps of the optimizer, shared evenly by the ten epochs of the schedule
    #[arg(long, value_name = "N", default_value_t = 500)]
    steps: usize,
    /// Images in a batch, of all servers together
    #[arg(long, value_name = "N", default_value_t = 128)]
    batch_size: usize,
    /// Parts of a batch, whose gradients are summed: with as many, one device and several round alike
    /// [default: one for each server]
    #[arg(long, value_name = "N")]
    parts: Option<usize>,
    /// Average bits of a weight at the end
    #[arg(long, value_name = "BITS", default_value_t = 0.5)]
    target_bits: f64,
    /// Seed of weights and batches
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of checkpoints, one after each epoch, and of logs
    #[arg(long, value_name = "DIR", default_value = "runs/cluster")]
    checkpoint: PathBuf,
    /// Go on with the training in the folder, if there is one
    #[arg(long)]
    resume: bool,
    /// The packed model [default: model.bpk in the folder of checkpoints]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How long to try to reach a server
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    patience: u64,
}

/// The strategies of Burn's Learner for several devices, by what Burn calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
    /// All on the first server
    Main,
    /// Shared by the servers: the steps of multi-bit weights stay on the first
    Sharded,
}

impl From<Strategy> for MultiDeviceOptim {
    fn from(strategy: Strategy) -> Self {
        match strategy {
            Strategy::Main => Self::OptimMainDevice,
            Strategy::Sharded => Self::OptimSharded,
        }
    }
}

/// A training before its first step.
struct Training {
    args: TrainArgs,
    data: Dataset,
    parts: usize,
    epochs: usize,
    alq: Alq<Classifier>,
}

/// Trains, packs and says what came of it.
///
/// # Errors
/// If flags or data do not fit, or a server is not there or goes away: names it.
pub fn train(args: TrainArgs) -> Result<(), Failure> {
    let addresses = args.servers.clone();
    let patience = Duration::from_secs(args.patience);
    let training = Training::new(args)?;
    let reached = addresses
        .iter()
        .map(|address| Server::reach(address, patience));
    let servers = reached.collect::<Result<Vec<_>, _>>()?;
    introduce(&servers, patience)?;

    let (send, receive) = channel();
    for server in &servers {
        let send = send.clone();
        // Nobody listens any more once the training has ended.
        server.watch(move |failure| drop(send.send(Event::Lost(failure))));
    }
    let devices = match &servers[..] {
        [] => vec![Device::flex()],
        servers => servers
            .iter()
            .map(|server| server.device().clone())
            .collect(),
    };
    // On a thread of its own: what waits there for a server that is gone need not come to its end.
    std::thread::spawn(move || send.send(Event::Done(training.run_caught(devices))));
    let failure = match receive.recv()? {
        Event::Done(Ok(())) => return Ok(()),
        Event::Lost(failure) => failure,
        Event::Done(Err(failure)) => match receive.recv_timeout(GRACE) {
            Ok(Event::Lost(cause)) => cause,
            _ => failure,
        },
    };
    Err(find_gone(&servers).unwrap_or(failure))
}

/// What ends a training.
enum Event {
    Done(Result<(), Failure>),
    Lost(Failure),
}

impl Training {
    /// Checks the flags, and quantizes a network with random weights.
    fn new(args: TrainArgs) -> Result<Self, Failure> {
        let devices = args.servers.len().max(1);
        if let Some(twice) = (1..devices).find(|&i| args.servers[..i].contains(&args.servers[i])) {
            return Err(format!("--server {}: is given twice", args.servers[twice]).into());
        }
        let parts = args.parts.unwrap_or(devices);
        if parts == 0 || !parts.is_multiple_of(devices) {
            return Err(
                format!("--parts {parts}: {devices} devices cannot share them evenly").into(),
            );
        }
        if args.batch_size == 0 || !args.batch_size.is_multiple_of(parts) {
            let size = args.batch_size;
            return Err(
                format!("--batch-size {size}: cannot be cut into {parts} equal parts").into(),
            );
        }
        let config = Config::new();
        let data = args.data.load(&config)?;
        if args.batch_size > data.train.count() {
            let [size, count] = [args.batch_size, data.train.count()];
            return Err(format!("--batch-size {size}: there are {count} training images").into());
        }

        // The same weights whatever computes later.
        let device = Device::flex();
        device.seed(args.seed);
        let network = LeNet5::from_config(&config, &device.autodiff())?;
        let network = LeNet5::quantizer(MAX_BITS).quantize(network)?.0;
        let classifier = Classifier { network };
        let schedule = ScheduleConfig::new(Target::Bits(args.target_bits))
            .with_rounds(2)
            .with_basis_epochs(2)
            .with_coordinate_epochs(1)
            .with_ste_epochs(1)
            .with_final_epochs(1)
            .init(&sizes(&classifier))
            .map_err(|error| format!("--target-bits {}: {error}", args.target_bits))?;
        let epochs = schedule.epochs().len();
        if args.steps == 0 || !args.steps.is_multiple_of(epochs) {
            let steps = args.steps;
            return Err(
                format!("--steps {steps}: {epochs} epochs cannot share them evenly").into(),
            );
        }
        let alq = Alq::new(classifier, schedule, args.steps / epochs).with_seed(args.seed);
        Ok(Self {
            args,
            data,
            parts,
            epochs,
            alq,
        })
    }

    /// What a resumed training must have in common with the one that it resumes.
    fn settings(&self) -> String {
        let Self {
            args, data, parts, ..
        } = self;
        format!(
            "{} steps\na target of {} bits\nbatches of {} images\n{parts} parts of a batch\nseed {}\ndata {:016x}\n",
            args.steps, args.target_bits, args.batch_size, args.seed, data.fingerprint
        )
    }

    /// A panic of Burn's is an error here, and says no more.
    fn run_caught(self, devices: Vec<Device>) -> Result<(), Failure> {
        let first = Arc::new(Mutex::new(None));
        let keep = first.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let mut first = keep.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            first.get_or_insert_with(|| panic.payload_as_str().unwrap_or("a panic").to_string());
        }));
        let result = catch_unwind(AssertUnwindSafe(|| self.run(devices)));
        drop(std::panic::take_hook());
        result.unwrap_or_else(|_| {
            let mut first = first
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            Err(first.take().unwrap_or_default().into())
        })
    }

    fn run(self, devices: Vec<Device>) -> Result<(), Failure> {
        let settings = self.settings();
        let Self {
            args,
            data,
            parts,
            epochs,
            alq,
        } = self;
        let folder = &args.checkpoint;
        open_folder(folder, &settings, args.resume)?;
        let out = args.out.unwrap_or_else(|| folder.join("model.bpk"));
        writable(&out).map_err(|error| at(&out, error))?;
        let done = alq.last_checkpoint(folder)?.unwrap_or(0);

        let order = BatchOrder::new(data.train.count(), args.batch_size, false, args.seed);
        let epoch = args.steps / epochs;
        let train = Parts::training(data.train, order, epoch, parts);
        let valid = Parts::all(data.valid, LeNet5::EVAL_BATCH);
        let count = devices.len();
        let [begun, all] = [done * epoch, args.steps];
        let name = data.name;
        say!("{name}: devices: {count}; {begun} of {all} steps are done");
        let strategy = ExecutionStrategy::multi(devices, args.strategy.into());
        let mut training =
            SupervisedTraining::new(folder, resume_data(Arc::new(train), done), Arc::new(valid))
                .metrics((LossMetric::new(), AccuracyMetric::new()))
                .with_default_checkpointers()
                .with_training_strategy(strategy.into())
                .grads_accumulation(parts / count)
                .num_epochs(epochs);
        if done > 0 {
            training = training.checkpoint(done);
        }
        let training = alq.watch(training);
        let (rates, monitor) = (alq.rates(), alq.monitor().clone());
        let start = Instant::now();
        let result = training.launch(Learner::new(alq, AdamConfig::new().init(), rates));
        if let Some(error) = result.error {
            return Err(error.to_string().into());
        }
        let (seconds, steps) = (start.elapsed().as_secs_f64(), result.model.steps() - begun);
        let network = result.model.finish()?.network;
        let bits = average_bits(&sizes(&network));
        let mut packed = PackedModel::pack(&network)?;
        packed.config.insert(MODEL.into(), LeNet5::NAME.into());
        packed.save(&out)?;
        let widths = monitor.status().map_or(0, |status| status.widths);
        say!(
            "{steps} steps in {seconds:.1} s ({:.3} s a step, with validation), {bits:.4} bits per weight, \
             widths {widths:08x}: {}",
            seconds / steps.max(1) as f64,
            out.display()
        );
        Ok(())
    }
}
