//! Flags of a conversion without labels, and the conversion with its progress.

use std::ops::ControlFlow;
use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::Tensor;
use burn_alq::calibrate::{Budget, Progress, Refined};
use burn_alq::quantize::QuantizeReport;
use burn_alq::{Arithmetic, Calibrator, PathPattern, Quantizer};
use clap::Args;

use crate::cli::{choice, parse_positive};
use crate::progress::bar;
use crate::say::say;
use crate::stop::Stop;
use crate::{Failure, at};

const ARITHMETICS: [(&str, Arithmetic); 2] =
    [("exact", Arithmetic::Exact), ("int8", Arithmetic::Int8)];

/// What a weight becomes.
#[derive(Args, Debug, Clone)]
pub struct BitFlags {
    /// Bits of a weight.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub bits: u8,
    /// About how many weights of an output share coordinates [default: by example]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub group_size: Option<u32>,
    /// How the packed layers compute: with their inputs as they are, or rounded to 8 bits.
    #[arg(long, value_name = "NAME", default_value = "exact", value_parser = choice(ARITHMETICS))]
    pub arithmetic: Arithmetic,
    /// Make the weights of these paths products of two weights of one bit, of so many bits a weight at most,
    /// all that is stored counted, as `encoder.**.weight=0.8`; once for each pattern.
    #[arg(long, value_name = "GLOB=BITS", value_parser = parse_product)]
    pub product: Vec<(String, f64)>,
}

impl BitFlags {
    /// A quantizer with rules for products behind its own.
    pub fn products(&self, quantizer: Quantizer) -> Quantizer {
        self.product
            .iter()
            .fold(quantizer, |quantizer, (glob, bits)| {
                let paths = PathPattern::glob(glob.as_str());
                quantizer.product(paths, *bits).arithmetic(self.arithmetic)
            })
    }
}

fn parse_product(text: &str) -> Result<(String, f64), String> {
    let (glob, bits) = text
        .rsplit_once('=')
        .ok_or("not a pattern of paths and a number of bits, as fc1.weight=0.8")?;
    Ok((glob.to_string(), parse_positive(bits)?))
}

/// What inputs, without labels, say of the weights.
#[derive(Args, Debug, Clone)]
pub struct CalibrationFlags {
    /// Bring the weights as near as can be instead of the outputs: no calibration.
    #[arg(long, conflicts_with_all = ["budget", "one_pass", "epochs", "learning_rate", "seed", "checkpoints"])]
    data_free: bool,
    /// Give each weight as many bits as it needs, up to --bits, but no more than this on average, all that is
    /// stored counted; not those whose bits another flag says.
    #[arg(long, value_name = "BITS", value_parser = parse_bits)]
    budget: Option<f64>,
    /// Measure all weights in one pass, not one layer after the other: faster, and less good below 4 bits.
    #[arg(long)]
    one_pass: bool,
    /// Go over the samples so many times more: the float model teaches the multi-bit one.
    #[arg(long, value_name = "N", default_value_t = 0)]
    epochs: usize,
    /// The largest learning rate of these.
    #[arg(long, value_name = "RATE", default_value_t = 1e-4, value_parser = parse_positive)]
    learning_rate: f64,
    /// What random numbers are drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Keep checkpoints in this folder, and go on from the one that is there; removed at the end.
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
}

fn parse_bits(text: &str) -> Result<f64, String> {
    let bits = text.parse().ok();
    let bits = bits.filter(|bits| (1.0..=32.0).contains(bits));
    bits.ok_or_else(|| "not a number from 1 to 32".into())
}

impl CalibrationFlags {
    /// Converts a float model, with the help of samples unless the flags say otherwise: they are asked for
    /// only then. Says how far it is; Ctrl-C breaks it off.
    ///
    /// # Errors
    /// If samples cannot be read, or as [`Calibrator::quantize_with`].
    pub fn quantize<M: Module, I, const D: usize>(
        &self,
        quantizer: Quantizer,
        float: M,
        samples: impl FnOnce() -> Result<Vec<I>, Failure>,
        forward: impl Fn(&M, &I) -> Tensor<D>,
    ) -> Result<(M, QuantizeReport), Failure> {
        if self.data_free {
            return Ok(quantizer.quantize(float)?);
        }
        let stop = Stop::listen()?;
        let samples = samples()?;
        let mut calibrator = Calibrator::new(quantizer)
            .epochs(self.epochs)
            .learning_rate(self.learning_rate)
            .seed(self.seed);
        if let Some(bits) = self.budget {
            calibrator = calibrator.budget(Budget::EffectiveBits(bits));
        }
        if self.one_pass {
            calibrator = calibrator.one_pass();
        }
        if let Some(folder) = &self.checkpoints {
            calibrator = calibrator.checkpoints(folder);
        }
        let bar = bar("calibration {bar:24} {pos}/{len} ETA {eta}", 1);
        let calibrated = calibrator.quantize_with(float, &samples, forward, |progress| {
            match progress {
                Progress::Passes { done, of } => {
                    bar.set_length(of as u64);
                    bar.set_position(done as u64);
                    // Without a terminal, a line for every tenth.
                    if bar.is_hidden() && 10 * done / of > 10 * (done - 1) / of {
                        say!("calibration: {done} of {of} passes");
                    }
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

    /// Removes the checkpoints, when the model is safe.
    ///
    /// # Errors
    /// If they cannot be removed.
    pub fn clear(&self) -> Result<(), Failure> {
        match &self.checkpoints {
            Some(folder) if folder.exists() => {
                std::fs::remove_dir_all(folder).map_err(|error| at(folder, error))
            }
            _ => Ok(()),
        }
    }
}
