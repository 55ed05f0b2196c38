//! Flags that all examples share, and the numbers of a training.

use std::path::PathBuf;

use burn::tensor::Device;
use burn_alq::{ScheduleConfig, Target};
use clap::Args;

use crate::levers::LeverFlags;
use crate::sweep::SweepFlags;
use crate::{Failure, device};

/// The most bits of an activation.
pub const MAX_ACTIVATION_BITS: u8 = 4;

/// Flags of a training, to one target or to several.
#[derive(Args, Debug, Clone)]
pub struct TrainFlags {
    /// Seed of weights and batches.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for the packed model, the report and checkpoints; must not exist yet.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Continue the run in --out that was stopped or killed; give the same other flags.
    #[arg(long)]
    pub resume: bool,
    /// Start from this float network, the float.bpk of another run, instead of training one.
    #[arg(long, value_name = "FILE")]
    pub float: Option<PathBuf>,
    /// Images in a batch [default: 128, or by preset]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: Option<u32>,
    /// Batches in an epoch [default: by preset, or all training images once]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub epoch_batches: Option<u32>,
    /// Bits of an activation, 1 to 4 [default: ReLU in f32]
    #[arg(long, value_parser = act_bits)]
    pub act_bits: Option<u8>,
    /// Seconds between checkpoints; one is also written after every epoch.
    #[arg(long, default_value_t = 60)]
    pub checkpoint_seconds: u64,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub device: DeviceFlag,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub levers: LeverFlags,
}

impl TrainFlags {
    /// Flags as they are when only `--out` is given.
    pub fn new(out: PathBuf) -> Self {
        Self {
            seed: 1,
            out,
            resume: false,
            float: None,
            batch_size: None,
            epoch_batches: None,
            act_bits: None,
            checkpoint_seconds: 60,
            json: None,
            device: DeviceFlag { device: None },
            levers: LeverFlags::default(),
        }
    }

    /// Bits of an activation; 0 for ReLU.
    pub fn activation_bits(&self) -> usize {
        self.act_bits.map_or(0, usize::from)
    }
}

/// Where a training stops to prune.
#[derive(Args, Debug, Clone, Default)]
pub struct TargetFlags {
    /// Stop pruning at this average bitwidth of the weights [default: by preset]
    #[arg(long, conflicts_with = "target_bytes")]
    pub target_bits: Option<f64>,
    /// Stop pruning at this size of all packed weights, in bytes [default: by preset]
    #[arg(long)]
    pub target_bytes: Option<usize>,
}

impl TargetFlags {
    /// The target that the flags ask for.
    pub fn target(&self) -> Option<Target> {
        let bits = self.target_bits.map(Target::Bits);
        bits.or(self.target_bytes.map(Target::Bytes))
    }
}

fn act_bits(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(bits) if (1..=MAX_ACTIVATION_BITS).contains(&bits) => Ok(bits),
        _ => Err(format!(
            "activations have 1 to {MAX_ACTIVATION_BITS} bits; leave --act-bits out for ReLU in f32"
        )),
    }
}

/// Where to compute.
#[derive(Args, Debug, Clone)]
pub struct DeviceFlag {
    #[allow(missing_docs)]
    #[arg(
        long,
        value_name = "NAME",
        help = format!(
            "Burn device to compute on, of: {} [default: BURN_DEVICE, or flex]",
            device::names()
        )
    )]
    pub device: Option<String>,
}

impl DeviceFlag {
    /// The device, without autodiff.
    ///
    /// # Errors
    /// If this program or this machine does not have it; says what would help.
    pub fn device(&self) -> Result<Device, Failure> {
        let (source, name) = self.named();
        device::open(&name).map_err(|reason| format!("{source} {name}: {reason}").into())
    }

    /// Whether work on the device is done when a call returns, so that reading a result waits for
    /// nothing.
    pub fn is_synchronous(&self) -> bool {
        matches!(self.named().1.as_str(), "flex" | "ndarray")
    }

    /// The name, and where it comes from.
    fn named(&self) -> (&'static str, String) {
        match (&self.device, std::env::var("BURN_DEVICE")) {
            (Some(name), _) => ("--device", name.clone()),
            (None, Ok(name)) => ("BURN_DEVICE", name.to_lowercase()),
            // Not Burn's default, which is the GPU as soon as one is compiled in.
            (None, Err(_)) => ("--device", "flex".into()),
        }
    }
}

/// Flags of a timing.
#[derive(Args, Debug)]
pub struct TimeArgs {
    /// A packed model; several are timed in turns.
    #[arg(long = "model", value_name = "FILE", required = true)]
    pub models: Vec<PathBuf>,
    /// Images in a batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Seconds of measuring.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub device: DeviceFlag,
}

/// A training to one target; `S` is what an example trains, with its [`TrainFlags`].
#[derive(Args)]
pub struct TrainArgs<S: Args> {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub setup: S,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub target: TargetFlags,
}

/// A training to several targets.
#[derive(Args)]
pub struct SweepArgs<S: Args> {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub setup: S,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub sweep: SweepFlags,
}

/// Flags of an evaluation.
#[derive(Args, Debug, Clone)]
pub struct EvalFlags {
    /// The packed model.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub device: DeviceFlag,
}

/// An evaluation on the data that an example reads.
#[derive(Args, Debug, Clone)]
pub struct EvalArgs<D: Args> {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub flags: EvalFlags,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub data: D,
}

/// Flags of an inspection.
#[derive(Args, Debug, Clone)]
pub struct InspectArgs {
    /// The packed model.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// Flags of a report that is made again.
#[derive(Args, Debug, Clone)]
pub struct ReportArgs {
    /// The folder of a run, with its report.json, or of a sweep, with its sweep.json.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    /// Also write each figure to this folder, as PNG.
    #[arg(long, value_name = "DIR")]
    pub png: Option<PathBuf>,
}

/// A schedule of few epochs, with decays to match: rounds, then epochs of the basis and the
/// coordinate phase of each, then STE and last coordinate epochs.
pub fn short(
    schedule: &ScheduleConfig,
    rounds: usize,
    [basis, coordinate]: [usize; 2],
    [ste, last]: [usize; 2],
) -> ScheduleConfig {
    schedule
        .clone()
        .with_rounds(rounds)
        .with_basis_epochs(basis)
        .with_coordinate_epochs(coordinate)
        .with_basis_decay(0.7)
        .with_ste_epochs(ste)
        .with_ste_decay(0.75)
        .with_final_epochs(last)
        .with_final_decay(0.6)
}

/// The numbers of a training.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Epochs of the float network.
    pub float_epochs: usize,
    /// Their first learning rate.
    pub float_lr: f64,
    /// Factor on it after every epoch.
    pub float_decay: f64,
    /// Bases of a group before pruning.
    pub max_bits: usize,
    /// Images in a batch.
    pub batch_size: usize,
    /// Batches in an epoch; none for all training images once.
    pub epoch_batches: Option<usize>,
    /// From the float network to the target.
    pub schedule: ScheduleConfig,
}

impl Plan {
    /// The plan with what the flags set in it.
    pub fn with(mut self, flags: &TrainFlags, target: Option<Target>) -> Self {
        if let Some(target) = target {
            self.schedule.target = target;
        }
        if let Some(size) = flags.batch_size {
            self.batch_size = size as usize;
        }
        if let Some(batches) = flags.epoch_batches {
            self.epoch_batches = Some(batches as usize);
        }
        if flags.float.is_some() {
            self.float_epochs = 0;
        }
        flags.levers.apply(&mut self.schedule);
        self
    }
}
