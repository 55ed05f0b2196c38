//! Tied weights: one parameter in several places of a module, and what Burn loses of that.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::any::Any;

use burn_core::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn_core::tensor::Tensor;

/// Gives every place of a float parameter the tensor of its first place, so that their gradients add up
/// in one leaf and all of them are the same value.
///
/// Burn moves each place on its own: a step moves the first alone, and loading, forking or training
/// again gives each its own leaf, of which only the last one's gradient is kept.
pub(crate) fn tie<M: Module>(module: M) -> M {
    let mut places = Places::default();
    module.visit(&mut places);
    if places.again.is_empty() {
        return module;
    }
    module.map(&mut Tie {
        tied: places.again,
        values: BTreeMap::new(),
    })
}

/// Parameters that stand in more than one place.
#[derive(Default)]
struct Places {
    once: BTreeSet<ParamId>,
    again: BTreeSet<ParamId>,
}

impl ModuleVisitor for Places {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.once.insert(param.id) {
            self.again.insert(param.id);
        }
    }
}

struct Tie {
    tied: BTreeSet<ParamId>,
    /// The value of the first place.
    values: BTreeMap<ParamId, Box<dyn Any>>,
}

impl ModuleMapper for Tie {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.tied.contains(&param.id) {
            return param;
        }
        let first = self.values.entry(param.id);
        let first = first.or_insert_with(|| Box::new(param.base()));
        match first.downcast_ref::<Tensor<D>>() {
            Some(first) => param.map(|_| first.clone()),
            // One id at two ranks is no clone of a parameter.
            None => param,
        }
    }
}
