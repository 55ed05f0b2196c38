//! Commands on a packed file.

use burn::tensor::Device;
use burn_alq::PackedModel;
use burn_alq::report::ModelReport;

use crate::Failure;
use crate::cli::{EvalArgs, InspectArgs};
use crate::model::{LeNet5, accuracy, predictions, scores};

/// Evaluates a packed model on the test images.
pub fn eval(args: &EvalArgs) -> Result<(), Failure> {
    let packed = PackedModel::load(&args.model)?;
    let data = args.data.load()?;
    let device = Device::default();
    let model = LeNet5::packed(&packed, &device)
        .map_err(|error| format!("{}: {error}", args.model.display()))?;
    let predictions = predictions(&scores(&model, &data.test, &device));
    println!("data: {}", data.name);
    println!(
        "accuracy {:.2} % on {} test images, {:.4} bits per weight",
        accuracy(&predictions, &data.test),
        data.test.count,
        packed.average_bits()
    );
    Ok(())
}

/// Shows what a packed model holds.
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
