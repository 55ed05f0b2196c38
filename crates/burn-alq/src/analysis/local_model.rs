//! The loss around a model, measured: what moving a weight would cost.

use std::collections::HashMap;
use std::string::String;
use std::vec::Vec;

use burn_core::module::{Module, ModuleVisitor, Param, ParamId};
use burn_core::tensor::{Tensor, TensorData};
use burn_optim::GradientsParams;
use multibit::fit::{self, local_model};
use multibit::{CoordinateType, Grouping};

use crate::optim::PhaseKind;
use crate::quantize::Survey;
use crate::train::{Task, TrainError, evaluating, gradients};
use crate::weight::{Layout, QuantizeError, Replacement, epsilon, read_f32};

/// One weight of a [`LocalModel`]. Everything is in row-major order, in the units of the loss.
#[derive(Debug, Clone)]
pub struct LocalWeight {
    /// Its path in the module tree.
    pub path: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What its axes mean.
    pub layout: Layout,
    /// The values around which the loss is modelled.
    pub value: Vec<f32>,
    /// The mean gradient.
    pub gradient: Vec<f32>,
    /// The diagonal of the modelled Hessian.
    pub curvature: Vec<f32>,
    pub(crate) id: ParamId,
}

impl LocalWeight {
    /// The modelled increase of the loss when the weight takes other values.
    ///
    /// # Panics
    /// If there are not as many values.
    pub fn increase(&self, candidate: &[f32]) -> f64 {
        local_model(&self.value, &self.gradient, &self.curvature, candidate)
    }

    /// The values when cut by a grouping and sketched, in row-major order, and the groups' widths.
    pub(super) fn sketched(
        &self,
        grouping: &Grouping,
        bits: usize,
    ) -> Result<(Vec<f32>, Vec<u8>), QuantizeError> {
        let mut values = std::vec![0.0; self.value.len()];
        if bits == 0 {
            let widths = std::vec![0; grouping.groups(&self.shape)];
            return Ok((values, widths));
        }
        let mut grouped = values.clone();
        grouping.gather(&self.shape, &self.value, &mut grouped);
        let len = grouping.len();
        let sketch = fit::sketch(&grouped, len, bits, CoordinateType::F32).map_err(|source| {
            QuantizeError::of_sketch(&self.path, &self.shape, &self.value, source)
        })?;
        let (coordinates, widths) = (&sketch.coordinates, &sketch.widths);
        fit::reconstruct(&sketch.codes, coordinates, widths, len, bits, &mut grouped);
        grouping.scatter(&self.shape, &grouped, &mut values);
        Ok((values, sketch.widths))
    }
}

/// The quadratic model of the loss that every step of ALQ lowers (Qu et al., CVPR 2020, section 3),
/// measured at one place instead of followed: with `ḡ` the mean gradient over some batches,
/// `f = ḡᵀ(w'−w) + ½ (w'−w)ᵀ H (w'−w)` and `H = diag(√mean(g²)) / lr`.
///
/// This is the model of the steps, divided by the learning rate that is a part of it, so that it is
/// in the units of the loss. `H` is AMSGrad's and grows as the learning rate shrinks: the increases
/// that it predicts rank candidates rather than foretell the loss.
///
/// It is made of gradients alone. At the minimum of the loss they are rounding, which ranks nothing; that
/// is noticed by the gradients' change when weights change in their last bits, and refused.
#[derive(Debug, Clone)]
pub struct LocalModel {
    /// The mean loss.
    pub loss: f64,
    /// All weights of rank 2 and more that have a gradient, in the order of the module tree.
    pub weights: Vec<LocalWeight>,
}

impl LocalModel {
    /// Measures over the first `batches` batches of a task. Layers with a training flag (batch norm,
    /// dropout) behave as in evaluation. The model must be on an autodiff device.
    ///
    /// # Errors
    /// If the task has no batches, a loss is not finite, or the loss is at its minimum, up to rounding.
    ///
    /// # Panics
    /// If `batches` is 0 or `lr` not positive.
    pub fn measure<T: Task>(
        model: &T::Model,
        task: &T,
        batches: usize,
        lr: f64,
    ) -> Result<Self, TrainError> {
        assert!(batches > 0, "a mean needs batches");
        assert!(lr > 0.0, "the learning rate must be positive");
        if task.batches() == 0 {
            return Err(TrainError::NoBatches);
        }
        let model = evaluating(model.clone());
        let weights = Survey::new(&model).weights.into_iter();
        let weights = weights.filter(|weight| weight.shape.len() > 1);
        let mut sums: HashMap<ParamId, Sums> = HashMap::new();
        let mut loss = 0.0;
        for number in 0..batches {
            let (epoch, batch) = (number / task.batches(), number % task.batches());
            let (value, grads) = gradients(&model, task, epoch, batch);
            loss += finite(value, epoch, batch)?;
            model.visit(&mut Add {
                grads: &grads,
                sums: &mut sums,
            });
            if number == 0 {
                let change = sensitivity_to_rounding(&model, task, &sums);
                if change > MOST_ROUNDING {
                    return Err(TrainError::Minimum { loss, change });
                }
            }
        }
        let count = batches as f64;
        let weights = weights.filter_map(|weight| {
            let Sums {
                value,
                first,
                second,
            } = sums.remove(&weight.id)?;
            let gradient = first.iter().map(|sum| (sum / count) as f32);
            let curvature = second.iter().map(|sum| ((sum / count).sqrt() / lr) as f32);
            Some(LocalWeight {
                value,
                gradient: gradient.collect(),
                curvature: curvature.collect(),
                path: weight.path,
                shape: weight.shape,
                layout: weight.layout,
                id: weight.id,
            })
        });
        Ok(Self {
            loss: loss / count,
            weights: weights.collect(),
        })
    }
}

/// The relative change of gradients that is still a measurement. At a minimum it is about 1; elsewhere the
/// gradients change by about as little as the weights.
const MOST_ROUNDING: f64 = 0.1;

/// How much the gradients of the first batch change, relative to them, when each weight moves by about its
/// last bit, up or down; 1 where all are 0.
fn sensitivity_to_rounding<T: Task>(
    model: &T::Model,
    task: &T,
    sums: &HashMap<ParamId, Sums>,
) -> f64 {
    let mut nudged = Replacement::default();
    model.visit(&mut Nudge {
        sums,
        nudged: &mut nudged,
    });
    let model = model.clone().map(&mut nudged);
    let (_, grads) = gradients(&model, task, 0, 0);
    let mut after = HashMap::new();
    model.visit(&mut Add {
        grads: &grads,
        sums: &mut after,
    });
    if sums.is_empty() {
        return 0.0;
    }
    let (mut change, mut norm) = (0.0, 0.0);
    for (id, before) in sums {
        let after = after.get(id).map_or(&[][..], |sums| &sums.first);
        for (place, g) in before.first.iter().enumerate() {
            let moved = after.get(place).unwrap_or(&0.0) - g;
            change += moved * moved;
            norm += g * g;
        }
    }
    match norm > 0.0 {
        true => (change / norm).sqrt(),
        false => 1.0,
    }
}

/// Moves the weights that have gradients.
struct Nudge<'a, 'b> {
    sums: &'a HashMap<ParamId, Sums>,
    nudged: &'a mut Replacement<'b>,
}

impl ModuleVisitor for Nudge<'_, '_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(sums) = self.sums.get(&param.id) else {
            return;
        };
        let value = param.val().without_autodiff();
        let step = epsilon(value.dtype());
        // Signs without a pattern, so that what moves up and what moves down do not add up.
        let moved = sums.value.iter().enumerate().map(|(place, value)| {
            let mixed = (place as u32).wrapping_mul(0x9e37_79b9);
            let up = mixed.count_ones().is_multiple_of(2);
            value * if up { 1.0 + step } else { 1.0 - step }
        });
        let moved = TensorData::new(moved.collect::<Vec<f32>>(), [sums.value.len()]);
        let options = (&value.device(), value.dtype());
        let moved = Tensor::from_data(moved, options);
        self.nudged.floats.insert(param.id, moved);
    }
}

/// Reads a loss back.
pub(super) fn finite(loss: Tensor<1>, epoch: usize, batch: usize) -> Result<f64, TrainError> {
    let loss = read_f32(loss)[0];
    if loss.is_finite() {
        return Ok(loss.into());
    }
    Err(TrainError::Loss {
        loss,
        phase: PhaseKind::Fixed,
        epoch,
        batch,
    })
}

/// A weight, and the sums of its gradients and of their squares.
struct Sums {
    value: Vec<f32>,
    first: Vec<f64>,
    second: Vec<f64>,
}

/// Adds one batch.
struct Add<'a> {
    grads: &'a GradientsParams,
    sums: &'a mut HashMap<ParamId, Sums>,
}

impl ModuleVisitor for Add<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = (D > 1).then(|| self.grads.get::<D>(param.id)).flatten();
        let Some(grad) = grad else {
            return;
        };
        let grad = read_f32(grad);
        let sums = self.sums.entry(param.id).or_insert_with(|| Sums {
            value: read_f32(param.val()),
            first: std::vec![0.0; grad.len()],
            second: std::vec![0.0; grad.len()],
        });
        for (place, g) in grad.into_iter().map(f64::from).enumerate() {
            sums.first[place] += g;
            sums.second[place] += g * g;
        }
    }
}
