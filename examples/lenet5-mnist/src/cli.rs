//! The command line and the presets.

use std::path::PathBuf;

use burn_alq::{ScheduleConfig, Target};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::Failure;
use crate::data::Dataset;

/// LeNet5 (20-50-500-10) on MNIST: float training, Adaptive Loss-aware Quantization below one bit
/// per weight, packing, evaluation.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// The main job in minutes, on a subset of MNIST inside the program.
    Demo(DemoArgs),
    /// Train, quantize, pack and evaluate.
    Train(TrainArgs),
    /// Evaluate a packed model on the test images.
    Eval(EvalArgs),
    /// Show what a packed model holds.
    Inspect(InspectArgs),
}

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

#[derive(Args)]
pub struct DataArgs {
    /// Folder with the four IDX files of MNIST, Fashion-MNIST or another data set in their format,
    /// .gz or not [default: a subset of MNIST inside the program]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Download MNIST through burn-dataset.
    #[arg(long, conflicts_with = "data_dir")]
    pub download: bool,
}

impl DataArgs {
    /// The data set asked for.
    pub fn load(&self) -> Result<Dataset, Failure> {
        Ok(match &self.data_dir {
            Some(folder) => Dataset::from_dir(folder)?,
            None if self.download => Dataset::download()?,
            None => Dataset::embedded()?,
        })
    }
}

#[derive(Args)]
pub struct TrainArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// How long and how hard to train.
    #[arg(long, value_enum, default_value_t = Preset::Short)]
    pub preset: Preset,
    /// Seed of weights and batches.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for the packed model, the report and checkpoints; must not exist yet.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Continue the run in --out that was stopped or killed; give the same other flags.
    #[arg(long)]
    pub resume: bool,
    /// Stop pruning at this average bitwidth of the weights [default: by preset]
    #[arg(long, conflicts_with = "target_bytes")]
    pub target_bits: Option<f64>,
    /// Stop pruning at this size of all packed weights, in bytes [default: by preset]
    #[arg(long)]
    pub target_bytes: Option<usize>,
    /// Images in a batch.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: u32,
    /// Bits of an activation, 1 to 4; 0 for ReLU in f32.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=4))]
    pub act_bits: u8,
    /// Threads that share a batch. Other numbers round differently. Multi-bit activations keep
    /// their statistics in one thread [default: 2, with --act-bits 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub shards: Option<u8>,
    /// Seconds between checkpoints; one is also written after every epoch.
    #[arg(long, default_value_t = 60)]
    pub checkpoint_seconds: u64,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl TrainArgs {
    /// Threads that share a batch.
    pub fn shards(&self) -> u8 {
        self.shards.unwrap_or(if self.act_bits > 0 { 1 } else { 2 })
    }
}

#[derive(Args)]
pub struct EvalArgs {
    /// The packed model.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    #[command(flatten)]
    pub data: DataArgs,
}

#[derive(Args)]
pub struct InspectArgs {
    /// The packed model.
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
}

/// How long and how hard to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Minutes on the subset: 12 float epochs, 3 rounds, 0.5 bit.
    Quick,
    /// 12 float epochs, 4 rounds of 3+2+1 epochs, 4 STE and 2 coordinate epochs, 0.365 bit.
    Short,
    /// The paper's schedule: 4 rounds of 20+10+1 epochs, 50 STE and 20 coordinate epochs, weights
    /// of 22,700 bytes.
    Paper,
}

/// The numbers of a training.
#[derive(Debug, Clone)]
pub struct Plan {
    pub float_epochs: usize,
    pub float_lr: f64,
    pub float_decay: f64,
    pub max_bits: usize,
    pub schedule: ScheduleConfig,
}

impl Preset {
    /// The plan, with the target that the flags ask for.
    pub fn plan(self, target: Option<Target>) -> Plan {
        let target = target.unwrap_or(match self {
            Self::Quick => Target::Bits(0.5),
            Self::Short => Target::Bits(0.365),
            Self::Paper => Target::Bytes(22_700),
        });
        let paper = ScheduleConfig::new(target);
        let short = paper
            .clone()
            .with_basis_epochs(3)
            .with_coordinate_epochs(2)
            .with_basis_decay(0.6)
            .with_coordinate_decay(0.6)
            .with_ste_epochs(4)
            .with_final_epochs(2);
        let float_epochs = match self {
            Self::Quick | Self::Short => 12,
            Self::Paper => 20,
        };
        Plan {
            float_epochs,
            float_lr: 2e-3,
            float_decay: match self {
                Self::Quick | Self::Short => 0.75,
                Self::Paper => 0.8,
            },
            max_bits: 6,
            schedule: match self {
                Self::Quick => short.with_rounds(3).with_ste_epochs(6).with_final_epochs(3),
                Self::Short => short,
                Self::Paper => paper,
            },
        }
    }
}
