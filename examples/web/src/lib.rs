//! The program behind the page: [`multibit::exports`], as a module of WebAssembly.

pub use multibit::exports;
