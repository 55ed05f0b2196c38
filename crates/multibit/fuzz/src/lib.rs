//! A limit of memory, for the targets of every reader of the project.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Reads `len` bytes, and panics if that takes more memory at any time than twice as much and 1 MiB.
pub fn bounded<T>(len: usize, read: impl FnOnce() -> T) -> T {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let value = read();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let most = 2 * len + (1 << 20);
    assert!(taken <= most, "{len} bytes took {taken}, at most {most}");
    value
}

/// The most memory that `run` has taken at any time.
pub fn allocated(run: impl FnOnce()) -> usize {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    run();
    MEMORY.peak_usage().saturating_sub(before)
}
