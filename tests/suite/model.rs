//! Whole models: quantized by path rules, trained in a loop of the caller's and along a schedule,
//! stopped and resumed.

use burn::module::{Module, Param, ParamGroup};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::optim::prune::Budget;
use burn_alq::optim::{Cost, total};
use burn_alq::optim::{average_bits, sizes};
use burn_alq::quantize::QuantizeError;
use burn_alq::train::{Run, Task, TrainError};
use burn_alq::{
    AlqOptimizerConfig, CoordinateType, GroupingRule, MultiBitConv2d, MultiBitConv2dConfig,
    PackedModel, Phase, Quantizer, Schedule, ScheduleConfig, Target,
};

use crate::devices::device;
use crate::support::Random;

/// A multi-bit layer, a norm and a plain layer of Burn's.
#[derive(Module, Debug)]
pub struct Net {
    pub conv: MultiBitConv2d,
    pub norm: BatchNorm,
    pub fc: Linear,
}

impl Net {
    pub fn new(device: &Device) -> Self {
        let mut net = Self {
            conv: MultiBitConv2dConfig::new([1, 8], [3, 3]).init_float(device),
            norm: BatchNormConfig::new(8).init(device),
            fc: LinearConfig::new(8 * 16, 4).init(device),
        };
        // The tests of this binary share the device's generator, so it is not used.
        let mut random = Random::new(7);
        net.conv.weight = drawn(&mut random, [8, 1, 3, 3], 1.0 / 3.0, device);
        net.conv.bias = Some(drawn(&mut random, [8], 1.0 / 3.0, device));
        net.fc.weight = drawn(&mut random, [8 * 16, 4], 0.088, device);
        net.fc.bias = Some(drawn(&mut random, [4], 0.088, device));
        net
    }

    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.conv.forward(images)));
        self.fc.forward(x.flatten::<2>(1, 3))
    }
}

/// A parameter between `-largest` and `largest`.
fn drawn<const D: usize>(
    random: &mut Random,
    shape: [usize; D],
    largest: f32,
    device: &Device,
) -> Param<Tensor<D>> {
    let len = shape.iter().product();
    let values = (0..len).map(|_| (2.0 * random.uniform() as f32 - 1.0) * largest);
    let data = TensorData::new(values.collect::<Vec<f32>>(), shape);
    Param::from_tensor(Tensor::from_data(data, device))
}

pub fn quantizer() -> Quantizer {
    Quantizer::new(3)
        .rule(
            ParamGroup::from_path("conv.weight"),
            GroupingRule::Kernelwise,
        )
        .rule(
            ParamGroup::from_path("fc.weight"),
            GroupingRule::Subchannelwise(4),
        )
}

/// Regression on fixed random numbers.
pub struct Fit {
    pub images: Vec<f32>,
    pub targets: Vec<f32>,
    shards: usize,
    device: Device,
    /// From this epoch on the loss is NaN.
    broken_from: usize,
}

impl Fit {
    pub const BATCHES: usize = 5;
    pub const BATCH: usize = 12;

    pub fn new(device: &Device) -> Self {
        let mut random = Random::new(3);
        let count = Self::BATCHES * Self::BATCH;
        let mut normals = |n: usize| random.normals(n, 1.0).iter().map(|&x| x as f32).collect();
        Self {
            images: normals(count * 36),
            targets: normals(count * 4),
            shards: 1,
            device: device.clone(),
            broken_from: usize::MAX,
        }
    }

    fn batch(&self, start: usize, count: usize) -> (Tensor<4>, Tensor<2>) {
        let images = self.images[start * 36..][..count * 36].to_vec();
        let targets = self.targets[start * 4..][..count * 4].to_vec();
        (
            Tensor::from_data(TensorData::new(images, [count, 1, 6, 6]), &self.device),
            Tensor::from_data(TensorData::new(targets, [count, 4]), &self.device),
        )
    }
}

fn error(net: &Net, images: Tensor<4>, targets: Tensor<2>) -> Tensor<1> {
    let difference = net.forward(images) - targets;
    (difference.clone() * difference).mean()
}

impl Task for Fit {
    type Model = Net;

    fn batches(&self) -> usize {
        Self::BATCHES
    }

    fn shards(&self) -> usize {
        self.shards
    }

    fn loss(&self, net: &Net, epoch: usize, batch: usize, shard: usize) -> Tensor<1> {
        let count = Self::BATCH / self.shards;
        let start = batch * Self::BATCH + shard * count;
        let (images, targets) = self.batch(start, count);
        let scale = if epoch < self.broken_from {
            1.0
        } else {
            f64::NAN
        };
        error(net, images, targets) * (scale / self.shards as f64)
    }

    fn evaluate(&self, net: &Net) -> f64 {
        let device = self.device.clone().without_autodiff();
        let (images, targets) = self.batch(0, Self::BATCH);
        let images = images.without_autodiff().to_device(&device);
        let targets = targets.without_autodiff().to_device(&device);
        f64::from(error(net, images, targets).into_scalar::<f32>())
    }
}

pub fn short(target: Target) -> ScheduleConfig {
    ScheduleConfig::new(target)
        .with_rounds(2)
        .with_basis_epochs(2)
        .with_coordinate_epochs(1)
        .with_ste_epochs(2)
        .with_final_epochs(1)
        .with_lr(5e-3)
}

pub fn schedule(net: &Net, target: Target) -> Schedule {
    short(target).init(&sizes(net)).unwrap()
}

pub fn start(device: &Device, target: Target) -> Run<Net> {
    start_with(device, &short(target))
}

pub fn start_with(device: &Device, config: &ScheduleConfig) -> Run<Net> {
    let net = quantizer().quantize(Net::new(device)).unwrap().0;
    let schedule = config.init(&sizes(&net)).unwrap();
    Run::new(net, AlqOptimizerConfig::new().init(), schedule, "test")
}

pub fn finish(mut run: Run<Net>, task: &Fit) -> Net {
    while run.advance(task).unwrap().is_some() {}
    run.into_model()
}

pub fn bytes(net: &Net) -> Vec<u8> {
    PackedModel::pack(net).unwrap().to_bytes().unwrap()
}

/// Every multi-bit weight's value is its reconstruction: what the network trains on is what is
/// packed.
pub fn assert_consistent(net: &Net) {
    let packed = PackedModel::pack(net).unwrap();
    let conv: Vec<f32> = net.conv.weight.val().into_data().try_into_vec().unwrap();
    let fc: Vec<f32> = net.fc.weight.val().into_data().try_into_vec().unwrap();
    for ((path, weight), value) in packed.weights.iter().zip([conv, fc]) {
        for (packed, value) in weight.unpack().iter().zip(value) {
            // Devices may sum the same terms with fused operations.
            assert!(
                (packed - value).abs() < 1e-6,
                "{path}: {packed} is not {value}"
            );
        }
    }
}

#[test]
fn a_hand_written_loop_trains_prunes_and_packs() {
    let device = device().autodiff();
    let task = Fit::new(&device);
    let mut net = quantizer().quantize(Net::new(&device)).unwrap().0;
    let mut optimizer = AlqOptimizerConfig::new().init();
    let before = task.evaluate(&net.valid());
    let start = total(&sizes(&net), Cost::Coordinates);
    let mut left = start;
    for step in 0..60 {
        let phase = match step {
            0..20 => Phase::Basis,
            20..30 => Phase::Coordinate,
            30..40 => {
                left -= 2;
                Phase::Prune(Budget {
                    cost: Cost::Coordinates,
                    at_most: left as f64,
                    top_k: 0.1,
                    loss_share: 1.0,
                    floor: 0.0,
                })
            }
            40..50 => Phase::Ste,
            _ => Phase::Coordinate,
        };
        optimizer.set_phase(phase);
        let (images, targets) = task.batch(step % Fit::BATCHES * Fit::BATCH, Fit::BATCH);
        let grads = error(&net, images, targets).backward();
        let grads = GradientsParams::from_grads(grads, &net);
        net = optimizer.step(5e-3, net, grads);
        assert_eq!(
            total(&sizes(&net), Cost::Coordinates),
            left,
            "step {step} counts exactly"
        );
        assert_consistent(&net);
    }
    assert_eq!(left, start - 20);
    let after = task.evaluate(&net.valid());
    // The targets are random numbers: a few weights of few bits learn a part of them.
    assert!(after < 0.85 * before, "{after} against {before}");
}

#[test]
fn a_frozen_phase_trains_the_rest_only() {
    let device = device().autodiff();
    let task = Fit::new(&device);
    let net = quantizer().quantize(Net::new(&device)).unwrap().0;
    let mut optimizer = AlqOptimizerConfig::new().init();
    let (images, targets) = task.batch(0, Fit::BATCH);
    let grads = GradientsParams::from_grads(error(&net, images, targets).backward(), &net);
    let next = optimizer.step(1e-2, net.clone(), grads);
    assert_eq!(
        next.fc.weight.val().into_data(),
        net.fc.weight.val().into_data()
    );
    let bias = |net: &Net| net.fc.bias.as_ref().unwrap().val().into_data();
    assert_ne!(bias(&next), bias(&net));
}

/// A weight that the loss does not depend on keeps its bits, and they count.
#[test]
fn a_weight_without_a_gradient_takes_its_part_of_the_budget() {
    let device = device().autodiff();
    let net = quantizer().quantize(Net::new(&device)).unwrap().0;
    let mut optimizer = AlqOptimizerConfig::new().init();
    let start = total(&sizes(&net), Cost::Coordinates);
    let budget = Budget {
        cost: Cost::Coordinates,
        at_most: (start - 5) as f64,
        top_k: 0.5,
        loss_share: 1.0,
        floor: 0.0,
    };
    optimizer.set_phase(Phase::Prune(budget));
    let input = Tensor::<2>::ones([2, 128], &device);
    let grads = net.fc.forward(input).mean().backward();
    let before = sizes(&net)[0];
    let grads = GradientsParams::from_grads(grads, &net);
    let net = optimizer.step(1e-3, net, grads);
    assert_eq!(sizes(&net)[0], before, "the convolution has no gradient");
    assert_eq!(total(&sizes(&net), Cost::Coordinates), start - 5);
}

#[test]
fn the_target_is_met_exactly() {
    let device = device().autodiff();
    let task = Fit::new(&device);
    for target in [Target::Bits(0.7), Target::Bytes(150), Target::Ratio(0.5)] {
        let run = start(&device, target.clone());
        let before = sizes(run.model());
        let net = finish(run, &task);
        let after = sizes(&net);
        match target {
            Target::Bits(bits) => {
                // One coordinate costs at most the 32 weights of its group.
                let step = 32.0 / after.iter().map(|size| size.weights()).sum::<usize>() as f64;
                let found = average_bits(&after);
                assert!(found <= bits && found > bits - step, "{found} bits");
            }
            Target::Bytes(bytes) => {
                let found = total(&after, Cost::Bytes(CoordinateType::F32));
                // A coordinate, its row, and a bit of every width.
                assert!(found <= bytes && found > bytes - 16, "{found} bytes");
                let packed = PackedModel::pack(&net).unwrap();
                let stored = packed
                    .weights
                    .iter()
                    .map(|(_, weight)| weight.encoded_bytes().total());
                assert_eq!(stored.sum::<usize>(), found, "sizes foresee the file");
            }
            Target::Ratio(_) => {
                let start = total(&before, Cost::Coordinates) as f64;
                assert_eq!(
                    total(&after, Cost::Coordinates),
                    (start / 4.0).round() as usize
                );
            }
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let device = device().autodiff();
    let task = Fit::new(&device);
    let first = bytes(&finish(start(&device, Target::Bits(0.7)), &task));
    let second = bytes(&finish(start(&device, Target::Bits(0.7)), &task));
    assert!(first == second);
}

/// Whatever a batch needs is in the step of the schedule: a loop of the caller's, on a model with batch
/// norm, reaches every bit that a run reaches, with coordinates rounded to f16 and recovery between the
/// prunings.
#[test]
fn a_loop_over_the_steps_of_a_schedule_trains_what_a_run_trains() {
    let device = device().autodiff();
    let task = Fit::new(&device);
    let config = short(Target::Bits(0.7))
        .with_coordinate_type(CoordinateType::F16)
        .with_recovery_steps(1);
    let mut run = start_with(&device, &config);
    let mut net = start_with(&device, &config).into_model();
    let mut optimizer = AlqOptimizerConfig::new().init();
    for step in run.schedule().clone().steps(Fit::BATCHES) {
        let training = step.model(&net);
        let (images, targets) = task.batch(step.batch * Fit::BATCH, Fit::BATCH);
        let grads = error(&training, images, targets).backward();
        let grads = GradientsParams::from_grads(grads, &training);
        optimizer.follow(&step);
        net = optimizer.step(step.lr, net, grads);
        assert_eq!(run.position(), (step.epoch, step.batch));
        run.advance(&task).unwrap();
    }
    assert!(run.is_finished());
    // What is not rounded to f16 is refused.
    let stored = |net: &Net| {
        let packed = PackedModel::pack(net).unwrap();
        let rounded = packed.with_coordinate_type(CoordinateType::F16).unwrap();
        rounded.to_bytes().unwrap()
    };
    assert!(stored(&net) == stored(run.model()), "bits, norm and biases");
    assert!(average_bits(&sizes(&net)) <= 0.7, "pruned");
}

/// Shards sum to the whole batch: the same training up to rounding. (Without batch statistics, which
/// each shard would take of its own images.)
#[test]
fn shards_sum_to_the_batch() {
    let device = device().autodiff();
    let mut task = Fit::new(&device);
    let net = quantizer().quantize(Net::new(&device)).unwrap().0;
    let net = net.freeze_group(ParamGroup::from_predicate("norm"));
    let mut losses = Vec::new();
    for shards in [1, 2, 3] {
        task.shards = shards;
        let plan = schedule(&net, Target::Bits(0.7));
        let mut run = Run::new(net.clone(), AlqOptimizerConfig::new().init(), plan, "test");
        let progress = run.advance(&task).unwrap().unwrap();
        losses.push(progress.loss);
        assert!((losses[0] - progress.loss).abs() < 1e-5, "{losses:?}");
    }
}

/// Stopped in the middle of every phase, and resumed in a run that starts from scratch.
#[test]
fn a_resumed_run_reaches_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let device = device().autodiff();
    let task = Fit::new(&device);
    let file = |stop| folder.path().join(format!("{stop}.bpk"));
    // Basis, coordinate, prune, basis of the second round, STE, final coordinate.
    let stops = [3, 12, 17, 23, 43, 48, 52];
    let mut run = start(&device, Target::Bits(0.7));
    for step in 0..=stops[6] {
        if stops.contains(&step) {
            run.save(file(step)).unwrap();
        }
        run.advance(&task).unwrap();
    }
    let expected = bytes(&finish(run, &task));
    for stop in stops {
        let run = start(&device, Target::Bits(0.7))
            .resume(file(stop), &device)
            .unwrap();
        assert_eq!(
            bytes(&finish(run, &task)),
            expected,
            "stopped after {stop} steps"
        );
    }
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let device = device().autodiff();
    let file = folder.path().join("checkpoint.bpk");
    start(&device, Target::Bits(0.7)).save(&file).unwrap();
    let net = quantizer().quantize(Net::new(&device)).unwrap().0;
    let plan = schedule(&net, Target::Bits(0.7));
    let other = Run::new(net, AlqOptimizerConfig::new().init(), plan, "another seed");
    let error = other.resume(&file, &device).unwrap_err();
    assert!(matches!(error, TrainError::Checkpoint { .. }), "{error}");
    assert!(error.to_string().contains("checkpoint.bpk"), "{error}");

    let packed = folder.path().join("model.bpk");
    let run = start(&device, Target::Bits(0.7));
    PackedModel::pack(run.model())
        .unwrap()
        .save(&packed)
        .unwrap();
    let error = run.resume(&packed, &device).unwrap_err();
    assert!(error.to_string().contains("not a checkpoint"), "{error}");

    let text = std::fs::read(&file).unwrap();
    for len in [0, 5, 100, text.len() / 2, text.len() - 1] {
        std::fs::write(&file, &text[..len]).unwrap();
        let run = start(&device, Target::Bits(0.7));
        assert!(
            run.resume(&file, &device).is_err(),
            "{len} bytes of a checkpoint"
        );
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let device = device().autodiff();
    let mut task = Fit::new(&device);
    task.broken_from = 1;
    let mut run = start(&device, Target::Bits(0.7));
    for _ in 0..Fit::BATCHES {
        run.advance(&task).unwrap();
    }
    let weights = |run: &Run<Net>| PackedModel::pack(run.model()).unwrap().weights;
    let before = weights(&run);
    let error = run.advance(&task).unwrap_err();
    assert!(
        matches!(
            error,
            TrainError::Loss {
                epoch: 1,
                batch: 0,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(weights(&run), before, "the weights are as before");
}

/// While pruning, batch norm uses its running statistics and leaves them alone; before, it updates
/// them.
#[test]
fn pruning_runs_in_evaluation_mode() {
    let device = device().autodiff();
    let task = Fit::new(&device);
    let mut run = start(&device, Target::Bits(0.7));
    let statistics = |net: &Net| net.norm.running_mean.value_sync().into_data();
    let mut seen = [false; 2];
    loop {
        let before = statistics(run.model());
        let Some(progress) = run.advance(&task).unwrap() else {
            break;
        };
        let pruning = progress.plan.kind == burn_alq::optim::PhaseKind::Prune;
        let changed = statistics(run.model()) != before;
        assert_eq!(changed, !pruning, "{}", progress.plan.kind);
        seen[usize::from(pruning)] = true;
    }
    assert_eq!(seen, [true; 2]);
}

#[test]
fn what_cannot_be_quantized_is_refused_by_path() {
    let device = device();
    let net = Net::new(&device);
    let fc = |rule| Quantizer::new(3).rule(ParamGroup::from_path("fc.weight"), rule);
    let error = fc(GroupingRule::Subchannelwise(3))
        .quantize(net.clone())
        .unwrap_err();
    assert!(
        matches!(&error, QuantizeError::Grouping { path, .. } if path == "fc.weight"),
        "{error}"
    );
    let error = fc(GroupingRule::Kernelwise)
        .quantize(net.clone())
        .unwrap_err();
    assert!(matches!(error, QuantizeError::Grouping { .. }));
    let nothing =
        Quantizer::new(3).rule(ParamGroup::from_path("no.such"), GroupingRule::Channelwise);
    let unmatched = QuantizeError::Unmatched { rule: "1".into() };
    assert_eq!(nothing.quantize(net.clone()).unwrap_err(), unmatched);
    let biases = Quantizer::new(3).rule(
        ParamGroup::from_predicate("bias"),
        GroupingRule::Channelwise,
    );
    assert_eq!(
        biases.quantize(net.clone()).unwrap_err(),
        unmatched,
        "biases stay"
    );
    let wide = Quantizer::new(9).rule(ParamGroup::all(), GroupingRule::Channelwise);
    assert!(matches!(
        wide.quantize(net.clone()).unwrap_err(),
        QuantizeError::MaxBits { max_bits: 9, .. }
    ));

    let twice = quantizer()
        .quantize(quantizer().quantize(net.clone()).unwrap().0)
        .unwrap_err();
    assert!(
        matches!(&twice, QuantizeError::Already { path } if path == "conv.weight"),
        "{twice}"
    );
    for bad in [f32::NAN, f32::INFINITY] {
        let mut net = net.clone();
        let mut weight: Vec<f32> = net.fc.weight.val().into_data().try_into_vec().unwrap();
        weight[17] = bad;
        let data = TensorData::new(weight, [128, 4]);
        net.fc.weight = Param::from_tensor(Tensor::from_data(data, &device));
        let error = quantizer().quantize(net).unwrap_err();
        assert!(
            matches!(&error, QuantizeError::Weight { path, .. } if path == "fc.weight"),
            "{error}"
        );
    }
}

/// Unmodified layers of Burn's work too: packed, they unpack at each use, or once.
#[test]
fn packed_weights_work_in_any_layer() {
    let device = device();
    let net = quantizer().quantize(Net::new(&device)).unwrap().0;
    let images = Tensor::<4>::ones([2, 1, 6, 6], &device) * 0.5;
    let expected = net.valid().forward(images.clone()).into_data();
    let packed = PackedModel::pack(&net)
        .unwrap()
        .apply(Net::new(&device))
        .unwrap();
    let tolerance = burn::tensor::Tolerance::absolute(1e-5);
    let found = packed.forward(images.clone()).into_data();
    found.assert_approx_eq::<f32>(&expected, tolerance);
    let dense = packed.materialize().forward(images).into_data();
    dense.assert_approx_eq::<f32>(&expected, tolerance);
    assert_eq!(expected.shape().to_vec(), [2, 4]);
}
