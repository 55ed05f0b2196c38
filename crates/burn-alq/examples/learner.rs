//! A small network in Burn's Learner, from float to 0.7 bit: run it, kill it, run it again.
//!
//! `cargo run --release -p burn-alq --features flex,learner --example learner [FOLDER]`
//! leaves the packed network in `FOLDER/model.bpk` (by default in `run/`).

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::{Module, ParamGroup};
use burn::nn::{Linear, LinearConfig};
use burn::optim::AdamConfig;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::metric::LossMetric;
use burn::train::{
    InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
};
use burn_alq::train::learner::{Alq, resume_data};
use burn_alq::{GroupingRule, PackedModel, Quantizer};
use burn_alq::{ScheduleConfig, Target, average_bits, sizes};

/// What `burn` is with its feature `train`. A program of yours enables that and goes without these
/// lines; here it would be compiled for every benchmark too.
mod burn {
    pub use ::burn::*;
    pub use burn_train as train;
}

/// The user's model: nothing in it knows of ALQ.
#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    output: Linear,
}

type Batch = (Tensor<2>, Tensor<2>);

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            hidden: LinearConfig::new(8, 64).init(device),
            output: LinearConfig::new(64, 1).init(device),
        }
    }

    fn compare(&self, (x, targets): Batch) -> RegressionOutput {
        let output = self.output.forward(relu(self.hidden.forward(x)));
        let difference = output.clone() - targets.clone();
        let loss = (difference.clone() * difference).mean();
        RegressionOutput::new(loss, output, targets)
    }
}

impl TrainStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        let item = self.compare(batch);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        self.compare(batch)
    }
}

struct Rows;

impl Batcher<[f32; 9], Batch> for Rows {
    fn batch(&self, rows: Vec<[f32; 9]>, device: &Device) -> Batch {
        let data = TensorData::new(rows.concat(), [rows.len(), 9]);
        let table = Tensor::<2>::from_data(data, device);
        (table.clone().narrow(1, 0, 8), table.narrow(1, 8, 1))
    }
}

/// A smooth function of eight numbers that look random.
fn data(rows: usize, seed: u64) -> Arc<dyn DataLoader<Batch>> {
    let row = |row: usize| {
        let mut numbers = [0.0; 9];
        for (column, number) in numbers[..8].iter_mut().enumerate() {
            *number = (((row * 8 + column) as f32 + seed as f32) * 12.9898).sin();
        }
        numbers[8] = numbers[0] * numbers[1] + numbers[2];
        numbers
    };
    DataLoaderBuilder::new(Rows)
        .batch_size(32)
        .shuffle(seed)
        .build(InMemDataset::new((0..rows).map(row).collect()))
}

/// Trains up to `epochs` epochs of the schedule, from where the folder's last training got.
///
/// Returns the average bitwidth; an error where that is before everything is pruned.
pub fn train(folder: &Path, epochs: usize) -> Result<f64, Box<dyn Error>> {
    let device = Device::flex();
    device.seed(1); // a training that was killed early starts from the same weights
    let model = Net::new(&device.autodiff());
    let (train, valid) = (data(256, 1), data(64, 2));
    let model = Quantizer::new(4)
        .rule(ParamGroup::all(), GroupingRule::Subchannelwise(1))
        .quantize(model)?
        .0;
    let schedule = ScheduleConfig::new(Target::Bits(0.7))
        .with_rounds(2)
        .with_basis_epochs(2)
        .with_coordinate_epochs(1)
        .with_ste_epochs(2)
        .with_final_epochs(1)
        .init(&sizes(&model))?;
    let epochs = epochs.min(schedule.epochs().len());

    // Steps of an epoch: after one with another number, the training stops.
    let model = Alq::new(model, schedule, train.num_items().div_ceil(32));

    let done = model.last_checkpoint(folder)?; // of a training that was killed
    let train = resume_data(train, done.unwrap_or(0));
    let mut training = SupervisedTraining::new(folder, train, valid)
        .metrics((LossMetric::new(),))
        .with_default_checkpointers()
        .num_epochs(epochs);
    if let Some(done) = done {
        training = training.checkpoint(done);
    }
    let training = model.watch(training);
    let rates = model.rates();
    let learner = Learner::new(model, AdamConfig::new().init(), rates);
    let trained = training.launch(learner).model.finish()?;

    PackedModel::pack(&trained)?.save(folder.join("model.bpk"))?;
    Ok(average_bits(&sizes(&trained)))
}

#[allow(dead_code, reason = "the suite includes this file and calls train")]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).unwrap_or("run".into());
    train(Path::new(&folder), usize::MAX)?;
    Ok(())
}
