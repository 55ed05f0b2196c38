//! The ALQ optimizer: walks a module, moves its multi-bit weights by the step of the current
//! phase, ranks coordinates across layers, and leaves every other parameter to Burn's Adam.

mod memory;
mod phase;
pub mod prune;
mod record;
pub mod step;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::{Module, ModuleVisitor, Param, ParamId};
use burn_core::tensor::{DType, Tensor};
use burn_optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn_optim::module_optimizer::GradAdaptor;
use burn_optim::{AdamConfig, GradientsParams, LearningRate, ModuleOptimizer};
use multibit::CoordinateType;
use thiserror::Error;

pub use self::phase::{Phase, PhaseKind};
pub use crate::weight::{Cost, Size, average_bits, sizes, total};

use self::memory::{Kept, Memory, Remembered};
use self::prune::{Budget, Candidates, CoordinateId, offers, select};
use self::step::StepParams;
use crate::ops::WeightLayout;
use crate::weight::{MultiBitWeight, Replacement, multi_bit_weights, read_f32, read_grouping, tie};

/// Configuration of an [`AlqOptimizer`].
#[derive(Config, Debug)]
pub struct AlqOptimizerConfig {
    /// Decay of the first moment, `β₁`.
    #[config(default = 0.9)]
    pub beta_1: f64,
    /// Decay of the second moment, `β₂`.
    #[config(default = 0.999)]
    pub beta_2: f64,
    /// Added to `√v̂` before the bias correction.
    #[config(default = 1e-8)]
    pub epsilon: f64,
    /// Ridge of the refit of coordinates, relative to the mean diagonal of `BᵀHB`.
    #[config(default = 1e-6)]
    pub ridge: f64,
}

impl AlqOptimizerConfig {
    /// An optimizer in [`Phase::Fixed`], with Adam of the same moments for the other parameters.
    pub fn init(&self) -> AlqOptimizer {
        let adam = AdamConfig::new()
            .with_beta_1(self.beta_1 as f32)
            .with_beta_2(self.beta_2 as f32)
            .with_epsilon(self.epsilon as f32);
        self.init_with(adam.init())
    }

    /// An optimizer with another one for the parameters that are not quantized.
    pub fn init_with(&self, rest: ModuleOptimizer) -> AlqOptimizer {
        AlqOptimizer {
            config: self.clone(),
            phase: Phase::Fixed,
            coordinate_type: CoordinateType::F32,
            memory: BTreeMap::new(),
            layouts: BTreeMap::new(),
            unknown: false,
            without_gradient: BTreeSet::new(),
            shortfall: None,
            rest,
        }
    }
}

/// A pruning step that could not drop as much as it had to.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{}", self.describe())]
pub struct Shortfall {
    /// The unit.
    pub cost: Cost,
    /// How much could remain.
    pub at_most: f64,
    /// How much is left.
    pub left: usize,
    /// Paths of the weights that could not give anything, as they had no gradient.
    pub without_gradient: Vec<String>,
}

impl Shortfall {
    fn describe(&self) -> String {
        let unit = match self.cost {
            Cost::Coordinates => "coordinates",
            Cost::BaseBits => "bits of bases",
            Cost::Bytes(_) => "bytes",
        };
        let (left, at_most) = (self.left, self.at_most);
        let reason = match &self.without_gradient[..] {
            [] => "every layer is at its floor".into(),
            paths => alloc::format!(
                "no gradient reaches {}; freeze what the loss does not depend on, or keep it in float",
                paths.join(", ")
            ),
        };
        alloc::format!(
            "pruning leaves {left} {unit} where at most {at_most:.0} may be left: {reason}"
        )
    }
}

/// Optimizes a whole module with multi-bit weights, with the face of Burn's [`ModuleOptimizer`].
///
/// Works in any training loop: choose a [`Phase`] with [`set_phase`](Self::set_phase), then call
/// [`step`](Self::step) once a batch. [`Schedule`](crate::Schedule) says which phase, at
/// which learning rate.
#[derive(Clone)]
pub struct AlqOptimizer {
    config: AlqOptimizerConfig,
    phase: Phase,
    coordinate_type: CoordinateType,
    /// What is kept of each weight, by the id of its codes: as Burn's optimizers keep their moments by
    /// parameter, but a parameter that is quantized anew starts anew.
    memory: BTreeMap<ParamId, Remembered>,
    /// Groupings as read from the module once, by the id of the parameter that holds them.
    layouts: BTreeMap<ParamId, WeightLayout>,
    /// Whether the memory is of a record that no model was seen with yet.
    unknown: bool,
    /// Paths of weights that had no gradient when coordinates were dropped.
    without_gradient: BTreeSet<String>,
    shortfall: Option<Shortfall>,
    rest: ModuleOptimizer,
}

impl fmt::Debug for AlqOptimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlqOptimizer")
            .field("config", &self.config)
            .field("phase", &self.phase)
            .field("weights", &self.memory.len())
            .finish_non_exhaustive()
    }
}

impl AlqOptimizer {
    /// The phase of the next step.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Chooses the phase of the next steps. Leaving the STE phase forgets its full-precision
    /// weights.
    pub fn set_phase(&mut self, phase: Phase) {
        if phase != Phase::Ste {
            for kept in self.memory.values_mut() {
                kept.memory.kept.latent = None;
            }
        }
        self.phase = phase;
    }

    /// Chooses what the next steps round coordinates to, whenever they move. Steps go on from the
    /// values before rounding, which are kept until the type is f32 again, or coordinates are
    /// dropped.
    pub fn set_coordinate_type(&mut self, coordinate_type: CoordinateType) {
        if coordinate_type == CoordinateType::F32 {
            for kept in self.memory.values_mut() {
                kept.memory.kept.master = None;
            }
        }
        self.coordinate_type = coordinate_type;
    }

    /// Updates the module with the given gradients.
    ///
    /// A multi-bit weight without a gradient does not move. One that is frozen is no part of what a
    /// pruning step may leave; another one is, and the first pruning step of it is logged as a warning. Tied
    /// weights, one parameter in several places, stay tied, also those that Burn's optimizer moves.
    ///
    /// # Panics
    /// If the grouping recorded with a weight does not fit it, or moments that were loaded are of another
    /// model ([`check`](Self::check)).
    pub fn step<M: Module>(&mut self, lr: LearningRate, module: M, grads: GradientsParams) -> M {
        // It is moved out, so that both halves can be borrowed. The placeholder has no state.
        let mut rest = core::mem::replace(&mut self.rest, AdamConfig::new().init());
        let module = self.step_with(&mut rest, lr, module, grads);
        self.rest = rest;
        module
    }

    /// Like [`step`](Self::step), with an optimizer of the caller's for the parameters that are not
    /// quantized, a learning rate for each group of parameters, and gradients of one device or of
    /// several, which are summed where the weight is.
    ///
    /// The gradient clipping of `rest` also holds for multi-bit weights.
    ///
    /// # Panics
    /// As [`step`](Self::step).
    pub fn step_with<M: Module>(
        &mut self,
        rest: &mut ModuleOptimizer,
        lr: impl Into<ModuleLearningRate>,
        module: M,
        grads: impl Into<GradAdaptor>,
    ) -> M {
        let (lr, mut grads) = (lr.into(), grads.into());
        let weights = multi_bit_weights(&module);
        self.meet(&weights);
        let mut taken = TakeGradients {
            ids: weights.iter().map(|weight| weight.id).collect(),
            grads: &mut grads,
            found: BTreeMap::new(),
        };
        module.visit(&mut taken);
        let mut gradients = taken.found;
        let mut fixed = Vec::new();
        let mut moving = Vec::with_capacity(weights.len());
        for weight in weights {
            match gradients.remove(&weight.id) {
                Some(grad) => {
                    let grad = match rest.grad_clipping() {
                        Some(clipping) => clipping.clip_gradient(grad),
                        None => grad,
                    };
                    let lr = lr.lr_from_param(weight.id, Some(&weight.path));
                    moving.push(Moving { weight, grad, lr });
                }
                None => fixed.push(weight),
            }
        }

        let mut replacement = Replacement::default();
        match self.phase {
            Phase::Fixed => {}
            Phase::Basis | Phase::Coordinate | Phase::Ste => self.each(moving, &mut replacement),
            Phase::Prune(budget) => self.prune(moving, fixed, budget, &mut replacement),
        }
        let module = module.map(&mut replacement);
        tie(match grads {
            GradAdaptor::Single(grads) => rest.step(lr, module, grads),
            GradAdaptor::Multi(grads) => rest.step_multi(lr, module, grads),
        })
    }

    fn params(&self, lr: LearningRate, t: u32) -> StepParams {
        StepParams {
            lr,
            t,
            beta1: self.config.beta_1,
            beta2: self.config.beta_2,
            epsilon: self.config.epsilon,
            ridge: self.config.ridge,
        }
    }

    /// The layout of a weight, its state, and what is kept beside it, counted one step on.
    fn take(&mut self, weight: &MultiBitWeight) -> (WeightLayout, step::TensorState, Kept) {
        let layout = self.layouts.entry(weight.state.layout.id);
        let layout = layout.or_insert_with(|| read_layout(weight)).clone();
        let (state, mut kept) = match self.memory.remove(&weight.state.codes.id) {
            Some(Remembered { memory, .. }) => {
                // The model may have moved since the last step.
                let memory = memory.moved_to(&weight.state.coordinates.val().device());
                let state = step::resume(&weight.state, memory.weight, memory.alpha);
                (state, memory.kept)
            }
            None => (step::start(&weight.state), Kept::default()),
        };
        kept.t += 1;
        (layout, state, kept)
    }

    /// Keeps what a step has left of a weight.
    fn remember(&mut self, weight: MultiBitWeight, memory: Memory) {
        let path = weight.path;
        let remembered = Remembered { path, memory };
        self.memory.insert(weight.state.codes.id, remembered);
    }

    /// Looks at the first model that is trained with what was loaded.
    ///
    /// # Panics
    /// If it has none of the weights.
    fn meet(&mut self, weights: &[MultiBitWeight]) {
        if !self.unknown || weights.is_empty() {
            return;
        }
        self.unknown = false;
        let known = |weight: &MultiBitWeight| self.memory.contains_key(&weight.state.codes.id);
        if let Some(kept) = self.memory.values().next()
            && !weights.iter().any(known)
        {
            panic!(
                "the optimizer's record is of another model: it has moments of {}, but of no weight of \
                 this one; load the model's record of the same training first",
                kept.path
            );
        }
    }

    /// Moves each weight by the step of the phase.
    fn each(&mut self, weights: Vec<Moving>, replacement: &mut Replacement<'_>) {
        for Moving { weight, grad, lr } in weights {
            let (layout, mut state, mut kept) = self.take(&weight);
            let params = self.params(lr, kept.t);
            // The kept weight of the STE phase starts as the reconstruction.
            let latent = (self.phase == Phase::Ste).then(|| {
                let latent = kept.latent.take();
                latent.unwrap_or_else(|| step::reconstruct(&state))
            });
            if let Some(master) = kept.master.take() {
                state.coordinates = master;
            }
            let (mut state, mut value) = match (self.phase, latent) {
                (_, Some(latent)) => {
                    let (state, latent, value) = step::ste(state, latent, grad, &layout, params);
                    kept.latent = Some(latent);
                    (state, value)
                }
                (Phase::Basis, None) => step::basis(state, grad, &layout, params),
                (_, None) => step::coordinate(state, grad, &layout, params),
            };
            if self.coordinate_type != CoordinateType::F32 {
                kept.master = Some(state.coordinates.clone());
                (state, value) = step::round(state, self.coordinate_type, &layout);
            }
            self.put(weight, state, kept, value, replacement);
        }
    }

    /// The new state and value of a weight go into the module, the rest into the memory.
    fn put(
        &mut self,
        weight: MultiBitWeight,
        state: step::TensorState,
        kept: Kept,
        value: Tensor<1>,
        replacement: &mut Replacement<'_>,
    ) {
        let memory = Memory::new(&state, kept);
        let old = &weight.state;
        let (floats, ints) = (&mut replacement.floats, &mut replacement.ints);
        floats.insert(weight.id, value);
        floats.insert(old.coordinates.id, state.coordinates.flatten(0, 1));
        ints.insert(old.codes.id, state.codes.flatten(0, 1));
        ints.insert(old.widths.id, state.widths);
        self.remember(weight, memory);
    }

    /// Drops coordinates of the weights with a gradient.
    fn prune(
        &mut self,
        weights: Vec<Moving>,
        fixed: Vec<MultiBitWeight>,
        mut budget: Budget,
        replacement: &mut Replacement<'_>,
    ) {
        let asked = budget.at_most;
        let unreached: Vec<MultiBitWeight> = fixed.into_iter().filter(|w| w.trains).collect();
        // The budget is for all weights that train; what does not move takes its part of it.
        let sizes: Vec<Size> = unreached.iter().map(MultiBitWeight::size).collect();
        let unmoved = total(&sizes, budget.cost);
        budget.at_most -= unmoved as f64;
        for weight in &unreached {
            if self.without_gradient.insert(weight.path.clone()) {
                log::warn!(
                    "{} has no gradient in a pruning step: it keeps its coordinates, and other weights \
                     pay for them; freeze it or keep it in float if the loss does not depend on it",
                    weight.path
                );
            }
        }
        let mut deltas = Vec::with_capacity(weights.len());
        let mut sizes = Vec::with_capacity(weights.len());
        let mut states = Vec::with_capacity(weights.len());
        for Moving { weight, grad, lr } in weights {
            let (layout, state, kept) = self.take(&weight);
            let params = self.params(lr, kept.t);
            let (state, delta) = step::importance(state, grad, &layout, params);
            deltas.push(delta);
            sizes.push(weight.size());
            states.push((weight, layout, state, kept));
        }
        let mut drops: Vec<Vec<bool>> = deltas
            .iter()
            .map(|delta| alloc::vec![false; delta.shape().num_elements()])
            .collect();
        for id in choose(&deltas, &sizes, &budget) {
            drops[id.layer][id.place] = true;
            sizes[id.layer].coordinates -= 1;
        }
        let left = total(&sizes, budget.cost);
        let met = left as f64 <= budget.at_most || budget.loss_share < 1.0;
        for (layer, ((weight, layout, state, mut kept), drop)) in
            states.into_iter().zip(drops).enumerate()
        {
            if drop.contains(&true) {
                kept.master = None;
                let (state, value) = step::drop_coordinates(state, &drop, &layout);
                if !met {
                    sizes[layer].widest = step::widest(&state);
                }
                self.put(weight, state, kept, value, replacement);
            } else {
                self.remember(weight, Memory::new(&state, kept));
            }
        }
        // Widths may take fewer bits than before.
        let left = match met {
            true => left,
            false => total(&sizes, budget.cost),
        };
        let missed = !met && left as f64 > budget.at_most;
        let shortfall = missed.then(|| Shortfall {
            cost: budget.cost,
            at_most: asked,
            left: left + unmoved,
            without_gradient: unreached.into_iter().map(|weight| weight.path).collect(),
        });
        if let (Some(shortfall), None) = (&shortfall, &self.shortfall) {
            log::warn!("{shortfall}");
        }
        self.shortfall = shortfall;
    }

    /// Why the last pruning step has left more than it may; none if it has not, or without one.
    pub fn shortfall(&self) -> Option<&Shortfall> {
        self.shortfall.as_ref()
    }

    /// The path of a multi-bit weight that has had a gradient which is not finite, or whose square is
    /// not: its moments are lost, and it does not move any more. `None` if all is well.
    ///
    /// Reads one number a weight back from the device, all at once.
    pub fn diverged(&self) -> Option<String> {
        if self.memory.is_empty() {
            return None;
        }
        let memories = self.memory.values();
        let probes = memories.map(|kept| kept.memory.probe()).collect();
        let probes = read_f32(Tensor::cat(probes, 0));
        let probed = self.memory.values().zip(probes);
        let spoiled = probed.filter(|(_, probe)| *probe != 0.0);
        spoiled.map(|(kept, _)| kept.path.clone()).min()
    }
}

/// A weight in a step, with its gradient, flat, and its learning rate.
struct Moving {
    weight: MultiBitWeight,
    grad: Tensor<1>,
    lr: LearningRate,
}

fn read_layout(weight: &MultiBitWeight) -> WeightLayout {
    let grouping = read_grouping(&weight.state.layout.val(), &weight.shape)
        .unwrap_or_else(|error| panic!("{}: {error}", weight.path));
    WeightLayout::new(weight.shape.clone(), grouping)
}

/// The coordinates to drop. What the layers offer first is read back; only if that is used up, all.
fn choose(deltas: &[Tensor<2>], sizes: &[Size], budget: &Budget) -> Vec<CoordinateId> {
    let layers = deltas.iter().cloned().zip(offers(sizes, budget));
    let layers = layers.zip(sizes).enumerate();
    let offered = layers.map(|(layer, ((delta, offer), size))| {
        Candidates::new(layer, size.coordinates, step::smallest(delta, offer))
    });
    select(offered.collect(), sizes, budget).unwrap_or_else(|| {
        let layers = deltas.iter().cloned().enumerate();
        let all = layers.map(|(layer, delta)| Candidates::all(layer, &read_f32(delta)));
        select(all.collect(), sizes, budget).expect("all are known")
    })
}

/// Takes the gradients of some parameters out, flat.
struct TakeGradients<'a> {
    ids: Vec<ParamId>,
    grads: &'a mut GradAdaptor,
    found: BTreeMap<ParamId, Tensor<1>>,
}

impl ModuleVisitor for TakeGradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.ids.contains(&param.id) {
            return;
        }
        if let Some((grad, _)) = self.grads.remove::<D>(param.id) {
            let len = grad.shape().num_elements();
            // Burn sums the gradients of several devices on any one of them.
            let device = param.lazy_device();
            let grad = if grad.device() == device {
                grad
            } else {
                grad.to_device(&device.without_autodiff())
            };
            // The steps compute in f32, whatever the model does.
            let grad = grad.cast(DType::F32);
            self.found.insert(param.id, grad.reshape([len]));
        }
    }
}
