//! From a float model to a packed file.

use std::path::PathBuf;
use std::time::Instant;

use burn_alq::calibrate::Progress;
use burn_alq::report::ModelReport;
use burn_alq::{Arithmetic, Calibrator, CoordinateType, GroupingRule, PackedModel, PathPattern, Quantizer};
use example_common::{DeviceFlag, Failure, MODEL, StorageFlags, at, choice, say, writable};

use crate::checkpoint::Checkpoint;
use crate::encoder::{Batch, Encoder};
use crate::model::{Bert, NAME};
use crate::packed::unpack;
use crate::sample::{held_out, sentences};
use crate::score::Cosines;
use crate::tokens::{TOKENS, Tokens};

const ARITHMETICS: [(&str, Arithmetic); 2] =
    [("exact", Arithmetic::Exact), ("int8", Arithmetic::Int8)];

#[derive(clap::Args)]
pub struct Args {
    /// Folder of the float model: config.json, model.safetensors, and tokenizer.json or vocab.txt.
    #[arg(long, value_name = "DIR")]
    float: PathBuf,
    /// The packed model to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Text whose lines are compared [default: sentences that come with the program]
    #[arg(long, value_name = "FILE")]
    sentences: Option<PathBuf>,
    /// Text whose lines calibrate: what the outputs make of them decides how weights are rounded.
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[arg(long, default_value_t = 0)]
    epochs: usize,
    #[arg(long, default_value_t = 1e-4)]
    lr: f64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten, next_help_heading = "Bits")]
    bits: BitFlags,
    #[command(flatten)]
    storage: StorageFlags,
}

/// What a weight becomes.
#[derive(clap::Args)]
struct BitFlags {
    /// Bits of a weight.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=8))]
    bits: u8,
    /// Bits of a weight of the embeddings [default: as --bits]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    embedding_bits: Option<u8>,
    /// About how many weights of an output, or of a row of a table, share coordinates.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    group_size: u32,
    /// How the packed layers compute: with their inputs as they are, or rounded to 8 bits.
    #[arg(long, value_name = "NAME", default_value = "exact", value_parser = choice(ARITHMETICS))]
    arithmetic: Arithmetic,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let start = Instant::now();
    let checkpoint = Checkpoint::open(&args.float)?;
    let tokens = Tokens::open(&checkpoint, &checkpoint.config)?;
    let compared = match &args.sentences {
        Some(file) => sentences(file)?,
        None => held_out(),
    };
    writable(&args.out).map_err(|error| at(&args.out, error))?;
    let device = args.device.device()?;
    let float = checkpoint.model(&device)?;

    let coordinates = args.storage.coordinates.unwrap_or_default();
    let quantizer = quantizer(&args.bits, coordinates);
    let encoder = Encoder { tokens, device };
    let (multi_bit, report) = match &args.calibration {
        None => quantizer.quantize(float.clone())?,
        Some(file) => {
            let batches = encoder.batches(&sentences(file)?, args.batch)?;
            let calibrator = Calibrator::new(quantizer)
                .epochs(args.epochs)
                .learning_rate(args.lr)
                .seed(args.seed);
            let forward = |model: &Bert, (tokens, padding): &Batch| {
                model.forward(tokens.clone(), padding.clone())
            };
            calibrator.quantize_with(float.clone(), &batches, forward, |progress| {
                if !matches!(progress, Progress::Measured(n) if n % 16 != 0) { say!("{progress:?} {:.1}", start.elapsed().as_secs_f64()); }
            })?
        }
    };
    say!("{}", report.to_markdown());
    say!("{}", report.summary());
    let packed = PackedModel::pack(&multi_bit)?.with_coordinate_type(coordinates)?;
    drop(multi_bit);
    let mut packed = args.storage.round(packed)?;
    packed.config.extend(checkpoint.config.clone());
    packed.config.insert(MODEL.into(), NAME.into());
    packed.config.insert(TOKENS.into(), encoder.tokens.checksum.clone());
    let seconds = start.elapsed().as_secs_f64();

    let model = unpack(&packed, &encoder.device)?;
    let [float, model] = [&float, &model].map(|model| encoder.embed(model, &compared));
    let cosines = Cosines::between(&float?, &model?);
    args.storage.save(&packed, &args.out)?;
    let sizes = ModelReport::new(&packed, |_| None);
    say!(
        "result: paper_bits={:.4} effective_bits={:.4} file_bytes={} cosine={:.6} seconds={seconds:.1}",
        sizes.paper_bits,
        sizes.effective_bits,
        std::fs::metadata(&args.out)?.len(),
        cosines.mean
    );
    Ok(())
}

/// Matrices in groups along their inputs, tables along their rows.
fn quantizer(flags: &BitFlags, coordinates: CoordinateType) -> Quantizer {
    let groups = GroupingRule::Groupwise(flags.group_size as usize);
    let table_bits = flags.embedding_bits.unwrap_or(flags.bits);
    Quantizer::new(flags.bits.into())
        .coordinate_type(coordinates)
        .rule(PathPattern::glob("encoder.**.weight"), groups)
        .arithmetic(flags.arithmetic)
        .rule_with_bits(
            PathPattern::glob("embeddings.*.weight"),
            groups,
            table_bits.into(),
        )
}
