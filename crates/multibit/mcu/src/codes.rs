//! What the board exits with when something is wrong: a number is all that a controller can say
//! without a screen.

use multibit::file::ReadError;
use multibit::runtime::{PlanError, RunError};

/// The model is no packed file, or damaged.
pub fn read(error: &ReadError) -> u8 {
    match error {
        ReadError::Foreign => 10,
        ReadError::NotPacked { .. } => 11,
        ReadError::Checkpoint => 12,
        ReadError::Container(_) => 13,
        ReadError::Version { .. } => 14,
        ReadError::Deflated => 15,
        ReadError::Directory(_) => 16,
        ReadError::Sections(_) => 17,
        ReadError::Checksum => 18,
        ReadError::Chain { .. } => 19,
        ReadError::Entry { .. } => 20,
        _ => 29,
    }
}

/// The model cannot run.
pub fn plan(error: &PlanError) -> u8 {
    match error {
        PlanError::NoChain => 30,
        PlanError::NoInput => 31,
        PlanError::Labels { .. } => 32,
        PlanError::TooLarge => 33,
        PlanError::Step { .. } => 34,
        _ => 39,
    }
}

/// It did not run.
pub fn run(error: &RunError) -> u8 {
    match error {
        RunError::Input { .. } => 40,
        RunError::Buffer { .. } => 41,
        RunError::Scores { .. } => 42,
        _ => 49,
    }
}

/// Too little memory for the buffers.
pub const MEMORY: u8 = 50;

/// The debugger has no images, or takes no scores.
pub const DEBUGGER: u8 = 51;

/// A panic, which is a fault of the program.
pub const PANIC: u8 = 101;
