//! The loss around a model, and what is chosen by it: groupings, and the ranking of bits.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn::tensor::{Tensor, TensorData};
use burn_alq::analysis::{LocalModel, Sensitivity, SensitivityError};
use burn_alq::optim::{average_bits, sizes};
use burn_alq::quantize::sketch;
use burn_alq::train::{Task, TrainError};
use burn_alq::{CoordinateType, GroupingRule, PathPattern, Quantizer, ScheduleConfig, Target};

use crate::devices::device;

/// Layers whose loss is known, see [`Slopes`].
#[derive(Module, Debug)]
struct Layers {
    linear: Linear,
    conv: Conv2d,
    embedding: Embedding,
}

/// A weight's value by its index in row-major order.
type Values = fn(usize) -> f32;

impl Layers {
    fn new(linear: Values, conv: Values, embedding: Values) -> Self {
        fn filled<const D: usize>(param: Param<Tensor<D>>, of: Values) -> Param<Tensor<D>> {
            param.map(|old| {
                let shape = old.shape();
                let values: Vec<f32> = (0..shape.num_elements()).map(of).collect();
                Tensor::from_data(TensorData::new(values, shape), &old.device()).require_grad()
            })
        }
        let device = &device().autodiff();
        let mut layers = Self {
            linear: LinearConfig::new(32, 4).init(device),
            conv: Conv2dConfig::new([8, 4], [3, 3]).init(device),
            embedding: EmbeddingConfig::new(4, 32).init(device),
        };
        layers.linear.weight = filled(layers.linear.weight, linear);
        layers.conv.weight = filled(layers.conv.weight, conv);
        layers.embedding.weight = filled(layers.embedding.weight, embedding);
        layers
    }
}

/// `½ · bowl · Σ w²` over all weights, and `slope · Σ w` that falls in one batch and rises in the
/// other.
struct Slopes {
    bowl: f32,
    slope: f32,
    /// The batch whose loss is not a number.
    broken: Option<usize>,
}

impl Task for Slopes {
    type Model = Layers;

    fn batches(&self) -> usize {
        2
    }

    fn loss(&self, model: &Layers, _epoch: usize, batch: usize, _shard: usize) -> Tensor<1> {
        let slope = if batch == 0 { self.slope } else { -self.slope };
        let linear = model.linear.weight.val().flatten::<1>(0, 1);
        let conv = model.conv.weight.val().flatten::<1>(0, 3);
        let embedding = model.embedding.weight.val().flatten::<1>(0, 1);
        let weights = Tensor::cat(vec![linear, conv, embedding], 0);
        let loss = weights.clone().square().sum() * (0.5 * self.bowl) + weights.sum() * slope;
        match self.broken == Some(batch) {
            true => loss * f32::NAN,
            false => loss,
        }
    }

    fn evaluate(&self, _: &Layers) -> f64 {
        0.0
    }
}

const BOWL: Slopes = Slopes {
    bowl: 1.0,
    slope: 0.3,
    broken: None,
};
const FLAT: Slopes = Slopes { bowl: 0.0, ..BOWL };

/// A sign that no structure follows.
fn sign(index: usize) -> f32 {
    if (index * index + index / 3) % 7 < 3 {
        -1.0
    } else {
        1.0
    }
}

fn uneven(index: usize) -> f32 {
    sign(index) * (0.1 + 0.01 * ((index * 37) % 23) as f32)
}

fn values(weight: Values, count: usize) -> Vec<f32> {
    (0..count).map(weight).collect()
}

/// By slopes that cancel, the mean gradient of the bowl is `w`, and the mean of its square is
/// `w² + slope²`.
#[test]
fn the_local_model_is_its_formula() {
    let layers = Layers::new(uneven, uneven, uneven);
    let lr = 1e-2;
    let local = LocalModel::measure(&layers, &BOWL, 4, lr).unwrap();
    let paths: Vec<&str> = local.weights.iter().map(|w| w.path.as_str()).collect();
    assert_eq!(
        paths,
        ["linear.weight", "conv.weight", "embedding.weight"],
        "no biases"
    );
    let mut loss = 0.0;
    for weight in &local.weights {
        let count = weight.shape.iter().product();
        assert_eq!(weight.value, values(uneven, count));
        let mut expected = 0.0;
        for (index, &w) in weight.value.iter().enumerate() {
            let w = f64::from(w);
            let curvature = (w * w + 0.09).sqrt() / lr;
            let found = [weight.gradient[index], weight.curvature[index]].map(f64::from);
            // Sums of two gradients in f32, and the curvature is some tens.
            assert!((found[0] - w).abs() < 1e-6, "{found:?} at {w}");
            assert!((found[1] - curvature).abs() < 1e-4, "{found:?} at {w}");
            // Half of every weight goes.
            expected += -w * w / 2.0 + 0.5 * curvature * (w / 2.0).powi(2);
            loss += w * w / 2.0;
        }
        let half: Vec<f32> = weight.value.iter().map(|w| w / 2.0).collect();
        let found = weight.increase(&half);
        assert!(
            (found - expected).abs() < 1e-4 * expected,
            "{found}, {expected}"
        );
    }
    assert!(
        (local.loss - loss).abs() < 1e-4 * loss,
        "{}, {loss}",
        local.loss
    );
}

#[test]
fn a_loss_that_is_not_a_number_is_named() {
    let layers = Layers::new(uneven, uneven, uneven);
    let task = Slopes {
        broken: Some(1),
        ..BOWL
    };
    let error = LocalModel::measure(&layers, &task, 4, 1e-3).unwrap_err();
    let named = matches!(
        error,
        TrainError::Loss {
            epoch: 0,
            batch: 1,
            ..
        }
    );
    assert!(named, "{error}");
    assert!(
        LocalModel::measure(&layers, &task, 1, 1e-3).is_ok(),
        "one batch"
    );

    let quantizer =
        Quantizer::new(2).rule(PathPattern::glob("**.weight"), GroupingRule::Channelwise);
    let measure = |quantizer, batches| {
        Sensitivity::measure(&layers, &task, quantizer, batches, 1e-3, |_, _| {})
    };
    let error = measure(&quantizer, 2).unwrap_err();
    assert!(matches!(error, SensitivityError::Train(_)), "{error}");
    let nothing = Quantizer::new(2).rule(PathPattern::exact("no"), GroupingRule::Channelwise);
    let error = measure(&nothing, 1).unwrap_err();
    assert!(matches!(error, SensitivityError::Quantize(_)), "{error}");
}

/// Every weight has one magnitude within each group of just one structure: it is exact at one bit
/// there, and takes more bits or more coordinates in every other.
#[test]
fn the_grouping_that_a_weight_has_is_found() {
    use GroupingRule::{Channelwise, Kernelwise, Pixelwise, Subchannelwise};
    // Of inputs in quarters; by output, kernel and position; of a row's halves.
    let quarters: Values = |i| sign(i) * [1.0, 30.0, 7.0, 100.0][i / 4 / 8];
    let equal: Values = |i| sign(i) * 3.0;
    let outputs: Values = |i| sign(i) * (1.0 + (i / 72) as f32);
    let kernels: Values = |i| sign(i) * (1.0 + (i / 9 * 5 % 13) as f32);
    let positions: Values = |i| sign(i) * (1.0 + (i % 9 * 4 % 11) as f32);
    let halves: Values = |i| sign(i) * [2.0, 50.0][i % 32 / 16];
    for (linear, conv, embedding, expected) in [
        (
            quarters,
            positions,
            halves,
            [Subchannelwise(4), Pixelwise, Subchannelwise(2)],
        ),
        (
            equal,
            kernels,
            equal,
            [Channelwise, Kernelwise, Channelwise],
        ),
        (
            equal,
            outputs,
            halves,
            [Channelwise, Channelwise, Subchannelwise(2)],
        ),
    ] {
        let layers = Layers::new(linear, conv, embedding);
        let local = LocalModel::measure(&layers, &FLAT, 2, 1e-3).unwrap();
        // Rules that are all wrong, but say what is quantized.
        let quantizer = Quantizer::new(4).rule(PathPattern::glob("**.weight"), Channelwise);
        for target in [Target::Bits(1.0), Target::Bytes(1500), Target::Ratio(0.25)] {
            let schedule = ScheduleConfig::new(target);
            let (quantizer, choices) = quantizer
                .clone()
                .regroup(&layers, &local, &schedule)
                .unwrap();
            let rules: Vec<GroupingRule> = choices.iter().map(|choice| choice.rule).collect();
            assert_eq!(rules, expected);
            for choice in &choices {
                assert_eq!((choice.bits, choice.loss < 1e-6), (1.0, true), "{choice:?}");
            }
            let model = quantizer.quantize(layers.clone()).unwrap().0;
            let sizes = sizes(&model);
            assert_eq!(average_bits(&sizes), 1.0, "every sketch ends at one bit");
            for (size, choice) in sizes.iter().zip(&choices) {
                assert_eq!((size.groups, size.len), (choice.groups, choice.len));
                // Widths of up to 4 bits are counted with 3 bits, one that is 1 is stored in 1.
                let widths = (size.groups * 3) as f64 / 8.0 - (size.groups.div_ceil(8)) as f64;
                let bytes = size.bytes(burn_alq::CoordinateType::F32) as f64;
                assert!(
                    (choice.bytes - widths - bytes).abs() < 1.0,
                    "{choice:?}, {bytes}"
                );
            }
        }
    }
}

/// A tight target leaves bits where the loss is steep.
#[test]
fn bits_go_where_the_loss_is_steep() {
    let loud: Values = |i| 10.0 * uneven(i);
    let layers = Layers::new(loud, uneven, uneven);
    let local = LocalModel::measure(&layers, &FLAT, 2, 1e-3).unwrap();
    let quantizer = Quantizer::new(4)
        .rule(PathPattern::glob("**.weight"), GroupingRule::Channelwise)
        .keep_float(PathPattern::exact("embedding.weight"));
    let at = |target| {
        let schedule = ScheduleConfig::new(target);
        let regrouped = quantizer.clone().regroup(&layers, &local, &schedule);
        let (quantizer, choices) = regrouped.unwrap();
        assert_eq!(choices.len(), 2, "what is kept in float stays so");
        let (_, report) = quantizer.quantize(layers.clone()).unwrap();
        assert!(
            report.to_markdown().contains("float: rule 2"),
            "{}",
            report.to_markdown()
        );
        choices
    };
    let weights = 128.0 + 288.0;
    let mut last = f64::INFINITY;
    for target in [3.0, 1.0, 0.5, 0.2] {
        let choices = at(Target::Bits(target));
        let bits = (128.0 * choices[0].bits + 288.0 * choices[1].bits) / weights;
        assert!(bits <= target + 1e-9 && bits < last, "{bits} at {target}");
        assert!(choices[0].bits > choices[1].bits, "{choices:?}");
        last = bits;
    }
    let bytes = |choices: &[burn_alq::analysis::GroupingChoice]| -> f64 {
        choices.iter().map(|choice| choice.bytes).sum()
    };
    assert!(bytes(&at(Target::Bytes(60))) <= 60.0);
}

/// Each measured loss is that of the sketch, everything else in float.
#[test]
fn the_sensitivity_is_that_of_one_weight_at_a_time() {
    let layers = Layers::new(uneven, uneven, uneven);
    let quantizer = Quantizer::new(3)
        .rule(
            PathPattern::exact("linear.weight"),
            GroupingRule::Subchannelwise(2),
        )
        .rule(PathPattern::exact("conv.weight"), GroupingRule::Kernelwise);
    let mut told = Vec::new();
    let measured = Sensitivity::measure(&layers, &BOWL, &quantizer, 2, 1e-2, |done, all| {
        told.push((done, all))
    })
    .unwrap();
    assert_eq!(told, (1..=8).map(|done| (done, 8)).collect::<Vec<_>>());
    let order: Vec<(&str, usize)> = measured
        .weights
        .iter()
        .map(|weight| (weight.path.as_str(), weight.bits))
        .collect();
    let bits = |path| [3, 2, 1, 0].map(|bits| (path, bits));
    assert_eq!(order, [bits("linear.weight"), bits("conv.weight")].concat());
    let energy =
        |values: &[f32]| -> f64 { values.iter().map(|&w| f64::from(w).powi(2) / 2.0).sum() };
    for weight in &measured.weights {
        let (shape, rule): (&[usize], _) = match weight.path.as_str() {
            "linear.weight" => (&[32, 4], GroupingRule::Subchannelwise(2)),
            _ => (&[4, 8, 3, 3], GroupingRule::Kernelwise),
        };
        let values = values(uneven, shape.iter().product());
        let (sketched, bytes) = match weight.bits {
            0 => (vec![0.0; values.len()], 0),
            bits => {
                let kind = CoordinateType::F32;
                let data = sketch(&weight.path, &values, shape, rule, bits, kind).unwrap();
                (data.reconstruct(), data.coordinates.len() * 4)
            }
        };
        assert!(weight.bytes > bytes, "coordinates are a part of them");
        let expected = energy(&sketched) - energy(&values);
        // Sums of 544 squares in f32, near 20.
        assert!(
            (weight.measured - expected).abs() < 1e-4,
            "{weight:?}, {expected}"
        );
    }
    let ranked = measured.ranked();
    assert_eq!(ranked.len(), 6);
    assert!(ranked.is_sorted_by(|a, b| a.loss_per_kib() <= b.loss_per_kib()));
    for path in ["linear.weight", "conv.weight"] {
        let sum: f64 = ranked
            .iter()
            .filter(|l| l.path == path)
            .map(|l| l.measured)
            .sum();
        let ends: Vec<f64> = [3, 0]
            .map(|bits| {
                let mut weights = measured.weights.iter();
                let end = weights.find(|w| w.path == path && w.bits == bits);
                end.unwrap().measured
            })
            .to_vec();
        assert!((sum - (ends[1] - ends[0])).abs() < 1e-9, "{path}");
    }
}
