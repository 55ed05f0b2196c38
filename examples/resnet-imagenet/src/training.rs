//! What this example puts into the shared training.

use std::time::Instant;

use example_common::job::{self, Job, Pretrained};
use example_common::network::number;
use example_common::{Config, Failure, packed};
use resnet_imagenet::model::{CLASSES, DEPTH, ResNet, WIDTH, quantizer};
use resnet_imagenet::pretrained;

use crate::cli::{EvalArgs, TrainArgs};

/// Trains, quantizes, packs, evaluates.
pub fn train(args: &TrainArgs) -> Result<(), Failure> {
    let start = Instant::now();
    let outputs = args.outputs();
    let data = args.data.load(outputs)?;
    let plan = args
        .preset
        .plan(args.pretrained.is_some())
        .with(&args.flags);
    let file = args.pretrained.as_deref();
    let pretrained = file.map(|file| -> Pretrained<'_, ResNet> {
        Box::new(move |network| pretrained::load(network, file))
    });
    job::train(Job {
        start,
        flags: &args.flags,
        preset: format!("{:?}", args.preset).to_lowercase(),
        quantizer: quantizer(plan.max_bits, args.flags.activation_bits()),
        plan,
        config: Config::from([
            (DEPTH.into(), args.depth.to_string()),
            (WIDTH.into(), args.width.to_string()),
            (CLASSES.into(), outputs.to_string()),
        ]),
        data,
        // Batch norm needs the whole batch.
        shards: 1,
        pretrained,
        top5: true,
    })
}

/// Evaluates a packed model on the test images.
pub fn eval(args: &EvalArgs) -> Result<(), Failure> {
    packed::eval::<ResNet>(
        &args.flags,
        |packed| args.data.test(number(&packed.config, CLASSES)?),
        true,
    )
}
