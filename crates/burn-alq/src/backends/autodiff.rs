use burn_autodiff::Autodiff;
use burn_autodiff::checkpoint::strategy::CheckpointStrategy;

use crate::ops::AlqOps;

// The default bodies compose differentiable operations.
impl<B: AlqOps, C: CheckpointStrategy> AlqOps for Autodiff<B, C> {}
