//! Float weights from PyTorch's and safetensors files.

use std::path::Path;

use burn::module::Module;
use burn_alq::AsBurnLayers;
use burn_store::{
    ApplyError, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, PytorchStore, SafetensorsStore,
};

use crate::{Failure, at};

pub use burn_store::KeyRemapper;
pub use burn_store::burn_pack::Tensor as Weight;

/// All tensors of a file, `.pth`, `.pt` or `.safetensors`, in its order of names.
///
/// # Errors
/// If it cannot be read; names the file.
pub fn read(file: &Path) -> Result<Vec<Weight>, Failure> {
    let tensors = match file.extension().and_then(|extension| extension.to_str()) {
        _ if !file.is_file() => Err("there is no such file".into()),
        // Its indices are the network's; closing gaps would hide what is missing.
        Some("pth" | "pt") => all(PytorchStore::from_file(file).map_indices_contiguous(false)),
        Some("safetensors") => all(SafetensorsStore::from_file(file)),
        _ => Err("neither .pth nor .safetensors".into()),
    };
    tensors.map_err(|error| at(file, error))
}

fn all<S: ModuleStore<Error: ToString>>(mut store: S) -> Result<Vec<Weight>, String> {
    let tensors = store.get_all_tensors().map_err(|error| error.to_string())?;
    Ok(tensors.values().cloned().collect())
}

/// Puts PyTorch's tensors into a float network of the same names. A layer that `optional` names by its
/// type may be without.
///
/// # Errors
/// If there is no tensor for a parameter, one of another shape, or one too many; names it.
pub fn fill<M: Module>(
    mut network: M,
    tensors: Vec<Weight>,
    optional: impl Fn(&str) -> bool,
) -> Result<M, String> {
    let adapter = Box::new(AsBurnLayers(PyTorchToBurnAdapter));
    let result = network.apply(tensors, None, Some(adapter), true);
    if let Some(error) = result.errors.first() {
        return Err(match error {
            ApplyError::ShapeMismatch {
                path,
                expected,
                found,
            } => {
                let [found, expected] = [found, expected].map(|shape| shape.to_vec());
                format!("{path} has shape {found:?} where this network has {expected:?}")
            }
            other => other.to_string(),
        });
    }
    let mut missing = result.missing.iter();
    let missing = missing.find(|(_, layers)| !layers.rsplit('.').next().is_some_and(&optional));
    if let Some((path, _)) = missing {
        return Err(format!(
            "there is no tensor {path}, which this network needs"
        ));
    }
    match result.unused.first() {
        Some(path) => Err(format!("this network has no parameter for {path}")),
        None => Ok(network),
    }
}
