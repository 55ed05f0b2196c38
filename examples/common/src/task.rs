//! Classification of training images, validated on the validation images.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard};

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Int, Tensor};
use burn_alq::train::{Distillation, Task};
use indicatif::ProgressBar;

use crate::data::{BatchOrder, stream};
use crate::score::evaluate;
use crate::{Batch, Dataset, Failure, Network};

/// Batches that come in the order of training.
struct Source {
    /// The number of the batch that comes next.
    next: usize,
    stream: Receiver<Result<Batch, Failure>>,
    /// The batch before it: all shards share it.
    last: Option<Arc<Batch>>,
}

/// The training of a network. See [`explained`](Self::explained).
pub struct Classify<N> {
    data: Dataset,
    order: BatchOrder,
    /// Batches in an epoch.
    epoch: usize,
    shards: usize,
    label_smoothing: f32,
    /// The device with autodiff.
    device: Device,
    source: Mutex<Option<Source>>,
    failure: Mutex<Option<Failure>>,
    /// The teacher in validation mode, without autodiff; and its part of the loss.
    teacher: Option<(N, Distillation)>,
}

impl<N: Network> Classify<N> {
    pub fn new(
        data: &Dataset,
        batch_size: usize,
        epoch_batches: Option<usize>,
        shards: usize,
        seed: u64,
        device: Device,
    ) -> Self {
        let order = BatchOrder::new(data.train.count(), batch_size, !N::BATCH_NORM, seed);
        Self {
            data: data.clone(),
            epoch: epoch_batches.unwrap_or(order.pass()),
            order,
            shards,
            label_smoothing: 0.0,
            device,
            source: Mutex::new(None),
            failure: Mutex::new(None),
            teacher: None,
        }
    }

    /// Spreads a share of each label over all classes.
    pub fn with_label_smoothing(mut self, share: f32) -> Self {
        self.label_smoothing = share;
        self
    }

    /// Draws the network's scores to those of a teacher, on a plain device and in validation mode.
    pub fn with_teacher(mut self, teacher: Option<(N, Distillation)>) -> Self {
        self.teacher = teacher;
        self
    }

    /// What came of losses, or why data could not be read. [`Task`] has no way to say that, so the loss
    /// then is NaN, and a run stops before the model takes a step.
    pub fn explained<T>(&self, result: Result<T, impl Into<Failure>>) -> Result<T, Failure> {
        match lock(&self.failure).take() {
            Some(failure) => Err(failure),
            None => result.map_err(Into::into),
        }
    }

    fn batch(&self, number: usize) -> Result<Arc<Batch>, Failure> {
        let mut guard = lock(&self.source);
        let last = guard.as_ref().filter(|source| source.next == number + 1);
        if let Some(batch) = last.and_then(|source| source.last.as_ref()) {
            return Ok(batch.clone());
        }
        // After a resume, the first batch is not batch 0.
        let source = match guard.take() {
            Some(source) if source.next == number => source,
            _ => Source {
                next: number,
                stream: stream(self.data.train.clone(), self.order.from(number)),
                last: None,
            },
        };
        let source = guard.insert(source);
        let batch = Arc::new(source.stream.recv()??);
        source.next += 1;
        source.last = Some(batch.clone());
        Ok(batch)
    }

    /// The mean loss of some images.
    fn mean_loss(
        &self,
        model: &N,
        images: Tensor<4>,
        labels: Tensor<1, Int>,
    ) -> Result<Tensor<1>, Failure> {
        let scores = model.forward(images.clone());
        let smoothing = (self.label_smoothing > 0.0).then_some(self.label_smoothing);
        let cross_entropy = CrossEntropyLossConfig::new()
            .with_smoothing(smoothing)
            .init(&self.device);
        let task = cross_entropy.forward(scores.clone(), labels);
        let Some((teacher, distillation)) = &self.teacher else {
            return Ok(task);
        };
        let target = teacher.forward(images.without_autodiff());
        Ok(distillation.loss(task, scores, target)?)
    }

    fn part_of_loss(&self, model: &N, number: usize, shard: usize) -> Result<Tensor<1>, Failure> {
        let batch = self.batch(number)?;
        let count = batch.labels.len();
        let bounds = |shard: usize| shard * count / self.shards;
        let part = bounds(shard)..bounds(shard + 1);
        let share = part.len() as f64 / count as f64;
        // A last batch may have fewer images than shards.
        let part = if part.is_empty() { 0..1 } else { part };
        let (images, labels) = batch.tensors(part, &self.device);
        Ok(self.mean_loss(model, images, labels)? * share)
    }

    fn fail(&self, error: Failure) {
        lock(&self.failure).get_or_insert(error);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with the data")
}

impl<N: Network> Task for Classify<N> {
    type Model = N;

    fn batches(&self) -> usize {
        self.epoch
    }

    fn shards(&self) -> usize {
        self.shards
    }

    fn loss(&self, model: &N, epoch: usize, number: usize, shard: usize) -> Tensor<1> {
        let part = self.part_of_loss(model, epoch * self.epoch + number, shard);
        part.unwrap_or_else(|error| {
            self.fail(error);
            Tensor::full([1], f32::NAN, &self.device).require_grad()
        })
    }

    fn evaluate(&self, model: &N) -> f64 {
        let device = self.device.clone().without_autodiff();
        match evaluate(model, &self.data.valid, &device, &ProgressBar::hidden()) {
            Ok(accuracy) => accuracy.top1,
            Err(error) => {
                self.fail(error);
                f64::NAN
            }
        }
    }
}
