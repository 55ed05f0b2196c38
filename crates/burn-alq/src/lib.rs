#![forbid(unsafe_code)]
#![doc = include_str!("../README.md")]

extern crate alloc;

pub mod activation;
mod backends;
mod container;
pub mod file;
mod multibit;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod pack;
pub mod prepared;
pub mod report;
pub mod schedule;
pub mod sketch;
pub mod step;
#[cfg(feature = "train")]
pub mod train;

pub use ::multibit::CoordinateType;

pub use self::activation::{MultiBitActivation, MultiBitActivationConfig, Quantized};
pub use self::multibit::{MultiBit, MultiBitData};
pub use self::nn::{
    Arithmetic, ConvGrouping, MultiBitConv1d, MultiBitConv1dConfig, MultiBitConv2d,
    MultiBitConv2dConfig, MultiBitConvTranspose2d, MultiBitConvTranspose2dConfig,
    MultiBitEmbedding, MultiBitEmbeddingConfig, MultiBitLinear, MultiBitLinearConfig,
};
pub use self::optim::{AlqOptimizer, AlqOptimizerConfig, Phase};
pub use self::pack::PackedModel;
pub use self::schedule::{Schedule, ScheduleConfig, Target};
pub use self::sketch::{GroupingRule, PathPattern, Quantizer, Rules};
