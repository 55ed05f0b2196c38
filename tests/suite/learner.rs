//! Burn's own Learner along the schedule: the same bits as the loop, stopped anywhere and resumed,
//! on several devices, with everything that the Learner adds.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::grad_clipping::GradientClipping;
use burn::module::{Module, ParamGroup};
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::{AdamConfig, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::optim::PhaseKind;
use burn_alq::optim::{Cost, total};
use burn_alq::optim::{average_bits, sizes};
use burn_alq::train::learner::{Alq, CheckpointError, LineRenderer, resume_data};
use burn_alq::{PackedModel, Quantizer, ScheduleConfig, Target};
use burn_core::data::dataloader::batcher::Batcher;
use burn_core::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn_core::data::dataset::InMemDataset;
use burn_core::store::ModuleRecord;
use burn_train::metric::LossMetric;
use burn_train::metric::store::EventStoreClient;
use burn_train::{
    EarlyStoppingStrategy, ExecutionStrategy, InferenceStep, Interrupter, Learner, LearnerModel,
    LearningResult, MultiDeviceOptim, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
};

use crate::devices::device;
use crate::exceptions::excepted;
use crate::model::{Fit, Net, bytes, finish, quantizer, schedule, start};

// No package can depend on another's example; the suite runs the very file that users read.
#[path = "../../crates/burn-alq/examples/learner.rs"]
mod example;
mod seed;
mod steps;

type Item = (Vec<f32>, Vec<f32>);
type Batch = (Tensor<4>, Tensor<2>);

impl TrainStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, (images, targets): Batch) -> TrainOutput<RegressionOutput> {
        let item = InferenceStep::step(self, (images, targets));
        TrainOutput::new(self, item.loss.backward(), item)
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, (images, targets): Batch) -> RegressionOutput {
        let output = self.forward(images);
        let difference = output.clone() - targets.clone();
        let loss = (difference.clone() * difference).mean();
        RegressionOutput::new(loss, output, targets)
    }
}

/// Makes batches, and stops the training at one of them.
#[derive(Clone, Default)]
struct Stack {
    made: Arc<AtomicUsize>,
    stop: Option<(usize, Interrupter)>,
}

impl Batcher<Item, Batch> for Stack {
    fn batch(&self, items: Vec<Item>, device: &Device) -> Batch {
        let made = self.made.fetch_add(1, Ordering::SeqCst);
        if let Some((at, interrupter)) = &self.stop
            && made == *at
        {
            interrupter.stop(Some("killed"));
        }
        let count = items.len();
        let (images, targets): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        (
            Tensor::from_data(TensorData::new(images.concat(), [count, 1, 6, 6]), device),
            Tensor::from_data(TensorData::new(targets.concat(), [count, 4]), device),
        )
    }
}

fn items() -> Vec<Item> {
    let fit = Fit::new(&Device::flex());
    let images = fit.images.chunks(36).map(<[f32]>::to_vec);
    let targets = fit.targets.chunks(4).map(<[f32]>::to_vec);
    images.zip(targets).collect()
}

fn loader(
    items: Vec<Item>,
    batch: usize,
    seed: Option<u64>,
    stack: Stack,
) -> Arc<dyn DataLoader<Batch>> {
    let builder = DataLoaderBuilder::new(stack)
        .batch_size(batch)
        .set_device(Device::flex());
    let builder = match seed {
        Some(seed) => builder.shuffle(seed),
        None => builder,
    };
    builder.build(InMemDataset::new(items))
}

fn adam() -> ModuleOptimizer {
    // ε as the default optimizer of a hand-written loop has it.
    AdamConfig::new().with_epsilon(1e-8).init()
}

pub fn net() -> Net {
    net_on(&Device::flex().autodiff())
}

fn net_on(device: &Device) -> Net {
    quantizer().quantize(Net::new(device)).unwrap().0
}

/// 11 epochs of 5 steps, in every phase.
pub fn alq(net: Net) -> Alq<Net> {
    let schedule = schedule(&net, Target::Bits(0.7));
    Alq::new(net, schedule, Fit::BATCHES)
}

const EPOCHS: usize = 11;

/// A network of these tests.
trait Model:
    TrainStep<Input = Batch, Output = RegressionOutput>
    + InferenceStep<Input = Batch, Output = RegressionOutput>
    + LearnerModel
{
}

impl Model for Net {}

fn training<M: Model>(
    folder: &Path,
    train: Arc<dyn DataLoader<Batch>>,
) -> SupervisedTraining<Alq<M>> {
    let first = items()[..Fit::BATCH].to_vec();
    let valid = loader(first, Fit::BATCH, None, Stack::default());
    SupervisedTraining::new(folder, train, valid)
        // One global logger in a process with other tests.
        .with_application_logger(None)
        .renderer(Box::new(LineRenderer::new(std::io::sink())))
        .metrics((LossMetric::new(),))
        .num_epochs(EPOCHS)
}

fn launch<M: Model>(training: SupervisedTraining<Alq<M>>, model: Alq<M>) -> LearningResult<Alq<M>> {
    let rates = model.rates();
    let result = training.launch(Learner::new(model, adam(), rates));
    if let Some(error) = &result.error {
        panic!("{error}");
    }
    result
}

fn packed(result: LearningResult<Alq<Net>>) -> Vec<u8> {
    bytes(result.model.model())
}

#[test]
fn the_learner_and_a_loop_reach_the_same_bytes() {
    if excepted("learner::the_learner_and_a_loop_reach_the_same_bytes") {
        return;
    }
    let device = device().autodiff();
    let by_loop = finish(start(&device, Target::Bits(0.7)), &Fit::new(&device));
    let folder = tempfile::tempdir().unwrap();
    let train = loader(items(), Fit::BATCH, None, Stack::default());
    let result = launch(training(folder.path(), train), alq(net_on(&device)));
    assert_eq!(result.model.steps(), EPOCHS * Fit::BATCHES);
    assert!(packed(result) == bytes(&by_loop));
}

/// Killed in every phase, and continued by another process from the last whole epoch, with data
/// that are shuffled anew every epoch.
#[test]
fn a_killed_training_resumes_to_the_same_bytes() {
    let shuffled = |stack| loader(items(), Fit::BATCH, Some(5), stack);
    let folder = tempfile::tempdir().unwrap();
    let whole = launch(
        training(folder.path(), shuffled(Stack::default())),
        alq(net()),
    );
    let whole = packed(whole);
    let mut phases = Vec::new();
    // The second epoch is the first that has a checkpoint behind it.
    for stop in [7, 13, 17, 24, 33, 38, 41, 49, 53] {
        let folder = tempfile::tempdir().unwrap();
        let interrupter = Interrupter::new();
        let stack = Stack {
            stop: Some((stop, interrupter.clone())),
            ..Stack::default()
        };
        let model = alq(net());
        let monitor = model.monitor().clone();
        let killed = training(folder.path(), shuffled(stack))
            .with_interrupter(interrupter)
            .with_default_checkpointers();
        let result = launch(killed, model);
        assert!(result.interrupted.is_some());
        assert_eq!(result.model.steps(), stop + 1);
        phases.push(monitor.status().unwrap().phase);

        let model = alq(net());
        let done = model.last_checkpoint(folder.path()).unwrap().unwrap();
        assert_eq!(done, stop / Fit::BATCHES);
        let train = resume_data(shuffled(Stack::default()), done);
        let resumed = training(folder.path(), train)
            .with_default_checkpointers()
            .checkpoint(done);
        let result = launch(resumed, model);
        assert!(packed(result) == whole, "killed in step {stop}");
    }
    use PhaseKind::{Basis, Coordinate, Prune, Ste};
    for phase in [Basis, Coordinate, Prune, Ste] {
        assert!(phases.contains(&phase), "killed in {phase}");
    }
}

/// The root of the mean square of the differences of multi-bit weights.
fn distance(a: &Net, b: &Net) -> f32 {
    let read = |net: &Net| -> Vec<f32> {
        let conv = net.conv.weight.val().into_data().try_into_vec::<f32>();
        let fc = net.fc.weight.val().into_data().try_into_vec::<f32>();
        [conv.unwrap(), fc.unwrap()].concat()
    };
    let (a, b) = (read(a), read(b));
    let squares = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b));
    (squares.sum::<f32>() / a.len() as f32).sqrt()
}

/// Signs of bases that differ.
fn flipped(a: &Net, b: &Net) -> u32 {
    let signs = |net: &Net| -> Vec<u32> {
        let weights = weights(net).into_iter();
        weights
            .flat_map(|(_, packed)| packed.words().to_vec())
            .collect()
    };
    let (a, b) = (signs(a), signs(b));
    a.iter().zip(&b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// Batch statistics of half a batch are others, so the norm is frozen.
fn frozen() -> Alq<Net> {
    let net = net().freeze_group(ParamGroup::from_predicate("norm"));
    alq(net)
}

/// Half the batch on each device, or half the batch twice: Burn sums both. Twice the gradient gives
/// the same steps, but for ε and rounding.
#[test]
fn devices_and_accumulation_give_the_result_of_one_device() {
    let folder = tempfile::tempdir().unwrap();
    let half = Fit::BATCH / 2;
    let count = Fit::BATCH * Fit::BATCHES;
    let all = items();
    // Burn gives the first half of the data to the first device; batch k of one device is batch k
    // of both.
    let order = (0..Fit::BATCHES).flat_map(|batch| {
        let of = move |device: usize| device * count / 2 + batch * half;
        (of(0)..of(0) + half).chain(of(1)..of(1) + half)
    });
    let one: Vec<Item> = order.map(|index| all[index].clone()).collect();
    let run =
        |training: SupervisedTraining<Alq<Net>>| launch(training, frozen()).model.into_inner();
    let plain = |items: &[Item], batch| {
        training(
            folder.path(),
            loader(items.to_vec(), batch, None, Stack::default()),
        )
    };
    let expected = run(plain(&one, Fit::BATCH));
    // What a lost half would do.
    let wrong = distance(&run(plain(&all[..count / 2], half)), &expected);

    let accumulated = run(plain(&one, half).grads_accumulation(2));
    let devices = || vec![Device::flex().autodiff(); 2];
    let mut others = vec![("accumulated", accumulated)];
    for optim in [
        MultiDeviceOptim::OptimMainDevice,
        MultiDeviceOptim::OptimSharded,
    ] {
        let strategy = ExecutionStrategy::multi(devices(), optim);
        let multi = plain(&all, half).with_training_strategy(strategy.into());
        others.push(("two devices", run(multi)));
    }
    for (name, net) in others {
        assert_eq!(sizes(&net), sizes(&expected), "{name}: the same is pruned");
        let (found, flipped) = (distance(&net, &expected), flipped(&net, &expected));
        println!("{name}: {found:e} apart, {flipped} signs; a lost half: {wrong:e}");
        // 55 steps of sums in another order: roundings of weights below 1, 6e-8 each. Where a
        // weight is as near as that to the middle of two levels, rounding decides which it takes
        // (by the odds in one of ten trainings), and the weights after it follow a little.
        let bound = match flipped {
            0 => 1e-5,
            _ => wrong / 10.0,
        };
        assert!(found < bound, "{name}: {found} apart, {flipped} signs");
    }
    assert!(wrong > 1e-3, "{wrong}: the bounds tell nothing");
}

/// A file that a test reads.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_epoch_is_a_line_with_bits_bytes_and_phase() {
    let folder = tempfile::tempdir().unwrap();
    let train = loader(items(), Fit::BATCH, None, Stack::default());
    let model = alq(net());
    let paper = Paper::default();
    let watched = model
        .watch(training(folder.path(), train))
        .renderer(Box::new(LineRenderer::new(paper.clone())));
    let net = launch(watched, model).model.into_inner();
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), EPOCHS, "{text}");
    let phases = [
        "basis (round 1)",
        "basis (round 1)",
        "coordinate (round 1)",
        "prune (round 1)",
        "basis (round 2)",
        "basis (round 2)",
        "coordinate (round 2)",
        "prune (round 2)",
        "ste",
        "ste",
        "coordinate",
    ];
    for (index, (line, phase)) in lines.iter().zip(phases).enumerate() {
        let epoch = format!("epoch {}/11 | ", index + 1);
        assert!(line.starts_with(&epoch), "{line}");
        assert!(line.contains(&format!("phase {phase}")), "{phase}: {line}");
        assert_eq!(line.contains("(round"), phase.contains("(round"), "{line}");
        let valid = line.split(" | valid: ").nth(1).unwrap();
        assert!(valid.starts_with("loss "), "{line}");
    }
    let after = sizes(&net);
    let bits = format!("average bits {:.4} bit", average_bits(&after));
    let bytes = format!(
        "packed bytes {} B",
        total(&after, Cost::Bytes(burn_alq::CoordinateType::F32))
    );
    // The line of the last pruning epoch shows what is left after its last step.
    for line in &lines[7..] {
        assert!(
            line.contains(&bits) && line.contains(&bytes),
            "{bits}, {bytes}: {line}"
        );
    }
    assert!(!lines[6].contains(&bits), "{}", lines[6]);
    // Logged are the first value of an epoch and the changes; only pruning changes the size.
    for (epoch, phase) in phases.iter().enumerate() {
        let log = folder.path().join(format!("train/epoch-{}", epoch + 1));
        let lines = |name: &str| {
            std::fs::read_to_string(log.join(name))
                .unwrap()
                .lines()
                .count()
        };
        // Burn writes one more line for the epoch.
        assert_eq!(lines("Loss.log"), Fit::BATCHES + 1);
        let sizes = lines("Average_Bits.log");
        assert_eq!(sizes > 1, phase.starts_with("prune"), "{sizes} in {phase}");
        let widths = lines("Widths.log");
        assert_eq!(widths > 1, phase.starts_with("prune"), "{phase}");
        assert_eq!(lines("Phase.log"), 1);
    }
}

#[derive(Clone)]
struct AtOnce;

impl EarlyStoppingStrategy for AtOnce {
    fn should_stop(&mut self, _epoch: usize, _store: &EventStoreClient) -> bool {
        true
    }
}

#[test]
fn early_stopping_waits_for_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let train = || loader(items(), Fit::BATCH, None, Stack::default());
    let model = alq(net());
    let stopping = model.once_pruned(AtOnce);
    let result = launch(
        training(folder.path(), train()).early_stopping(stopping),
        model,
    );
    // Epoch 8 of 11 is the last that prunes.
    assert_eq!(result.model.steps(), 9 * Fit::BATCHES);
    assert!(average_bits(&sizes(result.model.model())) <= 0.7);
    let result = launch(
        training(folder.path(), train()).early_stopping(AtOnce),
        alq(net()),
    );
    assert_eq!(result.model.steps(), Fit::BATCHES, "without waiting");
}

/// One epoch of the basis phase with a rate and a clipping of the caller's.
fn one_epoch(rate: f64, clipping: Option<GradientClipping>) -> Weights {
    let folder = tempfile::tempdir().unwrap();
    let train = loader(items(), Fit::BATCH, None, Stack::default());
    let optim = match clipping {
        Some(clipping) => adam().with_grad_clipping(clipping),
        None => adam(),
    };
    let learner = Learner::new(alq(net()), optim, ConstantLr::new(rate));
    let result = training(folder.path(), train).num_epochs(1).launch(learner);
    weights(result.model.model())
}

type Weights = Vec<(String, Arc<multibit::PackedWeight>)>;

/// Without running statistics, which move in any case.
fn weights(net: &Net) -> Weights {
    PackedModel::pack(net).unwrap().weights
}

#[test]
fn clipping_and_rates_of_the_learner_hold_for_multi_bit_weights() {
    let still = weights(&net());
    let moved = one_epoch(5e-3, None);
    assert_ne!(moved, still);
    assert_ne!(one_epoch(1e-3, None), moved, "another rate");
    let nothing = GradientClipping::Value(0.0);
    assert_eq!(one_epoch(5e-3, Some(nothing)), still, "no gradient");
    let all = GradientClipping::Value(1e9);
    assert_eq!(one_epoch(5e-3, Some(all)), moved, "all of the gradient");
}

#[test]
fn foreign_checkpoints_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let train = loader(items(), Fit::BATCH, None, Stack::default());
    let saved = training(folder.path(), train)
        .num_epochs(3)
        .with_default_checkpointers();
    let result = launch(saved, alq(net()));
    let good = result.model.into_record().into_bytes().unwrap().to_vec();
    let record = || ModuleRecord::from_bytes(burn::tensor::Bytes::from_bytes_vec(good.clone()));

    let fresh = alq(net());
    let before = fresh.clone().into_record().into_bytes().unwrap().to_vec();
    assert_eq!(fresh.last_checkpoint(folder.path()).unwrap(), Some(3));
    let load =
        |model: &Alq<Net>, record: ModuleRecord| model.clone().load_checkpoint(record).unwrap_err();

    let float = Net::new(&Device::flex().autodiff()).into_record();
    let error = load(&fresh, float);
    assert!(matches!(error, CheckpointError::Float), "{error}");
    let error = load(&fresh, net().into_record());
    assert!(matches!(error, CheckpointError::NoPosition), "{error}");

    let seeded = alq(net()).with_seed(3);
    let error = load(&seeded, record().unwrap());
    assert!(matches!(error, CheckpointError::Run { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("seed none") && text.contains("seed 3"),
        "{text}"
    );
    let slower = schedule(fresh.model(), Target::Bits(0.6));
    let error = load(&Alq::new(net(), slower, Fit::BATCHES), record().unwrap());
    assert!(matches!(error, CheckpointError::Run { .. }), "{error}");

    // The same network with fewer bits.
    let narrow = Quantizer::new(2).rule(
        ParamGroup::from_path("fc.weight"),
        burn_alq::GroupingRule::Subchannelwise(4),
    );
    let narrow = narrow
        .quantize(Net::new(&Device::flex().autodiff()))
        .unwrap()
        .0;
    let plan = ScheduleConfig::new(Target::Bits(0.7))
        .init(&sizes(&narrow))
        .unwrap();
    let error = load(
        &Alq::new(narrow.clone(), plan.clone(), 5),
        record().unwrap(),
    );
    assert!(matches!(error, CheckpointError::Model { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("fc.weight.multi_bit.coordinates"),
        "{error}"
    );
    let error = Alq::new(narrow, plan, 5)
        .last_checkpoint(folder.path())
        .unwrap_err();
    assert!(matches!(error, CheckpointError::File { .. }), "{error}");
    assert!(error.to_string().contains("model-3.bpk"), "{error}");

    let after = fresh.clone().into_record().into_bytes().unwrap().to_vec();
    assert!(after == before, "running statistics too");

    // An epoch of which the killed training wrote one file does not count; damage is named.
    let checkpoint = folder.path().join("checkpoint");
    std::fs::copy(
        checkpoint.join("model-3.bpk"),
        checkpoint.join("model-4.bpk"),
    )
    .unwrap();
    assert_eq!(fresh.last_checkpoint(folder.path()).unwrap(), Some(3));
    std::fs::write(checkpoint.join("optim-3.bpk"), b"half").unwrap();
    let error = fresh.last_checkpoint(folder.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::File { .. }), "{error}");
    assert!(error.to_string().contains("optim-3.bpk"), "{error}");
    let nowhere = folder.path().join("nowhere");
    assert_eq!(fresh.last_checkpoint(nowhere).unwrap(), None);
}

/// What a plain model reads from a checkpoint.
#[test]
fn a_checkpoint_is_a_record_of_the_model() {
    let model = alq(net());
    let record = model.clone().into_record().allow_unused(true);
    let plain = net().try_load_record(record).unwrap();
    assert!(bytes(&plain) == bytes(model.model()));
}

/// Burn forks the model of a training, and a fork has its own moments.
#[test]
fn copies_of_a_trained_model_each_train() {
    let folder = tempfile::tempdir().unwrap();
    let train = || loader(items(), Fit::BATCH, None, Stack::default());
    let short = |train| training(folder.path(), train).num_epochs(1);
    let once = launch(short(train()), alq(net())).model.train();
    let before = weights(once.model());
    let twice = launch(short(train()), once.clone());
    let again = launch(short(train()), once.clone());
    assert_eq!(twice.model.steps(), 2 * Fit::BATCHES);
    // Burn's clones share what batch norm has seen, which is in the bytes.
    assert_eq!(weights(twice.model.model()), weights(again.model.model()));
    assert_eq!(weights(once.model()), before);
}

#[test]
#[should_panic(expected = "trained further elsewhere")]
fn an_old_clone_cannot_be_trained() {
    let step = |model: Alq<Net>, optim: &mut ModuleOptimizer| {
        model.optimize(optim, 1e-3.into(), Default::default())
    };
    let optim = &mut adam();
    let once = step(alq(net()), optim);
    step(once.clone(), optim);
    step(once, optim);
}

#[test]
fn the_example_runs_and_resumes_and_the_readme_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = example::train(folder.path(), 2).unwrap_err().to_string();
    assert!(first.contains("16 of the 64 steps"), "{first}");
    let bits = example::train(folder.path(), usize::MAX).unwrap();
    assert!(bits <= 0.7, "{bits} bits");

    let readme = include_str!("../../crates/burn-alq/README.md");
    let section = readme.split("## Train in Burn's Learner").nth(1).unwrap();
    let code = section.split("```rust,no_run\n").nth(1).unwrap();
    let code = code.split("```").next().unwrap();
    let source = include_str!("../../crates/burn-alq/examples/learner.rs");
    // Lines that rustdoc hides, and imports, are there to compile.
    let shown = |line: &&str| !line.starts_with("# ") && !line.starts_with("use ");
    let lines = |text: &str| -> Vec<String> {
        let shown = text.lines().filter(shown).map(|line| line.trim().into());
        shown.skip_while(String::is_empty).collect()
    };
    let (code, source) = (lines(code), lines(source));
    let found = source.windows(code.len()).any(|window| window == code);
    assert!(found, "the README shows what the example does");
}
