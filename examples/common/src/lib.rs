//! What every example needs, once: flags, run folder, training driver, progress, report, and the
//! commands on a packed file. An example adds a [`Network`], its data and its presets.

pub mod bytes;
pub mod cifar;
pub mod cli;
pub mod data;
pub mod device;
pub mod fake;
mod folder;
mod html;
pub mod idx;
pub mod job;
pub mod levers;
pub mod network;
mod origin;
pub mod packed;
#[cfg(feature = "png")]
mod png;
mod progress;
mod report;
mod score;
pub mod sensitivity;
pub mod sweep;
mod task;
pub mod time;

use std::process::ExitCode;

pub use self::data::{Batch, Dataset, Images};
pub use self::network::{Config, Network};
pub use self::report::remake_report;

/// What ends the program: a message for the user, its source included.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The exit code of a command; says why it failed.
pub fn exit(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            match error.downcast_ref::<job::Interrupted>() {
                Some(_) => ExitCode::from(130),
                None => ExitCode::FAILURE,
            }
        }
    }
}
