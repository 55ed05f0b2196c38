//! Tasks side by side, and the output that they share.

use core::marker::PhantomData;

/// Calls `task(0..tasks)`, through rayon's current pool where the feature is on.
///
/// A task computes its part of the output whole: the number of threads never changes a result.
pub(super) fn for_each(tasks: usize, task: impl Fn(usize) + Sync + Send) {
    #[cfg(feature = "rayon")]
    if tasks > 1 && rayon::current_num_threads() > 1 {
        use rayon::prelude::*;
        (0..tasks).into_par_iter().for_each(task);
        return;
    }
    (0..tasks).for_each(task);
}

/// [`for_each`] with room to work in, that a task finds as another one left it.
pub(super) fn for_each_with<T>(
    tasks: usize,
    room: impl Fn() -> T + Sync + Send,
    task: impl Fn(&mut T, usize) + Sync + Send,
) {
    #[cfg(feature = "rayon")]
    if tasks > 1 && rayon::current_num_threads() > 1 {
        use rayon::prelude::*;
        (0..tasks).into_par_iter().for_each_init(room, task);
        return;
    }
    let mut room = room();
    (0..tasks).for_each(|number| task(&mut room, number));
}

/// Into how many tasks work is best cut: some for each thread, or one.
pub(super) fn parts() -> usize {
    #[cfg(feature = "rayon")]
    if rayon::current_num_threads() > 1 {
        return 4 * rayon::current_num_threads();
    }
    1
}

/// An output that tasks write in disjoint parts.
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: `part` asks its callers to stay apart; T itself may move between threads.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// `len` elements from `first`.
    ///
    /// # Safety
    /// No other part that is alive may overlap it.
    ///
    /// # Panics
    /// If there are not as many elements.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the parts are disjoint")]
    pub(super) unsafe fn part(&self, first: usize, len: usize) -> &mut [T] {
        assert!(len <= self.len && first <= self.len - len);
        // SAFETY: inside the slice that `new` borrowed; the caller keeps parts disjoint.
        unsafe { core::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}
