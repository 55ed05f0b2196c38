//! Kernels of all instruction sets and modes on numbers at the edges of f32, and beyond.

mod support;

use std::sync::Arc;

use multibit::cpu::{
    Affine, Arithmetic, Conv2dKernel, Conv2dOptions, Isa, Levels, LevelsError, LinearKernel, Mode,
    Planes, Pool2dOptions, conv2d_output_shape, max_pool2d, reference,
};
use multibit::{Grouping, PackedWeight};
use support::{Random, modes, packed, panic_message};

/// What sums of some dozens of terms in another order may differ by, as a share of the largest
/// output.
const TOLERANCE: f32 = 1e-5;

fn linear(weight: &PackedWeight, isa: Isa, mode: &Mode, x: &[f32]) -> Vec<f32> {
    let [d_in, d_out] = [weight.shape()[0], weight.shape()[1]];
    let kernel = LinearKernel::new(weight, mode.arithmetic())
        .unwrap()
        .on(isa);
    let mut y = vec![f32::NAN; x.len() / d_in * d_out];
    kernel.forward(mode, x, x.len() / d_in, &Affine::default(), &mut y);
    y
}

/// A convolution of images with 2 channels of 5 × 4, with [`PADDED`].
fn conv(weight: &Arc<PackedWeight>, isa: Isa, mode: &Mode, x: &[f32]) -> Vec<f32> {
    let input = [x.len() / 40, 2, 5, 4];
    let output = conv2d_output_shape(input, weight.shape(), &PADDED);
    let kernel = Conv2dKernel::new(weight.clone(), 1, mode.arithmetic());
    let mut y = vec![f32::NAN; output.iter().product()];
    let affine = Affine::default();
    kernel
        .unwrap()
        .on(isa)
        .forward(mode, x, input, &affine, &PADDED, &mut y);
    y
}

const PADDED: Conv2dOptions = Conv2dOptions {
    stride: [1, 1],
    padding: [(1, 1), (1, 0)],
    dilation: [1, 1],
    groups: 1,
};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Every output has a basis in every group, so that nothing is hidden by a width of 0.
fn full(random: &mut Random, shape: &[usize], grouping: Grouping) -> PackedWeight {
    let groups = grouping.groups(shape);
    let state = support::State::random(random, grouping.len(), 2, &vec![2; groups]);
    let (codes, coordinates) = (&state.codes, &state.coordinates);
    PackedWeight::pack(shape, grouping, 2, codes, coordinates, &state.widths).unwrap()
}

/// One row or image that holds such a value changes its own outputs alone.
#[test]
fn what_is_not_finite_stays_in_its_row_and_image() {
    let mut random = Random::new(91);
    let shape = [24, 19];
    let weight = full(
        &mut random,
        &shape,
        Grouping::subchannelwise(&shape, 2).unwrap(),
    );
    let conv_shape = [19, 2, 3, 3];
    let grouping = Grouping::kernelwise(&conv_shape).unwrap();
    let conv_weight = Arc::new(full(&mut random, &conv_shape, grouping));
    for isa in Isa::available() {
        for mode in modes() {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                // Look-up and expansion; one image after the other, and side by side.
                for batch in [3, 9, 25] {
                    let x = random.normals(batch * 24, 1.0);
                    let mut bad = x.clone();
                    bad[24 + 7] = value;
                    let forward = |x: &[f32]| linear(&weight, isa, &mode, x);
                    check_rows(&forward(&x), &forward(&bad), 19, &mode, |_| true);

                    let x = random.normals(batch * 40, 1.0);
                    let mut bad = x.clone();
                    // The corner of the second channel.
                    bad[40 + 39] = value;
                    let forward = |x: &[f32]| conv(&conv_weight, isa, &mode, x);
                    // Places that see it: the last 2 of 5 rows, the last 1 of 3 columns.
                    let sees = |i: usize| i % 15 / 3 >= 3 && i % 3 >= 2;
                    check_rows(&forward(&x), &forward(&bad), 19 * 15, &mode, sees);
                }
            }
        }
    }
}

/// Rows of outputs of which the second has seen what is not finite, at some places.
fn check_rows(fine: &[f32], bad: &[f32], row: usize, mode: &Mode, sees: impl Fn(usize) -> bool) {
    for (i, (fine, bad)) in fine.iter().zip(bad).enumerate() {
        let hit = i / row == 1;
        match mode {
            Mode::Exact if hit && sees(i % row) => assert!(!bad.is_finite(), "{bad} at {i}"),
            Mode::Int8 if hit => assert!(bad.is_nan(), "{bad} at {i}"),
            Mode::Bitwise(_) if hit => assert!(bad.is_finite(), "{bad} at {i}"),
            _ => assert_eq!(bad.to_bits(), fine.to_bits(), "{mode} at {i}"),
        }
    }
}

/// Equal but for rounding, and finite, whatever the size of the outputs.
fn assert_close(found: &[f32], expected: &[f32], mode: &Mode, what: &str) {
    // Levels are of size 1, whatever the inputs are.
    let least = match mode {
        Mode::Bitwise(_) => 1.0,
        _ => 0.0,
    };
    let largest = expected.iter().fold(least, |a: f32, y| a.max(y.abs()));
    assert!(largest.is_finite(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        // Products of denormals are rounded to whole smallest numbers.
        let room = TOLERANCE * largest + 64.0 * f32::from_bits(1);
        let close = (found - expected).abs() <= room;
        assert!(close, "{what}: {found} for {expected}");
    }
}

/// Sizes of inputs from denormal to huge, in all modes, by the definition.
#[test]
fn inputs_of_every_size() {
    let mut random = Random::new(92);
    let shape = [40, 18];
    let weight = packed(
        &mut random,
        &shape,
        Grouping::subchannelwise(&shape, 2).unwrap(),
        3,
    );
    let conv_shape = [18, 2, 3, 3];
    let grouping = Grouping::channelwise(&conv_shape).unwrap();
    let conv_weight = Arc::new(packed(&mut random, &conv_shape, grouping, 3));
    for scale in [0.0, 1e-44, 1e-40, 1e-37, 1e-30, 1e30] {
        for mode in modes() {
            for batch in [1, 9, 25] {
                let x = random.normals(batch * 40, scale);
                let mut expected = vec![f32::NAN; batch * 18];
                let affine = Affine::default();
                reference::linear(&x, batch, &weight, &mode, &affine, &mut expected);
                let input = [batch, 2, 5, 4];
                let output = conv2d_output_shape(input, &conv_shape, &PADDED);
                let mut expected_conv = vec![f32::NAN; output.iter().product()];
                reference::conv2d(
                    &x,
                    input,
                    &conv_weight,
                    &mode,
                    &affine,
                    &PADDED,
                    &mut expected_conv,
                );
                for isa in Isa::available() {
                    let what = format!("{isa} {mode} {scale} batch {batch}");
                    let found = linear(&weight, isa, &mode, &x);
                    assert_close(&found, &expected, &mode, &what);
                    let found = conv(&conv_weight, isa, &mode, &x);
                    assert_close(&found, &expected_conv, &mode, &what);
                }
                // The definition itself stays as large as float arithmetic says.
                if matches!(mode, Mode::Exact | Mode::Int8) {
                    let bound = 6.0 * scale * 40.0 * 3.0 * 0.22;
                    assert!(expected.iter().all(|y| y.abs() <= bound), "{mode} {scale}");
                }
            }
        }
    }
}

/// Int8 inputs so small that the inverse of their scale is not finite count as zeros.
#[test]
fn int8_of_the_smallest_inputs_is_zero() {
    let mut random = Random::new(93);
    let shape = [40, 18];
    let weight = full(
        &mut random,
        &shape,
        Grouping::subchannelwise(&shape, 2).unwrap(),
    );
    let mut y = [f32::NAN; 18];
    let x = [1e-39; 40];
    reference::linear(&x, 1, &weight, &Mode::Int8, &Affine::default(), &mut y);
    assert_eq!(y, [0.0; 18]);
    for isa in Isa::available() {
        assert_eq!(linear(&weight, isa, &Mode::Int8, &x), [0.0; 18], "{isa}");
    }
}

#[test]
fn coordinates_of_every_size() {
    let shape = [4, 17];
    let grouping = Grouping::subchannelwise(&shape, 2).unwrap();
    for alpha in [1e-45, 1e-38, 1e-30, 1e30] {
        let widths = [1; 34];
        let weight =
            PackedWeight::pack(&shape, grouping.clone(), 1, &[0; 68], &[alpha; 34], &widths);
        let weight = weight.unwrap();
        for isa in Isa::available() {
            for batch in [1, 5] {
                let y = linear(&weight, isa, &Mode::Exact, &vec![1.0; 4 * batch]);
                let expected = 4.0 * alpha;
                let close = |y: &f32| (y - expected).abs() <= TOLERANCE * expected;
                assert!(y.iter().all(close), "{isa}: {y:?} for {expected}");
            }
        }
    }
}

#[test]
fn no_inputs_are_no_outputs() {
    let mut random = Random::new(94);
    let weight = packed(
        &mut random,
        &[6, 5],
        Grouping::subchannelwise(&[6, 5], 2).unwrap(),
        2,
    );
    let shape = [4, 2, 3, 3];
    let levels = Levels::new(0.5, &[0.25]).unwrap();
    for isa in Isa::available() {
        for mode in modes() {
            assert!(linear(&weight, isa, &mode, &[]).is_empty());
            for grouping in Grouping::examples(&shape) {
                let weight = Arc::new(packed(&mut random, &shape, grouping, 2));
                assert!(conv(&weight, isa, &mode, &[]).is_empty());
                // Without rows or columns every output lies in the padding.
                for size in [[0, 5], [5, 0], [0, 0]] {
                    let options = Conv2dOptions {
                        padding: [(2, 2); 2],
                        ..Conv2dOptions::default()
                    };
                    let input = [2, 2, size[0], size[1]];
                    let output = conv2d_output_shape(input, &shape, &options);
                    let kernel = Conv2dKernel::new(weight.clone(), 1, mode.arithmetic());
                    let mut y = vec![f32::NAN; output.iter().product()];
                    let offset = [1.0, 2.0, 3.0, 4.0];
                    let affine = Affine::bias(Some(&offset));
                    kernel
                        .unwrap()
                        .on(isa)
                        .forward(&mode, &[], input, &affine, &options, &mut y);
                    let places = output[2] * output[3];
                    let expected = (0..y.len()).map(|i| offset[i / places % 4]);
                    assert!(
                        y.iter().copied().eq(expected),
                        "{isa} {mode} {size:?}: {y:?}"
                    );
                }
            }
        }
        let pool = Pool2dOptions {
            kernel: [1, 1],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
        };
        let mut y = [0.0; 4];
        max_pool2d(isa, &[], [1, 0, 0], &pool, &mut y);
        assert_eq!(y, [f32::NEG_INFINITY; 4]);
        let mut words = [0; 4];
        let planes = Planes::pack(isa, &[], [1, 1, 0, 0], &levels, &mut []);
        let planes = planes.max_pool2d(isa, &pool, &mut words);
        let mut y = [f32::NAN; 4];
        planes.unpack(isa, &mut y);
        assert_eq!(y, [0.25; 4], "the lowest level");
    }
}

/// Levels are finite and can be told apart, or there are none.
#[test]
fn levels_beyond_f32_are_refused() {
    for (reference, gammas) in [
        (3e38, vec![3e38]),
        (0.0, vec![3e38, 3e38]),
        (0.0, vec![3e38]),
    ] {
        let error = Levels::new(reference, &gammas);
        assert!(
            matches!(error, Err(LevelsError::TooLarge { .. })),
            "{error:?}"
        );
    }
    for value in [f32::NAN, f32::INFINITY] {
        assert!(matches!(
            Levels::new(value, &[1.0]),
            Err(LevelsError::Value { index: None, .. })
        ));
        assert!(matches!(
            Levels::new(0.0, &[1.0, value]),
            Err(LevelsError::Value { index: Some(1), .. })
        ));
        assert!(Levels::uniform(2, value).is_err());
    }
    for bits in [0, 5, 40] {
        assert_eq!(Levels::uniform(bits, 1.0), Err(LevelsError::Bits { bits }));
    }
    // The smallest and the largest that work.
    for gamma in [1e-45, 1e-38, 1e38] {
        let levels = Levels::new(0.0, &[gamma]).unwrap();
        assert_eq!(levels.quantize(f32::MAX), gamma);
        assert_eq!(levels.quantize(f32::MIN), -gamma);
        assert_eq!(levels.quantize(f32::NAN), -gamma);
    }
}

#[test]
fn a_refit_to_anything_gives_levels() {
    let levels = Levels::new(0.5, &[0.5, 0.25]).unwrap();
    let numbers = [0.0, 1.0, -1.0, 1e300, f64::INFINITY, f64::NAN];
    for count in numbers {
        for sum in numbers {
            let fitted = levels.refit(&[count, 1.0, 0.0, 2.0], &[sum, 0.4, 0.0, 2.5]);
            assert!(fitted.values().iter().all(|level| level.is_finite()));
            assert!(fitted.coordinates().iter().all(|&gamma| gamma > 0.0));
        }
    }
    assert_eq!(levels.refit(&[0.0; 4], &[0.0; 4]), levels);
    let far = Levels::new(-1e38, &[1e38, 0.25]).unwrap();
    for keep in [0.0, 0.5, 1.0] {
        let blend = levels.blend(&far, keep);
        assert!(blend.values().iter().all(|level| level.is_finite()));
    }
    // A panic ends a program in WebAssembly.
    if cfg!(not(target_family = "wasm")) {
        let message = panic_message(|| _ = levels.blend(&far, f32::NAN));
        assert!(message.contains("between 0 and 1"), "{message}");
    }
}

/// Values and bits agree on what is not a number.
#[test]
fn activations_of_anything() {
    let x: Vec<f32> = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e-45,
        -0.0,
        f32::MAX,
    ]
    .into_iter()
    .cycle()
    .take(36)
    .collect();
    for levels in support::levels() {
        let expected: Vec<f32> = x.iter().map(|&x| levels.quantize(x)).collect();
        let mut y = vec![0.0; 36];
        levels.quantize_all(&x, &mut y);
        assert_eq!(bits(&y), bits(&expected));
        for isa in Isa::available() {
            let shape = [1, 3, 3, 4];
            let mut words = vec![0; Planes::len(shape, &levels)];
            Planes::pack(isa, &x, shape, &levels, &mut words).unpack(isa, &mut y);
            assert_eq!(bits(&y), bits(&expected), "{isa}");
        }
    }
}

/// Sizes whose product or sum does not fit are named, not wrapped.
#[test]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program there")]
fn sizes_that_overflow_are_named() {
    let half = 1 << (usize::BITS / 2);
    let weight = packed(
        &mut Random::new(95),
        &[4, 4],
        Grouping::subchannelwise(&[4, 4], 1).unwrap(),
        1,
    );
    let kernel = LinearKernel::new(&weight, Arithmetic::Exact).unwrap();
    let forward = || {
        // 4 · batch is 0 when it wraps.
        let batch = usize::MAX / 4 + 1;
        kernel.forward(&Mode::Exact, &[], batch, &Affine::default(), &mut []);
    };
    assert!(panic_message(forward).contains("`input` holds 0 values"));
    let pool = Pool2dOptions {
        kernel: [1, 1],
        stride: [1, 1],
        padding: [usize::MAX / 2 + 1, 0],
        dilation: [1, 1],
    };
    assert!(panic_message(|| _ = pool.output_size([2, 2])).contains("too large"));
    let pool = Pool2dOptions {
        kernel: [half + 1, 1],
        dilation: [half, 1],
        padding: [0, 0],
        ..pool
    };
    assert!(panic_message(|| _ = pool.output_size([2, 2])).contains("too large"));
    let options = Conv2dOptions {
        padding: [(usize::MAX, 2), (0, 0)],
        ..Conv2dOptions::default()
    };
    let shape = |options: &Conv2dOptions, weight: &[usize]| {
        panic_message(|| _ = conv2d_output_shape([1, 1, 2, 2], weight, options))
    };
    assert!(shape(&options, &[1, 1, 1, 1]).contains("too large"));
    let empty = shape(&Conv2dOptions::default(), &[1, 1, 0, 1]);
    assert!(empty.contains("the kernel has no height"), "{empty}");
    let levels = Levels::new(0.0, &[1.0]).unwrap();
    let planes = || _ = Planes::new(&[], [half, 1, half, 1], &levels);
    assert!(panic_message(planes).contains("planes"));
}
