#![forbid(unsafe_code)]
#![cfg_attr(not(feature = "std"), no_std)]
#![doc = include_str!("../README.md")]

extern crate alloc;

// What runs.
mod backends;
pub mod file;
pub mod nn;
mod ops;
mod weight;

// What trains.
#[cfg(feature = "train")]
pub mod analysis;
#[cfg(feature = "train")]
pub mod calibrate;
#[cfg(feature = "train")]
pub mod optim;
#[cfg(feature = "train")]
pub mod quantize;
#[cfg(feature = "train")]
pub mod report;
#[cfg(feature = "train")]
pub mod train;

pub use multibit::CoordinateType;

#[cfg(feature = "train")]
pub use self::calibrate::Calibrator;
pub use self::file::PackedModel;
#[cfg(feature = "store")]
pub use self::nn::AsBurnLayers;
pub use self::nn::{
    Activation, ApplyOptions, Arithmetic, Epilogue, MultiBitActivation, MultiBitActivationConfig,
    MultiBitConv1d, MultiBitConv1dConfig, MultiBitConv2d, MultiBitConv2dConfig,
    MultiBitConvTranspose2d, MultiBitConvTranspose2dConfig, MultiBitEmbedding,
    MultiBitEmbeddingConfig, MultiBitLinear, MultiBitLinearConfig, Packed, Quantized, Unpacking,
};
#[cfg(feature = "train")]
pub use self::optim::{AlqOptimizer, AlqOptimizerConfig, Phase};
#[cfg(feature = "train")]
pub use self::quantize::{PathPattern, Quantizer, Rules};
#[cfg(feature = "train")]
pub use self::train::{Schedule, ScheduleConfig, Target};
#[cfg(feature = "train")]
pub use self::weight::sizes;
pub use self::weight::{
    GroupingRule, Layout, MultiBit, MultiBitData, Product, QuantizeError, Size, average_bits,
};
