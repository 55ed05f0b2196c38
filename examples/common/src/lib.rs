#![doc = include_str!("../README.md")]
// They panic where nobody reads any more; `say` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod agreement;
pub mod bytes;
mod calibrate;
pub mod cifar;
mod cli;
pub mod data;
pub mod device;
mod document;
mod eta;
mod example;
pub mod fake;
mod folder;
pub mod idx;
#[cfg(feature = "image-folder")]
pub mod image_folder;
mod job;
mod levers;
pub mod network;
mod origin;
mod packed;
mod page;
mod plot;
#[cfg(feature = "png")]
mod png;
mod program;
mod progress;
mod quantize;
mod report;
pub mod residual;
pub mod say;
mod score;
mod sensitivity;
mod settings;
#[cfg(feature = "image-folder")]
pub mod small_images;
mod stop;
mod sweep;
mod task;
mod time;
#[cfg(feature = "weights")]
pub mod weights;

use std::fmt::Display;
use std::path::Path;

pub use self::calibrate::{BitFlags, CalibrationFlags};
pub use self::cli::{DeviceFlag, choice, parse_seconds};
pub use self::data::{Batch, Dataset, Images};
pub use self::document::write_aside;
pub use self::example::{DataFlags, Demo, Example, NoFlags, Plan, Preset, UnlabelledFlags, short};
pub use self::folder::writable;
pub use self::job::{Job, Pretrained};
pub use self::levers::StorageFlags;
pub use self::network::{Config, Network};
pub use self::packed::{MODEL, inspect};
pub use self::plot::FrontierPoint;
pub use self::program::{exit_code, main};
pub use self::progress::bar;
pub use self::stop::Stop;
pub use self::sweep::Reference;
pub use self::time::in_turns;

/// What ends the program: a message for the user, its source included.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What is wrong with a file or a folder.
pub fn at(path: &Path, what: impl Display) -> Failure {
    format!("{}: {what}", path.display()).into()
}
