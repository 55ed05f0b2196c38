//! The command line and the presets.

use std::path::PathBuf;

use burn_alq::{ScheduleConfig, Target};
use clap::{Args, Parser, Subcommand, ValueEnum};
use example_common::cli::{self, InspectArgs, Plan, ReportArgs, TimeArgs, TrainFlags};
use example_common::sensitivity::SensitivityFlags;
use example_common::{Dataset, Failure};

use crate::data;

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
    /// Train down a list of targets, each from the one before, and draw the frontier.
    Sweep(SweepArgs),
    /// Measure what one bit less in each layer of a float network costs.
    Sensitivity(SensitivityArgs),
    /// Evaluate a packed model on the test images.
    Eval(EvalArgs),
    /// Show what a packed model holds.
    Inspect(InspectArgs),
    /// Time packed models, in turns with the float network.
    Time(TimeArgs),
    /// Make a run's report.html again, from its report.json.
    Report(ReportArgs),
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

#[derive(Args, Debug, Clone)]
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
            Some(folder) => data::from_dir(folder)?,
            None if self.download => data::download()?,
            None => data::embedded()?,
        })
    }
}

/// What is trained, and how.
#[derive(Args)]
pub struct Setup {
    #[command(flatten)]
    pub data: DataArgs,
    /// How long and how hard to train.
    #[arg(long, value_enum, default_value_t = Preset::Short)]
    pub preset: Preset,
    #[command(flatten)]
    pub flags: TrainFlags,
    /// Threads that share a batch. Other numbers round differently. Multi-bit activations keep
    /// their statistics in one thread [default: 2; with --act-bits, or on a GPU, 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub shards: Option<u8>,
}

impl Setup {
    /// Threads that share a batch.
    pub fn shards(&self) -> u8 {
        let one = self.flags.act_bits.is_some() || !self.flags.device.is_synchronous();
        self.shards.unwrap_or(if one { 1 } else { 2 })
    }
}

/// A training to one target.
pub type TrainArgs = cli::TrainArgs<Setup>;

/// A training to several.
pub type SweepArgs = cli::SweepArgs<Setup>;

#[derive(Args)]
pub struct SensitivityArgs {
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub flags: SensitivityFlags,
}

/// What an evaluation reads.
pub type EvalArgs = cli::EvalArgs<DataArgs>;

/// How long and how hard to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Minutes on the subset: 12 float epochs, 3 rounds, 0.5 bit.
    Quick,
    /// 12 float epochs, 4 rounds of 3+2+1 epochs, 4 STE and 2 coordinate epochs, 0.365 bit.
    Short,
    /// For the fewest bits: 12 float epochs, 4 rounds of 3+2+1 epochs, 10 STE and 4 coordinate epochs
    /// that end at small learning rates, 0.2 bit.
    Long,
    /// The paper's schedule: 4 rounds of 20+10+1 epochs, 50 STE and 20 coordinate epochs, weights
    /// of 22,700 bytes.
    Paper,
}

impl Preset {
    /// The plan.
    pub fn plan(self) -> Plan {
        let target = match self {
            Self::Quick => Target::Bits(0.5),
            Self::Short => Target::Bits(0.365),
            Self::Long => Target::Bits(0.2),
            Self::Paper => Target::Bytes(22_700),
        };
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
            Self::Quick | Self::Short | Self::Long => 12,
            Self::Paper => 20,
        };
        Plan {
            float_epochs,
            float_lr: 2e-3,
            float_decay: match self {
                Self::Quick | Self::Short | Self::Long => 0.75,
                Self::Paper => 0.8,
            },
            max_bits: 6,
            batch_size: 128,
            epoch_batches: None,
            schedule: match self {
                Self::Quick => short.with_rounds(3).with_ste_epochs(6).with_final_epochs(3),
                Self::Short => short,
                Self::Long => short
                    .with_ste_epochs(10)
                    .with_ste_decay(0.75)
                    .with_final_epochs(4)
                    .with_final_decay(0.6),
                Self::Paper => paper,
            },
        }
    }
}
