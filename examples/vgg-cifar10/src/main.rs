//! VGG-small on CIFAR-10: a float network becomes a multi-bit network below one bit per weight.

mod model;

use std::process::ExitCode;

use burn_alq::{GroupingRule, PathPattern, Quantizer, ScheduleConfig, Target};
use clap::Args;
use example_common::network::{WIDTH, parse_width};
use example_common::small_images::SmallImages;
use example_common::{Config, Example, FrontierPoint, NoFlags, Plan, Preset, Reference, short};

use model::VggSmall;

// Training allocates and frees the same large tensors at every step; the system allocator hands
// them back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    example_common::main::<VggSmall>()
}

/// Which VGG-small.
#[derive(Args)]
pub struct NetworkArgs {
    /// Factor on the channels of every layer.
    #[arg(long, default_value_t = 1.0, value_parser = parse_width)]
    width: f64,
}

impl Example for VggSmall {
    type Data = SmallImages;
    type Unlabelled = SmallImages;
    type Flags = NetworkArgs;
    type Training = NoFlags;

    const PROGRAM: &'static str = env!("CARGO_PKG_NAME");
    const ABOUT: &'static str = "VGG-small (2x128C3, MP2, 2x256C3, MP2, 2x512C3, MP2, 2x1024FC, \
                                 10) on CIFAR-10: float training, Adaptive Loss-aware \
                                 Quantization below one bit per weight, packing, evaluation";
    const ACTIVATIONS: Option<&'static str> = Some("activations.*");

    fn presets() -> Vec<Preset> {
        let paper = ScheduleConfig::new(Target::Bits(0.66));
        let paper = paper.with_rounds(5).with_top_k(0.002);
        let short =
            |rounds, epochs, after| short(&paper, rounds, epochs, after).with_coordinate_decay(0.7);
        vec![
            Preset {
                name: "quick",
                about: "For --fake-data: 3 float epochs, 2 rounds of 2+1+1, 2 STE and 1 coordinate \
                        epochs, 0.66 bit",
                plan: Plan::new(short(2, [2, 1], [2, 1]))
                    .with_float_epochs(3)
                    .with_batch_size(32),
            },
            Preset {
                name: "short",
                about: "20 float epochs in one cycle, 3 rounds of 2+1+1, 4 STE and 2 coordinate epochs, \
                        0.66 bit",
                plan: Plan::new(short(3, [2, 1], [4, 2]))
                    .with_float_epochs(20)
                    .with_float_lr(0.1)
                    .with_float_warm_up(Some(4))
                    .with_label_smoothing(0.1),
            },
            Preset {
                name: "paper",
                about: "The paper's schedule: 5 rounds of 20+10+1 epochs, 50 STE and 20 coordinate \
                        epochs, 0.66 bit",
                plan: Plan::new(paper)
                    .with_float_epochs(200)
                    .with_float_lr(1e-3)
                    .with_float_decay(0.98),
            },
        ]
    }

    /// The groupings of the paper: channelwise, five times pixelwise, 16, 2 and 2 subchannels.
    fn quantizer(max_bits: usize) -> Quantizer {
        let glob = |pattern: &str| PathPattern::glob(pattern);
        Quantizer::new(max_bits)
            .rule(glob("convs.*.weight"), GroupingRule::Pixelwise)
            .rule(glob("convs.0.weight"), GroupingRule::Channelwise)
            .rule(glob("fc.*.weight"), GroupingRule::Subchannelwise(2))
            .rule(glob("fc.0.weight"), GroupingRule::Subchannelwise(16))
    }

    fn references() -> Vec<Reference> {
        vec![Reference {
            name: "ALQ".into(),
            source: "Qu et al., CVPR 2020, VGG-small on CIFAR-10 at full width".into(),
            point: FrontierPoint {
                bits: 0.66,
                bytes: 1_290_000.0,
                accuracy: 92.0,
            },
        }]
    }

    fn config(flags: &NetworkArgs) -> Config {
        Config::from([(WIDTH.into(), flags.width.to_string())])
    }
}
