//! Models that people bring: columns, tied weights, averages, masks, short layers, PyTorch's layout.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{
    Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose3d, ConvTranspose3dConfig, DeformConv2d, DeformConv2dConfig,
};
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use burn_alq::file::PackModelError;
use burn_alq::quantize::{
    Outcome, QuantizeError, QuantizeReport, Quantizer, Rules, load_float, refit,
};
use burn_alq::train::{Run, Task};
use burn_alq::{
    AlqOptimizerConfig, GroupingRule, MultiBitLinear, MultiBitLinearConfig, PackedModel,
    PathPattern, ScheduleConfig, Target, sizes,
};

use crate::devices::device;
use crate::support::{assert_near, values};

pub fn everything() -> Quantizer {
    Quantizer::new(3).rule(PathPattern::glob("**"), GroupingRule::Channelwise)
}

pub fn outcome<'a>(report: &'a QuantizeReport, path: &str) -> &'a Outcome {
    let mut found = report.parameters.iter();
    &found.find(|(found, ..)| found == path).unwrap().2
}

/// What code generated from ONNX holds: linear layers whose weights are recorded in columns.
#[derive(Module, Debug)]
struct Columns {
    body: Linear,
    ours: MultiBitLinear,
    head: Linear,
}

impl Columns {
    fn new(device: &Device) -> Self {
        let linear = |input, output| {
            let config = LinearConfig::new(input, output).with_layout(LinearLayout::Col);
            config.init(device)
        };
        Self {
            body: linear(8, 4),
            ours: MultiBitLinearConfig::new(4, 6)
                .with_layout(LinearLayout::Col)
                .init_float(device),
            head: linear(6, 2),
        }
    }

    fn quantized(device: &Device) -> Self {
        let quantizer = Quantizer::new(3)
            .rule(PathPattern::glob("**"), GroupingRule::Channelwise)
            .keep_float(PathPattern::glob("head.**"));
        quantizer.quantize(Self::new(device)).unwrap().0
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.ours.forward(self.body.forward(x)))
    }
}

struct Sum(Tensor<2>);

impl Task for Sum {
    type Model = Columns;

    fn batches(&self) -> usize {
        4
    }

    fn loss(&self, model: &Columns, _: usize, _: usize, _: usize) -> Tensor<1> {
        model.forward(self.0.clone()).powi_scalar(2).mean()
    }

    fn evaluate(&self, _: &Columns) -> f64 {
        0.0
    }
}

#[test]
fn weights_in_columns_convert_pack_load_and_resume() {
    let train = device().autodiff();
    let x = Tensor::random([5, 8], Distribution::Default, &train);
    let net = Columns::quantized(&train);
    let expected = values(net.forward(x.clone()));
    let packed = PackedModel::pack(&net).unwrap();
    // Fresh, and with values of its own.
    let used = Columns::new(&device());
    used.forward(x.clone().inner());
    for target in [Columns::new(&device()), used, net.clone()] {
        let run = packed.apply(target).unwrap();
        assert_near(&values(run.forward(x.clone().inner())), &expected, 1e-5);
    }

    // A record of Burn's own network.
    let plain = Columns::new(&train);
    let record = plain.clone().into_record();
    let (loaded, _) = load_float(net.clone(), record).unwrap();
    assert_eq!(
        loaded.head.weight.val().into_data(),
        plain.head.weight.val().into_data()
    );

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoint.bpk");
    let config = ScheduleConfig::new(Target::Bits(1.0));
    let schedule = config.init(&sizes(&net)).unwrap();
    let start = |net: &Columns| {
        let optimizer = AlqOptimizerConfig::new().init();
        Run::new(net.clone(), optimizer, schedule.clone(), "columns")
    };
    let task = Sum(x.clone());
    let mut run = start(&net);
    for _ in 0..3 {
        run.advance(&task).unwrap();
    }
    run.save(&file).unwrap();
    let other = Columns::quantized(&train);
    let mut resumed = start(&other).resume(&file, &train).unwrap();
    for _ in 0..3 {
        run.advance(&task).unwrap();
        resumed.advance(&task).unwrap();
    }
    let bytes = |run: &Run<Columns>| PackedModel::pack(run.model()).unwrap().to_bytes().unwrap();
    assert!(
        bytes(&run) == bytes(&resumed),
        "a resumed run goes another way"
    );
}

#[test]
fn the_learner_resumes_weights_in_columns() {
    let train = device().autodiff();
    let net = Columns::quantized(&train);
    let schedule = ScheduleConfig::new(Target::Bits(1.0))
        .init(&sizes(&net))
        .unwrap();
    let alq = burn_alq::train::learner::Alq::new(net.clone(), schedule.clone(), 4);
    let other = burn_alq::train::learner::Alq::new(Columns::quantized(&train), schedule, 4);
    let loaded = other
        .load_checkpoint(alq.into_record())
        .unwrap()
        .into_inner();
    let x = Tensor::random([5, 8], Distribution::Default, &train);
    // A weight that was loaded lies in memory as in the record, and is multiplied in another order.
    let (loaded, net) = (loaded.forward(x.clone()), net.forward(x));
    assert_near(&values(loaded), &values(net), 1e-5);
}

#[derive(Module, Debug)]
struct Two {
    a: Linear,
    b: Linear,
}

impl Two {
    fn new(device: &Device) -> Self {
        let linear = || LinearConfig::new(16, 16).init(device);
        Self {
            a: linear(),
            b: linear(),
        }
    }
}

/// Moves every value of a network towards those of another: `(1 − share)·x + share·y`.
struct Average {
    share: f32,
    other: Vec<TensorData>,
}

impl ModuleMapper for Average {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D == 2 && param.val().dims()[1] != 16 {
            // Coordinates.
            return param;
        }
        let other = Tensor::<D>::from_data(self.other.remove(0), &param.val().device());
        param.map(|tensor| tensor * (1.0 - self.share) + other * self.share)
    }
}

/// Wherever it lies: what follows it is as it should be.
#[test]
fn a_weight_that_is_not_a_number_is_noticed() {
    let (net, _) = everything().quantize(Two::new(&device())).unwrap();
    let mut numbers = values(net.a.weight.val());
    numbers[0] = f32::NAN;
    let zeros = |tensor: TensorData| TensorData::zeros::<f32, _>(tensor.shape());
    let [a, b] = [&net.a, &net.b].map(|layer| layer.bias.as_ref().unwrap().val().into_data());
    let mut average = Average {
        share: 0.0,
        other: vec![
            TensorData::new(numbers, net.a.weight.dims()),
            zeros(a),
            zeros(net.b.weight.val().into_data()),
            zeros(b),
        ],
    };
    let error = PackedModel::pack(&net.map(&mut average)).unwrap_err();
    assert!(
        matches!(error, PackModelError::Moved { difference, .. } if difference.is_nan()),
        "{error}"
    );
}

#[test]
fn a_value_that_was_changed_from_outside_is_noticed_and_refitted() {
    let device = device();
    let (net, _) = everything().quantize(Two::new(&device)).unwrap();
    let (other, _) = everything().quantize(Two::new(&device)).unwrap();
    let other = [&other.a, &other.b].into_iter().flat_map(|layer| {
        let bias = layer.bias.as_ref().unwrap().val().into_data();
        [layer.weight.val().into_data(), bias]
    });
    let mut average = Average {
        share: 0.25,
        other: other.collect(),
    };
    let before = PackedModel::pack(&net).unwrap();
    let moved = net.map(&mut average);
    let error = PackedModel::pack(&moved).unwrap_err();
    let PackModelError::Moved {
        path, difference, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(path, "a.weight");
    let bits = before.weights[0].1.unpack();
    let value = values(moved.a.weight.val());
    let largest = bits.iter().zip(&value).map(|(a, b)| (a - b).abs());
    assert_eq!(*difference, largest.fold(0.0, f32::max));
    assert!(error.to_string().contains("quantize::refit"), "{error}");

    let (fitted, report) = refit(moved.clone()).unwrap();
    let packed = PackedModel::pack(&fitted).unwrap();
    for ((path, old), (_, new)) in before.weights.iter().zip(&packed.weights) {
        assert_eq!(old.widths(), new.widths(), "{path}");
    }
    // No worse than a conversion of the average.
    let plain = Two {
        a: moved.a.clone(),
        b: moved.b.clone(),
    };
    let (_, converted) = everything().quantize(plain.materialize()).unwrap();
    for ((path, _, fitted), (_, _, converted)) in report.quantized().zip(converted.quantized()) {
        let (fitted, converted) = (fitted.relative_error, converted.relative_error);
        assert!(
            fitted > 0.01 && fitted <= converted * 1.0001,
            "{path}: {fitted}, {converted}"
        );
    }
    let again = PackedModel::pack(&refit(fitted).unwrap().0).unwrap();
    for ((path, old), (_, new)) in packed.weights.iter().zip(&again.weights) {
        assert_near(&old.unpack(), &new.unpack(), 1e-6);
        assert_eq!(old.widths(), new.widths(), "{path}");
    }
}

/// Fields that are called like what this crate attaches to weights.
#[derive(Module, Debug)]
struct Names {
    multi_bit: Linear,
    packed: Linear,
}

#[test]
fn any_field_name_works() {
    let new = || Names {
        multi_bit: LinearConfig::new(4, 4).init(&device()),
        packed: LinearConfig::new(4, 4).init(&device()),
    };
    for rules in [
        everything(),
        everything().keep_float(PathPattern::glob("packed.**")),
        everything().keep_float(PathPattern::glob("multi_bit.**")),
    ] {
        let (net, _) = rules.quantize(new()).unwrap();
        let run = PackedModel::pack(&net).unwrap().apply(new()).unwrap();
        let x = Tensor::<2>::random([2, 4], Distribution::Default, &device());
        let forward = |net: &Names| values(net.packed.forward(net.multi_bit.forward(x.clone())));
        assert_near(&forward(&run), &forward(&net), 1e-5);
        let loaded = rules
            .quantize(new())
            .unwrap()
            .0
            .load_record(net.clone().into_record());
        assert_eq!(forward(&loaded), forward(&net));
    }
}

#[derive(Module, Debug)]
struct Odd {
    pointwise: Conv2d,
    body: Linear,
    positions: Param<Tensor<3>>,
    mask: Param<Tensor<2>>,
}

impl Odd {
    fn new(device: &Device) -> Self {
        let mask = [[0.0, f32::NEG_INFINITY], [0.0, 0.0]];
        Self {
            pointwise: Conv2dConfig::new([6, 8], [1, 1]).init(device),
            body: LinearConfig::new(7, 8).init(device),
            positions: Param::from_tensor(Tensor::random([1, 9, 4], Distribution::Default, device)),
            mask: Param::from_tensor(Tensor::from_floats(mask, device)),
        }
    }
}

#[test]
fn what_is_no_layers_weight_stays_float_unless_it_is_named() {
    let (net, report) = everything().quantize(Odd::new(&device())).unwrap();
    for path in ["positions", "mask"] {
        assert!(
            matches!(outcome(&report, path), Outcome::NoLayer { .. }),
            "{path}"
        );
    }
    assert_eq!(
        net.mask.val().into_data(),
        Odd::new(&device()).mask.val().into_data()
    );
    let named = |path: &str| everything().rule(PathPattern::exact(path), GroupingRule::Channelwise);
    let (_, report) = named("positions").quantize(Odd::new(&device())).unwrap();
    assert!(matches!(
        outcome(&report, "positions"),
        Outcome::Quantized(_)
    ));
    let error = named("mask").quantize(Odd::new(&device())).unwrap_err();
    assert!(error.to_string().starts_with("mask: "), "{error}");
    let (_, report) = named("mask")
        .or_float()
        .quantize(Odd::new(&device()))
        .unwrap();
    let Outcome::Unfit { rule, reason } = outcome(&report, "mask") else {
        panic!("{report:?}");
    };
    assert!(
        rule.contains("`mask`") && reason.contains("finite"),
        "{rule}: {reason}"
    );
    let nothing = Quantizer::new(2).rule(PathPattern::glob("pos*"), GroupingRule::Channelwise);
    let error = nothing.quantize(Odd::new(&device())).unwrap_err();
    assert!(matches!(error, QuantizeError::Unmatched { .. }), "{error}");
}

#[test]
fn rules_by_size_fit_every_layer_and_others_may_keep_it_float() {
    let rules: Rules = toml::from_str(
        r#"
        max_bits = 2
        [[weights]]
        glob = "**.weight"
        grouping = "groupwise"
        group_size = 3
        "#,
    )
    .unwrap();
    assert_eq!(
        toml::from_str::<Rules>(&toml::to_string(&rules).unwrap()).unwrap(),
        rules
    );
    let (net, report) = Quantizer::from(rules)
        .quantize(Odd::new(&device()))
        .unwrap();
    let groups: Vec<usize> = report
        .quantized()
        .map(|(.., weight)| weight.groups)
        .collect();
    assert_eq!(groups, [16, 8]);
    let run = PackedModel::pack(&net)
        .unwrap()
        .apply(Odd::new(&device()))
        .unwrap();
    assert_near(
        &values(run.body.weight.val()),
        &values(net.body.weight.val()),
        1e-6,
    );

    let halves = Quantizer::new(2).rule(
        PathPattern::glob("**.weight"),
        GroupingRule::Subchannelwise(2),
    );
    let error = halves.clone().quantize(Odd::new(&device())).unwrap_err();
    assert!(
        error.to_string().contains("body.weight: 7 inputs"),
        "{error}"
    );
    let (_, report) = halves.or_float().quantize(Odd::new(&device())).unwrap();
    assert!(matches!(
        outcome(&report, "body.weight"),
        Outcome::Unfit { .. }
    ));
    let Outcome::Quantized(pointwise) = outcome(&report, "pointwise.weight") else {
        panic!("{report:?}");
    };
    assert_eq!(pointwise.groups, 16);
}

#[test]
fn weights_that_cost_more_than_half_of_float_are_marked() {
    let rules = Quantizer::new(6)
        .rule(PathPattern::glob("pointwise.**"), GroupingRule::Kernelwise)
        .rule(PathPattern::glob("body.**"), GroupingRule::Channelwise);
    let (net, report) = rules.quantize(Odd::new(&device())).unwrap();
    let packed = PackedModel::pack(&net).unwrap();
    for ((path, shape, weight), (_, bits)) in report.quantized().zip(&packed.weights) {
        let count: usize = shape.iter().product();
        let expected = 8.0 * bits.encoded_bytes().total() as f64 / count as f64;
        assert!((weight.effective_bits - expected).abs() < 1e-9, "{path}");
        assert!(weight.is_costly(), "{path}: {}", weight.effective_bits);
    }
    assert!(report.to_markdown().contains("more than half of float"));
    let (_, report) = everything().quantize(Two::new(&device())).unwrap();
    assert!(report.quantized().all(|(.., weight)| !weight.is_costly()));
}

#[test]
fn weights_that_burn_has_quantized_are_refused_by_name() {
    use burn::module::Quantizer as Burns;
    use burn::tensor::quantization::{Calibration, QuantValue};

    let device = Device::flex();
    let scheme = device
        .settings()
        .quantization
        .scheme
        .with_value(QuantValue::Q8S);
    let mut burns = Burns::new(Calibration::MinMax, scheme);
    let net = Two::new(&device).quantize_weights(&mut burns);
    let error = everything().quantize(net).unwrap_err();
    let path = "a.weight".into();
    assert_eq!(error, QuantizeError::BurnsOwn { path });
}

/// A record of the float model, loaded as Burn loads it, changes the value and leaves the bits behind.
#[test]
fn a_float_record_in_the_place_of_bits_is_noticed() {
    let device = device();
    let (net, _) = everything().quantize(Two::new(&device)).unwrap();
    let float = Two::new(&device);
    let record = float.clone().into_record().allow_partial(true);
    let loaded = net.clone().load_record(record);
    assert_eq!(
        loaded.a.weight.val().into_data(),
        float.a.weight.val().into_data()
    );
    let error = PackedModel::pack(&loaded).unwrap_err();
    assert!(
        matches!(&error, PackModelError::Moved { path, .. } if path == "a.weight"),
        "{error}"
    );
    let (right, _) = load_float(net, float.into_record()).unwrap();
    PackedModel::pack(&right).unwrap();
}

/// Fields that Burn's derive allows, and all layers of Burn's with weights that have no twin of ours.
#[derive(Module, Debug)]
struct Others {
    volumes: Vec<Conv3d>,
    signal: Option<ConvTranspose1d>,
    up: [ConvTranspose3d; 1],
    deform: (DeformConv2d, Option<Linear>),
}

impl Others {
    fn new(device: &Device) -> Self {
        Self {
            volumes: (0..2)
                .map(|_| Conv3dConfig::new([3, 3], [1, 2, 3]).init(device))
                .collect(),
            signal: Some(ConvTranspose1dConfig::new([3, 4], 3).init(device)),
            up: [ConvTranspose3dConfig::new([3, 2], [2, 1, 2]).init(device)],
            deform: (DeformConv2dConfig::new([3, 4], [3, 3]).init(device), None),
        }
    }

    fn weights(&self) -> Vec<Vec<f32>> {
        let volumes = self.volumes.iter();
        let mut weights: Vec<_> = volumes.map(|conv| values(conv.weight.val())).collect();
        weights.extend(self.signal.iter().map(|conv| values(conv.weight.val())));
        weights.push(values(self.up[0].weight.val()));
        weights.push(values(self.deform.0.weight.val()));
        weights
    }
}

#[test]
fn layers_without_a_twin_convert_and_pack_in_any_field() {
    let device = device();
    let rules = Quantizer::new(3).rule(PathPattern::glob("**.weight"), GroupingRule::Groupwise(6));
    let (net, report) = rules.quantize(Others::new(&device)).unwrap();
    let paths: Vec<&str> = report.quantized().map(|(path, ..)| path).collect();
    assert_eq!(paths.len(), 5, "{paths:?}");
    let run = PackedModel::pack(&net)
        .unwrap()
        .apply(Others::new(&device))
        .unwrap();
    for (found, expected) in run.weights().iter().zip(net.weights()) {
        assert_near(found, &expected, 1e-6);
    }
    let x = Tensor::<5>::ones([1, 3, 2, 4, 4], &device);
    let forward = |net: &Others| values(net.volumes[1].forward(net.volumes[0].forward(x.clone())));
    assert_near(&forward(&run), &forward(&net), 1e-4);
}

#[test]
fn weights_of_any_numbers_convert_and_pack() {
    let device = device();
    for (what, number) in [
        ("zeros", 0.0),
        ("a constant", 0.25),
        ("small", 1e-30),
        ("denormal", 1e-42),
        ("large", 1e30),
        ("the largest", f32::MAX),
    ] {
        let mut net = Two::new(&device);
        // Signs change, but no magnitude does.
        let signs = Tensor::<2>::random([16, 16], Distribution::Default, &device);
        let signs = (signs - 0.5).sign() * number;
        net.a.weight = net.a.weight.map(|_| signs);
        let (net, report) = everything().quantize(net).unwrap();
        let Outcome::Quantized(weight) = outcome(&report, "a.weight") else {
            panic!("{report:?}");
        };
        // What is too small for a coordinate becomes zero.
        let lost = number > 0.0 && number < f32::MIN_POSITIVE;
        let error = if lost { 1.0 } else { 0.0 };
        assert!(
            (weight.relative_error - error).abs() < 1e-6,
            "{what}: {weight:?}"
        );
        let run = PackedModel::pack(&net)
            .unwrap()
            .apply(Two::new(&device))
            .unwrap();
        assert_eq!(
            run.a.weight.val().into_data(),
            net.a.weight.val().into_data(),
            "{what}"
        );
    }
}

#[test]
fn a_frozen_layer_is_converted_and_stays_frozen() {
    let train = device().autodiff();
    let mut net = Two::new(&train);
    net.a = net.a.no_grad();
    let (net, _) = everything().quantize(net).unwrap();
    assert!(!net.a.weight.val().is_require_grad());
    assert!(net.b.weight.val().is_require_grad());
    let round = net.valid().train();
    assert!(!round.a.weight.val().is_require_grad());
    assert!(round.b.weight.val().is_require_grad());
}

#[test]
fn a_packed_model_serves_threads_that_start_together() {
    let device = device();
    let (net, _) = everything().quantize(Two::new(&device)).unwrap();
    let run = PackedModel::pack(&net)
        .unwrap()
        .apply(Two::new(&device))
        .unwrap();
    let x = Tensor::<2>::random([3, 16], Distribution::Default, &device);
    let expected = values(net.b.forward(net.a.forward(x.clone())));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (run, x) = (run.clone(), x.clone());
            let expected = &expected;
            scope.spawn(move || {
                assert_near(&values(run.b.forward(run.a.forward(x))), expected, 1e-5);
            });
        }
    });
}
