//! What one bit less in each layer costs: measured, predicted, ranked, drawn.

use std::path::PathBuf;

use burn_alq::Quantizer;
use burn_alq::analysis::Sensitivity;
use burn_alq::report::table;
use clap::Args;

use crate::cli::{DeviceFlag, NO_HEADING, parse_positive};
use crate::document::write_files;
use crate::folder::Folder;
use crate::job::float_flag;
use crate::network::Config;
use crate::origin::Origin;
use crate::page::Page;
use crate::progress::bar;
use crate::say::say;
use crate::task::Classify;
use crate::{Dataset, Failure, Network, plot};

/// Flags of the measurement.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = NO_HEADING)]
pub struct SensitivityFlags {
    /// The trained float network, the float.bpk of a run.
    #[arg(long, value_name = "FILE")]
    pub float: PathBuf,
    /// Folder for sensitivity.html, .md and .json; must not exist yet.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Batches of training images that a loss is the mean of.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub batches: u32,
    /// Images in a batch.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch_size: u32,
    /// Most bits of a weight.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub max_bits: u8,
    /// Learning rate of the local model, which is that of the steps.
    #[arg(long, default_value_t = 1e-3, value_parser = parse_positive)]
    pub lr: f64,
    /// Seed of the order of the images.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub device: DeviceFlag,
}

/// Measures, prints the ranking and writes it with its pictures.
///
/// # Errors
/// If a file cannot be read or written, or a loss is not finite.
pub fn sensitivity<N: Network>(
    flags: &SensitivityFlags,
    config: &Config,
    quantizer: &Quantizer,
    data: &Dataset,
) -> Result<(), Failure> {
    let out = &flags.out;
    let device = flags.device.device()?.autodiff();
    let network = N::from_config(config, &device)?;
    let network = float_flag(network, &flags.float)?;
    let _folder = Folder::empty(out)?;
    say!("data: {}", data.name);
    let size = flags.batch_size as usize;
    let task = Classify::<N>::new(data, size, None, 1, flags.seed, device);
    let bar = bar("{bar:24} {pos}/{len} losses ETA {eta}", 0);
    let show = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        // Lines of losses follow where there is no terminal.
        if bar.is_hidden() && (done.is_multiple_of(10) || done == all) {
            say!("{done} of {all} losses measured");
        }
    };
    let batches = flags.batches as usize;
    let measured = Sensitivity::measure(&network, &task, quantizer, batches, flags.lr, show);
    bar.finish_and_clear();
    let measured = task.explained(measured)?;
    let ranked = rows(&measured);
    let text = format!(
        "# What a bit less costs: {}\n\ndata: {}; {} batches of {size}, seed {}; float loss {:.4}\n\n\
         One weight at a time at fewer bits, everything else in float; the cheapest bits first.\n\
         Rank correlation of prediction and measurement: {:.2}.\n\n{}",
        N::TITLE,
        data.name,
        flags.batches,
        flags.seed,
        measured.loss,
        measured.rank_correlation(),
        table(&ranked)
    );
    let origin = Origin::new(flags.seed, &data.name);
    let page = Page::new(
        format!("What a bit less costs: {}", N::TITLE),
        format!("{} batches of {size} images", flags.batches),
        &origin,
    )
    .section("Bits of each weight", plot::sensitivity(&measured))
    .table("The cheapest bits first", ranked);
    write_files(out, "sensitivity", &text, &page, &measured)?;
    say!("{text}\n{}", out.join("sensitivity.html").display());
    Ok(())
}

/// Each bit less, under a head.
fn rows(measured: &Sensitivity) -> Vec<[String; 6]> {
    let head = [
        "weight",
        "bits",
        "bytes saved",
        "predicted loss",
        "measured loss",
        "measured loss per KiB",
    ];
    let mut rows = vec![head.map(String::from)];
    rows.extend(measured.ranked().iter().map(|less| {
        [
            less.path.clone(),
            format!("{} → {}", less.from, less.from - 1),
            less.bytes.to_string(),
            format!("{:+.5}", less.predicted),
            format!("{:+.5}", less.measured),
            format!("{:+.6}", less.loss_per_kib()),
        ]
    }));
    rows
}
