//! Commands on a packed file.

use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use burn_alq::PackedModel;
use burn_alq::report::ModelReport;

use crate::cli::{EvalFlags, InspectArgs};
use crate::score::evaluate;
use crate::{Failure, Images, Network};

/// The name of the network in the configuration of a packed model.
pub(crate) const MODEL: &str = "model";

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
    let model = unpack(&packed, device).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok((packed, model))
}

/// Evaluates a packed model on the test images; with `top5`, says how often the class is among the
/// five best.
///
/// # Errors
/// If the model or an image cannot be read.
pub fn eval<N: Network>(
    flags: &EvalFlags,
    data: impl FnOnce(&PackedModel) -> Result<(String, Arc<dyn Images>), Failure>,
    top5: bool,
) -> Result<(), Failure> {
    let device = flags.device.device()?;
    let (packed, model) = load::<N>(&flags.model, &device)?;
    let (name, test) = data(&packed)?;
    let accuracy = evaluate(&model, &test, &device, true)?;
    println!("data: {name}");
    print_skipped(&test);
    let top5 = match top5 {
        true => format!(" (top-5 {:.2} %)", accuracy.top5),
        false => String::new(),
    };
    println!(
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
        println!("skipped {} corrupt images:", skipped.len());
        for name in skipped {
            println!("  {name}");
        }
    }
}

/// Shows what a packed model holds.
///
/// # Errors
/// If it cannot be read.
pub fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let packed = PackedModel::load(&args.model)?;
    let report = ModelReport::new(&packed, |_| None);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    for (key, value) in &packed.config {
        println!("{key}: {value}");
    }
    println!("\n{}", report.to_markdown());
    for (path, tensor) in &packed.tensors {
        println!("{path}: {:?} {:?}", tensor.shape().to_vec(), tensor.dtype());
    }
    println!(
        "\n{:.4} bits per weight by the paper, {:.4} effective; {} bytes of weights, {} of others",
        report.paper_bits,
        report.effective_bits,
        report.weight_bytes(),
        report.other_bytes
    );
    Ok(())
}
