//! Tasks side by side, and the output that they share.

use core::marker::PhantomData;

#[cfg(feature = "rayon")]
use crate::parts::CHEAP;

/// Calls `task(0..tasks)`, through rayon's current pool where the feature is on; `cost` is about how
/// many vector operations all tasks take.
///
/// A task computes its part of the output whole: the number of threads never changes a result.
pub(super) fn for_each(tasks: usize, cost: usize, task: impl Fn(usize) + Sync + Send) {
    for_each_with(tasks, cost, || (), |(), number| task(number));
}

/// [`for_each`] with room to work in, that a task finds as another one left it.
pub(super) fn for_each_with<T>(
    tasks: usize,
    cost: usize,
    room: impl Fn() -> T + Sync + Send,
    task: impl Fn(&mut T, usize) + Sync + Send,
) {
    #[cfg(feature = "rayon")]
    if tasks > 1 && cost > CHEAP && rayon::current_num_threads() > 1 {
        use core::sync::atomic::{AtomicUsize, Ordering};

        // The calling thread works too, so it need not wait until another one wakes up.
        let next = AtomicUsize::new(0);
        let work = || {
            let mut own = None;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= tasks {
                    break;
                }
                task(own.get_or_insert_with(&room), number);
            }
        };
        let others = (rayon::current_num_threads() - 1).min(tasks - 1);
        rayon::in_place_scope(|scope| {
            for _ in 0..others {
                scope.spawn(|_| work());
            }
            work();
        });
        return;
    }
    let _ = cost;
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

    /// Where an element lies, if it is one.
    pub(super) fn place(&self, index: usize) -> *const T {
        self.start.wrapping_add(index)
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
