//! Burn's activation layers ([`burn_nn::activation`]); those that hold linear layers run on the bits once
//! packed.

mod swiglu;
mod wrapper;

pub use burn_nn::activation::*;

pub use self::swiglu::{SwiGlu, SwiGluConfig};
pub use self::wrapper::{Activation, ActivationConfig};
