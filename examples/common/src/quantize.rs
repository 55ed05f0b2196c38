//! From a float network to a packed file, with images that have no labels.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use burn_alq::{GroupingRule, PackedModel, PathPattern, Quantizer};
use clap::Args;

use crate::calibrate::{BitFlags, CalibrationFlags};
use crate::cli::{DeviceFlag, NETWORK};
use crate::data::{Request, epoch_order, stream};
use crate::folder::writable;
use crate::levers::StorageFlags;
use crate::packed::{MODEL, print_skipped, unpack};
use crate::progress::bar;
use crate::say::say;
use crate::score::Agreement;
use crate::{Example, Failure, Images, UnlabelledFlags as _, at};

/// Images of a pass: few, so that a refinement has many steps.
const BATCH: usize = 16;

/// A conversion.
#[derive(Args)]
pub struct QuantizeArgs<E: Example> {
    #[allow(missing_docs)]
    #[arg(long, value_name = "FILE", help = format!("Float weights: {}", E::WEIGHTS))]
    pub from: PathBuf,
    /// The packed model to write.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    #[command(flatten)]
    pub device: DeviceFlag,
    #[command(flatten, next_help_heading = "Data")]
    pub data: E::Unlabelled,
    /// Images to calibrate with, at most three quarters of all; as many others at most are compared on.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Data")]
    pub samples: u32,
    #[command(flatten, next_help_heading = NETWORK)]
    pub network: E::Flags,
    #[command(flatten, next_help_heading = "Calibration")]
    pub calibration: CalibrationFlags,
    #[command(flatten, next_help_heading = "Bits")]
    pub bits: BitFlags,
    #[command(flatten)]
    pub storage: StorageFlags,
}

/// Converts a float network without labels, packs it, and compares it with the float one on images that it
/// was not calibrated with.
///
/// # Errors
/// If weights or images cannot be read or do not fit, the calibration fails or is stopped, or the file cannot
/// be written: then there is none, or the one that was there.
pub fn quantize<E: Example>(args: &QuantizeArgs<E>) -> Result<(), Failure> {
    let start = Instant::now();
    let device = args.device.device()?;
    let config = E::config(&args.network);
    let float = E::from_config(&config, &device)?;
    let float = E::load(float, &args.from).map_err(|error| format!("--from {error}"))?;
    let (name, images) = args.data.unlabelled(&config)?;
    let [calibrated, compared] = split(images.count(), args.samples as usize)
        .ok_or_else(|| format!("{name}: two images are the least, to calibrate and to compare"))?;
    writable(&args.out).map_err(|error| at(&args.out, error))?;
    say!(
        "data: {name}, {} images to calibrate with, {} to compare on",
        calibrated.len(),
        compared.len()
    );

    let coordinates = args.storage.coordinates.unwrap_or_default();
    let quantizer = quantizer::<E>(&args.bits).coordinate_type(coordinates);
    let samples = || {
        let batches = batches(&images, &calibrated, BATCH, &device);
        batches.collect::<Result<Vec<_>, Failure>>()
    };
    let forward = |model: &E, images: &Tensor<4>| model.forward(images.clone());
    let calibration = &args.calibration;
    let (multi_bit, report) = calibration.quantize(quantizer, float.clone(), samples, forward)?;
    say!("{}", report.to_markdown());
    say!("{}", report.summary());
    let packed = PackedModel::pack(&multi_bit)?.with_coordinate_type(coordinates)?;
    drop(multi_bit);
    let mut packed = args.storage.round(packed)?;
    packed.config.extend(config);
    packed.config.insert(MODEL.into(), E::NAME.into());
    packed.config.insert("data".into(), name);
    let seconds = start.elapsed().as_secs_f64();

    let model: E = unpack(&packed, &device)?;
    let mut agreement = Agreement::default();
    let bar = bar("comparison {bar:24} {pos}/{len} ETA {eta}", compared.len());
    for images in batches(&images, &compared, E::EVAL_BATCH, &device) {
        let images = images?;
        bar.inc(images.dims()[0] as u64);
        agreement.add(float.forward(images.clone()), model.forward(images));
    }
    bar.finish_and_clear();
    args.storage.save(&packed, &args.out)?;
    calibration.clear()?;
    print_skipped(&images);
    let sizes = packed.report(|_| None);
    say!(
        "result: paper_bits={:.4} effective_bits={:.4} file_bytes={} agreement={:.2} kl={:.6} \
         seconds={seconds:.1}",
        sizes.paper_bits,
        sizes.effective_bits,
        std::fs::metadata(&args.out)?.len(),
        agreement.percent(),
        agreement.divergence()
    );
    Ok(())
}

/// The example's groupings, or groups of one size, and products; the arithmetic is that of the flag.
fn quantizer<E: Example>(flags: &BitFlags) -> Quantizer {
    let bits = flags.bits.into();
    let quantizer = match flags.group_size {
        Some(size) => {
            let groups = GroupingRule::Groupwise(size as usize);
            Quantizer::new(bits).rule(PathPattern::glob("**"), groups)
        }
        None => E::quantizer(bits),
    };
    flags.products(quantizer.arithmetic(flags.arithmetic))
}

/// Images to calibrate with, and others to compare on, mixed; the same each time.
fn split(count: usize, samples: usize) -> Option<[Vec<u32>; 2]> {
    let calibrated = samples.min(count - count.div_ceil(4));
    let mut order = epoch_order(count, 0, 0);
    let mut compared = order.split_off(calibrated);
    compared.truncate(samples);
    (!order.is_empty() && !compared.is_empty()).then_some([order, compared])
}

/// Images as they are, some at a time.
fn batches(
    images: &Arc<dyn Images>,
    chosen: &[u32],
    size: usize,
    device: &Device,
) -> impl Iterator<Item = Result<Tensor<4>, Failure>> {
    let requests: Vec<Request> = chosen
        .chunks(size)
        .map(|chosen| (chosen.to_vec(), None))
        .collect();
    let stream = stream(images.clone(), requests.into_iter()).into_iter();
    stream.map(move |batch| {
        let batch = batch?;
        Ok(batch.tensors(0..batch.labels.len(), device).0)
    })
}
