//! What the Learner costs over a hand-written loop: medians of the time from one step to the next,
//! in blocks of one and of the other by turns.
//!
//! `cargo bench -p burn-alq --features flex,learner --bench learner`

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn_alq::optim::sizes;
use burn_alq::train::learner::Alq;
use burn_alq::{AlqOptimizerConfig, GroupingRule, Quantizer, Schedule, ScheduleConfig, Target};
use burn_core as burn;
use burn_core::data::dataloader::batcher::Batcher;
use burn_core::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn_core::data::dataset::InMemDataset;
use burn_core::module::{Module, ParamGroup};
use burn_core::tensor::activation::relu;
use burn_core::tensor::{Device, Tensor, TensorData};
use burn_nn::{Linear, LinearConfig};
use burn_optim::{AdamConfig, GradientsParams};
use burn_train::metric::LossMetric;
use burn_train::{
    InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
};

const BATCH: usize = 128;
const STEPS: usize = 30;
const BLOCKS: usize = 6;

/// As many weights as LeNet5's.
#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    output: Linear,
}

type Pair = (Tensor<2>, Tensor<2>);

impl Net {
    fn compare(&self, (x, targets): Pair) -> RegressionOutput {
        let output = self.output.forward(relu(self.hidden.forward(x)));
        let difference = output.clone() - targets.clone();
        let loss = (difference.clone() * difference).mean();
        RegressionOutput::new(loss, output, targets)
    }
}

/// When batches were made: on the training's own thread, once a step.
static TIMES: Mutex<Vec<Instant>> = Mutex::new(Vec::new());

struct Rows;

impl Batcher<f32, Pair> for Rows {
    fn batch(&self, rows: Vec<f32>, device: &Device) -> Pair {
        let now = Instant::now();
        TIMES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(now);
        let count = rows.len();
        let x: Vec<f32> = rows
            .iter()
            .flat_map(|row| (0..784).map(move |column| (row + column as f32).sin()))
            .collect();
        let x = Tensor::<2>::from_data(TensorData::new(x, [count, 784]), device);
        let targets = x.clone().narrow(1, 0, 10);
        (x, targets)
    }
}

impl TrainStep for Net {
    type Input = Pair;
    type Output = RegressionOutput;

    fn step(&self, batch: Pair) -> TrainOutput<RegressionOutput> {
        let item = self.compare(batch);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Net {
    type Input = Pair;
    type Output = RegressionOutput;

    fn step(&self, batch: Pair) -> RegressionOutput {
        self.compare(batch)
    }
}

fn data(steps: usize) -> Arc<dyn DataLoader<Pair>> {
    DataLoaderBuilder::new(Rows)
        .batch_size(BATCH)
        .build(InMemDataset::new(
            (0..steps * BATCH).map(|row| row as f32).collect(),
        ))
}

/// Milliseconds from step to step, without the first two, which allocate.
fn intervals() -> Vec<f64> {
    let times = std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner));
    let pairs = times[..STEPS].windows(2).skip(2);
    pairs
        .map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3)
        .collect()
}

fn by_hand(mut net: Net, schedule: &Schedule) -> Result<Vec<f64>, Box<dyn Error>> {
    let loader = data(STEPS).to_device(&Device::flex().autodiff());
    let mut optimizer = AlqOptimizerConfig::new().init();
    let epoch = schedule.epochs()[0];
    for (step, batch) in loader.iter().enumerate() {
        let item = net.compare(batch.map_err(|error| error.to_string())?);
        let grads = GradientsParams::from_grads(item.loss.backward(), &net);
        optimizer.set_phase(epoch.phase(step, STEPS));
        net = optimizer.step(epoch.lr, net, grads);
    }
    Ok(intervals())
}

fn by_learner(net: Net, schedule: &Schedule) -> Result<Vec<f64>, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let model = Alq::new(net, schedule.clone(), STEPS);
    let training = SupervisedTraining::new(folder.path(), data(STEPS), data(1))
        .metrics((LossMetric::new(),))
        .num_epochs(1);
    let training = model.watch(training);
    let rates = model.rates();
    training.launch(Learner::new(model, AdamConfig::new().init(), rates));
    Ok(intervals())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::flex().autodiff();
    let net = Net {
        hidden: LinearConfig::new(784, 500).init(&device),
        output: LinearConfig::new(500, 10).init(&device),
    };
    let net = Quantizer::new(6)
        .rule(ParamGroup::all(), GroupingRule::Subchannelwise(1))
        .apply(net)?;
    let schedule = ScheduleConfig::new(Target::Bits(0.7)).init(&sizes(&net))?;
    let (mut hand, mut learner) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        hand.extend(by_hand(net.clone(), &schedule)?);
        learner.extend(by_learner(net.clone(), &schedule)?);
    }
    let (hand, learner) = (median(&mut hand), median(&mut learner));
    println!(
        "basis step, batch {BATCH}: by hand {hand:.2} ms, Learner {learner:.2} ms, overhead {:.1} %",
        (learner / hand - 1.0) * 100.0
    );
    Ok(())
}
