//! Layers whose inputs can be seen: one after the other, bits under a budget, and where it was broken off.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::calibrate::{Budget, CalibrateError};
use burn_alq::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
use burn_alq::nn::{Activation, Epilogue, Linear, LinearConfig};
use burn_alq::optim::sizes;
use burn_alq::{Calibrator, CoordinateType, GroupingRule, PackedModel, PathPattern, Quantizer};

use super::{error, images, images_of, in_pieces};
use crate::devices::device;
use crate::support::{Random, narrow, values};

/// Layers of ours: of all channels, of each alone, over places in a row, and with a residual.
#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    depthwise: Conv2d,
    row: Conv1d,
    hidden: Linear,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let net = Self {
            conv: Conv2dConfig::new([4, 8], [3, 3]).init(device),
            depthwise: Conv2dConfig::new([8, 8], [3, 3])
                .with_groups(8)
                .with_padding(PaddingConfig2d::Same)
                .init(device),
            row: Conv1dConfig::new(8, 4, 3).with_stride(2).init(device),
            hidden: LinearConfig::new(28, 28).init(device),
            head: LinearConfig::new(28, 12).init(device),
        };
        let mut random = Fill(Random::new(5));
        net.map(&mut random)
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.conv.forward_then(images, Activation::Relu);
        let x = self.depthwise.forward_then(x, Activation::Relu);
        let x = self.row.forward(x.flatten::<3>(2, 3));
        let x: Tensor<2> = x.flatten(1, 2);
        let skip = Epilogue {
            residual: Some(x.clone()),
            ..Activation::Relu.into()
        };
        self.head.forward(self.hidden.forward_then(x, skip))
    }
}

/// Numbers that do not depend on what else draws.
struct Fill(Random);

impl burn::module::ModuleMapper for Fill {
    fn map_float<const D: usize>(
        &mut self,
        param: burn::module::Param<Tensor<D>>,
    ) -> burn::module::Param<Tensor<D>> {
        param.map(|old| {
            let len = old.shape().num_elements();
            let fan_in = (len / old.dims()[0]).max(4) as f64;
            let new = narrow(&self.0.normals(len, 1.0 / fan_in.sqrt()));
            Tensor::from_data(TensorData::new(new, old.dims()), &old.device())
        })
    }
}

fn forward(net: &Net, x: &Tensor<4>) -> Tensor<2> {
    net.forward(x.clone())
}

fn quantizer(bits: usize) -> Quantizer {
    Quantizer::new(bits)
        .rule(PathPattern::glob("**.weight"), GroupingRule::Channelwise)
        .coordinate_type(CoordinateType::F16)
}

fn bytes(net: &Net) -> Vec<u8> {
    PackedModel::pack(net).unwrap().to_bytes().unwrap().to_vec()
}

#[test]
fn layer_after_layer_is_nearer_than_all_at_once() {
    let device = device();
    let float = Net::new(&device);
    let (seen, held_out) = (images(256, 1, &device), images(64, 2, &device));
    for bits in [1, 2] {
        let (blind, _) = quantizer(bits).quantize(float.clone()).unwrap();
        let calibrator = Calibrator::new(quantizer(bits));
        let quantize = |calibrator: Calibrator| {
            let (net, _) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
            error(forward, [&float, &net], &held_out)
        };
        let at_once = quantize(calibrator.clone().one_pass());
        let in_order = quantize(calibrator);
        let blind = error(forward, [&float, &blind], &held_out);
        assert!(
            at_once < blind && in_order < 0.8 * at_once,
            "{bits} bits: {in_order}, {at_once}, {blind}"
        );
    }
}

/// A layer's inputs in another order than its groups' would make it worse than no inputs at all.
#[test]
fn every_grouping_along_the_inputs_gains() {
    let device = device();
    let (seen, held_out) = (images(128, 1, &device), images(64, 2, &device));
    for rule in [
        GroupingRule::Channelwise,
        GroupingRule::Kernelwise,
        GroupingRule::Pixelwise,
        GroupingRule::Groupwise(12),
    ] {
        let float = Net::new(&device);
        let quantizer = Quantizer::new(2).rule(PathPattern::exact("conv.weight"), rule);
        let (blind, _) = quantizer.quantize(float.clone()).unwrap();
        let calibrator = Calibrator::new(quantizer);
        let (net, _) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
        let [blind, seeing] = [&blind, &net].map(|net| error(forward, [&float, net], &held_out));
        assert!(seeing < 0.7 * blind, "{rule:?}: {seeing} against {blind}");
    }
}

/// Convolutions in steps, with distances, padding and groups.
#[derive(Module, Debug)]
struct Wide {
    strided: Conv2d,
    grouped: Conv2d,
    head: Conv2d,
}

impl Wide {
    fn new(device: &Device) -> Self {
        let net = Self {
            strided: Conv2dConfig::new([4, 6], [3, 2])
                .with_stride([2, 1])
                .with_dilation([1, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 0, 2, 1))
                .init(device),
            grouped: Conv2dConfig::new([6, 8], [3, 3])
                .with_groups(2)
                .init(device),
            head: Conv2dConfig::new([8, 5], [1, 1])
                .with_bias(false)
                .init(device),
        };
        net.map(&mut Fill(Random::new(5)))
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let x = self.strided.forward_then(images, Activation::Relu);
        self.head
            .forward(self.grouped.forward_then(x, Activation::Relu))
    }
}

/// Some places from all over stand for all: images are larger than what is kept of one. Inputs of other places
/// than the outputs, or in another order than the weights, would make it worse than no inputs at all.
#[test]
fn large_images_gain_as_small_ones_do() {
    let device = device();
    let float = Wide::new(&device);
    let error = |net: &Wide, samples: &[Tensor<4>]| {
        let square = |x: Tensor<4>| f64::from(x.square().sum().into_scalar::<f32>());
        let sums = samples.iter().map(|x| {
            let y = float.forward(x.clone());
            (square(net.forward(x.clone()) - y.clone()), square(y))
        });
        let (error, norm) = sums.fold((0.0, 0.0), |sum, new| (sum.0 + new.0, sum.1 + new.1));
        error / norm
    };
    let held_out = images_of(20, 32, 2, &device);
    let (blind, _) = quantizer(2).quantize(float.clone()).unwrap();
    let blind = error(&blind, &held_out);
    for (side, count) in [(20, 64), (160, 1)] {
        let seen = images_of(side, count, 1, &device);
        let calibrator = Calibrator::new(quantizer(2));
        let forward = |net: &Wide, x: &Tensor<4>| net.forward(x.clone());
        let (net, _) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
        let seeing = error(&net, &held_out);
        assert!(
            seeing < 0.7 * blind,
            "{count} of {side}: {seeing} against {blind}"
        );
    }
}

#[test]
fn a_bias_takes_the_mean_of_the_errors() {
    let device = device();
    let float = Net::new(&device);
    let seen = images(64, 1, &device);
    let quantizer =
        Quantizer::new(1).rule(PathPattern::exact("head.weight"), GroupingRule::Channelwise);
    let calibrator = Calibrator::new(quantizer);
    let (net, _) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
    let mut means = [0.0f64; 12];
    for sample in &seen {
        let error = values(forward(&net, sample) - forward(&float, sample));
        for (mean, error) in means.iter_mut().zip(error) {
            *mean += f64::from(error) / seen.len() as f64;
        }
    }
    // Rounding of sums in f32 alone: outputs are about 1.
    assert!(means.iter().all(|mean| mean.abs() < 1e-4), "{means:?}");
}

#[test]
fn a_budget_goes_where_outputs_bend_most() {
    let device = device();
    let mut float = Net::new(&device);
    // A layer beside the residual that says next to nothing.
    float.hidden.weight = float.hidden.weight.map(|weight| weight * 0.01);
    let seen = images(64, 1, &device);
    let asked = 4.0;
    let calibrator = Calibrator::new(quantizer(8)).budget(Budget::EffectiveBits(asked));
    let (net, report) = calibrator.quantize(float.clone(), &seen, forward).unwrap();
    let bits = |path: &str| {
        let mut weights = report.quantized();
        weights
            .find(|(found, ..)| *found == path)
            .unwrap()
            .2
            .average_bits
    };
    assert!(bits("hidden.weight") <= 2.0, "{}", report.to_markdown());
    assert!(bits("head.weight") >= 3.0, "{}", report.to_markdown());
    let stored: usize = sizes(&net)
        .iter()
        .map(|size| size.bytes(CoordinateType::F16))
        .sum();
    let weights: usize = sizes(&net).iter().map(|size| size.groups * size.len).sum();
    let found = 8.0 * stored as f64 / weights as f64;
    assert!((asked - 0.7..=asked).contains(&found), "{found}");

    let tight = Calibrator::new(quantizer(8)).budget(Budget::Bytes(20));
    let error = tight.quantize(float, &seen, forward).unwrap_err();
    assert!(
        matches!(error, CalibrateError::OutOfReach { .. }),
        "{error}"
    );
    assert!(
        error.to_string().starts_with("Bytes(20) cannot be kept"),
        "{error}"
    );
}

#[test]
fn a_calibration_that_was_broken_off_ends_in_the_same_bytes() {
    let device = device();
    let float = Net::new(&device);
    let seen = images(24, 1, &device);
    let calibrator = Calibrator::new(quantizer(2))
        .budget(Budget::EffectiveBits(3.0))
        .epochs(3)
        .learning_rate(1e-3);
    let (whole, report) = calibrator.quantize(float.clone(), &seen, forward).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let kept = calibrator.clone().checkpoints(folder.path());
    // Enough passes for any stage and any epoch, and for little more.
    let ((resumed, again), stops) = in_pieces(40, |progress| {
        kept.quantize_with(float.clone(), &seen, forward, progress)
    });
    assert!(stops >= 4, "{stops}");
    assert_eq!(bytes(&resumed), bytes(&whole));
    assert_eq!(again, report);

    let other = kept.seed(1);
    let error = other.quantize(float, &seen, forward).unwrap_err();
    assert!(
        error.to_string().contains("belongs to another run"),
        "{error}"
    );
}
