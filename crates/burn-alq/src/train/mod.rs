//! Training along a schedule: in a loop of the caller's with checkpoints ([`Run`]), or in Burn's
//! own Learner (`learner`, with the feature of that name). [`Distillation`] adds a teacher to the loss.

mod distill;
#[cfg(feature = "learner")]
pub mod learner;
mod run;

pub use distill::{DistillError, Distillation, DistillationConfig};
pub use run::{Point, Progress, Run, Task, Timing, TrainError};
