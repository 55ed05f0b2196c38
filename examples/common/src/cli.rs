//! The command line of every example.

use std::path::PathBuf;

use burn::tensor::Device;
use burn_alq::Target;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::levers::LeverFlags;
use crate::quantize::QuantizeArgs;
use crate::sensitivity::SensitivityFlags;
use crate::sweep::SweepFlags;
use crate::{Example, Failure, Preset, device};

/// Headings of flags from several places.
pub(crate) const NETWORK: &str = "Network";
const TRAINING: &str = "Training";

/// The heading of flags that have none, after flags that have one.
pub const NO_HEADING: Option<&str> = None;

/// The most bits of an activation.
pub const MAX_ACTIVATION_BITS: u8 = 4;

/// The command line.
#[derive(Parser)]
#[command(version)]
pub struct Cli<E: Example> {
    #[command(subcommand)]
    pub command: Command<E>,
}

/// A command; an example may also have a demo.
#[derive(Subcommand)]
pub enum Command<E: Example> {
    /// Train, quantize, pack and evaluate.
    Train {
        #[command(flatten)]
        setup: Setup<E>,
        #[command(flatten)]
        target: TargetFlags,
    },
    /// Train down a list of targets, each from the one before, and draw the frontier.
    Sweep {
        #[command(flatten)]
        setup: Setup<E>,
        #[command(flatten)]
        sweep: SweepFlags,
    },
    /// Turn a float network's weights into multi-bit ones with images without labels, pack them, and compare.
    Quantize(QuantizeArgs<E>),
    /// Measure what one bit less in each layer of a float network costs.
    Sensitivity {
        #[command(flatten, next_help_heading = "Data")]
        data: E::Data,
        #[command(flatten, next_help_heading = NETWORK)]
        network: E::Flags,
        #[command(flatten)]
        flags: SensitivityFlags,
    },
    /// Evaluate a packed model on the test images.
    Eval(EvalArgs<E>),
    /// Show what a packed model holds.
    Inspect {
        /// The packed model.
        #[arg(long, value_name = "FILE")]
        model: PathBuf,
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
    /// Time packed models, in turns with the float network.
    Time(TimeArgs),
    /// Make a run's report.html again, from its report.json.
    Report {
        /// The folder of a run, with its report.json, or of a sweep, with its sweep.json.
        #[arg(long, value_name = "DIR")]
        run: PathBuf,
        /// Also write each figure to this folder, as PNG.
        #[arg(long, value_name = "DIR")]
        png: Option<PathBuf>,
    },
}

/// Flags of a training, to one target or to several.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = NO_HEADING)]
pub struct TrainFlags {
    /// Folder for the packed model, the report and checkpoints; must not exist yet.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Continue the run in --out that was stopped or killed; give the same other flags.
    #[arg(long)]
    pub resume: bool,
    /// Seconds between checkpoints; one is also written after every epoch.
    #[arg(long, default_value_t = 60)]
    pub checkpoint_seconds: u64,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceFlag,
    /// Seed of weights and batches.
    #[arg(long, default_value_t = 1, help_heading = TRAINING)]
    pub seed: u64,
    /// Start from this float network, the float.bpk of another run, instead of training one.
    #[arg(long, value_name = "FILE", help_heading = TRAINING)]
    pub float: Option<PathBuf>,
    /// Also train the float network on, for as many steps at the same rates as the quantization, and report
    /// it: what the multi-bit network is fairly compared with.
    #[arg(long, help_heading = TRAINING)]
    pub control: bool,
    /// Epochs of the float network [default: by preset]
    #[arg(long, value_name = "N", conflicts_with = "float", help_heading = TRAINING)]
    pub float_epochs: Option<u16>,
    /// Minutes for all of it: some steps are timed, and the preset's epochs cut to fit. What is not done when
    /// they are over can be resumed, for as long again [default: as long as it takes]
    #[arg(long, value_name = "N", conflicts_with = "float_epochs", value_parser = parse_positive, help_heading = TRAINING)]
    pub minutes: Option<f64>,
    /// Images in a batch [default: 128, or by preset]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65536), help_heading = TRAINING)]
    pub batch_size: Option<u32>,
    /// Batches in an epoch [default: by preset, or all training images once]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), help_heading = TRAINING)]
    pub epoch_batches: Option<u32>,
    /// Bits of an activation, 1 to 4 [default: ReLU in f32]
    #[arg(long, value_parser = parse_act_bits, help_heading = NETWORK)]
    pub act_bits: Option<u8>,
    #[command(flatten)]
    pub levers: LeverFlags,
}

impl TrainFlags {
    /// Bits of an activation; 0 for ReLU.
    pub fn activation_bits(&self) -> usize {
        self.act_bits.map_or(0, usize::from)
    }
}

/// Where a training stops to prune.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Target")]
pub struct TargetFlags {
    /// Stop pruning at this average bitwidth of the weights [default: by preset]
    #[arg(long, value_name = "BITS", conflicts_with = "target_bytes", value_parser = parse_positive)]
    pub target_bits: Option<f64>,
    /// Stop pruning at this size of all packed weights, in bytes [default: by preset]
    #[arg(long, value_name = "BYTES")]
    pub target_bytes: Option<usize>,
}

impl TargetFlags {
    /// The target that the flags ask for.
    pub fn target(&self) -> Option<Target> {
        let bits = self.target_bits.map(Target::Bits);
        bits.or(self.target_bytes.map(Target::Bytes))
    }
}

/// Bits of an activation.
pub(crate) fn parse_act_bits(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(bits) if (1..=MAX_ACTIVATION_BITS).contains(&bits) => Ok(bits),
        _ => Err(format!(
            "activations have 1 to {MAX_ACTIVATION_BITS} bits; leave --act-bits out for ReLU in f32"
        )),
    }
}

/// Parses a number that must be above 0.
pub(crate) fn parse_positive(text: &str) -> Result<f64, String> {
    parse_number(text)
        .filter(|number| *number > 0.0)
        .ok_or_else(|| "not a number above 0".into())
}

/// Parses a time.
///
/// # Errors
/// If it is not a finite number from 0 on.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    parse_number(text)
        .filter(|seconds| *seconds >= 0.0)
        .ok_or_else(|| "not a number of seconds".into())
}

/// A number that one can calculate with.
fn parse_number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Where to compute.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = NO_HEADING)]
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

/// What an example trains, and how.
#[derive(Args)]
pub struct Setup<E: Example> {
    #[command(flatten, next_help_heading = "Data")]
    pub data: E::Data,
    #[command(flatten, next_help_heading = NETWORK)]
    pub network: E::Flags,
    /// How long and how hard to train.
    #[arg(long, default_value = "short", value_parser = presets::<E>(), help_heading = TRAINING)]
    pub preset: Preset,
    #[command(flatten, next_help_heading = TRAINING)]
    pub training: E::Training,
    #[command(flatten)]
    pub flags: TrainFlags,
}

/// An evaluation.
#[derive(Args)]
pub struct EvalArgs<E: Example> {
    /// The packed model.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    #[command(flatten)]
    pub device: DeviceFlag,
    #[command(flatten, next_help_heading = "Data")]
    pub data: E::Data,
}

/// A training that needs no decision.
#[derive(Args)]
pub struct DemoArgs {
    /// Folder for the packed model and the report [default: the first free of runs/demo,
    /// runs/demo-2, …]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Seed of weights and batches.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// A timing.
#[derive(Args)]
pub struct TimeArgs {
    /// A packed model; several are timed in turns.
    #[arg(long = "model", value_name = "FILE", required = true)]
    pub models: Vec<PathBuf>,
    /// Images in a batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: u32,
    /// Seconds of measuring.
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    pub seconds: f64,
    #[command(flatten)]
    pub device: DeviceFlag,
}

/// Puts what a flag says in the place of a default.
pub(crate) fn set<T>(place: &mut T, flag: Option<impl Into<T>>) {
    if let Some(value) = flag {
        *place = value.into();
    }
}

/// Takes one of an example's presets by its name.
fn presets<E: Example>() -> impl TypedValueParser<Value = Preset> {
    let named = |preset: Preset| {
        let value = PossibleValue::new(preset.name);
        (value.help(preset.about), preset)
    };
    choice(E::presets().into_iter().map(named))
}

/// Takes one of some values by its name.
pub fn choice<T: Clone + Send + Sync + 'static>(
    choices: impl IntoIterator<Item = (impl Into<PossibleValue>, T)>,
) -> impl TypedValueParser<Value = T> {
    let choices = choices
        .into_iter()
        .map(|(name, value)| (name.into(), value));
    let (names, values): (Vec<PossibleValue>, Vec<T>) = choices.unzip();
    PossibleValuesParser::new(names.clone()).map(move |found| {
        let place = names.iter().position(|name| name.get_name() == found);
        values[place.expect("one of the names")].clone()
    })
}
