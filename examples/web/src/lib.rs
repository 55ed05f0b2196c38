//! The program behind the page: [`multibit::exports`], as a module of WebAssembly.

#![cfg_attr(target_arch = "wasm32", no_std)]

pub use multibit::exports;

/// A page's program holds one model, and goes with it.
#[cfg(target_arch = "wasm32")]
#[global_allocator]
static MEMORY: exports::Arena = exports::Arena;

/// A fault of the program: the page sees that it trapped.
#[cfg(target_arch = "wasm32")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
