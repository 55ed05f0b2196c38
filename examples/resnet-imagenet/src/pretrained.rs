//! Weights of torchvision's networks, from `.pth` or `.safetensors`.

use std::path::Path;

use burn_store::burn_pack::Tensor;
use burn_store::{
    ApplyError, ModuleAdapter, ModuleContext, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter,
    PytorchStore, SafetensorsStore,
};
use example_common::Failure;

use crate::model::ResNet;

/// PyTorch's layout and names to Burn's, for multi-bit layers too.
#[derive(Clone)]
struct Torch;

impl Torch {
    /// Burn's layer that a multi-bit layer stands for.
    fn layer(name: &str) -> &str {
        match name {
            "Struct:MultiBitLinear" => "Struct:Linear",
            "Struct:MultiBitConv2d" => "Struct:Conv2d",
            other => other,
        }
    }
}

impl ModuleAdapter for Torch {
    fn adapt(&self, tensor: Tensor, context: ModuleContext<'_>) -> Tensor {
        let layer = context.module_type().map(Self::layer).unwrap_or_default();
        PyTorchToBurnAdapter.adapt(tensor, ModuleContext::new(&[layer.to_string()]))
    }

    fn get_alternative_param_name(&self, name: &str, layer: &str) -> Option<String> {
        PyTorchToBurnAdapter.get_alternative_param_name(name, Self::layer(layer))
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}

/// Puts the weights of a file into a float network.
///
/// # Errors
/// If the file cannot be read, lacks a tensor, or has one of another shape or one too many; names the
/// tensor.
pub fn load(mut network: ResNet, file: &Path) -> Result<ResNet, Failure> {
    let failed = |what: String| -> Failure { format!("{}: {what}", file.display()).into() };
    if !file.is_file() {
        return Err(failed("there is no such file".into()));
    }
    let extension = file.extension().and_then(|extension| extension.to_str());
    let tensors = match extension {
        Some("pth" | "pt") => PytorchStore::from_file(file)
            // Torchvision's indices are ours; closing gaps would hide what is missing.
            .map_indices_contiguous(false)
            .get_all_tensors()
            .map(|tensors| tensors.values().cloned().collect::<Vec<_>>())
            .map_err(|error| failed(error.to_string()))?,
        Some("safetensors") => SafetensorsStore::from_file(file)
            .get_all_tensors()
            .map(|tensors| tensors.values().cloned().collect())
            .map_err(|error| failed(error.to_string()))?,
        _ => return Err(failed("neither .pth nor .safetensors".into())),
    };
    // A counter that PyTorch keeps beside every batch norm.
    let tensors = tensors
        .into_iter()
        .filter(|tensor| !tensor.name.ends_with(".num_batches_tracked"));
    let result = network.apply(tensors.collect(), None, Some(Box::new(Torch)), true);
    if let Some(error) = result.errors.first() {
        return Err(failed(match error {
            ApplyError::ShapeMismatch {
                path,
                expected,
                found,
            } => format!(
                "{path} has shape {found:?} where this network has {expected:?}; check --depth, \
                 --width and the number of classes"
            ),
            other => other.to_string(),
        }));
    }
    // The levels of activations are fitted in training.
    let missing = result
        .missing
        .iter()
        .find(|(_, layer)| !layer.ends_with("Struct:MultiBitActivation"));
    if let Some((path, _)) = missing {
        return Err(failed(format!(
            "there is no tensor {path}, which this network needs; check --depth"
        )));
    }
    if let Some(path) = result.unused.first() {
        return Err(failed(format!(
            "this network has no parameter for {path}; check --depth"
        )));
    }
    Ok(network)
}
