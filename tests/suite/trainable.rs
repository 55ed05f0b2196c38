//! What cannot train, what no gradient reaches, whose moments are whose.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::optim::prune::Budget;
use burn_alq::optim::{Cost, Shortfall, average_bits, sizes, total};
use burn_alq::train::{Run, ScheduleError, Task, TrainError};
use burn_alq::{
    AlqOptimizer, AlqOptimizerConfig, CoordinateType, GroupingRule, MultiBit, PackedModel,
    PathPattern, Phase, Quantizer, ScheduleConfig, Target,
};

use crate::devices::{device, device_name};
use crate::model::{Fit, Net, assert_consistent, quantizer};
use crate::support::Random;

/// Two layers, one behind the other or beside it.
#[derive(Module, Debug)]
pub struct Pair {
    pub first: Linear,
    pub second: Linear,
}

pub const WIDTH: usize = 16;

impl Pair {
    pub fn new(device: &Device) -> Self {
        let linear = |seed| {
            let mut linear = LinearConfig::new(WIDTH, WIDTH)
                .with_bias(false)
                .init(device);
            let values = Random::new(seed).normals(WIDTH * WIDTH, 0.25);
            let data = TensorData::new(values, [WIDTH, WIDTH]).convert::<f32>();
            linear.weight = Param::from_tensor(Tensor::from_data(data, device));
            linear
        };
        Self {
            first: linear(1),
            second: linear(2),
        }
    }

    pub fn quantized(device: &Device) -> Self {
        four_bits().quantize(Self::new(device)).unwrap().0
    }

    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x))
    }
}

pub fn four_bits() -> Quantizer {
    Quantizer::new(4).rule(
        PathPattern::glob("**.weight"),
        GroupingRule::Subchannelwise(2),
    )
}

/// Inputs and what comes out of another pair for them.
pub fn data(device: &Device) -> (Tensor<2>, Tensor<2>) {
    rows(device, 32)
}

pub fn rows(device: &Device, rows: usize) -> (Tensor<2>, Tensor<2>) {
    let values = Random::new(5).normals(rows * WIDTH, 1.0);
    let data = TensorData::new(values, [rows, WIDTH]).convert::<f32>();
    let x = Tensor::from_data(data, device);
    let y = x.clone().sign() * 0.5;
    (x, y)
}

/// The loss may depend on both layers, or on the second alone.
pub struct Regression {
    pub device: Device,
    pub batches: usize,
    pub beside: bool,
    pub shards: usize,
    pub rows: usize,
}

impl Regression {
    pub fn new() -> Self {
        Self {
            device: device().autodiff(),
            batches: 4,
            beside: false,
            shards: 1,
            rows: 32,
        }
    }
}

pub fn square(difference: Tensor<2>) -> Tensor<1> {
    difference.square().mean()
}

impl Task for Regression {
    type Model = Pair;

    fn batches(&self) -> usize {
        self.batches
    }

    fn shards(&self) -> usize {
        self.shards
    }

    fn loss(&self, model: &Pair, _: usize, _: usize, _: usize) -> Tensor<1> {
        let (x, y) = rows(&self.device, self.rows);
        match self.beside {
            true => square(model.second.forward(x) - y),
            false => square(model.forward(x) - y),
        }
    }

    fn evaluate(&self, _: &Pair) -> f64 {
        0.0
    }
}

pub fn one_bit() -> ScheduleConfig {
    ScheduleConfig::new(Target::Bits(1.0))
        .with_rounds(2)
        .with_basis_epochs(1)
        .with_coordinate_epochs(1)
        .with_ste_epochs(1)
        .with_final_epochs(1)
}

pub fn run(model: Pair, config: &ScheduleConfig) -> Run<Pair> {
    let schedule = config.init(&sizes(&model)).unwrap();
    Run::new(model, AlqOptimizerConfig::new().init(), schedule, "test")
}

fn finish<T: Task>(mut run: Run<T::Model>, task: &T) -> Result<T::Model, TrainError> {
    while run.advance(task)?.is_some() {}
    Ok(run.into_model())
}

fn values<const D: usize>(weight: &Param<Tensor<D>>) -> Vec<f32> {
    weight.val().into_data().try_into_vec().unwrap()
}

/// The trained layer ends at the target, whether the other is before it or beside it.
#[test]
fn a_frozen_weight_is_no_part_of_the_target() {
    let device = device().autodiff();
    let freeze = |mut model: Pair, name| {
        match name {
            "first" => model.first = model.first.no_grad(),
            _ => model.second = model.second.no_grad(),
        }
        model
    };
    for (frozen, train_mode) in [("first", false), ("second", false), ("first", true)] {
        let mut model = freeze(Pair::quantized(&device), frozen);
        let before = four_bits().quantize(freeze(Pair::new(&device), frozen));
        assert_eq!(sizes(&before.unwrap().0), sizes(&model), "frozen as float");
        // Sizes of the plain model say the same: it will train again.
        let plain = sizes(&model.valid());
        assert_eq!(plain, sizes(&model));
        if train_mode {
            model = model.valid().train();
        }
        let place = usize::from(frozen == "second");
        assert!(plain[place].frozen && !plain[1 - place].frozen);
        for target in [Target::Bits(1.0), Target::Ratio(0.5), Target::Bytes(200)] {
            let config = ScheduleConfig {
                target: target.clone(),
                ..one_bit()
            };
            let before = sizes(&model);
            let trained = finish(run(model.clone(), &config), &Regression::new()).unwrap();
            let after = sizes(&trained);
            assert_eq!(after[place], before[place], "{frozen} keeps its bits");
            let [before, after] = [before[1 - place], after[1 - place]];
            match target {
                Target::Bits(_) => assert_eq!(average_bits(&[after]), 1.0, "{frozen}"),
                Target::Ratio(_) => assert_eq!(after.coordinates, before.coordinates / 4),
                Target::Bytes(bytes) => {
                    let found = after.bytes(CoordinateType::F32);
                    assert!(found <= bytes && found > bytes - 16, "{found}");
                }
            }
        }
    }
}

#[test]
fn a_schedule_needs_something_to_train() {
    let model = Pair::quantized(&device().autodiff()).no_grad();
    let error = one_bit().init(&sizes(&model)).unwrap_err();
    assert_eq!(error, ScheduleError::Frozen);
}

/// The layers keep something, so targets below that are refused before training.
#[test]
fn targets_below_what_layers_keep_are_refused_before_training() {
    let model = Pair::quantized(&device().autodiff());
    let init = |target, floor| {
        let config = ScheduleConfig::new(Target::Bits(target)).with_floor(floor);
        config.init(&sizes(&model)).map(|_| ())
    };
    // One of 32 groups of each layer, of 8 numbers.
    let one = 1.0 / 32.0;
    assert_eq!(init(one, 0.01), Ok(()));
    let error = init(0.99 * one, 0.01).unwrap_err();
    let ScheduleError::Unreachable { least, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(least, one);
    assert!(error.to_string().contains("`floor`"), "{error}");
    // Without a floor, one coordinate of one layer is the least.
    assert_eq!(init(0.5 * one, 0.0), Ok(()));
    assert!(init(0.49 * one, 0.0).is_err());
    // All layers at the target: no freedom, but possible.
    assert_eq!(init(0.5, 1.0), Ok(()));
    for floor in [-0.1, 1.1, f64::NAN] {
        let error = init(1.0, floor).unwrap_err();
        assert!(matches!(error, ScheduleError::Value { field: "floor", .. }));
    }
}

/// A layer that no gradient reaches is not paid for with all of another: that is an error which names it.
#[test]
fn a_layer_without_gradient_is_named_where_the_target_is_missed() {
    let model = Pair::quantized(&device().autodiff());
    let task = Regression {
        beside: true,
        ..Regression::new()
    };
    let error = finish(run(model.clone(), &one_bit()), &task).unwrap_err();
    let TrainError::Shortfall(Shortfall {
        without_gradient, ..
    }) = &error
    else {
        panic!("{error}");
    };
    assert_eq!(without_gradient, &["first.weight"]);
    assert!(
        error
            .to_string()
            .contains("no gradient reaches first.weight")
    );

    // A target that the other can reach for both is met; what is left of it is more than nothing.
    let config = ScheduleConfig {
        target: Target::Bits(2.1),
        ..one_bit()
    };
    let trained = finish(run(model, &config), &task).unwrap();
    let sizes = sizes(&trained);
    assert!(average_bits(&sizes) <= 2.1);
    assert_eq!(average_bits(&sizes[..1]), 4.0);
    assert!(sizes[1].coordinates > 0);
}

/// In a hand-written loop, too.
#[test]
fn a_pruning_step_that_misses_its_budget_says_so() {
    let device = device().autodiff();
    let mut model = Pair::quantized(&device);
    let mut optimizer = AlqOptimizerConfig::new().init();
    let all = total(&sizes(&model), Cost::Coordinates);
    let budget = |at_most: usize, floor| {
        Phase::Prune(Budget {
            cost: Cost::Coordinates,
            at_most: at_most as f64,
            top_k: 0.1,
            loss_share: 1.0,
            floor,
        })
    };
    let mut step = |model: Pair, phase| {
        optimizer.set_phase(phase);
        let (x, y) = data(&device);
        let loss = square(model.second.forward(x) - y);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let model = optimizer.step(1e-3, model, grads);
        (model, optimizer.shortfall().cloned())
    };
    let missed;
    (model, missed) = step(model, budget(all - 10, 0.1));
    assert_eq!(missed, None);
    let first = sizes(&model)[0].coordinates;
    let (model, missed) = step(model, budget(10, 0.1));
    let missed = missed.unwrap();
    // A tenth of a bit of 32 groups.
    assert_eq!(missed.left, first + 4);
    assert_eq!(missed.at_most, 10.0);
    assert_eq!(missed.without_gradient, ["first.weight"]);
    // Frozen, the other layer is not in the budget.
    let frozen = Pair {
        first: model.first.no_grad(),
        ..model
    };
    let (model, missed) = step(frozen, budget(4, 0.1));
    assert_eq!(missed, None);
    assert_eq!(sizes(&model)[1].coordinates, 4);
}

/// Frozen after the schedule was made, a weight would be missing in what it counts.
#[test]
fn a_schedule_of_another_model_is_refused() {
    let model = Pair::quantized(&device().autodiff());
    let schedule = one_bit().init(&sizes(&model)).unwrap();
    let frozen = Pair {
        first: model.first.no_grad(),
        ..model
    };
    let mut run = Run::new(frozen, AlqOptimizerConfig::new().init(), schedule, "test");
    let error = run.advance(&Regression::new()).unwrap_err();
    assert!(matches!(error, TrainError::Schedule(_)), "{error}");
    assert!(error.to_string().contains("512 numbers"), "{error}");
}

/// In the STE phase, with coordinates that are rounded, a frozen weight stays as it is and is packed so.
#[test]
fn a_frozen_weight_stays_as_it_is_in_every_phase() {
    let model = Pair::quantized(&device().autodiff());
    let model = Pair {
        first: model.first.no_grad(),
        ..model
    };
    let config = one_bit().with_coordinate_type(CoordinateType::F16);
    let before = values(&model.first.weight);
    let trained = finish(run(model, &config), &Regression::new()).unwrap();
    assert_eq!(values(&trained.first.weight), before);
    assert!(!trained.first.weight.val().is_require_grad());
    let packed = PackedModel::pack(&trained.valid()).unwrap();
    assert_eq!(packed.weights[0].1.unpack(), before);
    assert!(packed == PackedModel::pack(&trained).unwrap());
}

/// One optimizer for two networks with the same field names is as good as one for each.
#[test]
fn moments_belong_to_weights_and_not_to_names() {
    let device = device().autodiff();
    let pairs = || {
        let other = Quantizer::new(4).rule(
            PathPattern::glob("**.weight"),
            GroupingRule::Subchannelwise(2),
        );
        let twice = Pair::new(&device);
        let scaled = Pair {
            first: twice.second,
            second: twice.first,
        };
        [Pair::quantized(&device), other.quantize(scaled).unwrap().0]
    };
    let step = |optimizer: &mut AlqOptimizer, model: Pair, lr| {
        let (x, y) = data(&device);
        let loss = square(model.forward(x) - y);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        optimizer.step(lr, model, grads)
    };
    let train = |optimizers: &mut [AlqOptimizer]| {
        let [mut a, mut b] = pairs();
        let last = optimizers.len() - 1;
        for number in 0..12 {
            let phase = [Phase::Basis, Phase::Coordinate, Phase::Ste][number / 4];
            optimizers.iter_mut().for_each(|o| o.set_phase(phase));
            a = step(&mut optimizers[0], a, 1e-2);
            b = step(&mut optimizers[last], b, 3e-2);
        }
        [a, b].map(|pair| [values(&pair.first.weight), values(&pair.second.weight)])
    };
    let fresh = || AlqOptimizerConfig::new().init();
    let expected = train(&mut [fresh(), fresh()]);
    assert_eq!(train(&mut [fresh()]), expected);
}

/// A record of both networks brings both sets of moments back.
#[test]
fn records_of_one_optimizer_for_two_networks_resume() {
    let device = device().autodiff();
    let step = |optimizer: &mut AlqOptimizer, model: Pair| {
        let (x, y) = data(&device);
        let loss = square(model.forward(x) - y);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        optimizer.step(1e-2, model, grads)
    };
    let mut optimizer = AlqOptimizerConfig::new().init();
    optimizer.set_phase(Phase::Basis);
    let mut pairs = [Pair::quantized(&device), Pair::quantized(&device)];
    pairs = pairs.map(|pair| step(&mut optimizer, pair));
    let bytes = optimizer.into_bytes().unwrap();
    let records = pairs.clone().map(|pair| pair.into_record());
    let expected = pairs.map(|pair| values(&step(&mut optimizer, pair).second.weight));

    // As in another process: models anew, with ids of their own until the records are loaded.
    let fresh = || AlqOptimizerConfig::new().init();
    let mut resumed = fresh().from_bytes(bytes.clone(), &device).unwrap();
    resumed.set_phase(Phase::Basis);
    let loaded = records.map(|record| Pair::quantized(&device).load_record(record));
    let found = loaded
        .clone()
        .map(|pair| values(&step(&mut resumed, pair).second.weight));
    assert_eq!(found, expected);

    // Of a model that was not loaded, the moments are of no weight.
    let stranger = Pair::quantized(&device);
    let mut resumed = fresh().from_bytes(bytes, &device).unwrap();
    let error = resumed.check(&stranger).unwrap_err().to_string();
    assert!(
        error.contains("first.weight") || error.contains("second.weight"),
        "{error}"
    );
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        step(&mut resumed, stranger)
    }));
    let text = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("of another model"), "{text}");
}

/// A float network that is quantized twice is two weights: the second has no moments yet.
#[test]
fn a_weight_that_is_quantized_anew_starts_anew() {
    let device = device().autodiff();
    let float = Pair::new(&device);
    let step = |optimizer: &mut AlqOptimizer, model: Pair| {
        let (x, y) = data(&device);
        let loss = square(model.forward(x) - y);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        optimizer.step(1e-2, model, grads)
    };
    let fresh = || {
        let mut optimizer = AlqOptimizerConfig::new().init();
        optimizer.set_phase(Phase::Ste);
        optimizer
    };
    let three = Quantizer::new(3).rule(PathPattern::glob("**.weight"), GroupingRule::Channelwise);
    let again = || three.quantize(float.clone()).unwrap().0;
    let expected = values(&step(&mut fresh(), again()).first.weight);
    let mut used = fresh();
    let mut model = four_bits().quantize(float.clone()).unwrap().0;
    for _ in 0..3 {
        model = step(&mut used, model);
    }
    assert_eq!(values(&step(&mut used, again()).first.weight), expected);
}

/// What Burn's optimizers keep of a parameter, the steps keep of weights, coordinates and the rest.
#[test]
fn a_step_keeps_what_parameters_are_marked_with() {
    struct Distribute;

    impl ModuleMapper for Distribute {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            Param::from_mapped_value(id, tensor.set_distributed(id), mapper)
        }
    }

    // Flex and NdArray have no collective operations, and Burn refuses the mark there.
    let distributed = !["flex", "ndarray"].contains(&device_name().as_str());
    let mark = |model: Net| match distributed {
        true => model.map(&mut Distribute),
        false => model,
    };
    let device = device().autodiff().gradient_checkpointing();
    let mut model = quantizer().quantize(Net::new(&device)).unwrap().0;
    let task = Fit::new(&device);
    let mut optimizer = AlqOptimizerConfig::new().init();
    let all = total(&sizes(&model), Cost::Coordinates);
    let prune = Phase::Prune(Budget {
        cost: Cost::Coordinates,
        at_most: 0.5 * all as f64,
        top_k: 0.1,
        loss_share: 1.0,
        floor: 0.0,
    });
    for phase in [
        Phase::Basis,
        Phase::Coordinate,
        prune,
        Phase::Ste,
        Phase::Fixed,
    ] {
        optimizer.set_phase(phase);
        let loss = task.loss(&model, 0, 0, 0);
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let stepped = optimizer.step(1e-3, mark(model.clone()), grads);
        let bias = stepped.fc.bias.as_ref().unwrap().val();
        let (fc, conv) = (stepped.fc.weight.val(), stepped.conv.weight.val());
        let state = stepped.fc.weight.reparameterization::<MultiBit>();
        let coordinates = state.unwrap().coordinates.val();
        let marks = [
            bias.is_distributed(),
            fc.is_distributed(),
            conv.is_distributed(),
            coordinates.is_distributed(),
        ];
        assert_eq!(marks, [distributed; 4], "{phase:?}");
        let strategy = bias.gradient_checkpointing_strategy();
        assert!(strategy.is_some());
        assert_eq!(fc.gradient_checkpointing_strategy(), strategy);
        assert_eq!(conv.gradient_checkpointing_strategy(), strategy);
        assert!(fc.is_require_grad() && conv.is_require_grad());
        assert!(!coordinates.is_require_grad());
        assert_consistent(&stepped);
        // Backward passes of marked parameters need a server; the next one is without.
        let record = stepped.into_record();
        model = model.load_record(record);
    }
}

/// Stopped in the middle of a round, with a frozen weight, and with an optimizer that has trained another
/// network before.
#[test]
fn a_run_with_a_frozen_weight_and_a_used_optimizer_resumes() {
    let device = device().autodiff();
    let mut used = AlqOptimizerConfig::new().init();
    used.set_phase(Phase::Basis);
    let other = Pair::quantized(&device);
    let (x, y) = data(&device);
    let grads = square(other.forward(x) - y).backward();
    let grads = GradientsParams::from_grads(grads, &other);
    used.step(1e-2, other, grads);

    let start = || {
        let model = Pair::quantized(&device);
        let model = Pair {
            first: model.first.no_grad(),
            ..model
        };
        let schedule = one_bit().init(&sizes(&model)).unwrap();
        Run::new(model, used.clone(), schedule, "test")
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint.bpk");
    let task = Regression::new();
    let mut run = start();
    // Into the pruning of the first round.
    for _ in 0..10 {
        run.advance(&task).unwrap();
    }
    run.save(&file).unwrap();
    let whole = finish(run, &task).unwrap();
    let resumed = start().resume(&file, &device).unwrap();
    assert!(sizes(resumed.model())[0].frozen);
    let resumed = finish(resumed, &task).unwrap();
    assert_eq!(values(&resumed.first.weight), values(&whole.first.weight));
    assert_eq!(values(&resumed.second.weight), values(&whole.second.weight));
    assert_eq!(sizes(&resumed), sizes(&whole));
}
