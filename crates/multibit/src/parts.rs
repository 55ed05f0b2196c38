//! Parts of a slice, worked on side by side.

/// Vector operations below which waking a thread costs more than it does. Miri is to see threads in
/// what it can run.
#[cfg(feature = "rayon")]
pub(crate) const CHEAP: usize = if cfg!(miri) { 0 } else { 1 << 16 };

/// Numbers of a part, at least, where each takes an operation or two.
pub(crate) const PART: usize = 1 << 14;

/// Calls `work(number, part)` with runs of `len` items, through rayon's current pool where the feature
/// is on; `cost` is about how many vector operations all of them take.
///
/// Whoever computes a part computes it whole: the number of threads never changes a result.
pub(crate) fn each_part<T: Send>(
    items: &mut [T],
    len: usize,
    cost: usize,
    work: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    #[cfg(feature = "rayon")]
    if cost > CHEAP && items.len() > len && rayon::current_num_threads() > 1 {
        use rayon::prelude::*;

        let parts = items.par_chunks_mut(len).enumerate();
        return parts.for_each(|(number, part)| work(number, part));
    }
    let _ = cost;
    let parts = items.chunks_mut(len).enumerate();
    parts.for_each(|(number, part)| work(number, part));
}
