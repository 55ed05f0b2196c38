//! Numbers at the ends of their range, and none at all: a named error or the right answer.

use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::quantize::QuantizeError;
use burn_alq::train::learner::Alq;
use burn_alq::train::{Task, TrainError};
use burn_alq::{
    AlqOptimizerConfig, Arithmetic, MultiBitActivation, MultiBitConv2dConfig, MultiBitLinearConfig,
    PackedModel, Phase, Quantized, Target,
};
use burn_train::TrainStep;

use crate::definition::levels;
use crate::devices::device;
use crate::model::{Fit, Net, assert_consistent, quantizer, schedule, start};

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// A weight's value by its place.
type Value = Box<dyn Fn(usize) -> f32>;

fn with_weight(device: &Device, value: impl Fn(usize) -> f32) -> Net {
    let mut net = Net::new(device);
    let data: Vec<f32> = (0..128 * 4).map(value).collect();
    let weight = Tensor::from_data(TensorData::new(data, [128, 4]), device);
    net.fc.weight = Param::from_tensor(weight);
    net
}

#[test]
fn a_weight_that_is_not_finite_is_refused_by_its_path() {
    let device = device();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let net = with_weight(&device, |i| if i == 100 { bad } else { 0.1 });
        let error = quantizer().quantize(net).unwrap_err();
        assert!(
            matches!(&error, QuantizeError::Weight { path, .. } if path == "fc.weight"),
            "{error}"
        );
    }
}

/// Of any size, constant, sparse or tiny: the sketch is never worse than nothing, and what is trained
/// is what is packed.
#[test]
fn weights_of_every_size_are_sketched() {
    let device = device();
    let ramp = |i: usize| (i as f32 * 0.37).sin();
    let cases: [(&str, Value); 7] = [
        ("large", Box::new(move |i| 1e30 * ramp(i))),
        ("small", Box::new(move |i| 1e-30 * ramp(i))),
        (
            "denormal",
            Box::new(|i| if i % 2 == 0 { 1e-42 } else { -1e-42 }),
        ),
        ("constant", Box::new(|_| 0.25)),
        ("of two values", Box::new(|i| [0.5, -0.25][i % 2])),
        ("zero", Box::new(|_| 0.0)),
        ("one of many", Box::new(|i| if i == 7 { 3.0 } else { 0.0 })),
    ];
    for (name, value) in cases {
        let before: Vec<f32> = (0..512).map(&value).collect();
        let net = quantizer()
            .quantize(with_weight(&device, &value))
            .unwrap()
            .0;
        let after = values(net.fc.weight.val());
        let sum = |f: &dyn Fn(usize) -> f64| (0..512).map(f).sum::<f64>();
        let size = sum(&|i| f64::from(before[i]).powi(2));
        let error = sum(&|i| (f64::from(before[i]) - f64::from(after[i])).powi(2));
        assert!(error <= size * (1.0 + 1e-6), "{name}: {error} of {size}");
        if ["constant", "of two values", "zero"].contains(&name) {
            // Two bases hold two values but for rounding.
            assert!(error <= 1e-12 * size, "{name}: {error} of {size}");
        }
        let packed = PackedModel::pack(&net).unwrap();
        let weight = &packed
            .weights
            .iter()
            .find(|(path, _)| path == "fc.weight")
            .unwrap()
            .1;
        let equal = weight.unpack().iter().zip(&after).all(|(a, b)| {
            // Devices may sum the same terms with fused operations.
            a == b || (a - b).abs() <= 1e-6 * b.abs()
        });
        assert!(equal, "{name}");
    }
}

/// One step of a phase with the given gradient of every weight, at a learning rate.
fn step(device: &Device, phase: Phase, gradient: f32, lr: f64) -> Net {
    let net = quantizer().quantize(Net::new(device)).unwrap().0;
    let mut optimizer = AlqOptimizerConfig::new().init();
    optimizer.set_phase(phase);
    // The loss is linear in the output's bias and in each weight of an input that is constant.
    let images = Tensor::<4>::ones([2, 1, 6, 6], device) * gradient;
    let loss = net
        .fc
        .forward(images.reshape([2, 36]).repeat_dim(1, 4).narrow(1, 0, 128))
        .sum();
    let grads = GradientsParams::from_grads(loss.backward(), &net);
    optimizer.step(lr, net, grads)
}

#[test]
fn every_gradient_keeps_the_weights_finite() {
    let device = device().autodiff();
    let before = quantizer().quantize(Net::new(&device)).unwrap().0;
    for phase in [Phase::Basis, Phase::Coordinate, Phase::Ste] {
        for gradient in [0.0, 1e-30, 1e4, 1e18, 1e30, f32::INFINITY, f32::NAN] {
            for lr in [0.0, 1e-3] {
                let after = step(&device, phase, gradient, lr);
                let weight = values(after.fc.weight.val());
                let finite = weight.iter().all(|x| x.is_finite());
                assert!(finite, "{phase:?}, gradient {gradient}, lr {lr}");
                assert_consistent(&after);
                // A step of no length, or to nowhere: a gradient that is no number moves nothing.
                let nowhere = gradient == 0.0 || lr == 0.0 || !gradient.is_finite();
                if phase == Phase::Coordinate && nowhere {
                    let same = values(before.fc.weight.val());
                    assert_eq!(weight, same, "gradient {gradient}, lr {lr}");
                }
            }
        }
    }
}

/// A loss whose value is finite and whose gradient is not, in a batch of the second epoch.
struct Steep(Fit);

impl Task for Steep {
    type Model = Net;

    fn batches(&self) -> usize {
        Fit::BATCHES
    }

    fn loss(&self, net: &Net, epoch: usize, batch: usize, shard: usize) -> Tensor<1> {
        let loss = self.0.loss(net, epoch, batch, shard);
        match (epoch, batch) {
            (1, 2) => loss + steep(net),
            _ => loss,
        }
    }

    fn evaluate(&self, net: &Net) -> f64 {
        self.0.evaluate(net)
    }
}

/// Zero; the factors of the gradient overflow.
fn steep(net: &Net) -> Tensor<1> {
    let weight = net.fc.weight.val();
    let zero = weight.clone() - weight.detach();
    zero.mul_scalar(1e30).mul_scalar(1e30).sum()
}

#[test]
fn a_gradient_that_is_not_finite_stops_the_run() {
    let device = device().autodiff();
    let task = Steep(Fit::new(&device));
    let mut run = start(&device, Target::Bits(0.7));
    let error = loop {
        match run.advance(&task) {
            Ok(progress) => assert!(progress.unwrap().epoch <= 1, "it goes on"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, TrainError::Gradient { path, epoch: 1, .. } if path == "fc.weight"),
        "{error}"
    );
}

/// At the end of its epoch, which is one step here.
#[test]
#[should_panic(expected = "fc.weight: a gradient is not finite in the basis phase, epoch 1")]
fn a_gradient_that_is_not_finite_stops_the_learner() {
    let device = Device::flex().autodiff();
    let net = quantizer().quantize(Net::new(&device)).unwrap().0;
    let schedule = schedule(&net, Target::Bits(0.7));
    let grads = GradientsParams::from_grads(steep(&net).backward(), &net);
    let mut adam = AdamConfig::new().init();
    Alq::new(net, schedule, 1).optimize(&mut adam, 1e-3.into(), grads);
}

/// No rows in, no rows out, in every arithmetic.
#[test]
fn an_empty_batch_gives_an_empty_result() {
    let device = device();
    let linear = MultiBitLinearConfig::new(40, 7);
    let conv = MultiBitConv2dConfig::new([3, 5], [3, 3])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
    for arithmetic in [Arithmetic::Exact, Arithmetic::Int8, Arithmetic::Bitwise] {
        let activation = MultiBitActivation::with_levels(&levels(), &device);
        let layer = linear.clone().with_arithmetic(arithmetic).init(&device);
        let layer = PackedModel::pack(&layer).unwrap().apply(layer).unwrap();
        let none = Tensor::<2>::zeros([0, 40], &device);
        let input: Quantized<2> = match arithmetic {
            Arithmetic::Bitwise => activation.forward(none),
            _ => none.into(),
        };
        assert_eq!(layer.forward(input).dims(), [0, 7], "{arithmetic:?}");
        let layer = conv.clone().with_arithmetic(arithmetic).init(&device);
        let layer = PackedModel::pack(&layer).unwrap().apply(layer).unwrap();
        let none = Tensor::<4>::zeros([0, 3, 8, 8], &device);
        let input: Quantized<4> = match arithmetic {
            Arithmetic::Bitwise => activation.forward(none),
            _ => none.into(),
        };
        assert_eq!(layer.forward(input).dims(), [0, 5, 8, 8], "{arithmetic:?}");
    }
}
