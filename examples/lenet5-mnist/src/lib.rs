//! LeNet5 on MNIST: the network, its data, and how it is quantized.

mod data;
mod model;

use burn::module::ParamGroup;
use burn_alq::{GroupingRule, Quantizer, ScheduleConfig, Target};
use clap::Args;
use example_common::{
    Demo, Example, Failure, FrontierPoint, Job, NoFlags, Plan, Preset, Reference,
};

pub use self::data::DataArgs;
pub use self::model::{CLASSES, LeNet5};

/// Flags of a training alone.
#[derive(Args)]
pub struct Shards {
    /// Threads that share a batch. Other numbers round differently. Multi-bit activations keep
    /// their statistics in one thread [default: 2; with --act-bits, or on a GPU, 1]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    shards: Option<u8>,
}

impl Example for LeNet5 {
    type Data = DataArgs;
    type Unlabelled = DataArgs;
    type Flags = NoFlags;
    type Training = Shards;

    const PROGRAM: &'static str = env!("CARGO_PKG_NAME");
    const ABOUT: &'static str = "LeNet5 (20-50-500-10) on MNIST: float training, Adaptive \
                                 Loss-aware Quantization below one bit per weight, packing, \
                                 evaluation";
    const DEMO: Option<Demo> = Some(Demo {
        about: "The main job in minutes, on a subset of MNIST inside the program",
        flags: &["--preset", "quick", "--batch-size", "64"],
    });

    fn presets() -> Vec<Preset> {
        let paper = ScheduleConfig::new(Target::Bytes(22_700));
        let short = |bits| {
            ScheduleConfig::new(Target::Bits(bits))
                .with_basis_epochs(3)
                .with_coordinate_epochs(2)
                .with_basis_decay(0.6)
                .with_coordinate_decay(0.6)
                .with_ste_epochs(4)
                .with_final_epochs(2)
        };
        let quick = short(0.5).with_rounds(3);
        let quick = quick.with_ste_epochs(6).with_final_epochs(3);
        let long = short(0.2).with_ste_epochs(10).with_ste_decay(0.75);
        let long = long.with_final_epochs(4).with_final_decay(0.6);
        vec![
            Preset {
                name: "quick",
                about: "Minutes on the subset: 12 float epochs, 3 rounds, 0.5 bit",
                plan: Plan::new(quick),
            },
            Preset {
                name: "short",
                about: "12 float epochs, 4 rounds of 3+2+1 epochs, 4 STE and 2 coordinate epochs, 0.365 bit",
                plan: Plan::new(short(0.365)),
            },
            Preset {
                name: "long",
                about: "For the fewest bits: 12 float epochs, 4 rounds of 3+2+1 epochs, 10 STE and 4 \
                        coordinate epochs that end at small learning rates, 0.2 bit",
                plan: Plan::new(long),
            },
            Preset {
                name: "paper",
                about: "The paper's schedule: 4 rounds of 20+10+1 epochs, 50 STE and 20 coordinate \
                        epochs, weights of 22,700 bytes",
                plan: Plan::new(paper).with_float_epochs(20).with_float_decay(0.8),
            },
        ]
    }

    /// The groupings of the paper.
    fn quantizer(max_bits: usize) -> Quantizer {
        let path = |path: &str| ParamGroup::from_path(path);
        Quantizer::new(max_bits)
            .rule(path("conv1.weight"), GroupingRule::Kernelwise)
            .rule(path("conv2.weight"), GroupingRule::Kernelwise)
            .rule(path("fc1.weight"), GroupingRule::Subchannelwise(2))
            .rule(path("fc2.weight"), GroupingRule::Subchannelwise(1))
    }

    /// The paper's network.
    fn references() -> Vec<Reference> {
        vec![Reference {
            name: "ALQ".into(),
            source: "Qu et al., CVPR 2020, LeNet5 on all of MNIST".into(),
            point: FrontierPoint {
                bits: 0.4,
                bytes: 22_700.0,
                accuracy: 99.1,
            },
        }]
    }

    fn adjust(job: &mut Job<'_, Self>, flags: &Shards) -> Result<(), Failure> {
        let act_bits = job.flags.act_bits.is_some();
        let one = act_bits || !job.flags.device.is_synchronous();
        job.shards = flags.shards.map_or(if one { 1 } else { 2 }, usize::from);
        if act_bits && job.shards > 1 {
            return Err("--shards: multi-bit activations need one shard".into());
        }
        Ok(())
    }
}
