//! What the benchmarks of CPUs and of other devices share.
// Each uses its own part.
#![allow(dead_code)]

pub mod case;
pub mod fit;
pub mod layers;
pub mod nets;
pub mod output;
pub mod random;
