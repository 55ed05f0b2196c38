//! From a float model to a packed file.

use std::path::PathBuf;
use std::time::Instant;

use burn_alq::{CoordinateType, GroupingRule, PackedModel, PathPattern, Quantizer};
use example_common::{
    BitFlags, CalibrationFlags, DeviceFlag, Failure, MODEL, StorageFlags, at, say, writable,
};

use crate::checkpoint::Checkpoint;
use crate::encoder::{Batch, Encoder};
use crate::model::{Bert, NAME};
use crate::packed::unpack;
use crate::sample::{calibration, held_out, sentences};
use crate::score::Cosines;
use crate::tokens::{TOKENS, Tokens};

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
    #[command(flatten)]
    device: DeviceFlag,
    /// Text whose lines are calibrated with [default: sentences that come with the program, other ones
    /// than are compared]
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "data_free",
        help_heading = "Calibration"
    )]
    calibration: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Calibration")]
    calibrating: CalibrationFlags,
    #[command(flatten, next_help_heading = "Bits")]
    bits: BitFlags,
    /// Bits of a weight of the embeddings, which --budget leaves as they are [default: as --bits]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    embedding_bits: Option<u8>,
    #[command(flatten)]
    storage: StorageFlags,
}

/// Sentences of a pass.
const BATCH: usize = 16;

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
    let quantizer = quantizer(args, coordinates);
    let encoder = Encoder { tokens, device };
    let samples = || {
        let texts = match &args.calibration {
            Some(file) => sentences(file)?,
            None => calibration(),
        };
        encoder.batches(&texts, BATCH)
    };
    let forward =
        |model: &Bert, (tokens, padding): &Batch| model.forward(tokens.clone(), padding.clone());
    let (multi_bit, report) =
        args.calibrating
            .quantize(quantizer, float.clone(), samples, forward)?;
    say!("{}", report.to_markdown());
    say!("{}", report.summary());
    let packed = PackedModel::pack(&multi_bit)?.with_coordinate_type(coordinates)?;
    drop(multi_bit);
    let mut packed = args.storage.round(packed)?;
    packed.config.extend(checkpoint.config.clone());
    packed.config.insert(MODEL.into(), NAME.into());
    packed
        .config
        .insert(TOKENS.into(), encoder.tokens.checksum.clone());
    let seconds = start.elapsed().as_secs_f64();

    let model = unpack(&packed, &encoder.device)?;
    let [float, model] = [&float, &model].map(|model| encoder.embed(model, &compared));
    let cosines = Cosines::between(&float?, &model?);
    args.storage.save(&packed, &args.out)?;
    args.calibrating.clear()?;
    let sizes = packed.report(|_| None);
    say!(
        "result: paper_bits={:.4} effective_bits={:.4} file_bytes={} cosine={:.6} seconds={seconds:.1}",
        sizes.paper_bits,
        sizes.effective_bits,
        std::fs::metadata(&args.out)?.len(),
        cosines.mean
    );
    Ok(())
}

/// Matrices in groups along their inputs, tables along their rows; products as the flags say.
fn quantizer(args: &Args, coordinates: CoordinateType) -> Quantizer {
    let flags = &args.bits;
    let groups = GroupingRule::Groupwise(flags.group_size.map_or(64, |size| size as usize));
    let table_bits = args.embedding_bits.unwrap_or(flags.bits);
    let quantizer = Quantizer::new(flags.bits.into())
        .coordinate_type(coordinates)
        .rule(PathPattern::glob("encoder.**.weight"), groups)
        .arithmetic(flags.arithmetic)
        .rule_with_bits(
            PathPattern::glob("embeddings.*.weight"),
            groups,
            table_bits.into(),
        );
    flags.products(quantizer)
}
