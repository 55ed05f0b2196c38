//! Conversion by inputs without labels: nearer outputs than without them, and what is refused.

mod inputs;

use std::ops::ControlFlow;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, Relu};
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::calibrate::{CalibrateError, Progress};
use burn_alq::optim::{average_bits, sizes};
use burn_alq::quantize::QuantizeError;
use burn_alq::{Calibrator, CoordinateType, GroupingRule, PathPattern, Quantizer};

use crate::devices::device;
use crate::support::{Random, narrow};

/// Layers of Burn's own.
#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    hidden: Linear,
    head: Linear,
}

const SIZE: usize = 6;

impl Net {
    fn new(device: &Device) -> Self {
        let mut random = Random::new(5);
        let mut values = |len: usize, size: f64| narrow(&random.normals(len, size));
        let mut net = Self {
            conv: Conv2dConfig::new([4, 8], [3, 3]).init(device),
            hidden: LinearConfig::new(8 * (SIZE - 2) * (SIZE - 2), 32).init(device),
            head: LinearConfig::new(32, 12).init(device),
        };
        let mut filled = |shape: Vec<usize>, size: f64| {
            TensorData::new(values(shape.iter().product(), size), shape)
        };
        net.conv.weight = net
            .conv
            .weight
            .map(|w| Tensor::from_data(filled(w.dims().to_vec(), 0.2), &w.device()));
        net.conv.bias = net.conv.bias.map(|bias| bias.map(|b| b.zeros_like()));
        for layer in [&mut net.hidden, &mut net.head] {
            layer.bias = layer.bias.clone().map(|bias| bias.map(|b| b.zeros_like()));
            layer.weight = layer
                .weight
                .clone()
                .map(|w| Tensor::from_data(filled(w.dims().to_vec(), 0.1), &w.device()));
        }
        net
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = Relu::new().forward(self.conv.forward(images));
        let x = Relu::new().forward(self.hidden.forward(x.flatten(1, 3)));
        self.head.forward(x)
    }
}

/// Images whose channels depend on each other, so that weights can make up for each other.
fn images(count: usize, seed: u64, device: &Device) -> Vec<Tensor<4>> {
    images_of(SIZE, count, seed, device)
}

fn images_of(side: usize, count: usize, seed: u64, device: &Device) -> Vec<Tensor<4>> {
    let mut random = Random::new(seed);
    let one = |_| {
        let places = side * side;
        let mut noise = |size| random.normals(places, size);
        let base = noise(1.0);
        let channels: Vec<Vec<f64>> = (0..4)
            .map(|channel| {
                let own = noise(0.3);
                let sum = base.iter().zip(own);
                sum.map(|(base, own)| base * (1.0 + channel as f64) + own)
                    .collect()
            })
            .collect();
        let values = narrow(&channels.concat());
        Tensor::from_data(TensorData::new(values, [1, 4, side, side]), device)
    };
    (0..count).map(one).collect()
}

fn quantizer(bits: usize) -> Quantizer {
    Quantizer::new(bits)
        .rule(PathPattern::glob("**.weight"), GroupingRule::Channelwise)
        .rule(
            PathPattern::exact("hidden.weight"),
            GroupingRule::Groupwise(32),
        )
        .coordinate_type(CoordinateType::F16)
}

/// `Σ ‖ŷ − y‖² / Σ ‖y‖²` over samples.
fn error<M>(
    forward: impl Fn(&M, &Tensor<4>) -> Tensor<2>,
    [float, net]: [&M; 2],
    samples: &[Tensor<4>],
) -> f64 {
    let square = |x: Tensor<2>| f64::from(x.square().sum().into_scalar::<f32>());
    let mut sums = [0.0; 2];
    for sample in samples {
        let y = forward(float, sample);
        sums[0] += square(forward(net, sample) - y.clone());
        sums[1] += square(y);
    }
    sums[0] / sums[1]
}

/// What a calibration ends in that is broken off after every so many passes and goes on, and how often that
/// was.
pub fn in_pieces<T>(
    passes: usize,
    mut run: impl FnMut(&mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<T, CalibrateError>,
) -> (T, usize) {
    for stops in 0..20 {
        let mut left = passes;
        let mut progress = |progress| {
            if let Progress::Passes { done, of } = progress {
                assert!(done <= of, "{done} of {of}");
                left -= 1;
            }
            match left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        };
        match run(&mut progress) {
            Ok(found) => return (found, stops),
            Err(CalibrateError::Stopped) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it does not come on");
}

#[test]
fn inputs_bring_the_outputs_nearer() {
    let device = device();
    let float = Net::new(&device);
    let (seen, held_out) = (images(64, 1, &device), images(32, 2, &device));
    for bits in [2, 3, 4] {
        let quantizer = quantizer(bits);
        let (blind, _) = quantizer.quantize(float.clone()).unwrap();
        let calibrator = Calibrator::new(quantizer);
        let forward = |net: &Net, x: &Tensor<4>| net.forward(x.clone());
        let (net, report) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
        let [blind, seeing] = [&blind, &net].map(|net| error(forward, [&float, net], &held_out));
        assert!(
            seeing < 0.7 * blind,
            "{bits} bits: {seeing} against {blind}"
        );
        assert_eq!(average_bits(&sizes(&net)), bits as f64);
        assert!(report.to_markdown().contains("hidden.weight"));
        let (again, _) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
        let same = |net: &Net| net.hidden.weight.val().into_data();
        same(&again).assert_eq(&same(&net), true);
    }
}

#[test]
fn what_cannot_be_calibrated_with_is_refused() {
    let device = device();
    let float = Net::new(&device);
    let calibrator = Calibrator::new(quantizer(2));
    let forward = |net: &Net, x: &Tensor<4>| net.forward(x.clone());
    let error = calibrator
        .quantize(float.clone(), &[], forward)
        .unwrap_err();
    assert!(matches!(error, CalibrateError::NoSamples), "{error}");

    let mut samples = images(3, 1, &device);
    samples[1] = samples[1].clone() * f32::NAN;
    let error = calibrator
        .quantize(float.clone(), &samples, forward)
        .unwrap_err();
    let text = "the model's outputs [1, 12] of sample 1 are not all finite";
    assert!(error.to_string().starts_with(text), "{error}");

    samples.truncate(1);
    let detached = |net: &Net, x: &Tensor<4>| net.forward(x.clone()).without_autodiff();
    let error = calibrator
        .quantize(float.clone(), &samples, detached)
        .unwrap_err();
    assert!(matches!(error, CalibrateError::NoGradients), "{error}");

    let mut broken = float.clone();
    broken.head.weight = broken.head.weight.map(|weight| weight * f32::NAN);
    let error = calibrator.quantize(broken, &samples, forward).unwrap_err();
    let text = "head.weight: the number at [0, 0] is not finite";
    assert!(error.to_string().starts_with(text), "{error}");

    let nothing = Calibrator::new(Quantizer::new(2));
    let error = nothing.quantize(float, &samples, forward).unwrap_err();
    let refused = matches!(error, CalibrateError::Quantize(QuantizeError::Nothing));
    assert!(refused, "{error}");
}

#[test]
fn refinement_brings_them_nearer_still() {
    let device = device();
    let float = Net::new(&device);
    let (seen, held_out) = (images(512, 1, &device), images(32, 2, &device));
    let calibrator = Calibrator::new(quantizer(2));
    let forward = |net: &Net, x: &Tensor<4>| net.forward(x.clone());
    let (before, _) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
    let epochs = 5;
    let calibrator = calibrator.epochs(epochs).learning_rate(1e-4);
    let mut errors = Vec::new();
    let mut note = |progress| {
        if let Progress::Refined(refined) = progress {
            errors.push(refined.error);
        }
        ControlFlow::Continue(())
    };
    let calibrated = calibrator.quantize_with(float.clone(), &seen, forward, &mut note);
    let (after, _) = calibrated.unwrap();
    assert_eq!(
        errors.len(),
        1 + epochs,
        "before the first epoch, and after each"
    );
    let [before, after] = [&before, &after].map(|net| error(forward, [&float, net], &held_out));
    assert!(after < before, "{after} against {before}: {errors:?}");
    assert!(errors[epochs] < 0.97 * errors[0], "{errors:?}");
}
