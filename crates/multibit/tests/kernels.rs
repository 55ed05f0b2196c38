//! Every kernel of every instruction set that this machine has against the definition.

mod support;

use std::sync::Arc;

use multibit::cpu::{
    Affine, Arithmetic, Conv2dKernel, Conv2dOptions, Isa, Levels, LinearKernel, Mode,
    conv2d_output_shape, reference,
};
use multibit::{Grouping, PackedWeight};
use support::{Random, affines, conv_options, isas, modes, packed};

/// What f32 sums of up to some thousand terms in another order may differ by, as a share of the sums
/// of absolute terms.
const TOLERANCE: f32 = 5e-7;

/// Room for sums of terms in another order: all terms with a positive sign.
fn assert_close(found: &[f32], expected: &[f32], room: f32, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= TOLERANCE * room;
        assert!(close, "{what}: {found} for {expected} at {i}");
    }
}

/// No sum of absolute terms of an output is larger: coordinates of its rows times the weights of a
/// row times the largest input, a scale and an offset.
fn room(weight: &PackedWeight, input: &[f32]) -> f32 {
    let largest = input
        .iter()
        .fold(3.0, |largest: f32, x| largest.max(x.abs()));
    let mut coordinates = weight.coordinates().iter();
    let groups = weight.grouping().groups_per_output(weight.shape());
    let outputs = weight.widths().chunks(groups).map(|widths| {
        let rows = widths.iter().map(|&width| usize::from(width)).sum();
        coordinates.by_ref().take(rows).sum::<f32>()
    });
    let alphas = outputs.fold(0.0, f32::max);
    // Scales and offsets are below 4.
    4.0 + 4.0 * largest * alphas * weight.grouping().len() as f32
}

fn check_linear(random: &mut Random, weight: &PackedWeight, batches: &[usize]) {
    let [d_in, d_out] = *weight.shape() else {
        unreachable!("a linear weight")
    };
    for mode in modes() {
        for &batch in batches {
            let x = random.normals(batch * d_in, 1.0);
            let numbers = random.normals(2 * d_out, 1.0);
            let (scale, offset) = numbers.split_at(d_out);
            for affine in affines(scale, offset) {
                let mut expected = vec![f32::NAN; batch * d_out];
                reference::linear(&x, batch, weight, &mode, &affine, &mut expected);
                for isa in isas() {
                    let mut y = vec![f32::NAN; batch * d_out];
                    let kernel = LinearKernel::new(weight, mode.arithmetic())
                        .unwrap()
                        .on(isa);
                    kernel.forward(&mode, &x, batch, &affine, &mut y);
                    let name = weight.grouping().describe(weight.shape());
                    let what = format!("{isa} {mode} [{d_in}, {d_out}] {name} batch {batch}");
                    assert_close(&y, &expected, room(weight, &x), &what);
                }
            }
        }
    }
}

#[test]
fn linear_layers_of_every_grouping() {
    let mut random = Random::new(51);
    for [d_in, d_out] in [[1, 1], [12, 5], [36, 17], [64, 33], [70, 16]] {
        for grouping in Grouping::examples(&[d_in, d_out]) {
            for widest in [0, 1, 8] {
                let weight = packed(&mut random, &[d_in, d_out], grouping.clone(), widest);
                check_linear(&mut random, &weight, &[0, 1, 3, 9, 25]);
            }
        }
    }
}

#[test]
fn linear_layers_with_several_chunks_and_tiles_of_rows() {
    let mut random = Random::new(52);
    let shape = [2400, 40];
    for subchannels in [1, 8, 75] {
        let grouping = Grouping::subchannelwise(&shape, subchannels).unwrap();
        let weight = packed(&mut random, &shape, grouping, 5);
        check_linear(&mut random, &weight, &[1, 4, 16, 33, 70]);
    }
    // More rows than a task takes.
    let shape = [70, 40];
    let grouping = Grouping::subchannelwise(&shape, 2).unwrap();
    let weight = packed(&mut random, &shape, grouping, 3);
    check_linear(&mut random, &weight, &[1030]);
}

#[test]
fn convolutions_of_every_grouping() {
    let mut random = Random::new(53);
    for options in conv_options() {
        for [c_out, c_in, kh, kw] in [[4, 3, 3, 2], [2, 1, 1, 1], [18, 40, 1, 2], [60, 5, 3, 3]] {
            let shape = [c_out, c_in, kh, kw];
            for grouping in Grouping::examples(&shape) {
                // With one row a group, many outputs share the sums of their inputs.
                for widest in [1, 3] {
                    let weight = Arc::new(packed(&mut random, &shape, grouping.clone(), widest));
                    for batch in [0, 1, 2] {
                        check_conv(&mut random, &weight, [6, 7], batch, &options);
                    }
                }
            }
        }
    }
}

#[test]
fn convolutions_of_many_images() {
    let mut random = Random::new(56);
    for options in conv_options() {
        // Sixteen and three, nine; more channels than the first cache holds.
        for (shape, batch) in [([6, 3, 3, 2], 19), ([6, 12, 3, 3], 9)] {
            let grouping = Grouping::kernelwise(&shape).unwrap();
            let weight = Arc::new(packed(&mut random, &shape, grouping, 2));
            check_conv(&mut random, &weight, [6, 7], batch, &options);
        }
    }
}

#[test]
fn a_convolution_with_many_positions_and_images() {
    let mut random = Random::new(54);
    let shape = [24, 2, 3, 3];
    let options = Conv2dOptions {
        padding: [(1, 1); 2],
        ..Conv2dOptions::default()
    };
    for grouping in Grouping::examples(&shape) {
        let weight = Arc::new(packed(&mut random, &shape, grouping, 2));
        check_conv(&mut random, &weight, [16, 15], 18, &options);
    }
}

#[test]
fn pointwise_convolutions() {
    let mut random = Random::new(58);
    let options = |stride, groups| Conv2dOptions {
        stride,
        groups,
        ..Conv2dOptions::default()
    };
    let cases = [
        // Places that end within a vector, at the end of one and within the first.
        ([12, 5], [9, 11], options([1, 1], 1)),
        ([9, 6], [8, 14], options([1, 1], 3)),
        ([3, 2], [3, 4], options([1, 1], 1)),
        // More inputs than a block has; planes a power of two apart.
        ([5, 150], [7, 9], options([1, 1], 1)),
        ([4, 70], [16, 16], options([1, 1], 1)),
        // More places than a task has.
        ([6, 60], [40, 30], options([1, 1], 1)),
        // Places between that nothing reaches.
        ([6, 9], [13, 15], options([2, 3], 1)),
    ];
    for ([c_out, c_in], size, options) in cases {
        let shape = [c_out, c_in, 1, 1];
        for widest in [1, 4] {
            let grouping = Grouping::channelwise(&shape).unwrap();
            let weight = Arc::new(packed(&mut random, &shape, grouping, widest));
            check_conv(&mut random, &weight, size, 2, &options);
        }
    }
}

#[test]
fn depthwise_convolutions() {
    let mut random = Random::new(57);
    let options = |size: usize, stride, dilation, groups| Conv2dOptions {
        stride: [stride; 2],
        padding: [(size / 2, size - 1 - size / 2); 2],
        dilation: [dilation; 2],
        groups,
    };
    let cases = [
        // Narrow and wide rows, and vectors that end within and at the end of a row.
        (3, [3, 3], [7, 9], options(3, 1, 1, 3)),
        (3, [5, 5], [14, 14], options(5, 1, 1, 3)),
        (2, [3, 3], [5, 16], options(3, 1, 1, 2)),
        (2, [3, 3], [9, 37], options(3, 1, 1, 2)),
        (2, [5, 3], [12, 150], options(3, 1, 2, 2)),
        (2, [3, 3], [15, 67], options(3, 2, 1, 2)),
        // Narrow rows of every second value, of an even and of an odd number.
        (2, [3, 3], [14, 14], options(3, 2, 1, 2)),
        (2, [5, 5], [7, 7], options(5, 2, 1, 2)),
        (2, [4, 4], [9, 70], options(4, 3, 1, 2)),
        // Two outputs a channel.
        (6, [3, 3], [8, 30], options(3, 1, 1, 3)),
        // More rows than the first cache holds.
        (2, [3, 3], [90, 100], options(3, 1, 1, 2)),
        (2, [3, 3], [129, 99], options(3, 2, 1, 2)),
        // Signals.
        (2, [1, 7], [1, 300], options(1, 1, 1, 2)),
        (2, [7, 1], [40, 1], options(1, 1, 1, 2)),
    ];
    for (outputs, [height, width], size, options) in cases {
        let shape = [outputs, 1, height, width];
        for grouping in Grouping::examples(&shape) {
            let weight = Arc::new(packed(&mut random, &shape, grouping, 3));
            check_conv(&mut random, &weight, size, 2, &options);
        }
    }
}

fn check_conv(
    random: &mut Random,
    weight: &Arc<PackedWeight>,
    size: [usize; 2],
    batch: usize,
    options: &Conv2dOptions,
) {
    let shape = weight.shape();
    let input = [batch, shape[1] * options.groups, size[0], size[1]];
    let output = conv2d_output_shape(input, shape, options);
    let x = random.normals(input.iter().product(), 1.0);
    let numbers = random.normals(2 * shape[0], 1.0);
    let (scale, offset) = numbers.split_at(shape[0]);
    for mode in modes() {
        for affine in affines(scale, offset) {
            let mut expected = vec![f32::NAN; output.iter().product()];
            reference::conv2d(&x, input, weight, &mode, &affine, options, &mut expected);
            for isa in isas() {
                let mut y = vec![f32::NAN; expected.len()];
                let kernel = Conv2dKernel::new(weight.clone(), options.groups, mode.arithmetic());
                let kernel = kernel.unwrap().on(isa);
                kernel.forward(&mode, &x, input, &affine, options, &mut y);
                let name = weight.grouping().describe(shape);
                let what = format!("{isa} {mode} {shape:?} {name} {options:?}");
                assert_close(&y, &expected, room(weight, &x), &what);
            }
        }
    }
}

/// Rows by look-up, and as a matrix product.
#[test]
fn int8_is_within_its_documented_bound() {
    let mut random = Random::new(55);
    let shape = [96, 40];
    let grouping = Grouping::subchannelwise(&shape, 3).unwrap();
    for (widest, share) in [(1, 0.0), (2, 1.0 / 114.0), (3, 1.0 / 57.0), (4, 1.0 / 38.0)] {
        let weight = packed(&mut random, &shape, grouping.clone(), widest);
        for batch in [1, 40] {
            let x = random.normals(96 * batch, 2.0);
            let forward = |mode: Mode| {
                let mut y = vec![0.0; 40 * batch];
                let kernel = LinearKernel::new(&weight, mode.arithmetic()).unwrap();
                kernel.forward(&mode, &x, batch, &Affine::default(), &mut y);
                y
            };
            let (exact, int8) = (forward(Mode::Exact), forward(Mode::Int8));
            let mut row = 0;
            let alphas: Vec<f32> = weight
                .widths()
                .chunks(3)
                .map(|widths| {
                    let rows = row..row + widths.iter().map(|&w| usize::from(w)).sum::<usize>();
                    row = rows.end;
                    weight.coordinates()[rows].iter().sum()
                })
                .collect();
            let mut different = 0;
            for (i, (exact, int8)) in exact.iter().zip(&int8).enumerate() {
                let row = &x[i / 40 * 96..][..96];
                let scale = row.iter().fold(0.0f32, |a, x| a.max(x.abs())) / 127.0;
                let alpha = alphas[i % 40];
                let bound = scale * alpha * (35.0 / 2.0 + 127.0 * 32.0 * share);
                let error = (exact - int8).abs();
                assert!(error <= bound + 1e-4, "{error} above {bound} at {i}");
                different += usize::from(error > 1e-4);
            }
            assert!(different > 10, "int8 mode rounds");
        }
    }
}

/// Each kernel's part of the rows is what it computes alone, bit for bit.
#[test]
fn several_weights_over_the_same_inputs() {
    let mut random = Random::new(59);
    // Groups of the same length, and of another.
    let weights: Vec<PackedWeight> = [(33, 2), (16, 2), (5, 3)]
        .into_iter()
        .map(|(d_out, subchannels)| {
            let shape = [36, d_out];
            let grouping = Grouping::subchannelwise(&shape, subchannels).unwrap();
            packed(&mut random, &shape, grouping, 3)
        })
        .collect();
    for mode in modes() {
        for batch in [0, 1, 13, 30] {
            let x = random.normals(batch * 36, 1.0);
            let offset = random.normals(54, 1.0);
            let affine = Affine::bias(Some(&offset));
            for isa in isas() {
                let kernels: Vec<LinearKernel> = weights
                    .iter()
                    .map(|weight| {
                        LinearKernel::new(weight, mode.arithmetic())
                            .unwrap()
                            .on(isa)
                    })
                    .collect();
                let mut y = vec![f32::NAN; batch * 54];
                LinearKernel::forward_all(kernels.iter(), &mode, &x, batch, &affine, &mut y);
                let mut place = 0;
                for kernel in &kernels {
                    let d_out = kernel.shape()[1];
                    let mut alone = vec![f32::NAN; batch * d_out];
                    let affine = Affine::bias(Some(&offset[place..][..d_out]));
                    kernel.forward(&mode, &x, batch, &affine, &mut alone);
                    for (row, alone) in y.chunks(54).zip(alone.chunks(d_out)) {
                        assert_eq!(&row[place..][..d_out], alone, "{isa} {mode} batch {batch}");
                    }
                    place += d_out;
                }
            }
        }
    }
}

#[test]
fn int8_convolutions_are_within_their_documented_bound() {
    let mut random = Random::new(57);
    let shape = [20, 3, 5, 5];
    let weight = packed(
        &mut random,
        &shape,
        Grouping::channelwise(&shape).unwrap(),
        3,
    );
    let weight = Arc::new(weight);
    let input = [2, 3, 9, 8];
    let image = input[1..].iter().product();
    let x = random.normals(2 * image, 2.0);
    let options = Conv2dOptions::default();
    let output = conv2d_output_shape(input, &shape, &options);
    let forward = |mode: Mode| {
        let mut y = vec![0.0; output.iter().product()];
        let kernel = Conv2dKernel::new(weight.clone(), 1, mode.arithmetic()).unwrap();
        kernel.forward(&mode, &x, input, &Affine::default(), &options, &mut y);
        y
    };
    let (exact, int8) = (forward(Mode::Exact), forward(Mode::Int8));
    let mut row = 0;
    let alphas: Vec<f32> = weight
        .widths()
        .iter()
        .map(|&width| {
            let rows = row..row + usize::from(width);
            row = rows.end;
            weight.coordinates()[rows].iter().sum()
        })
        .collect();
    let mut different = 0;
    for (i, (exact, int8)) in exact.iter().zip(&int8).enumerate() {
        let place = output[2] * output[3];
        let (channel, n) = (i / place % output[1], i / place / output[1]);
        let largest = x[n * image..][..image]
            .iter()
            .fold(0.0f32, |a, x| a.max(x.abs()));
        let scale = largest / 127.0;
        let epsilon = alphas[channel] / 57.0;
        let bound = scale * (alphas[channel] * 78.0 / 2.0 + 127.0 * 75.0 * epsilon);
        let error = (exact - int8).abs();
        assert!(error <= bound + 1e-4, "{error} above {bound} at {i}");
        different += usize::from(error > 1e-4);
    }
    assert!(different > 100, "int8 mode rounds");
}

#[test]
fn bitwise_is_the_product_of_the_levels() {
    let mut random = Random::new(56);
    let shape = [70, 20];
    let grouping = Grouping::subchannelwise(&shape, 2).unwrap();
    let weight = packed(&mut random, &shape, grouping, 3);
    let levels = Levels::new(0.7, &[0.4, 0.25]).unwrap();
    let x = random.normals(70, 1.0);
    let kernel = LinearKernel::new(&weight, Arithmetic::Bitwise).unwrap();
    let mode = Mode::Bitwise(levels.clone());
    let mut y = vec![0.0; 20];
    kernel.forward(&mode, &x, 1, &Affine::default(), &mut y);
    let dense = weight.unpack();
    for (o, &y) in y.iter().enumerate() {
        let nearest = |&x: &f32| {
            let distance = |level: f32| (f64::from(level) - f64::from(x)).abs();
            let levels = levels.values().iter().copied();
            levels
                .min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
                .unwrap()
        };
        let terms = x.iter().map(nearest).enumerate();
        let sum: f64 = terms
            .map(|(k, x)| f64::from(x) * f64::from(dense[k * 20 + o]))
            .sum();
        assert!((f64::from(y) - sum).abs() < 1e-4, "{y} for {sum} at {o}");
    }
}

#[test]
fn what_is_not_a_number() {
    let shape = [8, 2];
    let grouping = Grouping::subchannelwise(&shape, 1).unwrap();
    let weight = PackedWeight::pack(&shape, grouping, 1, &[0; 16], &[0.5; 2], &[1; 2]).unwrap();
    let levels = Levels::new(1.0, &[0.5]).unwrap();
    for isa in Isa::available() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0; 16];
            x[3] = bad;
            let forward = |mode: Mode| {
                let mut y = [0.0; 4];
                let kernel = LinearKernel::new(&weight, mode.arithmetic())
                    .unwrap()
                    .on(isa);
                kernel.forward(&mode, &x, 2, &Affine::default(), &mut y);
                y
            };
            let exact = forward(Mode::Exact);
            assert!(
                exact[..2].iter().all(|y| !y.is_finite()),
                "{isa}: {exact:?}"
            );
            assert_eq!(exact[2..], [4.0; 2], "{isa}: the other row");
            let int8 = forward(Mode::Int8);
            assert!(int8[..2].iter().all(|y| y.is_nan()), "{isa}: {int8:?}");
            assert!((int8[2] - 4.0).abs() < 0.1, "{isa}: the other row");
            let bitwise = forward(Mode::Bitwise(levels.clone()));
            // Levels 0.5 and 1.5; 1 is half-way, so the lower one. NaN takes the lowest.
            let first = if bad.is_nan() { 0.5 } else { 1.5 };
            assert_eq!(bitwise[0], 0.5 * (7.0 * 0.5 + first), "{isa}");
        }
    }
}

#[test]
fn an_int8_convolution_of_what_is_not_a_number() {
    let mut random = Random::new(58);
    let shape = [3, 2, 3, 3];
    // The last output has no row.
    let widths = [1, 1, 0];
    let grouping = Grouping::channelwise(&shape).unwrap();
    let weight = PackedWeight::pack(&shape, grouping, 1, &[0; 54], &[0.5, 0.5, 0.0], &widths);
    let weight = Arc::new(weight.unwrap());
    let (input, options) = ([2, 2, 4, 4], Conv2dOptions::default());
    for isa in Isa::available() {
        for bad in [f32::NAN, f32::NEG_INFINITY] {
            let mut x = random.normals(64, 1.0);
            x[40] = bad;
            let mut y = [0.0; 24];
            let kernel = Conv2dKernel::new(weight.clone(), 1, Arithmetic::Int8);
            let kernel = kernel.unwrap().on(isa);
            kernel.forward(&Mode::Int8, &x, input, &Affine::default(), &options, &mut y);
            assert!(y[..12].iter().all(|y| y.is_finite()), "{isa}: {y:?}");
            assert!(y[12..].iter().all(|y| y.is_nan()), "{isa}: {y:?}");
        }
    }
}

#[test]
fn every_instruction_set_has_a_name_of_its_own() {
    let all = Isa::available();
    assert_eq!(all[0], Isa::PORTABLE);
    for isa in &all {
        assert_eq!(Isa::named(isa.name()), Some(*isa));
    }
    assert_eq!(Isa::named("sse2"), None);
}

#[test]
#[should_panic(expected = "linear: the kernel is laid out for int8 arithmetic")]
fn another_arithmetic_is_named() {
    let grouping = Grouping::subchannelwise(&[4, 1], 1).unwrap();
    let weight = PackedWeight::pack(&[4, 1], grouping, 1, &[0; 4], &[0.5], &[1]).unwrap();
    let kernel = LinearKernel::new(&weight, Arithmetic::Int8).unwrap();
    kernel.forward(&Mode::Exact, &[0.0; 4], 1, &Affine::default(), &mut [0.0]);
}
