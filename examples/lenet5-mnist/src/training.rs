//! What this example puts into the shared training.

use std::path::PathBuf;
use std::time::Instant;

use burn::module::ParamGroup;
use burn_alq::{GroupingRule, Quantizer, Target};
use example_common::cli::TrainFlags;
use example_common::job::{self, Job};
use example_common::sweep::{self, Reference};
use example_common::{Config, Failure, packed, sensitivity};

use crate::cli::{
    DataArgs, DemoArgs, EvalArgs, Preset, SensitivityArgs, Setup, SweepArgs, TrainArgs,
};
use crate::model::LeNet5;

/// Trains on the subset inside the program.
pub fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let out = args.out.clone().unwrap_or_else(|| {
        let free = |out: &PathBuf| !out.exists();
        let numbered = (2..).map(|number| PathBuf::from(format!("runs/demo-{number}")));
        let mut names = std::iter::once(PathBuf::from("runs/demo")).chain(numbered);
        names.find(free).expect("names do not end")
    });
    let setup = Setup {
        data: DataArgs {
            data_dir: None,
            download: false,
        },
        preset: Preset::Quick,
        flags: TrainFlags {
            seed: args.seed,
            batch_size: Some(64),
            json: args.json.clone(),
            ..TrainFlags::new(out)
        },
        shards: None,
    };
    job::train(job(&setup, None)?)
}

/// Trains, quantizes, packs, evaluates.
pub fn train(args: &TrainArgs) -> Result<(), Failure> {
    job::train(job(&args.setup, args.target.target())?)
}

/// The same down a list of targets.
pub fn sweep(args: &SweepArgs) -> Result<(), Failure> {
    let paper = Reference {
        name: "ALQ".into(),
        source: "Qu et al., CVPR 2020, LeNet5".into(),
        bits: 0.4,
        bytes: 22_700.0,
        accuracy: 99.1,
    };
    sweep::sweep(job(&args.setup, None)?, &args.sweep, vec![paper])
}

fn job(setup: &Setup, target: Option<Target>) -> Result<Job<'_, LeNet5>, Failure> {
    let start = Instant::now();
    let data = setup.data.load()?;
    let (flags, shards) = (&setup.flags, setup.shards());
    if flags.act_bits.is_some() && shards > 1 {
        return Err("--shards: multi-bit activations need one shard".into());
    }
    let plan = setup.preset.plan().with(flags, target);
    Ok(Job {
        start,
        flags,
        preset: format!("{:?}", setup.preset).to_lowercase(),
        quantizer: quantizer(plan.max_bits),
        plan,
        config: Config::new(),
        data,
        shards: shards.into(),
        pretrained: None,
        top5: false,
    })
}

/// Measures what bits of each layer are worth.
pub fn sensitivity(args: &SensitivityArgs) -> Result<(), Failure> {
    let data = args.data.load()?;
    let quantizer = quantizer(args.flags.max_bits.into());
    sensitivity::sensitivity::<LeNet5>(&args.flags, &Config::new(), &quantizer, &data)
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

/// Evaluates a packed model on the test images.
pub fn eval(args: &EvalArgs) -> Result<(), Failure> {
    let data = |_: &_| args.data.load().map(|data| (data.name, data.test));
    packed::eval::<LeNet5>(&args.flags, data, false)
}
