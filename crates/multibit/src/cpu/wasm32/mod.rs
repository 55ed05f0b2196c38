//! Instances for WebAssembly.

#[cfg(feature = "chain")]
pub(super) mod f32x8;
pub(super) mod simd128;
