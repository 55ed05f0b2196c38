//! The heap: a static buffer, taken from its start to its end. Only what was taken last comes back, so
//! that a list which grows takes its room once.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of it.
pub const SIZE: usize = 40 * 1024;

#[repr(align(8))]
struct Heap(UnsafeCell<[u8; SIZE]>);

/// Bytes in use, and the most that ever were.
static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: each allocation is a part of its own; one core, and no interrupt allocates.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new([0; SIZE]));

/// The most bytes that were ever in use.
pub fn used() -> usize {
    MOST.load(Relaxed)
}

impl Heap {
    fn take(&self, start: usize, layout: Layout) -> *mut u8 {
        let start = start.next_multiple_of(layout.align());
        match start.checked_add(layout.size()) {
            Some(end) if end <= SIZE => {
                USED.store(end, Relaxed);
                MOST.fetch_max(end, Relaxed);
                // Inside the buffer, as was just seen.
                self.0.get().cast::<u8>().wrapping_add(start)
            }
            _ => null_mut(),
        }
    }

    /// Where a block begins, if it is the last.
    fn last(&self, block: *mut u8, size: usize) -> Option<usize> {
        let start = block as usize - self.0.get() as usize;
        (start + size == USED.load(Relaxed)).then_some(start)
    }
}

// SAFETY: `take` hands out what nothing else has, aligned (alignments are at most the buffer's), or
// null; what is moved is copied.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match layout.align() <= 8 {
            true => self.take(USED.load(Relaxed), layout),
            false => null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(start) = self.last(block, layout.size()) {
            USED.store(start, Relaxed);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps size and alignment a layout.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if let Some(start) = self.last(block, layout.size()) {
            return self.take(start, new);
        }
        let to = self.take(USED.load(Relaxed), new);
        if !to.is_null() {
            // SAFETY: the old block has as many bytes, and the new one is apart from it.
            unsafe { block.copy_to_nonoverlapping(to, layout.size().min(size)) };
        }
        to
    }
}
