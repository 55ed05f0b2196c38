//! One binary: the oracle against golden vectors, the crates against the oracle and the vectors, and
//! whole models on the device that `BURN_DEVICE` names.

#[path = "suite/activations.rs"]
mod activations;
#[path = "suite/checkpoint.rs"]
mod checkpoint;
#[path = "suite/compact.rs"]
mod compact;
#[path = "suite/convert.rs"]
mod convert;
#[path = "suite/definition.rs"]
mod definition;
#[path = "suite/devices.rs"]
mod devices;
#[path = "suite/exceptions.rs"]
mod exceptions;
#[path = "suite/family.rs"]
mod family;
#[path = "suite/file.rs"]
mod file;
#[path = "suite/golden_multibit.rs"]
mod golden_multibit;
#[path = "suite/golden_oracle.rs"]
mod golden_oracle;
#[cfg(feature = "cube")]
#[path = "suite/launches.rs"]
mod launches;
#[path = "suite/layers.rs"]
mod layers;
#[path = "suite/learner.rs"]
mod learner;
#[path = "suite/levers.rs"]
mod levers;
#[path = "suite/load.rs"]
mod load;
#[path = "suite/local.rs"]
mod local;
#[path = "suite/model.rs"]
mod model;
#[path = "suite/numbers.rs"]
mod numbers;
#[path = "suite/packed.rs"]
mod packed;
#[path = "suite/pages.rs"]
mod pages;
#[path = "suite/reader.rs"]
mod reader;
#[path = "suite/steps.rs"]
mod steps;
#[path = "suite/support.rs"]
mod support;

/// Counts what each test's process takes; a test that asks runs alone in one.
#[global_allocator]
static MEMORY: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;
