//! One binary: the oracle against golden vectors, the crates against the oracle and the vectors, and
//! whole models on the device that `BURN_DEVICE` names.

mod activations;
mod any_model;
mod between;
mod calibrate;
mod chain;
mod checkpoint;
mod compact;
mod convert;
mod definition;
mod devices;
mod drop_in;
mod exceptions;
mod family;
mod file;
mod golden_multibit;
mod golden_oracle;
mod halves;
#[cfg(feature = "cube")]
mod launches;
mod layers;
mod learner;
mod levers;
mod load;
mod local;
mod model;
mod numbers;
mod onnx;
mod packed;
mod pages;
mod product;
mod pruning;
mod pytorch;
mod reader;
mod refused;
#[cfg(feature = "remote")]
mod remote;
mod running;
mod schedule;
mod steps;
mod stream;
mod support;
mod tied;
mod trainable;
mod training_layers;

/// Counts what each test's process takes; a test that asks runs alone in one.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
