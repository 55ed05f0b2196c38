//! Packed layers with groups of 0 to 8 bits in every arithmetic, against plain loops in f64.
//!
//! Inputs come in several layouts of memory; the one cut out of a larger tensor has NaN around it.

use std::sync::Arc;

use burn::module::{Module, Param, RunningState};
use burn::nn::conv::ConvTranspose2dConfig;
use burn::nn::pool::MaxPool2dConfig;
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig1d, PaddingConfig2d};
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_alq::Layout;
use burn_alq::{
    Arithmetic, GroupingRule, MultiBitActivation, MultiBitConv1dConfig, MultiBitConv2d,
    MultiBitConv2dConfig, MultiBitConvTranspose2dConfig, MultiBitEmbeddingConfig,
    MultiBitLinearConfig, PackedModel, Quantized,
};
use multibit::cpu::{Conv2dOptions, Levels, conv2d_output_shape};
use multibit::{Grouping, PackedWeight};

use crate::definition::{Affine, Dense, Input, levels, room, weight};
use crate::devices::device;
use crate::support::{Random, assert_at_levels, assert_close, narrow, widen};

const ARITHMETICS: [Arithmetic; 3] = [Arithmetic::Exact, Arithmetic::Int8, Arithmetic::Bitwise];

/// Puts other bits into a layer with one multi-bit weight.
fn with_weight<M: Module>(layer: M, weight: &PackedWeight) -> M {
    let mut packed = PackedModel::pack(&layer).unwrap();
    packed.weights[0].1 = Arc::new(weight.clone());
    packed.apply(layer).unwrap()
}

/// What a layer of an arithmetic takes.
fn given<const D: usize>(arithmetic: Arithmetic, x: Tensor<D>) -> Quantized<D> {
    match arithmetic {
        Arithmetic::Bitwise => MultiBitActivation::with_levels(&levels(), &x.device()).forward(x),
        _ => x.into(),
    }
}

fn drawn_norm(random: &mut Random, features: usize, device: &Device) -> BatchNorm {
    let mut numbers = |center: f64| {
        let numbers = random.normals(features, 0.3);
        let numbers: Vec<f64> = numbers
            .iter()
            .map(|x| center + x.clamp(-0.9, 0.9))
            .collect();
        Tensor::<1>::from_data(narrow(&numbers).as_slice(), device)
    };
    let mut norm = BatchNormConfig::new(features).init(device);
    norm.gamma = Param::from_tensor(numbers(1.0));
    norm.beta = Param::from_tensor(numbers(0.0));
    norm.running_mean = RunningState::new(numbers(0.0));
    norm.running_var = RunningState::new(numbers(1.0));
    norm
}

/// Inputs that do not fill words, several groups an output, batches around 1 and 32; and one layer of
/// more outputs, inputs and rows than a tile of a kernel has.
#[test]
fn linear_is_its_definition() {
    let device = device();
    let mut random = Random::new(11);
    for [d_in, d_out, subchannels] in [[111, 5, 3], [64, 33, 1], [70, 9, 2], [257, 130, 1]] {
        let shape = [d_in, d_out];
        let grouping = Grouping::subchannelwise(&shape, subchannels).unwrap();
        let weight = weight(&mut random, &shape, grouping);
        for arithmetic in ARITHMETICS {
            let layer = MultiBitLinearConfig::new(d_in, d_out)
                .with_max_bits(1)
                .with_grouping(GroupingRule::Subchannelwise(subchannels))
                .with_arithmetic(arithmetic)
                .init(&device);
            let layer = with_weight(layer, &weight);
            let forward = |x: Tensor<2>| layer.forward(given(arithmetic, x));
            let affine = Affine::bias(&layer.bias);
            let batches: &[usize] = if d_in > 256 { &[70] } else { &[1, 2, 33] };
            for &batch in batches {
                let input = Input::new(&mut random, arithmetic, [batch, d_in, 1, 1]);
                let sums = input.sums(&weight, &Conv2dOptions::default(), &affine);
                for (layout, x) in input.layouts([batch, d_in], &device) {
                    let what = format!("{shape:?} {arithmetic:?}, batch {batch}, {layout}");
                    sums.check(forward(x), &what);
                }
            }
            let none = forward(Tensor::zeros([0, d_in], &device));
            assert_eq!(none.dims(), [0, d_out], "an empty batch");
        }
    }
}

/// A convolution, and the size of its input.
fn convolutions() -> Vec<(MultiBitConv2dConfig, [usize; 3])> {
    let explicit = PaddingConfig2d::Explicit;
    let of = |channels, kernel| MultiBitConv2dConfig::new(channels, kernel);
    vec![
        // One input channel more than a word has, in groups along the channels.
        (
            of([33, 5], [3, 3])
                .with_grouping(GroupingRule::Pixelwise)
                .with_padding(explicit(1, 1, 1, 1)),
            [2, 6, 7],
        ),
        (
            of([5, 7], [3, 2])
                .with_stride([2, 1])
                .with_dilation([1, 2])
                .with_padding(explicit(1, 0, 2, 3)),
            [1, 9, 6],
        ),
        (
            of([8, 6], [3, 3])
                .with_grouping(GroupingRule::Channelwise)
                .with_groups(2)
                .with_dilation([2, 1]),
            [33, 7, 5],
        ),
        (
            of([70, 4], [1, 1])
                .with_grouping(GroupingRule::Pixelwise)
                .with_stride([2, 2]),
            [2, 5, 5],
        ),
        // Each channel on its own.
        (
            of([6, 6], [3, 3])
                .with_groups(6)
                .with_padding(explicit(1, 1, 1, 1)),
            [1, 4, 5],
        ),
        // More channels and pixels than a tile of a kernel has.
        (
            of([64, 40], [3, 3])
                .with_grouping(GroupingRule::Pixelwise)
                .with_padding(explicit(1, 1, 1, 1)),
            [2, 9, 17],
        ),
    ]
}

/// A layer of a configuration with a weight of 0 to 8 bits, and how it slides.
fn convolution(
    random: &mut Random,
    config: &MultiBitConv2dConfig,
    device: &Device,
) -> (MultiBitConv2d, PackedWeight, Conv2dOptions) {
    let padding = match config.padding {
        PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
        _ => [(0, 0); 2],
    };
    let options = Conv2dOptions {
        stride: config.stride,
        padding,
        dilation: config.dilation,
        groups: config.groups,
    };
    let layer = config.clone().with_max_bits(1).init(device);
    let shape = layer.weight.dims();
    let grouping = config.grouping.grouping(Layout::Direct, &shape).unwrap();
    let weight = weight(random, &shape, grouping);
    (with_weight(layer, &weight), weight, options)
}

#[test]
fn conv2d_is_its_definition() {
    let device = device();
    let mut random = Random::new(12);
    for (config, [batch, height, width]) in convolutions() {
        for arithmetic in ARITHMETICS {
            let config = config.clone().with_arithmetic(arithmetic);
            let (layer, weight, options) = convolution(&mut random, &config, &device);
            let shape = [batch, config.channels[0], height, width];
            let input = Input::new(&mut random, arithmetic, shape);
            let sums = input.sums(&weight, &options, &Affine::bias(&layer.bias));
            let norm = drawn_norm(&mut random, config.channels[1], &device);
            let normed = input.sums(&weight, &options, &Affine::norm(&layer.bias, &norm));
            for (layout, x) in input.layouts(shape, &device) {
                let what = format!("{config}, {layout}");
                let x = given(arithmetic, x);
                sums.check(layer.forward(x.clone()), &what);
                sums.check(layer.forward(x.clone().pack()), &format!("{what}, bits"));
                let found = layer.forward_norm(x, &norm);
                normed.check(found, &format!("{what}, norm"));
            }
            let none = [0, shape[1], height, width];
            let expected = conv2d_output_shape(none, weight.shape(), &options);
            let found = layer.forward(given(arithmetic, Tensor::zeros(none, &device)));
            assert_eq!(found.dims(), expected, "an empty batch");
        }
    }
}

/// Activations as bits: there and back, in channels that do not fill a word, and through pooling.
#[test]
fn bits_are_the_levels() {
    let device = device();
    let pool = MaxPool2dConfig::new([3, 2])
        .with_strides([2, 1])
        .with_padding(PaddingConfig2d::Explicit(1, 0, 1, 0))
        .init();
    let mut random = Random::new(13);
    for coordinates in [
        &[0.6][..],
        &[0.5, 0.25],
        &[0.5, 0.45, 0.4],
        &[0.5, 0.3, 0.2, 0.1],
    ] {
        let levels = Levels::new(0.7, coordinates).unwrap();
        let activation = MultiBitActivation::with_levels(&levels, &device);
        let shape = [2, 33, 5, 6];
        let input = Input::new(&mut random, Arithmetic::Exact, shape);
        for (layout, x) in input.layouts(shape, &device) {
            let what = format!("{coordinates:?}, {layout}");
            let pooled: Vec<f32> = pool.forward(x.clone()).into_data().try_into_vec().unwrap();
            let bits = activation.forward(x.clone()).pack();
            // Comparisons are exact.
            let check = |found, before: &[f64], what: &str| {
                assert_at_levels(found, before, &levels, |_| 0.0, what);
            };
            check(
                activation.forward(x.clone()),
                &input.seen,
                &format!("{what}, values"),
            );
            check(bits.clone(), &input.seen, &format!("{what}, bits"));
            let pooled = widen(&pooled);
            check(
                bits.max_pool2d(&pool),
                &pooled,
                &format!("{what}, pooled bits"),
            );
            check(
                activation.forward(x).max_pool2d(&pool),
                &pooled,
                &format!("{what}, pooled values"),
            );
        }
    }
}

/// A convolution, a norm, a residual and an activation, to bits.
#[test]
fn conv2d_to_bits_is_its_definition() {
    let device = device();
    let mut random = Random::new(14);
    for (config, [batch, height, width]) in convolutions() {
        for arithmetic in ARITHMETICS {
            let config = config.clone().with_arithmetic(arithmetic);
            let (layer, weight, options) = convolution(&mut random, &config, &device);
            let norm = drawn_norm(&mut random, config.channels[1], &device);
            let shape = [batch, config.channels[0], height, width];
            let input = Input::new(&mut random, arithmetic, shape);
            let sums = input.sums(&weight, &options, &Affine::norm(&layer.bias, &norm));
            let out_shape = conv2d_output_shape(shape, weight.shape(), &options);
            // Its levels are other ones than the input's and the output's.
            let added_levels = Levels::new(-0.3, &[1.1, 0.4]).unwrap();
            let added = Input::new(&mut random, Arithmetic::Exact, out_shape);
            let adds = MultiBitActivation::with_levels(&added_levels, &device);
            // Levels among the sums.
            let out_levels = Levels::new(0.5, &[3.0, 1.4]).unwrap();
            let out = MultiBitActivation::with_levels(&out_levels, &device);
            let layouts = input.layouts(shape, &device).into_iter();
            for ((layout, x), (_, residual)) in layouts.zip(added.layouts(out_shape, &device)) {
                let x = given(arithmetic, x);
                let check = |found, residual: &dyn Fn(usize) -> f64, what: &str| {
                    let before: Vec<f64> = (sums.values.iter().enumerate())
                        .map(|(i, sum)| sum + residual(i))
                        .collect();
                    let room = |i: usize| sums.room(i) + room(residual(i).abs());
                    let what = format!("{config}, {layout}, {what}");
                    assert_at_levels(found, &before, &out_levels, room, &what);
                };
                let forward = |x, residual| layer.forward_act(x, Some(&norm), residual, &out);
                check(forward(x.clone(), None), &|_| 0.0, "no residual");
                let residual = adds.forward(residual);
                let at_level = |i: usize| f64::from(added_levels.quantize(added.given[i]));
                check(
                    forward(x.clone(), Some(residual.clone())),
                    &at_level,
                    "values",
                );
                check(forward(x.pack(), Some(residual.pack())), &at_level, "bits");
            }
        }
    }
}

/// Inputs that are rounded stay within the bound that [`multibit::cpu::Mode::Int8`] states.
#[test]
fn int8_keeps_its_bound() {
    let device = device();
    let mut random = Random::new(15);
    let shape = [70, 9];
    let grouping = Grouping::subchannelwise(&shape, 2).unwrap();
    let weight = weight(&mut random, &shape, grouping);
    let layer = MultiBitLinearConfig::new(shape[0], shape[1])
        .with_max_bits(1)
        .with_grouping(GroupingRule::Subchannelwise(2))
        .with_arithmetic(Arithmetic::Int8)
        .init(&device);
    let layer = with_weight(layer, &weight);
    // So few rows that sums of four inputs are rounded, and no coordinate.
    let input = Input::new(&mut random, Arithmetic::Exact, [13, 70, 1, 1]);
    let exact = input.sums(
        &weight,
        &Conv2dOptions::default(),
        &Affine::bias(&layer.bias),
    );
    let [(_, x), ..] = input.layouts([13, 70], &device);
    let found: Vec<f32> = layer.forward(x).into_data().try_into_vec().unwrap();
    let magnitudes = Dense::new(&weight).magnitudes;
    let mut rounded = 0;
    for (index, found) in widen(&found).into_iter().enumerate() {
        let (row, o) = (&input.given[index / 9 * 70..][..70], index % 9);
        let groups = row.chunks(35).flat_map(|group| group.chunks(4));
        let largest = groups.map(|part| part.iter().map(|x| x.abs()).sum::<f32>());
        let scale = f64::from(largest.fold(0.0, f32::max) / 127.0);
        // The coordinates of an output: each of its two groups has them on all of its weights.
        let coordinates = magnitudes[o * 70] + magnitudes[o * 70 + 35];
        let bound = coordinates * 9.0 * scale / 2.0;
        let error = (found - exact.values[index]).abs();
        assert!(
            error <= bound + room(exact.magnitudes[index]),
            "{error} at {index} is above {bound}"
        );
        rounded += usize::from(error > room(exact.magnitudes[index]));
    }
    assert!(rounded > 0, "this arithmetic rounds");
}

#[test]
fn conv1d_is_its_definition() {
    let device = device();
    let mut random = Random::new(16);
    let shape = [5, 33, 3];
    let weight = weight(&mut random, &shape, Grouping::pixelwise(&shape).unwrap());
    let options = Conv2dOptions {
        stride: [1, 2],
        padding: [(0, 0), (2, 1)],
        ..Conv2dOptions::default()
    };
    for arithmetic in ARITHMETICS {
        let layer = MultiBitConv1dConfig::new(33, 5, 3)
            .with_grouping(GroupingRule::Pixelwise)
            .with_stride(2)
            .with_padding(PaddingConfig1d::Explicit(2, 1))
            .with_max_bits(1)
            .with_arithmetic(arithmetic)
            .init(&device);
        let layer = with_weight(layer, &weight);
        let input = Input::new(&mut random, arithmetic, [2, 33, 1, 11]);
        let sums = input.sums(&weight, &options, &Affine::bias(&layer.bias));
        for (layout, x) in input.layouts([2, 33, 11], &device) {
            let found = layer.forward(given(arithmetic, x));
            sums.check(found, &format!("{arithmetic:?}, {layout}"));
        }
    }
}

#[test]
fn conv_transpose2d_is_burns_on_the_unpacked_weight() {
    let device = device();
    let mut random = Random::new(17);
    let shape = [6, 4, 3, 2];
    let grouping = Grouping::kernelwise(&shape).unwrap().transposed();
    let weight = weight(&mut random, &shape, grouping);
    let layer = MultiBitConvTranspose2dConfig::new([6, 4], [3, 2])
        .with_stride([2, 1])
        .with_max_bits(1)
        .init(&device);
    let layer = with_weight(layer, &weight);
    let mut dense = ConvTranspose2dConfig::new([6, 4], [3, 2])
        .with_stride([2, 1])
        .init(&device);
    let unpacked = TensorData::new(weight.unpack(), shape);
    dense.weight = Param::from_tensor(Tensor::from_data(unpacked, &device));
    dense.bias = layer.bias.clone();
    let shape = [2, 6, 5, 4];
    let input = Input::new(&mut random, Arithmetic::Exact, shape);
    for (layout, x) in input.layouts(shape, &device) {
        let expected = dense.forward(x.clone()).into_data();
        assert_close(layer.forward(x).into_data(), expected, layout);
    }
}

#[test]
fn embedding_gives_the_unpacked_rows() {
    let device = device();
    let mut random = Random::new(18);
    // A row of several groups, some of them with no bits.
    let shape = [11, 66];
    let grouping = Grouping::subchannelwise(&[66, 11], 2).unwrap().transposed();
    let weight = weight(&mut random, &shape, grouping);
    let layer = MultiBitEmbeddingConfig::new(11, 66)
        .with_grouping(GroupingRule::Subchannelwise(2))
        .with_max_bits(1)
        .init(&device);
    let layer = with_weight(layer, &weight);
    let rows: [[i32; 3]; 2] = [[0, 10, 3], [3, 1, 0]];
    let plain = Tensor::<2, Int>::from_ints(rows, &device);
    let turned = Tensor::<2, Int>::from_ints([[0, 3], [10, 1], [3, 0]], &device).transpose();
    let unpacked = weight.unpack();
    let expected: Vec<f32> = (rows.iter().flatten())
        .flat_map(|row| unpacked[*row as usize * 66..][..66].to_vec())
        .collect();
    for (layout, indices) in [("plain", plain), ("transposed", turned)] {
        let expected = TensorData::new(expected.clone(), [2, 3, 66]);
        assert_close(layer.forward(indices).into_data(), expected, layout);
    }
}

/// In exact arithmetic, packed layers may lie before a part of the model that still trains.
#[test]
fn gradients_pass_through_packed_layers() {
    let device = device().autodiff();
    let mut random = Random::new(19);
    let shape = [70, 9];
    let grouping = Grouping::subchannelwise(&shape, 2).unwrap();
    let bits = weight(&mut random, &shape, grouping);
    let dense = Tensor::<2>::from_data(TensorData::new(bits.unpack(), shape), &device);
    let input = Input::new(&mut random, Arithmetic::Exact, [3, 70, 1, 1]);
    // Rounded inputs pass their gradient straight through.
    for arithmetic in [Arithmetic::Exact, Arithmetic::Int8] {
        let layer = MultiBitLinearConfig::new(70, 9)
            .with_grouping(GroupingRule::Subchannelwise(2))
            .with_max_bits(1)
            .with_arithmetic(arithmetic)
            .init(&device);
        let layer = with_weight(layer, &bits);
        for (layout, x) in input.layouts([3, 70], &device) {
            let found = gradient(x.clone(), |x| layer.forward(x));
            let expected = gradient(x, |x| x.matmul(dense.clone()));
            assert_close(
                found,
                expected,
                &format!("linear, {arithmetic:?}, {layout}"),
            );
        }
    }

    let (config, [batch, height, width]) = convolutions().swap_remove(2);
    let (layer, bits, options) = convolution(&mut random, &config, &device);
    let data = TensorData::new(bits.unpack(), layer.weight.dims());
    let dense = Tensor::<4>::from_data(data, &device);
    let padding = options.padding.map(|(before, _)| before);
    let options = ConvOptions::new(options.stride, padding, options.dilation, options.groups);
    let shape = [batch, config.channels[0], height, width];
    let input = Input::new(&mut random, Arithmetic::Exact, shape);
    for (layout, x) in input.layouts(shape, &device) {
        let found = gradient(x.clone(), |x| layer.forward(x));
        let expected = gradient(x, |x| conv2d(x, dense.clone(), None, options.clone()));
        assert_close(found, expected, &format!("conv2d, {layout}"));
    }
}

/// The gradient to `x` of a sum of `f(x)` in which each output has another weight, up to 1.
fn gradient<const D: usize>(x: Tensor<D>, f: impl Fn(Tensor<D>) -> Tensor<D>) -> TensorData {
    let x = x.detach().require_grad();
    let y = f(x.clone());
    let count = y.shape().num_elements() as i64;
    let weights = Tensor::<1, Int>::arange(0..count, &y.device())
        .float()
        .sin();
    let gradients = (y.clone() * weights.reshape(y.shape())).sum().backward();
    x.grad(&gradients).expect("a gradient").into_data()
}
