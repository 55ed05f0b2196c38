//! What is made when it is first needed, once, whichever thread comes first: others wait.

use alloc::vec::Vec;
use core::ops::DerefMut;

/// What is made at its first use.
#[derive(Debug)]
pub(crate) struct Lazy<T> {
    #[cfg(feature = "std")]
    cell: std::sync::OnceLock<T>,
    #[cfg(not(feature = "std"))]
    cell: spin::Once<T>,
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self {
            cell: Default::default(),
        }
    }
}

impl<T> Lazy<T> {
    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        #[cfg(feature = "std")]
        let value = self.cell.get_or_init(make);
        #[cfg(not(feature = "std"))]
        let value = self.cell.call_once(make);
        value
    }
}

/// A value that one thread at a time gets at.
#[derive(Debug, Default)]
struct Locked<T> {
    #[cfg(feature = "std")]
    value: std::sync::Mutex<T>,
    #[cfg(not(feature = "std"))]
    value: spin::Mutex<T>,
}

impl<T> Locked<T> {
    fn lock(&self) -> impl DerefMut<Target = T> {
        #[cfg(feature = "std")]
        // What panicked has changed nothing.
        let value = self.value.lock().unwrap_or_else(|error| error.into_inner());
        #[cfg(not(feature = "std"))]
        let value = self.value.lock();
        value
    }
}

/// What is made once for each place that it is needed in; the few places are searched in order.
pub(super) struct Each<K, V> {
    made: Locked<Vec<(K, V)>>,
}

impl<K, V> Default for Each<K, V> {
    fn default() -> Self {
        Self {
            made: Default::default(),
        }
    }
}

impl<K: PartialEq, V: Clone> Each<K, V> {
    pub(super) fn get_or_make(&self, key: K, make: impl FnOnce() -> V) -> V {
        let mut made = self.made.lock();
        if let Some((_, value)) = made.iter().find(|(there, _)| *there == key) {
            return value.clone();
        }
        let value = make();
        made.push((key, value.clone()));
        value
    }
}

/// What is made of something that may change, and made again once that has changed.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    made: Locked<Option<T>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            made: Default::default(),
        }
    }
}

impl<T: Clone> Kept<T> {
    /// What it is made of is read while other threads wait, so that nothing old is kept after
    /// [`clear`](Self::clear).
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> T {
        self.made.lock().get_or_insert_with(make).clone()
    }

    /// To be called after what it is made of has changed.
    pub(crate) fn clear(&self) {
        *self.made.lock() = None;
    }
}
