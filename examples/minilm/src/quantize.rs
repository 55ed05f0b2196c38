//! From a float model to a packed file.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use burn_alq::calibrate::{Budget, Progress, Refined};
use burn_alq::quantize::QuantizeReport;
use burn_alq::report::ModelReport;
use burn_alq::{
    Arithmetic, Calibrator, CoordinateType, GroupingRule, PackedModel, PathPattern, Quantizer,
};
use example_common::{
    DeviceFlag, Failure, MODEL, Stop, StorageFlags, at, bar, choice, say, writable,
};

use crate::checkpoint::Checkpoint;
use crate::encoder::{Batch, Encoder};
use crate::model::{Bert, NAME};
use crate::packed::unpack;
use crate::sample::{calibration, held_out, sentences};
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
    #[command(flatten, next_help_heading = "Calibration")]
    calibration: CalibrationFlags,
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten, next_help_heading = "Bits")]
    bits: BitFlags,
    #[command(flatten)]
    storage: StorageFlags,
}

/// What sentences, without labels, say of the weights.
#[derive(clap::Args)]
struct CalibrationFlags {
    /// Text whose lines are calibrated with [default: sentences that come with the program, other ones
    /// than are compared]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Bring the weights as near as can be instead of the embeddings: no calibration.
    #[arg(long, conflicts_with_all = ["calibration", "budget", "one_pass", "epochs", "learning_rate", "seed", "checkpoints"])]
    data_free: bool,
    /// Give each matrix as many bits as it needs, up to --bits, but no more than this on average, all that is
    /// stored counted; tables have --embedding-bits.
    #[arg(long, value_name = "BITS", value_parser = bits)]
    budget: Option<f64>,
    /// Measure all weights in one pass, not one layer after the other: faster, and less good below 4 bits.
    #[arg(long)]
    one_pass: bool,
    /// Go over the sentences so many times more: the float model teaches the multi-bit one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    epochs: usize,
    /// The largest learning rate of these.
    #[arg(long, value_name = "RATE", default_value_t = 1e-4, value_parser = rate)]
    learning_rate: f64,
    /// What random numbers are drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Keep checkpoints in this folder, and go on from the one that is there; removed at the end.
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
}

fn bits(text: &str) -> Result<f64, String> {
    let bits: f64 = text.parse().map_err(|_| "it is no number")?;
    if (1.0..=32.0).contains(&bits) {
        return Ok(bits);
    }
    Err("it must be 1 to 32".into())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it is no number")?;
    if rate > 0.0 && rate.is_finite() {
        return Ok(rate);
    }
    Err("it must be positive".into())
}

/// Sentences of a pass.
const BATCH: usize = 16;

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
    let (multi_bit, report) = match args.calibration.data_free {
        true => quantizer.quantize(float.clone())?,
        false => calibrate(&args.calibration, quantizer, float.clone(), &encoder)?,
    };
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
    if let Some(folder) = &args.calibration.checkpoints {
        std::fs::remove_dir_all(folder).map_err(|error| at(folder, error))?;
    }
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

fn calibrate(
    flags: &CalibrationFlags,
    quantizer: Quantizer,
    float: Bert,
    encoder: &Encoder,
) -> Result<(Bert, QuantizeReport), Failure> {
    let texts = match &flags.calibration {
        Some(file) => sentences(file)?,
        None => calibration(),
    };
    let batches = encoder.batches(&texts, BATCH)?;
    let mut calibrator = Calibrator::new(quantizer)
        .epochs(flags.epochs)
        .learning_rate(flags.learning_rate)
        .seed(flags.seed);
    if let Some(bits) = flags.budget {
        calibrator = calibrator.budget(Budget::EffectiveBits(bits));
    }
    if flags.one_pass {
        calibrator = calibrator.one_pass();
    }
    if let Some(folder) = &flags.checkpoints {
        calibrator = calibrator.checkpoints(folder);
    }
    let forward =
        |model: &Bert, (tokens, padding): &Batch| model.forward(tokens.clone(), padding.clone());
    let stop = Stop::listen()?;
    let bar = bar("calibration {bar:24} {pos}/{len} ETA {eta}", 1);
    let calibrated = calibrator.quantize_with(float, &batches, forward, |progress| {
        match progress {
            Progress::Passes { done, of } => {
                bar.set_length(of as u64);
                bar.set_position(done as u64);
            }
            Progress::Refined(Refined { epoch, error }) => {
                bar.suspend(|| say!("epoch {epoch}: error {error:.5} on batches held out"));
            }
            _ => {}
        }
        match stop.is_asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    Ok(calibrated?)
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
