//! What one bit less in one weight costs: predicted by the local model, and measured.

use std::string::String;
use std::vec::Vec;

use burn_core::module::Module;
use burn_core::tensor::{Device, Tensor, TensorData};
use multibit::CoordinateType;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::local_model::{LocalModel, LocalWeight, finite};
use crate::quantize::Quantizer;
use crate::train::{Task, TrainError, evaluating};
use crate::weight::{QuantizeError, Replacement, Size};

/// A weight at one bitwidth, everything else in float.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightLoss {
    /// The weight's path.
    pub path: String,
    /// Its grouping.
    pub grouping: String,
    /// Most bits of a group.
    pub bits: usize,
    /// Bytes of its bases, coordinates and widths.
    pub bytes: usize,
    /// Increase of the loss that the local model predicts.
    pub predicted: f64,
    /// Increase of the loss that was measured.
    pub measured: f64,
}

/// One bit less in one weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BitLess {
    /// The weight's path.
    pub path: String,
    /// Bits before.
    pub from: usize,
    /// Bytes that it saves.
    pub bytes: usize,
    /// Increase of the loss that the local model predicts.
    pub predicted: f64,
    /// Increase of the loss that was measured.
    pub measured: f64,
}

impl BitLess {
    /// Measured increase of the loss for each KiB saved.
    pub fn loss_per_kib(&self) -> f64 {
        1024.0 * self.measured / self.bytes.max(1) as f64
    }
}

/// How much each weight of a float model suffers from few bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// The float model's loss.
    pub loss: f64,
    /// Batches that it is the mean of.
    pub batches: usize,
    /// All weights that the rules quantize by a grouping, from the most bits to none.
    pub weights: Vec<WeightLoss>,
}

/// Why a sensitivity could not be measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SensitivityError {
    /// The rules do not fit the model.
    #[error(transparent)]
    Quantize(#[from] QuantizeError),
    /// A loss is not finite, or there is nothing to measure.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl Sensitivity {
    /// Sketches one weight at a time at every bitwidth from the quantizer's most to none, with the
    /// groupings of its rules, and measures the mean loss over the first `batches` batches of the
    /// task, the model otherwise in float and as in evaluation.
    ///
    /// `progress` is told how many losses of how many are measured. No parameter of the model that these
    /// losses are asked of requires a gradient.
    ///
    /// # Errors
    /// If the rules do not fit the model, or as [`LocalModel::measure`].
    ///
    /// # Panics
    /// If `batches` is 0 or `lr` not positive.
    pub fn measure<T: Task>(
        model: &T::Model,
        task: &T,
        quantizer: &Quantizer,
        batches: usize,
        lr: f64,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, SensitivityError> {
        let planned = quantizer.planned(model)?;
        let local = LocalModel::measure(model, task, batches, lr)?;
        // Without gradients, or the graph of each forward pass would stay in memory.
        let model = evaluating(model.clone()).no_grad();
        let sums = planned.iter().filter(|planned| !planned.is_product);
        let planned = sums.filter_map(|planned| {
            let weight = local.weights.iter().find(|w| w.path == planned.path)?;
            Some((planned, weight))
        });
        let planned: Vec<_> = planned.collect();
        let all = planned
            .iter()
            .map(|(planned, _)| planned.max_bits + 1)
            .sum();
        let mut weights = Vec::with_capacity(all);
        for (planned, weight) in planned {
            for bits in (0..=planned.max_bits).rev() {
                let (values, widths) = weight.sketched(&planned.grouping, bits)?;
                let measured = mean_loss(with(&model, weight, &values), task, batches)?;
                weights.push(WeightLoss {
                    path: weight.path.clone(),
                    grouping: planned.grouping.describe(&weight.shape),
                    bits,
                    bytes: Size::new(&planned.grouping, &widths).bytes(CoordinateType::F32),
                    predicted: weight.increase(&values),
                    measured: measured - local.loss,
                });
                progress(weights.len(), all);
            }
        }
        Ok(Self {
            loss: local.loss,
            batches,
            weights,
        })
    }

    /// Each bit less in each weight, the cheapest first by measured loss for a byte saved.
    pub fn ranked(&self) -> Vec<BitLess> {
        let pairs = self
            .weights
            .windows(2)
            .filter(|pair| pair[0].path == pair[1].path);
        let mut ranked: Vec<BitLess> = pairs
            .map(|pair| BitLess {
                path: pair[0].path.clone(),
                from: pair[0].bits,
                bytes: pair[0].bytes.saturating_sub(pair[1].bytes),
                predicted: pair[1].predicted - pair[0].predicted,
                measured: pair[1].measured - pair[0].measured,
            })
            .collect();
        ranked.sort_by(|a, b| a.loss_per_kib().total_cmp(&b.loss_per_kib()));
        ranked
    }

    /// Spearman's rank correlation of the predicted with the measured increases, from −1 to 1: how
    /// far the local model can be trusted to rank.
    pub fn rank_correlation(&self) -> f64 {
        let ranks = |of: fn(&WeightLoss) -> f64| ranks(self.weights.iter().map(of).collect());
        let (predicted, measured) = (ranks(|w| w.predicted), ranks(|w| w.measured));
        let middle = (self.weights.len() as f64 - 1.0) / 2.0;
        let product = |a: &[f64], b: &[f64]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(a, b)| (a - middle) * (b - middle))
                .sum()
        };
        let norm = product(&predicted, &predicted) * product(&measured, &measured);
        if norm > 0.0 {
            product(&predicted, &measured) / norm.sqrt()
        } else {
            0.0
        }
    }
}

/// Place of each value in ascending order; equal ones share the mean of theirs.
fn ranks(values: Vec<f64>) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal as f64 - 1.0) / 2.0
    };
    values.iter().map(rank).collect()
}

/// The model with other values of one weight.
fn with<M: Module>(model: &M, weight: &LocalWeight, values: &[f32]) -> M {
    let device = model.devices().first().cloned().unwrap_or_default();
    let data = TensorData::new(values.to_vec(), [values.len()]);
    let mut replacement = Replacement::default();
    let values = Tensor::from_data(data, &device.without_autodiff());
    replacement.floats.insert(weight.id, values);
    model.clone().map(&mut replacement)
}

fn mean_loss<T: Task>(model: T::Model, task: &T, batches: usize) -> Result<f64, TrainError> {
    let mut sum = 0.0;
    for number in 0..batches {
        let (epoch, batch) = (number / task.batches(), number % task.batches());
        for shard in 0..task.shards().max(1) {
            sum += finite(task.loss(&model, epoch, batch, shard), epoch, batch)?;
            sweep(&model);
        }
    }
    Ok(sum / batches as f64)
}

/// Lets go of what autodiff notes of operations without gradients: every backward pass does, of any tensor.
fn sweep<M: Module>(model: &M) {
    let device = model.devices().into_iter().find(Device::is_autodiff);
    if let Some(device) = device {
        let any = Tensor::<1>::zeros([1], &device).require_grad();
        let _ = any.sum().backward();
    }
}
