//! Weights that are products of two weights of one bit: converted, trained, packed and run.

mod refused;

use std::ops::ControlFlow;

use burn::module::{Module, Param};
use burn::nn::Relu;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_alq::calibrate::Progress;
use burn_alq::file::PackModelError;
use burn_alq::nn::{Linear, LinearConfig, unpacked_weights};
use burn_alq::optim::{Cost, prune::Budget};
use burn_alq::quantize::{Outcome, load_float, refit};
use burn_alq::{
    AlqOptimizer, AlqOptimizerConfig, Arithmetic, Calibrator, CoordinateType, GroupingRule,
    PackedModel, PathPattern, Phase, Quantizer, Unpacking, average_bits, sizes,
};

use crate::any_model::outcome;
use crate::calibrate::in_pieces;
use crate::devices::device;
use crate::support::{Random, assert_near, narrow, values};

/// A convolution of Burn's and a linear layer that runs on bits, both products; the head is not.
#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    hidden: Linear,
    head: Linear,
}

const SIDE: usize = 6;

fn filled<const D: usize>(
    param: Param<Tensor<D>>,
    random: &mut Random,
    size: f64,
) -> Param<Tensor<D>> {
    param.map(|old| {
        let shape = old.dims();
        let numbers = narrow(&random.normals(shape.iter().product(), size));
        let new = Tensor::from_data(TensorData::new(numbers, shape), &old.device());
        new.set_require_grad(old.is_require_grad())
    })
}

impl Net {
    fn new(device: &Device) -> Self {
        let mut random = Random::new(5);
        let mut net = Self {
            conv: Conv2dConfig::new([4, 24], [3, 3]).init(device),
            hidden: LinearConfig::new(24 * (SIDE - 2) * (SIDE - 2), 48).init(device),
            head: LinearConfig::new(48, 10).init(device),
        };
        net.conv.weight = filled(net.conv.weight, &mut random, 0.2);
        net.hidden.weight = filled(net.hidden.weight, &mut random, 0.08);
        net.head.weight = filled(net.head.weight, &mut random, 0.2);
        net.conv.bias = net.conv.bias.map(|bias| filled(bias, &mut random, 0.1));
        net.hidden.bias = net.hidden.bias.map(|bias| filled(bias, &mut random, 0.1));
        net.head.bias = net.head.bias.map(|bias| filled(bias, &mut random, 0.1));
        net
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = Relu::new().forward(self.conv.forward(images));
        let x = Relu::new().forward(self.hidden.forward(x.flatten::<2>(1, 3)));
        self.head.forward(x)
    }
}

/// Images whose channels and places depend on each other.
fn images(count: usize, seed: u64, device: &Device) -> Vec<Tensor<4>> {
    let mut random = Random::new(seed);
    let mut one = || {
        let mut numbers = random.normals(4 * SIDE * SIDE, 0.4);
        for place in 1..numbers.len() {
            numbers[place] += 0.8 * numbers[place - 1];
        }
        let numbers = TensorData::new(narrow(&numbers), [1, 4, SIDE, SIDE]);
        Tensor::from_data(numbers, device)
    };
    (0..count).map(|_| one()).collect()
}

fn all_images(count: usize, seed: u64, device: &Device) -> Tensor<4> {
    Tensor::cat(images(count, seed, device), 0)
}

fn products(bits: f64) -> Quantizer {
    Quantizer::new(3)
        .rule(PathPattern::glob("**"), GroupingRule::Channelwise)
        .product(PathPattern::exact("hidden.weight"), bits)
        .product(PathPattern::exact("conv.weight"), 2.0 * bits)
        .coordinate_type(CoordinateType::F16)
}

/// `‖ŷ − y‖² / ‖y‖²`.
fn error(float: &Net, net: &Net, images: Tensor<4>) -> f64 {
    let square = |x: Tensor<2>| f64::from(x.square().sum().into_scalar::<f32>());
    let y = float.forward(images.clone());
    square(net.forward(images) - y.clone()) / square(y)
}

fn packed(net: &Net) -> PackedModel {
    let packed = PackedModel::pack(net).unwrap();
    packed.with_coordinate_type(CoordinateType::F16).unwrap()
}

fn applied(net: &Net, device: &Device) -> Net {
    let bytes = packed(net).to_bytes().unwrap();
    let read = PackedModel::from_bytes(bytes, "test").unwrap();
    read.apply(Net::new(device)).unwrap()
}

#[test]
fn a_product_counts_all_that_it_stores() {
    let float = Net::new(&device());
    let (net, report) = products(1.0).quantize(float).unwrap();
    let Outcome::Quantized(hidden) = outcome(&report, "hidden.weight") else {
        panic!("{report:?}");
    };
    assert!(hidden.grouping.starts_with("product, rank "), "{hidden:?}");
    let rank: usize = hidden.grouping[14..].parse().unwrap();
    assert_eq!(hidden.groups, rank + 48);
    let numbers = 384.0 * 48.0;
    assert_eq!(hidden.average_bits, (rank * (384 + 48)) as f64 / numbers);
    // One rank more would be too much.
    let effective = hidden.effective_bits;
    let one_rank = (384.0 + 48.0 + 17.0) / numbers;
    assert!(
        effective <= 1.0 && effective > 1.0 - one_rank - 16.0 / numbers,
        "{effective}"
    );

    let model = packed(&net);
    let file = model.report(|_| None);
    let mut layers = file.layers.iter();
    let layer = layers.find(|layer| layer.path == "hidden.weight").unwrap();
    assert_eq!(
        (&layer.shape[..], layer.groups),
        (&[384, 48][..], hidden.groups)
    );
    assert_eq!(8.0 * layer.bytes as f64 / numbers, effective);
    assert_eq!(file.layers.len(), 3);
    assert_eq!(file.weights, 24 * 36 + 384 * 48 + 480);
    let other = 4 * (24 + 48 + 10);
    assert_eq!(
        file.other_bytes, other,
        "scales are counted with the weights"
    );
    assert_eq!(model.average_bits(), average_bits(&sizes(&net)));
    assert!((file.paper_bits - model.average_bits()).abs() < 1e-12);
    assert!(format!("{net}").contains("product"), "{net}");
}

#[test]
fn inputs_bring_a_product_nearer() {
    let device = device();
    let float = Net::new(&device);
    let seen = images(256, 1, &device);
    let held_out = || all_images(64, 2, &device);
    let forward = |net: &Net, x: &Tensor<4>| net.forward(x.clone());
    let calibrator = Calibrator::new(products(1.0));
    let (net, _) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
    let (again, _) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
    assert_eq!(
        packed(&net).to_bytes().unwrap(),
        packed(&again).to_bytes().unwrap()
    );
    let (blind, _) = products(1.0).quantize(float.clone()).unwrap();
    let [seeing, blind] = [&net, &blind].map(|net| error(&float, net, held_out()));
    assert!(seeing < 0.6 * blind, "{seeing} against {blind}");
}

#[test]
fn refinement_goes_on_where_it_was_broken_off() {
    let device = device();
    let float = Net::new(&device);
    let seen = images(512, 1, &device);
    let forward = |net: &Net, x: &Tensor<4>| net.forward(x.clone());
    let calibrator = Calibrator::new(products(0.8)).epochs(4).learning_rate(3e-4);
    let mut errors = Vec::new();
    let whole = calibrator.quantize_with(float.clone(), &seen, forward, |progress| {
        if let Progress::Refined(refined) = progress {
            errors.push(refined.error);
        }
        ControlFlow::Continue(())
    });
    let (whole, report) = whole.unwrap();
    // Whether steps help so small a network is decided by rounding; it must have gone on while it could.
    assert!(errors.len() >= 4, "{errors:?}");
    assert!(errors.iter().all(|error| error.is_finite()), "{errors:?}");

    let folder = tempfile::tempdir().unwrap();
    let kept = calibrator.checkpoints(folder.path());
    let ((resumed, again), stops) = in_pieces(500, |progress| {
        kept.quantize_with(float.clone(), &seen, forward, progress)
    });
    assert!((3..12).contains(&stops), "{stops}");
    assert_eq!(
        packed(&resumed).to_bytes().unwrap(),
        packed(&whole).to_bytes().unwrap()
    );
    assert_eq!(again, report);
}

#[test]
fn packed_products_run_on_their_bits() {
    let device = device();
    let (net, _) = products(1.0).quantize(Net::new(&device)).unwrap();
    let x = all_images(5, 3, &device);
    let expected = values(net.forward(x.clone()));
    let room = 2e-3 * expected.iter().fold(0.0, |most: f32, y| most.max(y.abs()));

    let running = applied(&net, &device);
    assert_near(&values(running.forward(x.clone())), &expected, room);
    // The convolution has no kernel for products; the linear layer makes no dense weight.
    assert_eq!(
        unpacked_weights(&running),
        ["conv.weight.product.first", "conv.weight.product.second"]
    );
    assert!(format!("{running}").contains("product packed"), "{running}");
    let one_row = running.hidden.forward(Tensor::<1>::ones([384], &device));
    assert_eq!(one_row.dims(), [48]);
    let none = running
        .hidden
        .forward(Tensor::<3>::zeros([2, 0, 384], &device));
    assert_eq!(none.dims(), [2, 0, 48]);

    for moved in [
        running.clone().to_device(&device),
        running.clone().fork(&device),
        running.valid(),
        running.clone().materialize(),
        packed(&net)
            .apply_with(Net::new(&device), Unpacking::EachUse)
            .unwrap(),
        packed(&net).apply(net.clone()).unwrap(),
    ] {
        assert_near(&values(moved.forward(x.clone())), &expected, room);
    }
    let dense = values(net.hidden.weight.val());
    let size = dense.iter().fold(0.0, |most: f32, y| most.max(y.abs()));
    assert_near(&values(running.hidden.weight.val()), &dense, 1e-3 * size);

    let rounded = packed(&net)
        .apply_with(Net::new(&device), Arithmetic::Int8)
        .unwrap();
    assert_near(&values(rounded.forward(x)), &expected, 20.0 * room);
    let error = PackedModel::pack(&running).unwrap_err();
    assert!(matches!(error, PackModelError::Packed { .. }), "{error}");
}

#[test]
fn scales_are_stored_as_coordinates_are() {
    let device = device();
    let (net, _) = products(1.0).quantize(Net::new(&device)).unwrap();
    let model = PackedModel::pack(&net).unwrap();
    let dtype = |model: &PackedModel| {
        let mut tensors = model.tensors.iter();
        let scale = tensors.find(|(path, _)| path == "hidden.weight.product.scale");
        scale.unwrap().1.dtype()
    };
    assert_eq!(dtype(&model), DType::F32);
    let stored = model
        .clone()
        .with_coordinate_type(CoordinateType::F16)
        .unwrap();
    assert_eq!(dtype(&stored), DType::F16);
    let back = stored.with_coordinate_type(CoordinateType::F32).unwrap();
    assert_eq!(back, model, "they were numbers of this type before");

    let mut beyond = model;
    let mut tensors = beyond.tensors.iter_mut();
    let (_, scale) = tensors
        .find(|(path, _)| path == "hidden.weight.product.scale")
        .unwrap();
    *scale = TensorData::new(vec![1e6f32; 384], [384]);
    let error = beyond
        .with_coordinate_type(CoordinateType::F16)
        .unwrap_err();
    assert!(
        matches!(error, PackModelError::Range { value: 1e6, .. }),
        "{error}"
    );
}

#[test]
fn records_hold_the_factors() {
    let device = device();
    let x = all_images(3, 4, &device);
    let (net, _) = products(1.0).quantize(Net::new(&device)).unwrap();
    let mut other = Net::new(&device);
    other.hidden.weight = other.hidden.weight.map(|weight| weight * -0.5);
    let (other, _) = products(1.0).quantize(other).unwrap();
    let loaded = other.load_record(net.clone().into_record());
    assert_eq!(
        values(loaded.forward(x.clone())),
        values(net.forward(x.clone()))
    );

    // Once packed, the record holds the product.
    let record = applied(&net, &device).into_record().allow_unused(true);
    let unpacked = Net::new(&device).load_record(record);
    let expected = values(net.forward(x.clone()));
    let size = expected.iter().fold(0.0, |most: f32, y| most.max(y.abs()));
    assert_near(&values(unpacked.forward(x.clone())), &expected, 2e-3 * size);

    // A materialized model is float again.
    let float = net.clone().materialize();
    assert_eq!(values(float.forward(x.clone())), values(net.forward(x)));
    assert!(sizes(&float).is_empty());
}

fn step(
    net: Net,
    optimizer: &mut AlqOptimizer,
    lr: f64,
    x: &Tensor<4>,
    y: &Tensor<2>,
) -> (Net, f32) {
    let loss = (net.forward(x.clone()) - y.clone()).square().mean();
    let now = loss.clone().into_scalar::<f32>();
    let grads = GradientsParams::from_grads(loss.backward(), &net);
    (optimizer.step(lr, net, grads), now)
}

#[test]
fn factors_are_trained_and_pruned_like_other_weights() {
    let device = device();
    let train = device.clone().autodiff();
    let float = Net::new(&train);
    let x = all_images(32, 6, &train);
    let y = float.forward(x.clone()).detach();
    let (mut net, _) = products(0.8).quantize(float).unwrap();
    let mut optimizer = AlqOptimizerConfig::new().init();
    for phase in [Phase::Basis, Phase::Coordinate, Phase::Ste] {
        optimizer.set_phase(phase);
        let mut losses = Vec::new();
        for _ in 0..12 {
            let loss;
            (net, loss) = step(net, &mut optimizer, 3e-4, &x, &y);
            losses.push(loss);
        }
        assert!(losses[11] < losses[0], "{phase:?}: {losses:?}");
    }
    assert_eq!(optimizer.diverged(), None);
    let before = average_bits(&sizes(&net));
    let live = sizes(&net)
        .iter()
        .map(|size| size.coordinates)
        .sum::<usize>();
    optimizer.set_phase(Phase::Prune(Budget {
        cost: Cost::Coordinates,
        at_most: (live - 20) as f64,
        top_k: 1.0,
        loss_share: 1.0,
        floor: 0.0,
    }));
    (net, _) = step(net, &mut optimizer, 3e-4, &x, &y);
    assert!(average_bits(&sizes(&net)) < before);
    assert!(optimizer.shortfall().is_none());

    // What has become of it packs and runs.
    let net = net.valid();
    let running = PackedModel::pack(&net)
        .unwrap()
        .apply(Net::new(&device))
        .unwrap();
    let x = all_images(3, 7, &device);
    let expected = values(net.forward(x.clone()));
    let size = expected.iter().fold(0.0, |most: f32, y| most.max(y.abs()));
    assert_near(&values(running.forward(x)), &expected, 1e-4 * size);
}

#[test]
fn a_float_record_becomes_products_and_values_are_fitted_again() {
    let device = device();
    let float = Net::new(&device);
    let (net, _) = products(1.0).quantize(float.clone()).unwrap();
    let mut blank = float.clone();
    blank.hidden.weight = blank.hidden.weight.map(|weight| weight * 0.0 + 0.5);
    let (blank, _) = products(1.0).quantize(blank).unwrap();
    let (loaded, report) = load_float(blank, float.into_record()).unwrap();
    let Outcome::Quantized(hidden) = outcome(&report, "hidden.weight") else {
        panic!("{report:?}");
    };
    assert!(hidden.grouping.starts_with("product"), "{hidden:?}");
    // The same but for coordinates, which are f32 here.
    let (found, expected) = (
        values(loaded.hidden.weight.val()),
        values(net.hidden.weight.val()),
    );
    let size = expected.iter().fold(0.0, |most: f32, y| most.max(y.abs()));
    let far = found
        .iter()
        .zip(&expected)
        .filter(|(a, b)| (*a - *b).abs() > 0.3 * size);
    assert!(far.count() < found.len() / 20);

    let (fitted, report) = refit(net.clone()).unwrap();
    assert!(report.quantized().all(|(path, ..)| path != "hidden.weight"));
    let factors = report
        .quantized()
        .filter(|(path, ..)| path.contains("product"));
    assert_eq!(factors.count(), 4);
    assert_near(&values(fitted.hidden.weight.val()), &expected, 1e-5 * size);
}

/// Two places of one weight.
#[derive(Module, Debug)]
struct Twice {
    one: Linear,
    two: Linear,
}

impl Twice {
    fn new(device: &Device) -> Self {
        let mut random = Random::new(3);
        let mut one = LinearConfig::new(32, 32).init(device);
        one.weight = filled(one.weight, &mut random, 0.2);
        let two = one.clone();
        Self { one, two }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.two.forward(self.one.forward(x).tanh())
    }
}

#[test]
fn tied_products_are_one() {
    let device = device();
    let quantizer = Quantizer::new(1).product(PathPattern::glob("*.weight"), 4.0);
    let (net, report) = quantizer.quantize(Twice::new(&device)).unwrap();
    assert_eq!(report.quantized().count(), 1);
    assert_eq!(sizes(&net).len(), 2);
    let x = Tensor::<2>::ones([3, 32], &device);
    let expected = values(net.forward(x.clone()));
    let model = PackedModel::pack(&net).unwrap();
    assert_eq!(model.weights.len(), 2);
    assert_eq!(
        model.tied["two.weight.product.first"],
        "one.weight.product.first"
    );
    let running = model.apply(Twice::new(&device)).unwrap();
    assert_near(&values(running.forward(x)), &expected, 1e-4);
}
