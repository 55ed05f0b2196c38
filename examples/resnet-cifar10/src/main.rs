//! ResNet-20 on CIFAR-10: a float network becomes a multi-bit network of two bits per weight and below.

mod model;

use std::process::ExitCode;

use burn_alq::{GroupingRule, PathPattern, Quantizer, ScheduleConfig, Target};
use clap::Args;
use example_common::network::{WIDTH, parse_width};
use example_common::small_images::SmallImages;
use example_common::{Config, Example, NoFlags, Plan, Preset, choice, short};

use model::{DEPTH, DEPTHS, ResNet};

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
    /// Layers.
    #[arg(long, default_value = "20", value_parser = choice(DEPTHS.map(|(depth, _)| (depth, depth))))]
    depth: &'static str,
    /// Factor on the channels of every layer.
    #[arg(long, default_value_t = 1.0, value_parser = parse_width)]
    width: f64,
}

impl Example for ResNet {
    type Data = SmallImages;
    type Unlabelled = SmallImages;
    type Flags = NetworkArgs;
    type Training = NoFlags;

    const PROGRAM: &'static str = env!("CARGO_PKG_NAME");
    const ABOUT: &'static str = "ResNet-20 on CIFAR-10: float training, Adaptive Loss-aware \
                                 Quantization, packing, evaluation";
    const ACTIVATIONS: Option<&'static str> = Some("**act*");

    fn presets() -> Vec<Preset> {
        let paper = ScheduleConfig::new(Target::Bits(2.0))
            .with_rounds(5)
            .with_top_k(0.002);
        vec![
            Preset {
                name: "quick",
                about: "For --fake-data: 3 float epochs, 2 rounds of 2+1+1, 2 STE and 1 coordinate \
                        epochs, 2 bits",
                plan: Plan::new(short(&paper, 2, [2, 1], [2, 1]))
                    .with_float_epochs(3)
                    .with_batch_size(32),
            },
            Preset {
                name: "short",
                about: "30 float epochs in one cycle, 3 rounds of 2+1+1, 6 STE and 2 coordinate epochs, \
                        2 bits",
                plan: Plan::new(short(&paper, 3, [2, 1], [6, 2]))
                    .with_float_epochs(30)
                    .with_float_lr(0.2)
                    .with_float_warm_up(Some(6))
                    .with_label_smoothing(0.1),
            },
            Preset {
                name: "paper",
                about: "200 float epochs in one cycle, 5 rounds of 20+10+1 epochs, 50 STE and 20 \
                        coordinate epochs, 2 bits",
                plan: Plan::new(paper)
                    .with_float_epochs(200)
                    .with_float_lr(0.2)
                    .with_float_warm_up(Some(20))
                    .with_label_smoothing(0.1),
            },
        ]
    }

    /// Channelwise in the first layer, runs of 144 weights, nine pixels of 16 channels, in the blocks, two
    /// subchannels in the last layer.
    fn quantizer(max_bits: usize) -> Quantizer {
        let glob = |pattern: &str| PathPattern::glob(pattern);
        Quantizer::new(max_bits)
            .rule(glob("conv1.weight"), GroupingRule::Channelwise)
            .rule(glob("layer*.**"), GroupingRule::Groupwise(144))
            .rule(glob("fc.weight"), GroupingRule::Subchannelwise(2))
    }

    fn config(flags: &NetworkArgs) -> Config {
        Config::from([
            (DEPTH.into(), flags.depth.into()),
            (WIDTH.into(), flags.width.to_string()),
        ])
    }
}
