//! What the loss says of a model before it is trained: [`LocalModel`] measures what moving a weight would
//! cost, [`Sensitivity`] what fewer bits of each would, and
//! [`Quantizer::regroup`](crate::Quantizer::regroup) chooses groupings by it.

mod grouping;
mod local_model;
mod sensitivity;

pub use self::grouping::GroupingChoice;
pub use self::local_model::{LocalModel, LocalWeight};
pub use self::sensitivity::{BitLess, Sensitivity, SensitivityError, WeightLoss};
