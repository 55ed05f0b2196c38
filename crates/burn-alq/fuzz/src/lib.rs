//! What the targets share: a limit of memory, right checksums around what the fuzzer made, and a small
//! model to read into.

pub mod container;
pub mod net;

pub use multibit_fuzz::bounded;
