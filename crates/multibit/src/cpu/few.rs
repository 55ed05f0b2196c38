//! Room that lies on the stack while it is small: a small layer takes less time than an allocator does.

use alloc::vec::Vec;
use core::mem::MaybeUninit;

/// Room for some values: `N` on the stack, more in memory of its own.
pub(super) struct Few<T, const N: usize> {
    few: [MaybeUninit<T>; N],
    many: Vec<T>,
}

impl<T: Copy, const N: usize> Few<T, N> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            few: [MaybeUninit::uninit(); N],
            many: Vec::new(),
        }
    }

    /// `len` times a value.
    #[inline(always)]
    pub(super) fn fill(&mut self, value: T, len: usize) -> &mut [T] {
        let Some(few) = self.few.get_mut(..len) else {
            self.many.clear();
            self.many.resize(len, value);
            return &mut self.many;
        };
        for place in &mut *few {
            place.write(value);
        }
        // SAFETY: all of them were just written.
        unsafe { few.assume_init_mut() }
    }
}
