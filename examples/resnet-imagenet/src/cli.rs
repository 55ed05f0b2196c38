//! The command line and the presets.

use std::path::PathBuf;
use std::sync::Arc;

use burn_alq::{ScheduleConfig, Target};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use example_common::bytes::{Augment, dataset};
use example_common::cli::{self, InspectArgs, Plan, ReportArgs, TimeArgs, TrainFlags};
use example_common::network::parse_width;
use example_common::sensitivity::SensitivityFlags;
use example_common::{Dataset, Failure, Images, fake};
use resnet_imagenet::folder::{self, Options};

/// ResNet18 or ResNet34 on ImageNet or any other image folder: pretrained weights or float training,
/// Adaptive Loss-aware Quantization, packing, evaluation.
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

/// Pixels in a row and rows of a made-up image.
const FAKE_SIDE: usize = 32;

#[derive(Args, Debug, Clone)]
#[command(group = ArgGroup::new("images").required(true).args(["data_dir", "fake_data"]))]
pub struct DataArgs {
    /// Folder with train/CLASS and val/CLASS, each with .jpg, .jpeg or .png images.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Make a small image set of 10 classes that is easily learned; images have 32x32 pixels.
    #[arg(long)]
    pub fake_data: bool,
    /// Use at most so many images of the training set, and of the test set.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Height and width of the network's input. Images are resized to 256/224 of it before the
    /// crop.
    #[arg(long, value_name = "PIXELS", default_value_t = 224, conflicts_with = "fake_data", value_parser = clap::value_parser!(u32).range(8..=1024))]
    pub image_size: u32,
    /// Leave images out that cannot be decoded, and count them.
    #[arg(long, conflicts_with = "fake_data")]
    pub skip_corrupt: bool,
}

impl DataArgs {
    fn limit(&self) -> Option<usize> {
        self.limit.map(|limit| limit as usize)
    }

    fn options(&self, outputs: usize) -> Options {
        Options {
            size: self.image_size as usize,
            limit: self.limit(),
            skip_corrupt: self.skip_corrupt,
            outputs,
        }
    }

    /// The data set asked for, for a network with so many outputs.
    pub fn load(&self, outputs: usize) -> Result<Dataset, Failure> {
        let Some(folder) = &self.data_dir else {
            if outputs < fake::CLASSES {
                return Err(format!("--fake-data has {} classes", fake::CLASSES).into());
            }
            let mut train = fake::images(600, FAKE_SIDE, 1);
            let mut test = fake::images(200, FAKE_SIDE, 2);
            train.limit(self.limit());
            test.limit(self.limit());
            train.augment = Augment::CropFlip(2);
            let valid = train.labels.len() / 10;
            return dataset("--fake-data".as_ref(), "fake images", train, test, valid);
        };
        folder::dataset(folder, self.options(outputs))
    }

    /// The test images, for a network with so many outputs.
    pub fn test(&self, outputs: usize) -> Result<(String, Arc<dyn Images>), Failure> {
        match &self.data_dir {
            Some(folder) => folder::test(folder, self.options(outputs)),
            None => self.load(outputs).map(|data| (data.name, data.test)),
        }
    }
}

/// Which ResNet.
#[derive(Args, Debug, Clone)]
pub struct NetworkArgs {
    /// Layers: 18 or 34.
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u8).range(18..=34))]
    pub depth: u8,
    /// Factor on the channels of every layer.
    #[arg(long, default_value_t = 1.0, value_parser = parse_width)]
    pub width: f64,
    /// Outputs of the network [default: 1000, with --fake-data 10]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub classes: Option<u32>,
}

impl NetworkArgs {
    /// Outputs of the network.
    pub fn outputs(&self, data: &DataArgs) -> usize {
        match self.classes {
            Some(classes) => classes as usize,
            None if data.fake_data => fake::CLASSES,
            None => 1000,
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
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Start from torchvision's weights in this file, .pth or .safetensors, without float training.
    #[arg(long, value_name = "FILE", conflicts_with = "float")]
    pub pretrained: Option<PathBuf>,
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
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub flags: SensitivityFlags,
}

/// What an evaluation reads.
pub type EvalArgs = cli::EvalArgs<DataArgs>;

/// How long and how hard to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// For --fake-data: 3 float epochs, 2 rounds of 2+1+1, 2 STE and 1 coordinate epochs, 2 bits.
    Quick,
    /// Epochs of 500 batches of 64: 30 float epochs without --pretrained, 3 rounds of 3+2+1, 6 STE
    /// and 2 coordinate epochs, 2 bits.
    Short,
    /// The paper's schedule: 90 float epochs without --pretrained, 5 rounds of 10+5+1 epochs of
    /// batches of 256, 50 STE and 20 coordinate epochs, 2 bits.
    Paper,
}

impl Preset {
    /// The plan.
    pub fn plan(self, pretrained: bool) -> Plan {
        let paper = ScheduleConfig::new(Target::Bits(2.0))
            .with_rounds(5)
            .with_basis_epochs(10)
            .with_coordinate_epochs(5)
            .with_coordinate_decay(0.6)
            .with_lr(2e-4)
            .with_top_k(0.0005);
        let short = |rounds, epochs, after| cli::short(&paper, rounds, epochs, after);
        let plan = match self {
            Self::Quick => Plan {
                float_epochs: 3,
                float_lr: 2e-3,
                float_decay: 0.75,
                max_bits: 6,
                batch_size: 32,
                epoch_batches: None,
                schedule: short(2, [2, 1], [2, 1]).with_lr(1e-3).with_top_k(0.005),
            },
            Self::Short => Plan {
                float_epochs: 30,
                float_lr: 1e-3,
                float_decay: 0.9,
                max_bits: 6,
                batch_size: 64,
                epoch_batches: Some(500),
                schedule: short(3, [3, 2], [6, 2]),
            },
            Self::Paper => Plan {
                float_epochs: 90,
                float_lr: 1e-3,
                float_decay: 0.95,
                max_bits: 6,
                batch_size: 256,
                epoch_batches: None,
                schedule: paper,
            },
        };
        Plan {
            float_epochs: if pretrained { 0 } else { plan.float_epochs },
            ..plan
        }
    }
}
