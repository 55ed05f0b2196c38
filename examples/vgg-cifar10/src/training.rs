//! What this example puts into the shared training.

use std::time::Instant;

use burn_alq::Target;
use example_common::job::{self, Job};
use example_common::{Config, Failure, packed, sensitivity, sweep};

use crate::cli::{EvalArgs, SensitivityArgs, Setup, SweepArgs, TrainArgs};
use crate::model::{VggSmall, WIDTH, quantizer};

/// Trains, quantizes, packs, evaluates.
pub fn train(args: &TrainArgs) -> Result<(), Failure> {
    job::train(job(&args.setup, args.target.target())?)
}

/// The same down a list of targets.
pub fn sweep(args: &SweepArgs) -> Result<(), Failure> {
    sweep::sweep(job(&args.setup, None)?, &args.sweep, Vec::new())
}

fn job(setup: &Setup, target: Option<Target>) -> Result<Job<'_, VggSmall>, Failure> {
    let start = Instant::now();
    let data = setup.data.load()?;
    let flags = &setup.flags;
    let plan = setup.preset.plan().with(flags, target);
    Ok(Job {
        start,
        flags,
        preset: format!("{:?}", setup.preset).to_lowercase(),
        quantizer: quantizer(plan.max_bits, flags.activation_bits()),
        plan,
        config: config(setup.width),
        data,
        // Batch norm needs the whole batch.
        shards: 1,
        pretrained: None,
        top5: true,
    })
}

fn config(width: f64) -> Config {
    Config::from([(WIDTH.into(), width.to_string())])
}

/// Measures what bits of each layer are worth.
pub fn sensitivity(args: &SensitivityArgs) -> Result<(), Failure> {
    let data = args.data.load()?;
    let quantizer = quantizer(args.flags.max_bits.into(), 0);
    sensitivity::sensitivity::<VggSmall>(&args.flags, &config(args.width), &quantizer, &data)
}

/// Evaluates a packed model on the test images.
pub fn eval(args: &EvalArgs) -> Result<(), Failure> {
    let data = |_: &_| args.data.load().map(|data| (data.name, data.test));
    packed::eval::<VggSmall>(&args.flags, data, true)
}
