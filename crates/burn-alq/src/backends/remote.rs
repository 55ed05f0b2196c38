//! Devices of a server (Burn Remote): the default bodies, in operations that every server of Burn knows.
//!
//! Burn Remote can carry operations of an extension too, as tensors and numbers (`CustomOpIr`). A
//! server runs those that it was given handlers for when it was built; at any other it ends the
//! session, and a client cannot ask before. So a server would have to be one of this crate, of the
//! same version, for what is only faster.

use burn_core::backend::Remote;

use crate::ops::AlqOps;
#[cfg(feature = "train")]
use crate::ops::{LayerOps, StepOps};

impl AlqOps for Remote {}

#[cfg(feature = "train")]
impl LayerOps for Remote {}

#[cfg(feature = "train")]
impl StepOps for Remote {}
