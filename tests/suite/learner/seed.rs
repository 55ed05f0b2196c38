//! Random numbers of a training: dropout is drawn from the seed and the step alone.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};

use super::*;
use crate::support::{Random, alone};

/// Shows what dropout leaves as its output in training.
#[derive(Module, Debug)]
struct Dropped {
    dropout: Dropout,
    fc: Linear,
}

impl Dropped {
    fn forward(&self, (images, targets): Batch) -> RegressionOutput {
        let left = self.dropout.forward(images.flatten::<2>(1, 3));
        let difference = self.fc.forward(left.clone()) - targets.clone();
        let loss = (difference.clone() * difference).mean();
        RegressionOutput::new(loss, left, targets)
    }
}

impl TrainStep for Dropped {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        let item = self.forward(batch);
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Dropped {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        self.forward(batch)
    }
}

impl Model for Dropped {}

/// 2 epochs of basis steps, 1 of coordinate steps, 1 of pruning, 2 of STE, 1 of coordinate steps.
const WHOLE: usize = 7;

/// The same network every time: nothing is drawn from the device.
fn dropped() -> Alq<Dropped> {
    let device = Device::flex().autodiff();
    let mut random = Random::new(4);
    let weight = random.normals(36 * 4, 0.3);
    let weight = TensorData::new(weight, [36, 4]).convert::<f32>();
    let mut net = Dropped {
        dropout: DropoutConfig::new(0.5).init(),
        fc: LinearConfig::new(36, 4).with_bias(false).init(&device),
    };
    net.fc.weight = burn::module::Param::from_tensor(Tensor::from_data(weight, &device));
    let net = Quantizer::new(3)
        .rule(
            ParamGroup::from_path("fc.weight"),
            burn_alq::GroupingRule::Subchannelwise(1),
        )
        .quantize(net)
        .unwrap()
        .0;
    let schedule = ScheduleConfig::new(Target::Bits(1.0))
        .with_rounds(1)
        .with_basis_epochs(2)
        .with_coordinate_epochs(1)
        .with_ste_epochs(2)
        .with_final_epochs(1);
    let schedule = schedule.init(&sizes(&net)).unwrap();
    Alq::new(net, schedule, Fit::BATCHES)
}

fn seeded(seed: Option<u64>) -> Alq<Dropped> {
    match seed {
        Some(seed) => dropped().with_seed(seed),
        None => dropped(),
    }
}

fn data(stop: Option<(usize, Interrupter)>) -> Arc<dyn DataLoader<Batch>> {
    let made = Arc::default();
    loader(items(), Fit::BATCH, None, Stack { made, stop })
}

fn bits(result: LearningResult<Alq<Dropped>>) -> Vec<u8> {
    let packed = PackedModel::pack(result.model.model()).unwrap();
    packed.to_bytes().unwrap()
}

fn whole(seed: Option<u64>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let model = seeded(seed);
    let result = launch(training(folder.path(), data(None)).num_epochs(WHOLE), model);
    assert_eq!(result.model.steps(), WHOLE * Fit::BATCHES);
    bits(result)
}

/// Killed in a step, and continued after the device has drawn something else.
fn in_two(seed: Option<u64>, stop: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let interrupter = Interrupter::new();
    let model = seeded(seed);
    let killed = training(folder.path(), data(Some((stop, interrupter.clone()))))
        .with_interrupter(interrupter)
        .with_default_checkpointers();
    launch(killed.num_epochs(WHOLE), model);
    Device::flex().seed(99);
    let model = seeded(seed);
    let done = model.last_checkpoint(folder.path()).unwrap().unwrap();
    assert_eq!(done, stop / Fit::BATCHES);
    let train = resume_data(data(None), done);
    let resumed = training(folder.path(), train)
        .with_default_checkpointers()
        .checkpoint(done);
    bits(launch(resumed.num_epochs(WHOLE), model))
}

#[test]
fn dropout_resumes_to_the_same_bytes() {
    if !alone("learner::seed::dropout_resumes_to_the_same_bytes") {
        return;
    }
    let seeded = whole(Some(3));
    assert!(whole(Some(3)) == seeded, "again");
    assert!(whole(Some(4)) != seeded, "another seed");
    // Basis, coordinate and STE; pruning drops nothing.
    for stop in [7, 12, 23, 28] {
        assert!(in_two(Some(3), stop) == seeded, "killed in step {stop}");
    }
    let device = Device::flex();
    device.seed(5);
    let unseeded = whole(None);
    device.seed(5);
    assert!(whole(None) == unseeded, "nothing else is drawn");
    device.seed(5);
    assert!(in_two(None, 12) != unseeded, "dropout is in the bytes");
}

#[test]
fn every_step_and_every_batch_of_it_drops_something_else() {
    if !alone("learner::seed::every_step_and_every_batch_of_it_drops_something_else") {
        return;
    }
    let device = Device::flex().autodiff();
    let batch = || {
        (
            Tensor::ones([2, 1, 6, 6], &device),
            Tensor::zeros([2, 4], &device),
        )
    };
    let step = |model: &Alq<Dropped>| {
        let output = TrainStep::step(model, batch());
        let left = output.item.output.into_data().try_into_vec::<f32>();
        (left.unwrap(), output.grads)
    };
    let draws = |seed: u64| {
        let mut model = dropped().with_seed(seed);
        let mut optim = adam();
        let mut found = Vec::new();
        for _ in 0..2 {
            found.push(step(&model).0);
            let (left, grads) = step(&model);
            found.push(left);
            model = model.optimize(&mut optim, 1e-3.into(), grads);
        }
        found
    };
    let found = draws(3);
    assert_eq!(draws(3), found);
    let all = [found, draws(4)].concat();
    for (index, left) in all.iter().enumerate() {
        let kept = left.iter().filter(|&&x| x == 2.0).count();
        let gone = left.iter().filter(|&&x| x == 0.0).count();
        assert!(kept > 0 && gone > 0 && kept + gone == left.len());
        assert!(!all[..index].contains(left), "draw {index} is not new");
    }
}
