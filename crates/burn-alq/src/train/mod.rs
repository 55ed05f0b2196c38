//! Training along a schedule: in a loop of the caller's with checkpoints ([`Run`]), or in Burn's
//! own Learner (`learner`, with the feature of that name). [`Distillation`] adds a teacher to the loss;
//! [`LocalModel`] measures what moving a weight would cost,
//! [`Sensitivity`] what fewer bits of each would.

mod distill;
mod grouping;
#[cfg(feature = "learner")]
pub mod learner;
mod local_model;
mod run;
mod sensitivity;

pub use distill::{DistillError, Distillation, DistillationConfig};
pub use grouping::GroupingChoice;
pub use local_model::{LocalModel, LocalWeight};
pub use run::{Point, Progress, Run, Task, Timing, TrainError};
pub use sensitivity::{BitLess, Sensitivity, SensitivityError, WeightLoss};
