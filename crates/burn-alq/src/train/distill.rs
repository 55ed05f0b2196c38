//! Distillation: a part of the loss that draws a network's outputs to those of a teacher.

use std::vec::Vec;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::tensor::Tensor;
use burn_core::tensor::activation::log_softmax;
use burn_nn::loss::{KLDivLossConfig, Reduction};
use thiserror::Error;

/// Configuration of a [`Distillation`].
#[derive(Config, Debug, PartialEq)]
pub struct DistillationConfig {
    /// Share `λ` of the teacher in the loss, 0 to 1.
    pub weight: f64,
    /// Temperature `T`, above 0: both networks' scores are divided by it, so that the teacher's
    /// lesser scores count too.
    #[config(default = 4.0)]
    pub temperature: f64,
}

/// Why a distillation is impossible.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum DistillError {
    /// A number is outside its range.
    #[error("the {field} of a distillation must not be {value}")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// The teacher's outputs have a graph, of which nothing in this loss would ever let go.
    #[error(
        "the teacher's outputs require gradients, and their graph would stay in memory at every step; \
         use the teacher in validation mode (`valid`) or without gradients (`no_grad`), or `detach` \
         outputs that another loss takes back"
    )]
    Tracked,
    /// The teacher's outputs are not those of the network.
    #[error(
        "the teacher's outputs have shape {teacher:?}, the network's {student:?}; a teacher \
         must have the classes of its student"
    )]
    Outputs {
        /// Shape of the teacher's outputs.
        teacher: Vec<usize>,
        /// Shape of the network's.
        student: Vec<usize>,
    },
}

impl DistillationConfig {
    /// The distillation, checked.
    ///
    /// # Errors
    /// If the weight is not from 0 to 1, or the temperature not positive and finite.
    pub fn init(&self) -> Result<Distillation, DistillError> {
        let Self {
            weight,
            temperature,
        } = *self;
        let refused = |field, value| Err(DistillError::Value { field, value });
        if !(0.0..=1.0).contains(&weight) {
            return refused("weight", weight);
        }
        if !(temperature.is_finite() && temperature > 0.0) {
            return refused("temperature", temperature);
        }
        Ok(Distillation {
            weight,
            temperature,
        })
    }
}

/// A loss with a teacher, for example the float network that a multi-bit one was made from:
/// `(1−λ)·task + λ·T²·KL(teacher ‖ student)`, of `softmax(scores / T)`.
///
/// `T²` keeps the gradients of the second part as large as at `T = 1`
/// (Hinton et al., *Distilling the Knowledge in a Neural Network*, 2015).
///
/// In a loop of the caller's it is a part of the loss; in Burn's Learner, of the model's
/// `TrainStep`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distillation {
    weight: f64,
    temperature: f64,
}

impl Distillation {
    /// The loss of a batch. No gradient flows into the teacher, which needs no autodiff, and must not
    /// have gradients.
    ///
    /// # Shapes
    /// - `task`: `[1]`, the mean over the batch
    /// - `student`, `teacher`: `[.., classes]`, scores before softmax; the divergence is the mean
    ///   over everything but the classes
    /// - result: `[1]`
    ///
    /// # Errors
    /// If the two have different shapes, or the teacher's require gradients.
    pub fn loss<const D: usize>(
        &self,
        task: Tensor<1>,
        student: Tensor<D>,
        teacher: Tensor<D>,
    ) -> Result<Tensor<1>, DistillError> {
        let shape = student.dims();
        if teacher.dims() != shape {
            return Err(DistillError::Outputs {
                teacher: teacher.dims().to_vec(),
                student: shape.to_vec(),
            });
        }
        if teacher.is_tracked() {
            return Err(DistillError::Tracked);
        }
        let teacher = if student.is_autodiff() && !teacher.is_autodiff() {
            Tensor::from_inner(teacher)
        } else {
            teacher
        };
        let classes = shape[D - 1];
        let rows = student.shape().num_elements() / classes;
        let logs = |scores: Tensor<D>| {
            let scores = scores.reshape([rows, classes]);
            log_softmax(scores / self.temperature, 1)
        };
        let divergence = KLDivLossConfig::new().with_log_target(true).init().forward(
            logs(student),
            logs(teacher),
            Reduction::BatchMean,
        );
        let scale = self.weight * self.temperature * self.temperature;
        Ok(task * (1.0 - self.weight) + divergence * scale)
    }
}
