//! Layers that keep statistics of a batch: found in any module, whatever its layers are called.

use std::collections::HashSet;
use std::string::{String, ToString};
use std::vec::Vec;

use burn_core::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn_core::tensor::Tensor;

use crate::nn::MultiBitActivation;
use crate::weight::{Found, walk};

/// The path of the first running state that a forward pass in training would move, if there is one.
///
/// A running state never requires a gradient, whoever asks for it. One beside a training flag that is off,
/// as in a frozen batch norm, stays as it is; so does an activation that is switched off.
pub(super) fn of_batches<M: Module>(module: &M) -> Option<String> {
    let mut flags = FlagsOff::default();
    module.visit(&mut flags);
    // A copy that shares no running state with the module, because mapping writes into them.
    let copy = module.valid().train().map(&mut AskForGradients);
    let off = |state: &Found| {
        let (holder, _) = state.path.rsplit_once('.').unwrap_or_default();
        flags.holders.contains(holder)
            || state.container == MultiBitActivation::CONTAINER
                && MultiBitActivation::bits_of(&state.read()) == 0
    };
    let found = walk(&copy).into_iter();
    let mut states = found.filter(|found| found.is_float && !found.trains);
    states.find(|state| !off(state)).map(|state| state.path)
}

/// Paths of modules with a training flag that is off.
#[derive(Default)]
struct FlagsOff {
    path: Vec<String>,
    holders: HashSet<String>,
}

impl ModuleVisitor for FlagsOff {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        if let Some((_, holder)) = self.path.split_last()
            && !flag.is_enabled()
        {
            self.holders.insert(holder.join("."));
        }
    }
}

struct AskForGradients;

impl ModuleMapper for AskForGradients {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(true)
    }
}
