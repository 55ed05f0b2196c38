//! Weights of other frameworks, through `burn-store`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use burn_store::{ModuleAdapter, ModuleContext, burn_pack};

use super::table;

/// Hands the layers of this crate to an adapter of `burn-store` as the layers of Burn that they stand
/// for. Adapters go by the name of a layer: alone, `PyTorchToBurnAdapter` does not transpose the weight
/// of a [`MultiBitLinear`](crate::MultiBitLinear), which goes unnoticed where it is square.
///
/// ```
/// use burn_alq::AsBurnLayers;
/// use burn_store::{PyTorchToBurnAdapter, SafetensorsStore};
///
/// let store = SafetensorsStore::from_file("model.safetensors")
///     .with_from_adapter(AsBurnLayers(PyTorchToBurnAdapter));
/// # let _ = store;
/// ```
///
/// Load into a network whose layers are float yet (`init_float`), and quantize it then.
#[derive(Debug, Clone, Default)]
pub struct AsBurnLayers<A>(pub A);

/// The name of Burn's layer in the place of ours.
fn burns(container: &str) -> String {
    match table::of(container) {
        Some(layer) => format!("Struct:{}", layer.burn),
        None => container.to_string(),
    }
}

impl<A: ModuleAdapter + Clone + 'static> ModuleAdapter for AsBurnLayers<A> {
    fn adapt(&self, tensor: burn_pack::Tensor, context: ModuleContext<'_>) -> burn_pack::Tensor {
        let containers: Vec<String> = context.module_type().map(burns).into_iter().collect();
        self.0.adapt(tensor, ModuleContext::new(&containers))
    }

    fn get_alternative_param_name(&self, name: &str, container: &str) -> Option<String> {
        self.0.get_alternative_param_name(name, &burns(container))
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}
