//! The ALQ optimizer: walks a module, moves its multi-bit weights by the step of the current
//! phase, ranks coordinates across layers, and leaves every other parameter to Burn's Adam.

mod record;

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
use std::collections::HashMap;

use crate::multibit::{Quantized, Replacement, quantized, read_f32, read_grouping};
use crate::ops::WeightLayout;
use crate::schedule::PhaseKind;
use crate::step::prune::{Budget, Candidates, CoordinateId, Size, offers, select, total};
use crate::step::{self, Bases, Moments, StepParams, Stepped};

/// What the optimizer does with multi-bit weights. Everything else trains in every phase.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Phase {
    /// They stay as they are.
    Fixed,
    /// Bases move, then coordinates ([`step::basis`]).
    Basis,
    /// Coordinates move ([`step::coordinate`]).
    Coordinate,
    /// Coordinates are dropped until the budget is met ([`step::importance`],
    /// [`step::prune::select`]); the others stay.
    Prune(Budget),
    /// A full-precision copy moves and bases and coordinates follow ([`step::ste`]).
    Ste,
}

impl Phase {
    /// What happens in it, without numbers.
    pub fn kind(&self) -> PhaseKind {
        match self {
            Self::Fixed => PhaseKind::Fixed,
            Self::Basis => PhaseKind::Basis,
            Self::Coordinate => PhaseKind::Coordinate,
            Self::Prune(_) => PhaseKind::Prune,
            Self::Ste => PhaseKind::Ste,
        }
    }
}

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
            moments: HashMap::new(),
            layouts: HashMap::new(),
            rest,
        }
    }
}

/// Optimizes a whole module with multi-bit weights, with the face of Burn's [`ModuleOptimizer`].
///
/// Works in any training loop: choose a [`Phase`] with [`set_phase`](Self::set_phase), then call
/// [`step`](Self::step) once a batch. [`Schedule`](crate::schedule::Schedule) says which phase, at
/// which learning rate.
#[derive(Clone)]
pub struct AlqOptimizer {
    config: AlqOptimizerConfig,
    phase: Phase,
    coordinate_type: CoordinateType,
    /// By the path of the weight.
    moments: HashMap<String, Moments>,
    /// Groupings as read from the module once, by path.
    layouts: HashMap<String, WeightLayout>,
    rest: ModuleOptimizer,
}

impl fmt::Debug for AlqOptimizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlqOptimizer")
            .field("config", &self.config)
            .field("phase", &self.phase)
            .field("weights", &self.moments.len())
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
            for moments in self.moments.values_mut() {
                moments.latent = None;
            }
        }
        self.phase = phase;
    }

    /// Chooses what the next steps round coordinates to, whenever they move. Steps go on from the
    /// values before rounding, which are kept until the type is f32 again, or coordinates are
    /// dropped.
    pub fn set_coordinate_type(&mut self, coordinate_type: CoordinateType) {
        if coordinate_type == CoordinateType::F32 {
            for moments in self.moments.values_mut() {
                moments.master = None;
            }
        }
        self.coordinate_type = coordinate_type;
    }

    /// Updates the module with the given gradients.
    ///
    /// A multi-bit weight without a gradient does not move.
    ///
    /// # Panics
    /// If the grouping recorded with a weight does not fit it.
    pub fn step<M: Module>(&mut self, lr: LearningRate, module: M, grads: GradientsParams) -> M {
        // Out of the way, so that both halves can be borrowed. The placeholder has no state.
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
    /// If the grouping recorded with a weight does not fit it.
    pub fn step_with<M: Module>(
        &mut self,
        rest: &mut ModuleOptimizer,
        lr: impl Into<ModuleLearningRate>,
        module: M,
        grads: impl Into<GradAdaptor>,
    ) -> M {
        let (lr, mut grads) = (lr.into(), grads.into());
        let weights = quantized(&module);
        let mut taken = TakeGradients {
            ids: weights.iter().map(|weight| weight.id).collect(),
            grads: &mut grads,
            found: HashMap::new(),
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
                None => {
                    log::debug!("{} has no gradient and does not move", weight.path);
                    fixed.push(weight);
                }
            }
        }

        let mut replacement = Replacement::default();
        match self.phase {
            Phase::Fixed => {}
            Phase::Basis => self.each(moving, step::basis, &mut replacement),
            Phase::Coordinate => self.each(moving, step::coordinate, &mut replacement),
            Phase::Ste => {
                self.keep_latent(&moving);
                self.each(moving, step::ste, &mut replacement);
            }
            Phase::Prune(mut budget) => {
                // The budget is for all weights; what does not move takes its part of it.
                let sizes: Vec<Size> = fixed.iter().map(|w| size(w, &read_layout(w))).collect();
                budget.at_most -= total(&sizes, budget.cost) as f64;
                self.prune(moving, &budget, &mut replacement);
            }
        }
        let module = module.map(&mut replacement);
        match grads {
            GradAdaptor::Single(grads) => rest.step(lr, module, grads),
            GradAdaptor::Multi(grads) => rest.step_multi(lr, module, grads),
        }
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

    /// The layout of a weight and its moments, counted one step on.
    fn take(&mut self, weight: &Quantized) -> (WeightLayout, Moments) {
        let layout = self
            .layouts
            .entry(weight.path.clone())
            .or_insert_with(|| read_layout(weight))
            .clone();
        let mut moments = match self.moments.remove(&weight.path) {
            // The model may have moved since the last step.
            Some(moments) => moments.moved_to(&weight.state.coordinates.val().device()),
            None => Moments::new(&weight.state),
        };
        moments.t += 1;
        (layout, moments)
    }

    fn each(
        &mut self,
        weights: Vec<Moving>,
        step: fn(Bases, Moments, Tensor<1>, &WeightLayout, StepParams) -> Stepped,
        replacement: &mut Replacement,
    ) {
        for Moving { weight, grad, lr } in weights {
            let (layout, mut moments) = self.take(&weight);
            let params = self.params(lr, moments.t);
            let mut bases = Bases::new(&weight.state);
            if let Some(master) = moments.master.take() {
                bases.coordinates = master;
            }
            let mut stepped = step(bases, moments, grad, &layout, params);
            if self.coordinate_type != CoordinateType::F32 {
                let (bases, moments, _) = stepped;
                stepped = step::round_coordinates(bases, moments, self.coordinate_type, &layout);
            }
            self.put(weight, stepped, replacement);
        }
    }

    fn put(&mut self, weight: Quantized, stepped: Stepped, replacement: &mut Replacement) {
        let (bases, moments, value) = stepped;
        let state = &weight.state;
        replacement.floats.insert(weight.id, value);
        replacement
            .floats
            .insert(state.coordinates.id, bases.coordinates.flatten(0, 1));
        replacement
            .ints
            .insert(state.codes.id, bases.codes.flatten(0, 1));
        replacement.ints.insert(state.widths.id, bases.widths);
        self.moments.insert(weight.path, moments);
    }

    /// The kept weight of the STE phase starts as the reconstruction.
    fn keep_latent(&mut self, weights: &[Moving]) {
        for Moving { weight, .. } in weights {
            let moments = self
                .moments
                .entry(weight.path.clone())
                .or_insert_with(|| Moments::new(&weight.state));
            if moments.latent.is_none() {
                moments.latent = Some(step::reconstruct(&Bases::new(&weight.state)));
            }
        }
    }

    fn prune(&mut self, weights: Vec<Moving>, budget: &Budget, replacement: &mut Replacement) {
        let mut deltas = Vec::with_capacity(weights.len());
        let mut sizes = Vec::with_capacity(weights.len());
        let mut states = Vec::with_capacity(weights.len());
        for Moving { weight, grad, lr } in weights {
            let (layout, moments) = self.take(&weight);
            let params = self.params(lr, moments.t);
            let (bases, moments, delta) =
                step::importance(Bases::new(&weight.state), moments, grad, &layout, params);
            deltas.push(delta);
            sizes.push(size(&weight, &layout));
            states.push((weight, layout, bases, moments));
        }
        let mut drops: Vec<Vec<bool>> = deltas
            .iter()
            .map(|delta| alloc::vec![false; delta.shape().num_elements()])
            .collect();
        for id in choose(&deltas, &sizes, budget) {
            drops[id.layer][id.place] = true;
        }
        for ((weight, layout, bases, moments), drop) in states.into_iter().zip(drops) {
            if drop.contains(&true) {
                let moments = Moments {
                    master: None,
                    ..moments
                };
                let stepped = step::drop_coordinates(bases, moments, &drop, &layout);
                self.put(weight, stepped, replacement);
            } else {
                self.moments.insert(weight.path, moments);
            }
        }
    }

    /// The path of a multi-bit weight that has had a gradient which is not finite, or whose square is
    /// not: its moments are lost, and it does not move any more. `None` if all is well.
    ///
    /// Reads one number a weight back from the device, all at once.
    pub fn diverged(&self) -> Option<String> {
        let mut moments: Vec<(&String, &Moments)> = self.moments.iter().collect();
        moments.sort_by_key(|(path, _)| *path);
        if moments.is_empty() {
            return None;
        }
        let probes = moments.iter().map(|(_, moments)| moments.probe()).collect();
        let probes = read_f32(Tensor::cat(probes, 0));
        let place = probes.iter().position(|&probe| probe != 0.0)?;
        Some(moments[place].0.clone())
    }
}

/// A weight in a step, with its gradient, flat, and its learning rate.
struct Moving {
    weight: Quantized,
    grad: Tensor<1>,
    lr: LearningRate,
}

fn read_layout(weight: &Quantized) -> WeightLayout {
    let grouping = read_grouping(&weight.state.layout.val(), &weight.shape)
        .unwrap_or_else(|error| panic!("{}: {error}", weight.path));
    WeightLayout::new(weight.shape.clone(), grouping)
}

/// Two numbers are read back: how many coordinates live, and the widest group's.
fn size(weight: &Quantized, layout: &WeightLayout) -> Size {
    let [groups, len] = layout.dims();
    let widths = weight
        .state
        .widths
        .val()
        .without_autodiff()
        .cast(DType::I32);
    let numbers = Tensor::cat(alloc::vec![widths.clone().sum(), widths.max()], 0);
    let numbers: Vec<i64> = numbers
        .into_data_as::<i64>()
        .try_into_vec()
        .expect("converted to i64");
    Size {
        groups,
        len,
        coordinates: numbers[0] as usize,
        widest: numbers[1] as u8,
    }
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

/// The sizes of all multi-bit weights of a module, in the order of the module tree.
///
/// # Panics
/// If the grouping recorded with a weight does not fit it.
pub fn sizes<M: Module>(module: &M) -> Vec<Size> {
    quantized(module)
        .iter()
        .map(|weight| size(weight, &read_layout(weight)))
        .collect()
}

/// Average bitwidth `I_W = Σ n·I / Σ n` over all groups of all weights; 0 without any.
pub fn average_bits(sizes: &[Size]) -> f64 {
    let weights: usize = sizes.iter().map(Size::weights).sum();
    let bits: usize = sizes.iter().map(Size::base_bits).sum();
    bits as f64 / weights.max(1) as f64
}

/// Takes the gradients of some parameters out, flat.
struct TakeGradients<'a> {
    ids: Vec<ParamId>,
    grads: &'a mut GradAdaptor,
    found: HashMap<ParamId, Tensor<1>>,
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
            let grad = match grad.device() == device {
                true => grad,
                false => grad.to_device(&device.without_autodiff()),
            };
            self.found.insert(param.id, grad.reshape([len]));
        }
    }
}
