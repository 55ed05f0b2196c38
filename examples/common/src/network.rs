//! What an example's network must be able to do.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_alq::file::{Chain, FileError};
use burn_alq::{Arithmetic, PackedModel};

use crate::cli::{MAX_ACTIVATION_BITS, parse_act_bits};
use crate::{Failure, at};

/// What a network is built from. Travels with the packed model.
pub type Config = BTreeMap<String, String>;

/// Bits of an activation; absent for ReLU.
pub const ACT_BITS: &str = "act_bits";

/// An image classifier.
pub trait Network: Module + Sync {
    /// Its name in the configuration of a packed model.
    const NAME: &'static str;

    /// Its name in reports.
    const TITLE: &'static str;

    /// Channels, height and width of the images that it is made for.
    const IMAGE: [usize; 3];

    /// Images evaluated at a time.
    const EVAL_BATCH: usize;

    /// Whether reports give top-5 accuracies.
    const TOP5: bool = true;

    /// Whether it holds batch norm: then it trains without incomplete batches, whose statistics are
    /// poor.
    const BATCH_NORM: bool;

    /// A float network with random weights, to be trained and then quantized.
    ///
    /// # Errors
    /// If a value of the configuration is missing or out of range.
    fn from_config(config: &Config, device: &Device) -> Result<Self, Failure>;

    /// Scores of the classes, `[batch, classes]`, of images `[batch, channels, height, width]`.
    fn forward(&self, images: Tensor<4>) -> Tensor<2>;

    /// The layers of [`forward`](Self::forward), for programs that run the packed model without Burn.
    fn chain(&self) -> Chain;
}

/// Puts the weights of a trained float network, the float.bpk of a run, into one.
///
/// # Errors
/// If the file cannot be read or holds another network; names it.
pub fn load_float<N: Network>(network: N, file: &Path) -> Result<N, Failure> {
    network.try_load_file(file).map_err(|error| {
        let found = match PackedModel::load(file) {
            Ok(_) => "this is a packed model: ".into(),
            Err(FileError::NotPacked { found, .. }) => format!("this is {found}: "),
            Err(_) => String::new(),
        };
        let title = N::TITLE;
        at(
            file,
            format!("not a float {title} of these flags: {found}{error}"),
        )
    })
}

/// A number in the configuration.
///
/// # Errors
/// If it is missing or no number.
pub fn number<T: FromStr>(config: &Config, key: &str) -> Result<T, Failure> {
    let text = config
        .get(key)
        .ok_or_else(|| format!("the configuration has no {key}"))?;
    let number = text.parse();
    number.map_err(|_| format!("{key} is {text:?}, not such a number").into())
}

/// Bits of an activation in the configuration; 0 for ReLU.
///
/// # Errors
/// If they are out of range.
pub fn act_bits(config: &Config) -> Result<usize, Failure> {
    let Some(bits) = config.get(ACT_BITS) else {
        return Ok(0);
    };
    match parse_act_bits(bits) {
        Ok(bits) => Ok(bits.into()),
        Err(_) => Err(format!("{ACT_BITS} is {bits:?}, not 1 to {MAX_ACTIVATION_BITS}").into()),
    }
}

/// The arithmetic of a packed layer behind an activation of so many bits.
pub fn arithmetic(act_bits: usize) -> Arithmetic {
    match act_bits {
        0 => Arithmetic::Exact,
        _ => Arithmetic::Bitwise,
    }
}

/// Channels of a layer, scaled by the width, at least one.
pub fn scaled(channels: usize, width: f64) -> usize {
    ((channels as f64 * width).round() as usize).max(1)
}

/// Factor on the channels, in the configuration.
pub const WIDTH: &str = "width";

/// The factor in the configuration.
///
/// # Errors
/// If it is missing or out of range.
pub fn width(config: &Config) -> Result<f64, Failure> {
    Ok(parse_width(&number::<String>(config, WIDTH)?)?)
}

/// Parses `--width`.
///
/// # Errors
/// If it is not above 0 and at most 4.
pub fn parse_width(text: &str) -> Result<f64, String> {
    let width = text.parse().ok();
    let width = width.filter(|width| *width > 0.0 && *width <= 4.0);
    width.ok_or_else(|| "a width is a number above 0, at most 4".into())
}
