//! Chains in files: the same scores, bit for bit, in place and by the kernels.
#![cfg(all(feature = "runtime", feature = "deflate"))]

mod support;

use multibit::Grouping;
use multibit::cpu::{Activation, Arithmetic, Conv2dOptions, Isa, Levels, Pool2dOptions};
use multibit::file::{Coding, Input, Op, Order, PackedFile};
use multibit::runtime::{Plan, Prepared};
use support::chain::Model;
use support::{conv_options, levels};

/// The scores of some samples, by all ways; returns those of the last.
fn check(model: &mut Model, what: &str) -> Vec<f32> {
    let [plain, deflated] = [Coding::Plain, Coding::Deflate].map(|coding| model.file(coding));
    let file = PackedFile::read(&plain).unwrap();
    let plan = Plan::new(&file).unwrap_or_else(|error| panic!("{what}: {error}"));
    let other = PackedFile::read(&deflated).unwrap();
    let other = Plan::new(&other).unwrap();
    // Without a fused multiply-add: the bits of plain Rust.
    let kernels = ["portable", "simd128"].into_iter().filter_map(Isa::named);
    let kernels = kernels.map(|isa| Prepared::new(&plan, isa));
    let [prepared, others @ ..] = &kernels.collect::<Vec<_>>()[..] else {
        unreachable!("portable is everywhere")
    };
    let mut expected = vec![f32::NAN; plan.scores()];
    for scale in [1.0, 30.0] {
        let x = model.random.normals(plan.input().len(), scale);
        prepared.run(&x, 1, &mut expected).unwrap();
        for other in others {
            let mut scores = vec![f32::NAN; plan.scores()];
            other.run(&x, 1, &mut scores).unwrap();
            let bits = |scores: &[f32]| scores.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(
                bits(&scores),
                bits(&expected),
                "{what}: the kernels of simd128"
            );
        }
        for plan in [&plan, &other] {
            // What was there before does not matter.
            let mut buffer = vec![0xFFFF_FFFF; plan.words()];
            let mut scores = vec![f32::NAN; plan.scores()];
            plan.run(&x, &mut buffer, &mut scores).unwrap();
            for (i, (found, expected)) in scores.iter().zip(&expected).enumerate() {
                let same = found.to_bits() == expected.to_bits();
                assert!(same, "{what}: {found} for {expected} at {i}");
            }
        }
    }
    expected
}

/// All arithmetics, with the levels that bitwise takes.
fn arithmetics() -> Vec<(Arithmetic, Option<Levels>)> {
    let bitwise = levels()
        .into_iter()
        .map(|levels| (Arithmetic::Bitwise, Some(levels)));
    [(Arithmetic::Exact, None), (Arithmetic::Int8, None)]
        .into_iter()
        .chain(bitwise)
        .collect()
}

#[test]
fn linear_layers_of_every_grouping() {
    for (seed, [d_in, d_out]) in [[1, 1], [12, 5], [36, 17], [70, 33], [1200, 20]]
        .into_iter()
        .enumerate()
    {
        for grouping in Grouping::examples(&[d_in, d_out]) {
            for (arithmetic, levels) in arithmetics() {
                for widest in [1, 8] {
                    let mut model = Model::new(100 + seed as u64, [d_in]);
                    if let Some(levels) = &levels {
                        model.levels(levels);
                    }
                    let shape = [d_in, d_out];
                    let ends = [widest == 1, widest == 8];
                    let layer = model.layer(&shape, grouping.clone(), widest, arithmetic, ends);
                    model.step(Op::Linear(layer));
                    let name = grouping.describe(&shape);
                    check(
                        &mut model,
                        &format!("{arithmetic} {shape:?} {name} {widest}"),
                    );
                }
            }
        }
    }
}

fn pool(kernel: usize, stride: usize, padding: usize) -> Pool2dOptions {
    Pool2dOptions {
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [padding; 2],
        dilation: [1, 1],
    }
}

#[test]
fn convolutions_of_every_grouping() {
    // Few and many inputs, so that the kernels choose all of their ways.
    let shapes = [
        [4, 3, 3, 2],
        [2, 1, 1, 1],
        [18, 40, 1, 2],
        [60, 5, 3, 3],
        [8, 36, 3, 3],
    ];
    let mut seed = 0;
    for options in conv_options() {
        for shape in shapes {
            let [outputs, inputs, ..] = shape;
            for grouping in Grouping::examples(&shape) {
                for (arithmetic, levels) in arithmetics() {
                    for widest in [1, 3, 8] {
                        seed += 1;
                        let mut model = Model::new(seed, [inputs * options.groups, 6, 7]);
                        if let Some(levels) = &levels {
                            model.levels(levels);
                        }
                        let ends = [widest == 1, widest == 3];
                        let layer = model.layer(&shape, grouping.clone(), widest, arithmetic, ends);
                        if outputs % options.groups > 0 {
                            continue;
                        }
                        model.step(Op::Conv2d(layer, options));
                        if seed.is_multiple_of(3) {
                            model.step(Op::MaxPool2d(pool(1 + seed as usize % 2, 2, 0)));
                        }
                        let name = grouping.describe(&shape);
                        let what = format!("{arithmetic} {shape:?} {name} {widest} {options:?}");
                        check(&mut model, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn depthwise_convolutions() {
    let mut seed = 1000;
    for (outputs, channels) in [(3, 3), (6, 3)] {
        for (stride, dilation) in [
            ([1, 1], [1, 1]),
            ([2, 2], [1, 1]),
            ([2, 3], [1, 2]),
            ([1, 1], [2, 3]),
        ] {
            let options = Conv2dOptions {
                stride,
                dilation,
                padding: [(1, 2), (2, 1)],
                groups: channels,
            };
            for [height, width] in [[3, 3], [5, 4], [1, 2]] {
                let shape = [outputs, 1, height, width];
                for grouping in Grouping::examples(&shape) {
                    for (arithmetic, levels) in arithmetics() {
                        seed += 1;
                        let mut model = Model::new(seed, [channels, 11, 19]);
                        if let Some(levels) = &levels {
                            model.levels(levels);
                        }
                        let layer =
                            model.layer(&shape, grouping.clone(), 3, arithmetic, [true, true]);
                        model.step(Op::Conv2d(layer, options));
                        model.step(Op::Activation(Activation::Relu6));
                        check(&mut model, &format!("{arithmetic} {shape:?} {options:?}"));
                    }
                }
            }
        }
    }
}

/// Windows of every kind, behind a convolution and alone.
#[test]
fn pools() {
    for alone in [false, true] {
        for (seed, options) in [pool(2, 2, 0), pool(3, 2, 1), pool(2, 1, 1), pool(3, 3, 0)]
            .into_iter()
            .enumerate()
        {
            let dilated = Pool2dOptions {
                dilation: [2, 1],
                stride: [1, 3],
                ..options
            };
            for options in [options, dilated] {
                for (arithmetic, levels) in [arithmetics()[0].clone(), arithmetics()[3].clone()] {
                    let mut model = Model::new(2000 + seed as u64, [40, 9, 8]);
                    if let Some(levels) = &levels {
                        model.levels(levels);
                    }
                    let shape = [5, 40, 3, 3];
                    let grouping = Grouping::pixelwise(&shape).unwrap();
                    let layer = model.layer(&shape, grouping, 2, arithmetic, [true, false]);
                    model.step(Op::Conv2d(
                        layer,
                        Conv2dOptions {
                            padding: [(1, 1); 2],
                            ..Conv2dOptions::default()
                        },
                    ));
                    if alone {
                        model.step(Op::Activation(Activation::Relu));
                    }
                    model.step(Op::MaxPool2d(options));
                    model.step(Op::AvgPool2d(pool(2, 1, 1)));
                    model.step(Op::GlobalAvgPool2d);
                    model.step(Op::Flatten);
                    check(&mut model, &format!("{arithmetic} {alone} {options:?}"));
                }
            }
        }
    }
}

/// Pools that take a large image in strips: the same bits, and no room for a whole channel.
#[test]
fn pools_in_strips() {
    let convolutions = [
        Conv2dOptions::default(),
        Conv2dOptions {
            stride: [2, 1],
            padding: [(3, 1), (2, 4)],
            dilation: [1, 2],
            groups: 1,
        },
    ];
    // Some outputs of few bits share sums of four inputs, others have weights in f32.
    for (outputs, widest) in [(40, 1), (6, 3)] {
        for (seed, options) in [pool(2, 2, 0), pool(2, 2, 1), pool(3, 4, 2), pool(2, 5, 0)]
            .into_iter()
            .enumerate()
        {
            for convolution in convolutions {
                let mut model = Model::new(3000 + seed as u64, [1, 37, 29]);
                let shape = [outputs, 1, 5, 5];
                let grouping = Grouping::channelwise(&shape).unwrap();
                let exact = Arithmetic::Exact;
                let layer = model.layer(&shape, grouping, widest, exact, [true, true]);
                model.step(Op::Conv2d(layer, convolution));
                model.step(Op::MaxPool2d(options));
                let what = format!("{outputs} {options:?} {convolution:?}");
                let scores = check(&mut model, &what).len();
                let file = model.file(Coding::Plain);
                let file = PackedFile::read(&file).unwrap();
                let words = Plan::new(&file).unwrap().words() - 37 * 29 - scores;
                assert!((1..300).contains(&words), "{what}: {words}");
            }
        }
    }
}

/// Values that several steps take, and all functions.
#[test]
fn residuals_and_functions() {
    for (seed, activation) in [
        Activation::Identity,
        Activation::Relu,
        Activation::Relu6,
        Activation::HardSwish,
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluApproximate,
        Activation::Sigmoid,
        Activation::Tanh,
    ]
    .into_iter()
    .enumerate()
    {
        let mut model = Model::new(3000 + seed as u64, [4, 5, 6]);
        let shape = [4, 4, 3, 3];
        let options = Conv2dOptions {
            padding: [(1, 1); 2],
            ..Conv2dOptions::default()
        };
        let conv = |model: &mut Model, value: usize| {
            let grouping = Grouping::kernelwise(&shape).unwrap();
            let layer = model.layer(&shape, grouping, 3, Arithmetic::Exact, [false, true]);
            model.step_of(value, Op::Conv2d(layer, options));
            model.value()
        };
        let first = conv(&mut model, 0);
        model.step(Op::Activation(activation));
        let block = model.value();
        let one = conv(&mut model, block);
        let two = conv(&mut model, block);
        model.step_of(one, Op::Add(two));
        model.step(Op::Add(first));
        model.step(Op::Activation(activation));
        // Twice the value itself.
        let last = model.value();
        model.step(Op::Add(last));
        model.step_of(0, Op::Add(model.value()));
        model.step(Op::Flatten);
        let scores = check(&mut model, &format!("{activation:?}"));
        assert!(scores.iter().all(|x| x.is_finite()));
    }
}

/// Raw bytes in either order of channels are the values that the file says.
#[test]
fn raw_values() {
    let mut model = Model::new(7, [2, 2, 3]);
    let shape = [12, 4];
    model.step(Op::Flatten);
    let grouping = Grouping::subchannelwise(&shape, 1).unwrap();
    let layer = model.layer(&shape, grouping, 3, Arithmetic::Exact, [false; 2]);
    model.step(Op::Linear(layer));
    let input = Input {
        divisor: 255.0,
        mean: vec![0.25, 0.5],
        deviation: vec![2.0, 0.125],
        order: Order::ChannelsLast,
        ..Input::new([2, 2, 3])
    };
    let model = model.input(input).labels(&["a", "b", "c", "d"]);
    let raw: Vec<u8> = (0..12).map(|i| i * 20).collect();
    let bytes = model.file(Coding::Plain);
    let file = PackedFile::read(&bytes).unwrap();
    let about = file.about();
    assert_eq!(about.name, "a model");
    assert_eq!(about.labels, ["a", "b", "c", "d"]);
    let plan = Plan::new(&file).unwrap();
    let value = |channel: usize, pixel: usize| {
        let raw = f32::from(raw[pixel * 2 + channel]) / 255.0;
        [(raw - 0.25) / 2.0, (raw - 0.5) / 0.125][channel]
    };
    let values: Vec<f32> = (0..2)
        .flat_map(|channel| (0..6).map(move |pixel| value(channel, pixel)))
        .collect();
    let mut buffer = vec![0; plan.words()];
    let [mut a, mut b] = [[0.0; 4]; 2];
    plan.run_raw(&raw, &mut buffer, &mut a).unwrap();
    plan.run(&values, &mut buffer, &mut b).unwrap();
    assert_eq!(a, b);
}
