//! The network, and the task that it learns.

use std::collections::BTreeMap;
use std::sync::Mutex;

use burn::module::{Module, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_alq::train::Task;
use burn_alq::{
    Arithmetic, MultiBitActivation, MultiBitActivationConfig, MultiBitConv2d, MultiBitConv2dConfig,
    MultiBitLinear, MultiBitLinearConfig, PackedModel, Quantized,
};

use crate::Failure;
use crate::data::{Dataset, Split, batch_pixels, epoch_order};

/// Bits of an activation, in the configuration of a packed model; absent for ReLU.
pub const ACT_BITS: &str = "act_bits";

/// The most bits of an activation.
pub const MAX_ACTIVATION_BITS: usize = 4;

/// Classes of MNIST and of every data set in its format that this example takes.
pub const CLASSES: usize = 10;

/// Caffe's LeNet5: 20 and 50 kernels of 5×5, 500 hidden units, 10 classes.
#[derive(Module, Debug)]
pub struct LeNet5 {
    conv1: MultiBitConv2d,
    conv2: MultiBitConv2d,
    fc1: MultiBitLinear,
    fc2: MultiBitLinear,
    pool: MaxPool2d,
    /// In the place of ReLU, one after each layer but the last; empty for ReLU.
    activations: Vec<MultiBitActivation>,
}

impl LeNet5 {
    /// A float network with random weights, to be trained and then quantized.
    ///
    /// With `act_bits` above 0, activations have as many bits, and packed layers behind them
    /// compute bitwise.
    pub fn new(act_bits: usize, device: &Device) -> Self {
        let hidden = match act_bits {
            0 => Arithmetic::Exact,
            _ => Arithmetic::Bitwise,
        };
        let conv = MultiBitConv2dConfig::new;
        let linear = |d_in, d_out| {
            MultiBitLinearConfig::new(d_in, d_out)
                .with_arithmetic(hidden)
                .init_float(device)
        };
        let activations = if act_bits == 0 { 0 } else { 3 };
        Self {
            conv1: conv([1, 20], [5, 5]).init_float(device),
            conv2: conv([20, 50], [5, 5])
                .with_arithmetic(hidden)
                .init_float(device),
            fc1: linear(800, 500),
            fc2: linear(500, CLASSES),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            activations: (0..activations)
                .map(|_| MultiBitActivationConfig::new(act_bits).init(device))
                .collect(),
        }
    }

    /// A packed model, ready to run.
    pub fn packed(packed: &PackedModel, device: &Device) -> Result<Self, Failure> {
        let bits = match packed.config.get(ACT_BITS) {
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| (1..=MAX_ACTIVATION_BITS).contains(bits))
                .ok_or_else(|| format!("{ACT_BITS} is {bits:?}, not 1 to {MAX_ACTIVATION_BITS}"))?,
            None => 0,
        };
        Ok(packed.apply(Self::new(bits, device))?)
    }

    /// The weights by path, as they are now.
    pub fn weights(&self) -> BTreeMap<&'static str, Vec<f32>> {
        fn read<const D: usize>(weight: &Param<Tensor<D>>) -> Vec<f32> {
            weight
                .val()
                .into_data()
                .try_into_vec()
                .expect("weights are f32")
        }
        BTreeMap::from([
            ("conv1.weight", read(&self.conv1.weight)),
            ("conv2.weight", read(&self.conv2.weight)),
            ("fc1.weight", read(&self.fc1.weight)),
            ("fc2.weight", read(&self.fc2.weight)),
        ])
    }

    /// Scores of the classes.
    ///
    /// # Shapes
    /// - `images`: `[batch, 1, 28, 28]`
    /// - result: `[batch, 10]`
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.activate(0, self.pooled(self.conv1.forward(images)));
        let x = self.activate(1, self.pooled(self.conv2.forward(x)));
        let x = self.activate(2, self.fc1.forward(x.map(|x| x.flatten::<2>(1, 3))));
        self.fc2.forward(x)
    }

    fn pooled(&self, x: Tensor<4>) -> Tensor<4> {
        Quantized::from(x).max_pool2d(&self.pool).into_tensor()
    }

    fn activate<const D: usize>(&self, layer: usize, x: Tensor<D>) -> Quantized<D> {
        match self.activations.get(layer) {
            Some(activation) => activation.forward(x),
            None => relu(x).into(),
        }
    }
}

/// Images of a split as a normalized tensor `[batch, 1, 28, 28]`, and their labels.
fn batch(split: &Split, indices: &[u32], device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
    let pixels = batch_pixels(split, indices);
    let images = Tensor::from_data(TensorData::new(pixels, [indices.len(), 1, 28, 28]), device);
    let labels: Vec<i32> = indices
        .iter()
        .map(|&index| i32::from(split.labels[index as usize]))
        .collect();
    let labels = Tensor::from_data(TensorData::new(labels, [indices.len()]), device);
    (images, labels)
}

/// Scores of a whole split, `[count * 10]`, in batches.
pub fn scores(model: &LeNet5, split: &Split, device: &Device) -> Vec<f32> {
    let all: Vec<u32> = (0..split.count as u32).collect();
    let mut scores = Vec::with_capacity(all.len() * CLASSES);
    for indices in all.chunks(250) {
        let (images, _) = batch(split, indices, device);
        let data = model.forward(images).into_data();
        scores.extend(data.try_into_vec::<f32>().expect("scores are f32"));
    }
    scores
}

/// The class with the highest score of every image; of equal ones the first.
pub fn predictions(scores: &[f32]) -> Vec<u8> {
    scores
        .chunks_exact(CLASSES)
        .map(|scores| {
            let best = (1..CLASSES).fold(0, |best, class| {
                if scores[class] > scores[best] {
                    class
                } else {
                    best
                }
            });
            best as u8
        })
        .collect()
}

/// Share of right predictions, in percent.
pub fn accuracy(predictions: &[u8], split: &Split) -> f64 {
    let right = predictions.iter().zip(&split.labels);
    let right = right
        .filter(|(prediction, label)| prediction == label)
        .count();
    100.0 * right as f64 / split.count as f64
}

/// Classification of the training images, validated on the validation images.
pub struct Classify<'a> {
    pub data: &'a Dataset,
    pub batch_size: usize,
    pub shards: usize,
    pub seed: u64,
    /// With autodiff.
    pub device: Device,
    order: Mutex<(usize, Vec<u32>)>,
}

impl<'a> Classify<'a> {
    pub fn new(
        data: &'a Dataset,
        batch_size: usize,
        shards: usize,
        seed: u64,
        device: Device,
    ) -> Self {
        let order = epoch_order(data.train.count, seed, 0);
        Self {
            data,
            batch_size,
            shards,
            seed,
            device,
            order: Mutex::new((0, order)),
        }
    }

    /// The images of a batch.
    fn indices(&self, epoch: usize, batch: usize) -> Vec<u32> {
        let mut order = self
            .order
            .lock()
            .expect("no thread panics while it shuffles");
        if order.0 != epoch {
            *order = (
                epoch,
                epoch_order(self.data.train.count, self.seed, epoch as u64),
            );
        }
        let start = batch * self.batch_size;
        let end = (start + self.batch_size).min(order.1.len());
        order.1[start..end].to_vec()
    }
}

impl Task for Classify<'_> {
    type Model = LeNet5;

    fn batches(&self) -> usize {
        self.data.train.count.div_ceil(self.batch_size)
    }

    fn shards(&self) -> usize {
        self.shards
    }

    fn loss(&self, model: &LeNet5, epoch: usize, number: usize, shard: usize) -> Tensor<1> {
        let indices = self.indices(epoch, number);
        let bounds = |shard: usize| shard * indices.len() / self.shards;
        let part = &indices[bounds(shard)..bounds(shard + 1)];
        if part.is_empty() {
            // A last batch with fewer images than shards.
            let (images, labels) = batch(&self.data.train, &indices[..1], &self.device);
            return loss(model, images, labels, &self.device) * 0.0;
        }
        let (images, labels) = batch(&self.data.train, part, &self.device);
        let share = part.len() as f64 / indices.len() as f64;
        loss(model, images, labels, &self.device) * share
    }

    fn evaluate(&self, model: &LeNet5) -> f64 {
        let device = self.device.clone().without_autodiff();
        let scores = scores(model, &self.data.valid, &device);
        accuracy(&predictions(&scores), &self.data.valid)
    }
}

fn loss(model: &LeNet5, images: Tensor<4>, labels: Tensor<1, Int>, device: &Device) -> Tensor<1> {
    let scores = model.forward(images);
    CrossEntropyLossConfig::new()
        .init(device)
        .forward(scores, labels)
}
