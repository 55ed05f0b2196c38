//! The program behind the page: [`multibit::exports`], as a module of WebAssembly.

pub use multibit::exports;

/// A page's program holds one model, and goes with it.
#[cfg(target_arch = "wasm32")]
#[global_allocator]
static MEMORY: exports::Arena = exports::Arena;
