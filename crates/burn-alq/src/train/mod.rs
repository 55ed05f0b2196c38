//! Training along a schedule: in a loop of the caller's with checkpoints ([`Run`]), or in Burn's
//! own Learner (`learner`, with the feature of that name).

#[cfg(feature = "learner")]
pub mod learner;
mod run;

pub use run::{Point, Progress, Run, Task, Timing, TrainError};
