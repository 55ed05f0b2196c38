//! Batches that are the same for any number of devices: each computes parts of every batch.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Int, Tensor};
use burn_core::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn_core::data::dataset::DatasetError;
use example_common::Images;
use example_common::data::{BatchOrder, Request};

/// Some of the images of a batch.
#[derive(Debug)]
pub struct Part {
    /// `[images, channels, height, width]`.
    pub images: Tensor<4>,
    /// `[images]`.
    pub labels: Tensor<1, Int>,
    /// Of the images of the batch.
    pub share: f64,
}

/// Epochs of equally many batches, each cut into equal parts.
///
/// A part is an item of Burn's. Burn gives each of several devices a slice of the items: of `n` devices,
/// device `i` gets the parts `i`, `i + n`, … of every batch.
#[derive(Clone)]
pub struct Parts {
    images: Arc<dyn Images>,
    batches: Batches,
    parts: usize,
    /// This device's number, and how many there are.
    lane: usize,
    lanes: usize,
    device: Device,
    /// Epochs that were begun.
    epochs: Arc<AtomicUsize>,
}

/// Which images are in the batches of an epoch.
#[derive(Debug, Clone)]
enum Batches {
    /// So many, in an order that goes on from epoch to epoch.
    Random(BatchOrder, usize),
    /// All images in their order, so many at a time.
    All(usize),
}

impl Parts {
    /// `steps` batches an epoch for training, in `parts` parts. The parts must divide a batch.
    pub fn training(
        images: Arc<dyn Images>,
        order: BatchOrder,
        steps: usize,
        parts: usize,
    ) -> Self {
        Self::new(images, Batches::Random(order, steps), parts)
    }

    /// All images, once an epoch, to validate on.
    pub fn all(images: Arc<dyn Images>, at_a_time: usize) -> Self {
        Self::new(images, Batches::All(at_a_time), 1)
    }

    fn new(images: Arc<dyn Images>, batches: Batches, parts: usize) -> Self {
        Self {
            images,
            batches,
            parts,
            lane: 0,
            lanes: 1,
            device: Device::flex(),
            epochs: Arc::default(),
        }
    }

    /// Its epochs are counted apart.
    fn copy(&self) -> Self {
        let epochs = self.epochs.load(Ordering::SeqCst);
        Self {
            epochs: Arc::new(AtomicUsize::new(epochs)),
            ..self.clone()
        }
    }

    fn batches(&self) -> usize {
        match self.batches {
            Batches::Random(_, steps) => steps,
            Batches::All(at_a_time) => self.images.count().div_ceil(at_a_time),
        }
    }

    fn requests(&self, epoch: usize) -> Box<dyn Iterator<Item = Request>> {
        match &self.batches {
            Batches::Random(order, steps) => Box::new(order.from(epoch * steps).take(*steps)),
            &Batches::All(at_a_time) => {
                let count = self.images.count();
                let starts = (0..count).step_by(at_a_time);
                Box::new(starts.map(move |start| {
                    let end = (start + at_a_time).min(count);
                    ((start as u32..end as u32).collect(), None)
                }))
            }
        }
    }
}

impl DataLoader<Part> for Parts {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<Part> + 'a> {
        let epoch = self.epochs.fetch_add(1, Ordering::SeqCst);
        Box::new(Epoch {
            loader: self,
            requests: self.requests(epoch),
            batch: (Vec::new(), None),
            done: 0,
        })
    }

    fn num_items(&self) -> usize {
        self.batches() * self.parts / self.lanes
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<Part>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.copy()
        })
    }

    /// # Panics
    /// If it is not one of equal slices of all items, as many as divide the parts of a batch.
    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<Part>> {
        let lanes = self.num_items() / (end - start);
        let equal = start.is_multiple_of(end - start) && self.parts.is_multiple_of(lanes);
        assert!(
            equal && self.lanes == 1,
            "the devices share {} parts evenly",
            self.parts
        );
        Arc::new(Self {
            lane: start / (end - start),
            lanes,
            ..self.copy()
        })
    }
}

/// A device's parts of an epoch.
struct Epoch<'a> {
    loader: &'a Parts,
    requests: Box<dyn Iterator<Item = Request>>,
    /// The batch that is being cut.
    batch: Request,
    /// Parts given away.
    done: usize,
}

impl Epoch<'_> {
    fn part(&self, range: Range<usize>) -> Result<Part, DatasetError> {
        let (indices, seed) = &self.batch;
        let share = range.len() as f64 / indices.len() as f64;
        let images = &self.loader.images;
        let batch = images.batch(&indices[range.clone()], *seed);
        let batch = batch.map_err(|error| DatasetError::new(std::io::Error::other(error)))?;
        let (images, labels) = batch.tensors(0..range.len(), &self.loader.device);
        Ok(Part {
            images,
            labels,
            share,
        })
    }
}

impl Iterator for Epoch<'_> {
    type Item = Result<Part, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let loader = self.loader;
        let turn = self.done % (loader.parts / loader.lanes);
        if turn == 0 {
            self.batch = self.requests.next()?;
        }
        self.done += 1;
        let part = turn * loader.lanes + loader.lane;
        let count = self.batch.0.len();
        let bounds = |part: usize| part * count / loader.parts;
        Some(self.part(bounds(part)..bounds(part + 1)))
    }
}

impl DataLoaderIterator<Part> for Epoch<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.loader.num_items(), Some("parts".into()))
    }
}
