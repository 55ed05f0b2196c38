//! The time of a batch, packed and in f32.

use burn::tensor::{Int, Tensor, TensorData};
use example_common::data::Random;
use example_common::network::number;
use example_common::{Failure, in_turns, parse_seconds, say};

use crate::model::{POSITIONS, VOCABULARY};
use crate::packed::PackedFlags;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    packed: PackedFlags,
    /// Texts in a batch.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Tokens of a text.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Seconds of measuring.
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let opened = args.packed.open()?;
    let models = [&opened.model, &opened.float()?];
    let size = |key| number::<usize>(&opened.config, key);
    let (vocabulary, positions) = (size(VOCABULARY)?, size(POSITIONS)?);
    let shape = [args.batch, args.tokens].map(|size| size as usize);
    let [batch, tokens] = shape;
    if tokens > positions {
        return Err(format!("--tokens {tokens}: the model reads {positions}").into());
    }
    // Any text: what it says takes no time.
    let mut random = Random::new(1, 0);
    let text = (0..batch * tokens).map(|_| random.below(vocabulary) as i64);
    let text = TensorData::new(text.collect::<Vec<i64>>(), shape);
    let text = Tensor::<2, Int>::from_data(text, &opened.encoder.device);
    // Read, so that a device that works on its own is waited for.
    let runs = models.map(|model| || drop(model.forward(text.clone(), None).into_data()));
    let (medians, turns) = in_turns(&runs, 1, args.seconds);
    let (packed, float) = (medians[0], medians[1]);
    say!("batch {batch}, {tokens} tokens, medians of {turns} turns");
    let ratio = float / packed;
    say!("result: packed_ms={packed:.4} float_ms={float:.4} ratio={ratio:.2}");
    Ok(())
}
