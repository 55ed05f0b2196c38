//! Shuffles of a resumed training.

use std::boxed::Box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn_core::data::dataloader::{DataLoader, DataLoaderIterator};
use burn_core::tensor::Device;

/// The loader as it is after `epochs` epochs: Burn's loaders draw a new order each time they are
/// iterated, and would begin with the first again.
///
/// The order is the same as without a break where the loader's is reproducible: with a seed, and
/// with at most one worker thread (batches of several arrive in no fixed order).
pub fn resume_data<O: 'static>(
    loader: Arc<dyn DataLoader<O>>,
    epochs: usize,
) -> Arc<dyn DataLoader<O>> {
    let epochs = AtomicUsize::new(epochs);
    Arc::new(Resumed { loader, epochs })
}

struct Resumed<O> {
    loader: Arc<dyn DataLoader<O>>,
    /// Orders still to be drawn and dropped.
    epochs: AtomicUsize,
}

impl<O: 'static> Resumed<O> {
    /// The training iterates a copy for its device, whose orders begin anew.
    fn derive(&self, loader: Arc<dyn DataLoader<O>>) -> Arc<dyn DataLoader<O>> {
        resume_data(loader, self.epochs.load(Ordering::SeqCst))
    }
}

impl<O: 'static> DataLoader<O> for Resumed<O> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<O> + 'a> {
        for _ in 0..self.epochs.swap(0, Ordering::SeqCst) {
            drop(self.loader.iter());
        }
        self.loader.iter()
    }

    fn num_items(&self) -> usize {
        self.loader.num_items()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<O>> {
        self.derive(self.loader.to_device(device))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<O>> {
        self.derive(self.loader.slice(start, end))
    }
}
