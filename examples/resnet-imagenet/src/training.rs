//! What this example puts into the shared training.

use std::time::Instant;

use burn_alq::Target;
use example_common::job::{self, Job, Pretrained};
use example_common::network::number;
use example_common::{Config, Failure, packed, sensitivity, sweep};
use resnet_imagenet::model::{CLASSES, DEPTH, ResNet, WIDTH, quantizer};
use resnet_imagenet::pretrained;

use crate::cli::{EvalArgs, NetworkArgs, SensitivityArgs, Setup, SweepArgs, TrainArgs};

/// Trains, quantizes, packs, evaluates.
pub fn train(args: &TrainArgs) -> Result<(), Failure> {
    job::train(job(&args.setup, args.target.target())?)
}

/// The same down a list of targets.
pub fn sweep(args: &SweepArgs) -> Result<(), Failure> {
    sweep::sweep(job(&args.setup, None)?, &args.sweep, Vec::new())
}

fn job(setup: &Setup, target: Option<Target>) -> Result<Job<'_, ResNet>, Failure> {
    let start = Instant::now();
    let outputs = setup.network.outputs(&setup.data);
    let data = setup.data.load(outputs)?;
    let file = setup.pretrained.as_deref();
    let flags = &setup.flags;
    let plan = setup.preset.plan(file.is_some()).with(flags, target);
    let pretrained = file.map(|file| -> Pretrained<'_, ResNet> {
        Box::new(move |network| pretrained::load(network, file))
    });
    Ok(Job {
        start,
        flags,
        preset: format!("{:?}", setup.preset).to_lowercase(),
        quantizer: quantizer(plan.max_bits, flags.activation_bits()),
        plan,
        config: config(&setup.network, outputs),
        data,
        // Batch norm needs the whole batch.
        shards: 1,
        pretrained,
        top5: true,
    })
}

fn config(network: &NetworkArgs, outputs: usize) -> Config {
    Config::from([
        (DEPTH.into(), network.depth.to_string()),
        (WIDTH.into(), network.width.to_string()),
        (CLASSES.into(), outputs.to_string()),
    ])
}

/// Measures what bits of each layer are worth.
pub fn sensitivity(args: &SensitivityArgs) -> Result<(), Failure> {
    let outputs = args.network.outputs(&args.data);
    let data = args.data.load(outputs)?;
    let quantizer = quantizer(args.flags.max_bits.into(), 0);
    let config = config(&args.network, outputs);
    sensitivity::sensitivity::<ResNet>(&args.flags, &config, &quantizer, &data)
}

/// Evaluates a packed model on the test images.
pub fn eval(args: &EvalArgs) -> Result<(), Failure> {
    packed::eval::<ResNet>(
        &args.flags,
        |packed| args.data.test(number(&packed.config, CLASSES)?),
        true,
    )
}
