//! Data sets, and their batches prepared ahead of the training in a thread of their own.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_alq::file::{Input, Order};

use crate::{Failure, at};

/// Batches that wait to be used.
const AHEAD: usize = 3;

/// What [`Dataset::classes`] is called in the configuration of a packed model.
pub(crate) const DATA_CLASSES: &str = "data_classes";

/// Normalized images with their labels.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `[images, channels, height, width]`.
    pub pixels: Vec<f32>,
    /// `[images]`.
    pub labels: Vec<i32>,
    /// The shape of an image, `[channels, height, width]`.
    pub shape: [usize; 3],
}

impl Batch {
    /// Some of the images, `[images, channels, height, width]`, and their labels.
    pub fn tensors(&self, range: Range<usize>, device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
        let size: usize = self.shape.iter().product();
        let pixels = self.pixels[range.start * size..range.end * size].to_vec();
        let [channels, height, width] = self.shape;
        let shape = [range.len(), channels, height, width];
        let images = Tensor::from_data(TensorData::new(pixels, shape), device);
        let labels = self.labels[range].to_vec();
        let shape = [labels.len()];
        let labels = Tensor::from_data(TensorData::new(labels, shape), device);
        (images, labels)
    }
}

/// One split of a data set.
pub trait Images: Send + Sync {
    /// Number of images.
    fn count(&self) -> usize;

    /// Some images, normalized; with a seed also varied at random, the same for the same seed.
    ///
    /// # Errors
    /// If an image cannot be read; says which.
    fn batch(&self, indices: &[u32], augment: Option<u64>) -> Result<Batch, Failure>;

    /// What an image is, and how its raw values are normalized.
    fn input(&self) -> Input;

    /// Names of images that could not be read and were left out, so far.
    fn skipped(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Images of a shape from bytes, with the mean and deviation of every channel, of values from 0 to 1.
pub(crate) fn input(shape: [usize; 3], norm: &[[f32; 2]], order: Order) -> Input {
    Input {
        divisor: 255.0,
        mean: norm.iter().map(|[mean, _]| *mean).collect(),
        deviation: norm.iter().map(|[_, deviation]| *deviation).collect(),
        order,
        ..Input::new(shape)
    }
}

/// A data set in its three splits. The validation images are training images that the training
/// does not see.
#[derive(Clone)]
pub struct Dataset {
    /// The images to train on.
    pub train: Arc<dyn Images>,
    /// The images to choose by.
    pub valid: Arc<dyn Images>,
    /// The images to report on, once.
    pub test: Arc<dyn Images>,
    /// The name in reports.
    pub name: String,
    /// Differs for other data, so that a resumed run notices them.
    pub fingerprint: u64,
    /// Differs for other classes, where the data names them: they travel with the packed model.
    pub classes: Option<u64>,
    /// The names of the classes; empty if they have none.
    pub labels: Vec<String>,
}

impl Dataset {
    /// Training, validation and test images. `name` is followed by their numbers and by `more`.
    pub(crate) fn new(
        splits: [Arc<dyn Images>; 3],
        name: &str,
        more: &str,
        fingerprint: u64,
    ) -> Self {
        let counts = splits.each_ref().map(|split| split.count().to_string());
        let [train, valid, test] = splits;
        Self {
            train,
            valid,
            test,
            name: format!("{name} ({} images{more})", counts.join("/")),
            fingerprint,
            classes: None,
            labels: Vec::new(),
        }
    }
}

/// The name of a data set: its folder's.
pub fn name(folder: &Path) -> String {
    let name = folder.file_name();
    name.map_or("data".into(), |name| name.to_string_lossy().into_owned())
}

pub(crate) fn too_few(source: &Path, count: usize) -> Failure {
    let error = format!("{count} training images are too few to train and validate on");
    at(source, error)
}

/// FNV-1a.
pub fn fingerprint<'a>(bytes: impl Iterator<Item = &'a u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Random numbers (splitmix64), the same on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Draws `number` of a seed, for example of one epoch or of one image.
    pub fn new(seed: u64, number: u64) -> Self {
        Self(seed ^ number.wrapping_add(1).wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`. The bias of a 64-bit remainder is far below one in a billion here.
    pub fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    /// A number in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The images of an epoch in random order: Fisher and Yates's shuffle. The same for the same
/// arguments, so that a resumed run sees the same batches.
pub fn epoch_order(count: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut random = Random::new(seed, epoch);
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

/// Which images a batch holds, and the seed of their variation.
pub type Request = (Vec<u32>, Option<u64>);

/// Which images are in which batch: all of them in one random order after another.
#[derive(Debug, Clone)]
pub struct BatchOrder {
    count: usize,
    batch_size: usize,
    seed: u64,
    pass: usize,
}

impl BatchOrder {
    /// Batches of so many of `count` images; the last one of a pass may be `incomplete`, or is left out.
    pub fn new(count: usize, batch_size: usize, incomplete: bool, seed: u64) -> Self {
        let pass = if incomplete {
            count.div_ceil(batch_size)
        } else {
            (count / batch_size).max(1)
        };
        Self {
            count,
            batch_size,
            seed,
            pass,
        }
    }

    /// Batches until all images were seen once.
    pub fn pass(&self) -> usize {
        self.pass
    }

    /// All batches from a given one on, without end.
    pub fn from(&self, first: usize) -> impl Iterator<Item = Request> + Send + 'static {
        let order = self.clone();
        let mut shuffled = (usize::MAX, Vec::new());
        (first..).map(move |number| {
            let (pass, place) = (number / order.pass, number % order.pass);
            if shuffled.0 != pass {
                shuffled = (pass, epoch_order(order.count, order.seed, pass as u64));
            }
            let start = place * order.batch_size;
            let end = (start + order.batch_size).min(order.count);
            let seed = order.seed.rotate_left(32) ^ number as u64;
            (shuffled.1[start..end].to_vec(), Some(seed))
        })
    }
}

/// Prepares batches in another thread, a few ahead of their use.
pub fn stream(
    images: Arc<dyn Images>,
    requests: impl Iterator<Item = Request> + Send + 'static,
) -> Receiver<Result<Batch, Failure>> {
    let (send, receive) = sync_channel(AHEAD);
    std::thread::spawn(move || {
        for (indices, augment) in requests {
            // Nobody waits for more once the receiver is gone.
            if send.send(images.batch(&indices, augment)).is_err() {
                break;
            }
        }
    });
    receive
}
