#![doc = include_str!("../README.md")]
// They panic where nobody reads any more.
#![deny(clippy::print_stdout, clippy::print_stderr)]
#![forbid(unsafe_code)]

mod diff;
mod file;
mod inspect;
mod report;
mod run;
mod text;
mod verify;

pub use diff::{Change, Difference, Entry, TensorChange, WeightChange};
pub use file::{Error, File};
pub use inspect::{InputReport, Inspection, TensorReport};
pub use report::Sizes;
pub use run::{Format, Model, Ranked, samples};
pub use text::shown;
pub use verify::{Chain, Part, Verdict};
