//! ResNet on ImageNet: a float network becomes a multi-bit network of two bits per weight.

mod data;
mod model;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn_alq::{GroupingRule, PathPattern, Quantizer, ScheduleConfig, Target};
use clap::Args;
use example_common::network::{WIDTH, load_float, parse_width};
use example_common::{Config, Example, Failure, Job, Plan, Preset, Pretrained, fake, short};

use data::{DataArgs, ImageArgs};
use model::{CLASSES, DEPTH, ResNet, load_torch};

// Training allocates and frees the same large tensors at every step; the system allocator hands
// them back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    example_common::main::<ResNet>()
}

/// Which ResNet.
#[derive(Args)]
pub struct NetworkArgs {
    /// Layers: 18 or 34.
    #[arg(long, default_value_t = 18, value_parser = clap::value_parser!(u8).range(18..=34))]
    depth: u8,
    /// Factor on the channels of every layer.
    #[arg(long, default_value_t = 1.0, value_parser = parse_width)]
    width: f64,
    /// Outputs of the network [default: 1000, with --fake-data 10]
    #[arg(
        long,
        default_value_t = 1000,
        default_value_if("fake_data", "true", fake_classes()),
        hide_default_value = true,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    classes: u32,
}

/// The default with `--fake-data`.
fn fake_classes() -> Option<&'static str> {
    const { assert!(fake::CLASSES == 10) };
    Some("10")
}

/// Where a training starts.
#[derive(Args)]
pub struct Start {
    /// Start from torchvision's weights in this file, .pth or .safetensors, without float training.
    #[arg(long, value_name = "FILE", conflicts_with = "float")]
    pretrained: Option<PathBuf>,
}

impl Example for ResNet {
    type Data = DataArgs;
    type Unlabelled = ImageArgs;
    type Flags = NetworkArgs;
    type Training = Start;

    const PROGRAM: &'static str = env!("CARGO_PKG_NAME");
    const ABOUT: &'static str = "ResNet18 or ResNet34 on ImageNet or any other image folder: \
                                 pretrained weights or float training, Adaptive Loss-aware \
                                 Quantization, packing, evaluation";
    const WEIGHTS: &'static str = "torchvision's, .pth or .safetensors, or the float.bpk of a run";
    const ACTIVATIONS: Option<&'static str> = Some("**act*");

    fn presets() -> Vec<Preset> {
        let paper = ScheduleConfig::new(Target::Bits(2.0))
            .with_rounds(5)
            .with_basis_epochs(10)
            .with_coordinate_epochs(5)
            .with_coordinate_decay(0.6)
            .with_lr(2e-4)
            .with_top_k(0.0005);
        let quick = short(&paper, 2, [2, 1], [2, 1]);
        vec![
            Preset {
                name: "quick",
                about: "For --fake-data: 3 float epochs, 2 rounds of 2+1+1, 2 STE and 1 coordinate \
                        epochs, 2 bits",
                plan: Plan::new(quick.with_lr(1e-3).with_top_k(0.005))
                    .with_float_epochs(3)
                    .with_batch_size(32),
            },
            Preset {
                name: "short",
                about: "Epochs of 500 batches of 64: 30 float epochs without --pretrained, 3 rounds \
                        of 3+2+1, 6 STE and 2 coordinate epochs, 2 bits",
                plan: Plan::new(short(&paper, 3, [3, 2], [6, 2]))
                    .with_float_epochs(30)
                    .with_float_lr(1e-3)
                    .with_float_decay(0.9)
                    .with_batch_size(64)
                    .with_epoch_batches(Some(500)),
            },
            Preset {
                name: "paper",
                about: "The paper's schedule: 90 float epochs without --pretrained, 5 rounds of \
                        10+5+1 epochs of batches of 256, 50 STE and 20 coordinate epochs, 2 bits",
                plan: Plan::new(paper)
                    .with_float_epochs(90)
                    .with_float_lr(1e-3)
                    .with_float_decay(0.95)
                    .with_batch_size(256),
            },
        ]
    }

    /// Channelwise in the first layer, pixelwise in the blocks, two subchannels in the last layer.
    fn quantizer(max_bits: usize) -> Quantizer {
        let glob = |pattern: &str| PathPattern::glob(pattern);
        Quantizer::new(max_bits)
            .rule(glob("conv1.weight"), GroupingRule::Channelwise)
            .rule(glob("layer*.**"), GroupingRule::Pixelwise)
            .rule(glob("fc.weight"), GroupingRule::Subchannelwise(2))
    }

    fn config(flags: &NetworkArgs) -> Config {
        Config::from([
            (DEPTH.into(), flags.depth.to_string()),
            (WIDTH.into(), flags.width.to_string()),
            (CLASSES.into(), flags.classes.to_string()),
        ])
    }

    fn load(network: Self, file: &Path) -> Result<Self, Failure> {
        match file.extension().is_some_and(|ending| ending == "bpk") {
            true => load_float(network, file),
            false => load_torch(network, file),
        }
    }

    fn adjust<'a>(job: &mut Job<'a, Self>, flags: &'a Start) -> Result<(), Failure> {
        if let Some(file) = &flags.pretrained {
            job.plan.float_epochs = 0;
            job.pretrained = Some(Pretrained {
                file,
                load: load_torch,
            });
        }
        Ok(())
    }
}
