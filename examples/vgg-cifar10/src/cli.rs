//! The command line and the presets.

use std::path::PathBuf;

use burn_alq::{ScheduleConfig, Target};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use example_common::cli::{self, InspectArgs, Plan, ReportArgs, TimeArgs, TrainFlags};
use example_common::network::parse_width;
use example_common::sensitivity::SensitivityFlags;
use example_common::{Dataset, Failure};

use crate::data;

/// VGG-small (2x128C3, MP2, 2x256C3, MP2, 2x512C3, MP2, 2x1024FC, 10) on CIFAR-10: float training,
/// Adaptive Loss-aware Quantization below one bit per weight, packing, evaluation.
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Train, quantize, pack and evaluate.
    Train(TrainArgs),
    /// Train down a list of targets, each from the one before, and draw the frontier.
    Sweep(SweepArgs),
    /// Measure what one bit less in each layer of a float network costs.
    Sensitivity(SensitivityArgs),
    /// Evaluate a packed model on the test images, top-1 and top-5.
    Eval(EvalArgs),
    /// Show what a packed model holds.
    Inspect(InspectArgs),
    /// Time packed models, in turns with the float network.
    Time(TimeArgs),
    /// Make a run's report.html again, from its report.json.
    Report(ReportArgs),
}

#[derive(Args, Debug, Clone)]
#[command(group = ArgGroup::new("images").required(true).args(["data_dir", "fake_data"]))]
pub struct DataArgs {
    /// Folder with the images.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What is in the folder.
    #[arg(long, value_enum, default_value_t = Format::Cifar10, conflicts_with = "fake_data")]
    pub data_format: Format,
    /// Make a small image set that is easily learned.
    #[arg(long)]
    pub fake_data: bool,
    /// Use at most so many images of the training set, and of the test set.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// What a folder of images holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// CIFAR-10's binary files, data_batch_1.bin to data_batch_5.bin and test_batch.bin.
    Cifar10,
    /// The four IDX files of Fashion-MNIST or MNIST, .gz or not; padded to 32x32.
    Mnist,
}

impl DataArgs {
    /// The data set asked for.
    pub fn load(&self) -> Result<Dataset, Failure> {
        let limit = self.limit.map(|limit| limit as usize);
        match (&self.data_dir, self.data_format) {
            (Some(folder), Format::Cifar10) => data::cifar10(folder, limit),
            (Some(folder), Format::Mnist) => data::mnist(folder, limit),
            (None, _) => data::fake(limit),
        }
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
    /// Factor on the channels of every layer.
    #[arg(long, default_value_t = 1.0, value_parser = parse_width)]
    pub width: f64,
    #[command(flatten)]
    pub flags: TrainFlags,
}

/// A training to one target.
pub type TrainArgs = cli::TrainArgs<Setup>;

/// A training to several.
pub type SweepArgs = cli::SweepArgs<Setup>;

#[derive(Args)]
pub struct SensitivityArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Factor on the channels of every layer.
    #[arg(long, default_value_t = 1.0, value_parser = parse_width)]
    pub width: f64,
    #[command(flatten)]
    pub flags: SensitivityFlags,
}

/// What an evaluation reads.
pub type EvalArgs = cli::EvalArgs<DataArgs>;

/// How long and how hard to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// For --fake-data: 3 float epochs, 2 rounds of 2+1+1, 2 STE and 1 coordinate epochs, 0.66 bit.
    Quick,
    /// Epochs of 150 batches of 64: 12 float epochs, 3 rounds of 2+1+1, 4 STE and 2 coordinate
    /// epochs, 0.66 bit.
    Short,
    /// The paper's schedule: 5 rounds of 20+10+1 epochs, 50 STE and 20 coordinate epochs, 0.66 bit.
    Paper,
}

impl Preset {
    /// The plan.
    pub fn plan(self) -> Plan {
        let paper = ScheduleConfig::new(Target::Bits(0.66))
            .with_rounds(5)
            .with_top_k(0.002);
        let short = |rounds, epochs, after| {
            cli::short(&paper, rounds, epochs, after).with_coordinate_decay(0.7)
        };
        match self {
            Self::Quick => Plan {
                float_epochs: 3,
                float_lr: 2e-3,
                float_decay: 0.75,
                max_bits: 6,
                batch_size: 32,
                epoch_batches: None,
                schedule: short(2, [2, 1], [2, 1]),
            },
            Self::Short => Plan {
                float_epochs: 12,
                float_lr: 2e-3,
                float_decay: 0.8,
                max_bits: 6,
                batch_size: 64,
                epoch_batches: Some(150),
                schedule: short(3, [2, 1], [4, 2]),
            },
            Self::Paper => Plan {
                float_epochs: 200,
                float_lr: 1e-3,
                float_decay: 0.98,
                max_bits: 6,
                batch_size: 128,
                epoch_batches: None,
                schedule: paper,
            },
        }
    }
}
