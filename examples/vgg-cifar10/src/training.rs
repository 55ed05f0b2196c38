//! What this example puts into the shared training.

use std::time::Instant;

use example_common::job::{self, Job};
use example_common::{Config, Failure, packed};

use crate::cli::{EvalArgs, TrainArgs};
use crate::model::{VggSmall, WIDTH, quantizer};

/// Trains, quantizes, packs, evaluates.
pub fn train(args: &TrainArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let data = args.data.load()?;
    let plan = args.preset.plan().with(&args.flags);
    job::train::<VggSmall>(Job {
        start,
        flags: &args.flags,
        preset: format!("{:?}", args.preset).to_lowercase(),
        quantizer: quantizer(plan.max_bits, args.flags.activation_bits()),
        plan,
        config: Config::from([(WIDTH.into(), args.width.to_string())]),
        data,
        // Batch norm needs the whole batch.
        shards: 1,
        pretrained: None,
        top5: true,
    })
}

/// Evaluates a packed model on the test images.
pub fn eval(args: &EvalArgs) -> Result<(), Failure> {
    let data = |_: &_| args.data.load().map(|data| (data.name, data.test));
    packed::eval::<VggSmall>(&args.flags, data, true)
}
