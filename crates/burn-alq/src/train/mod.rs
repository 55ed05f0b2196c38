//! Training along a schedule: in a loop of the caller's ([`Schedule::steps`]), with checkpoints
//! ([`Run`]), or in Burn's own Learner (`learner`, with the feature of that name). [`Distillation`] adds a
//! teacher to the loss.

pub(crate) mod checkpoint;
mod distill;
#[cfg(feature = "learner")]
pub mod learner;
mod run;
mod schedule;
mod statistics;

pub use self::checkpoint::CheckpointError;
pub use self::distill::{DistillError, Distillation, DistillationConfig};
pub(crate) use self::run::gradients;
pub use self::run::{Point, Progress, Run, Task, Timing, TrainError};
pub(crate) use self::schedule::evaluating;
pub use self::schedule::{
    Epoch, OtherModel, Pace, Recovery, Schedule, ScheduleConfig, ScheduleError, ScheduleStep,
    Target,
};
pub use crate::weight::DeviceLost;
