//! Commands on a packed file.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use burn_alq::PackedModel;
use multibit_cli::{File, Inspection};

use crate::cli::EvalArgs;
use crate::progress::bar;
use crate::say::say;
use crate::score::evaluate;
use crate::{DataFlags as _, Example, Failure, Images, Network, at};

/// The name of the network in the configuration of a packed model.
pub const MODEL: &str = "model";

/// A packed model, ready to run.
///
/// # Errors
/// If it is the model of another example, or does not fit its configuration.
pub fn unpack<N: Network>(packed: &PackedModel, device: &Device) -> Result<N, Failure> {
    if let Some(name) = packed.config.get(MODEL).filter(|name| *name != N::NAME) {
        return Err(format!("holds a {name}, this program runs {}", N::NAME).into());
    }
    Ok(packed.apply(N::from_config(&packed.config, device)?)?)
}

/// Reads a packed model, and a network that runs it.
///
/// # Errors
/// If the file cannot be read or holds another model.
pub fn load<N: Network>(file: &Path, device: &Device) -> Result<(PackedModel, N), Failure> {
    let packed = PackedModel::load(file)?;
    let model = unpack(&packed, device).map_err(|error| at(file, error))?;
    Ok((packed, model))
}

/// Evaluates a packed model on the test images.
///
/// # Errors
/// If the model or an image cannot be read.
pub fn eval<E: Example>(args: &EvalArgs<E>) -> Result<(), Failure> {
    let device = args.device.device()?;
    let (packed, model) = load::<E>(&args.model, &device)?;
    let (name, test) = args.data.test(&packed.config)?;
    let bar = bar("evaluation {bar:24} {pos}/{len} ETA {eta}", test.count());
    let accuracy = evaluate(&model, &test, &device, &bar)?;
    say!("data: {name}");
    print_skipped(&test);
    let top5 = if E::TOP5 {
        format!(" (top-5 {:.2} %)", accuracy.top5)
    } else {
        String::new()
    };
    say!(
        "accuracy {:.2} %{top5} on {} test images, {:.4} bits per weight",
        accuracy.top1,
        accuracy.images,
        packed.average_bits()
    );
    Ok(())
}

/// Says which images could not be read.
pub(crate) fn print_skipped(images: &Arc<dyn Images>) {
    let skipped = images.skipped();
    if !skipped.is_empty() {
        say!("skipped {} corrupt images:", skipped.len());
        for name in skipped {
            say!("  {name}");
        }
    }
}

/// Shows what a packed model holds, as tables or as JSON.
///
/// # Errors
/// If it cannot be read.
pub fn inspect(file: &Path, json: bool) -> Result<(), Failure> {
    let inspection = Inspection::of(&File::read(file)?)?;
    if json {
        say!("{}", serde_json::to_string_pretty(&inspection)?);
    } else {
        say!("{}", inspection.to_text().trim_end());
    }
    Ok(())
}
