//! What the program prints. Whoever reads it may go away, as `head` does, and the disk of a log may be
//! full: hours of training must not be lost with it.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _, stderr, stdout};
use std::sync::Mutex;

use crate::Failure;

/// The first error of standard output.
static FAILED: Mutex<Option<std::io::Error>> = Mutex::new(None);

/// Prints a line, as `println!` does, but without a panic.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say::line(format_args!($($text)*))
    };
}

pub use say;

#[doc(hidden)]
pub fn line(text: Arguments<'_>) {
    if let Err(error) = writeln!(stdout(), "{text}") {
        let mut failed = FAILED.lock().expect("no thread panics with it");
        failed.get_or_insert(error);
    }
}

/// Says on the standard error what went wrong, if anybody listens.
pub(crate) fn complain(text: Arguments<'_>) {
    let _ = writeln!(stderr(), "{text}");
}

/// Whether everything was printed, or to somebody who had enough of it.
///
/// # Errors
/// If standard output could not be written.
pub(crate) fn check() -> Result<(), Failure> {
    let mut failed = FAILED.lock().expect("no thread panics with it");
    match failed.take() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            let error = format!("the work is done, but not all of the output is written: {error}");
            Err(error.into())
        }
        _ => Ok(()),
    }
}
