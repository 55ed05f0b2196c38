//! What the Learner costs over a hand-written loop: the time from one step to the next, in blocks of
//! one and of the other by turns. Of each block the median, of all blocks the lower quartile, because
//! what else the machine does only adds.
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

/// For both sides: the system's returns large tensors to the kernel and takes them again each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 128;
const STEPS: usize = 60;
const BLOCKS: usize = 24;

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

/// Makes one batch again and again, so that data take no time.
struct Rows(Vec<f32>);

impl Batcher<usize, Pair> for Rows {
    fn batch(&self, rows: Vec<usize>, device: &Device) -> Pair {
        let now = Instant::now();
        TIMES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(now);
        let data = TensorData::new(self.0.clone(), [rows.len(), 784]);
        let x = Tensor::<2>::from_data(data, device);
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
    let numbers = (0..BATCH * 784).map(|index| (index as f32).sin());
    DataLoaderBuilder::new(Rows(numbers.collect()))
        .batch_size(BATCH)
        .build(InMemDataset::new((0..steps * BATCH).collect()))
}

/// The median of the milliseconds from step to step, without the first two, which allocate.
fn interval() -> f64 {
    let times = std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner));
    let pairs = times[..STEPS].windows(2).skip(2);
    let intervals = pairs.map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3);
    quantile(&mut intervals.collect::<Vec<_>>(), 0.5)
}

fn by_hand(mut net: Net, schedule: &Schedule) -> Result<f64, Box<dyn Error>> {
    let loader = data(STEPS).to_device(&Device::flex().autodiff());
    let mut optimizer = AlqOptimizerConfig::new().init();
    let epoch = schedule.epochs()[0];
    for (step, batch) in loader.iter().enumerate() {
        let item = net.compare(batch.map_err(|error| error.to_string())?);
        let grads = GradientsParams::from_grads(item.loss.backward(), &net);
        optimizer.set_phase(epoch.phase(step, STEPS));
        net = optimizer.step(epoch.lr, net, grads);
    }
    Ok(interval())
}

fn by_learner(net: Net, schedule: &Schedule) -> Result<f64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let model = Alq::new(net, schedule.clone(), STEPS);
    let training = SupervisedTraining::new(folder.path(), data(STEPS), data(1))
        .metrics((LossMetric::new(),))
        .num_epochs(1);
    let training = model.watch(training);
    let rates = model.rates();
    training.launch(Learner::new(model, AdamConfig::new().init(), rates));
    Ok(interval())
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() as f64 * part) as usize]
}

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::flex().autodiff();
    let net = Net {
        hidden: LinearConfig::new(784, 500).init(&device),
        output: LinearConfig::new(500, 10).init(&device),
    };
    let net = Quantizer::new(6)
        .rule(ParamGroup::all(), GroupingRule::Subchannelwise(1))
        .quantize(net)?
        .0;
    let schedule = ScheduleConfig::new(Target::Bits(0.7)).init(&sizes(&net))?;
    let (mut hand, mut learner) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        hand.push(by_hand(net.clone(), &schedule)?);
        learner.push(by_learner(net.clone(), &schedule)?);
    }
    let (hand, learner) = (quantile(&mut hand, 0.25), quantile(&mut learner, 0.25));
    println!(
        "basis step, batch {BATCH}: by hand {hand:.2} ms, Learner {learner:.2} ms, overhead {:.1} %",
        (learner / hand - 1.0) * 100.0
    );
    Ok(())
}
