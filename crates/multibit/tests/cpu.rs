//! The definition of the packed layers against dense f64 loops over the unpacked weight.

mod support;

use multibit::cpu::reference::{conv2d, linear};
use multibit::cpu::{Affine, Conv2dOptions, Mode, conv2d_output_shape};
use multibit::{Grouping, PackedWeight};
use support::{Random, packed};

/// Room for the f32 sums: each of `terms` inputs, below 6, is rounded once a basis and added up
/// with others, eight bases with coordinates below 0.22 each.
fn tolerance(terms: usize) -> f64 {
    f64::from(f32::EPSILON) * terms as f64 * 6.0 * 8.0 * 0.22 + 1e-6
}

fn assert_close(found: &[f32], expected: &[f64], terms: usize, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(found) - expected).abs() <= tolerance(terms),
            "{what}: {found} for {expected} at {i}"
        );
    }
}

#[test]
fn linear_equals_the_dense_loop() {
    let mut random = Random::new(31);
    for [d_in, d_out] in [[1, 1], [12, 5], [64, 3], [100, 7]] {
        for grouping in Grouping::examples(&[d_in, d_out]) {
            for widest in [0, 2, 6] {
                let shape = [d_in, d_out];
                let weight = packed(&mut random, &shape, grouping.clone(), widest);
                let dense = weight.unpack();
                for batch in [0, 1, 15, 16, 17] {
                    let x = random.normals(batch * d_in, 1.0);
                    let bias = random.normals(d_out, 1.0);
                    for bias in [None, Some(bias.as_slice())] {
                        let mut y = vec![f32::NAN; batch * d_out];
                        linear(
                            &x,
                            batch,
                            &weight,
                            &Mode::Exact,
                            &Affine::bias(bias),
                            &mut y,
                        );
                        let mut expected = vec![0.0; batch * d_out];
                        for (i, y) in expected.iter_mut().enumerate() {
                            let (b, o) = (i / d_out, i % d_out);
                            *y = bias.map_or(0.0, |bias| f64::from(bias[o]));
                            for k in 0..d_in {
                                let w = f64::from(dense[k * d_out + o]);
                                *y += f64::from(x[b * d_in + k]) * w;
                            }
                        }
                        assert_close(&y, &expected, d_in, &weight.grouping().describe(&shape));
                    }
                }
            }
        }
    }
}

/// A convolution by its definition: eight loops.
fn dense_conv2d(
    x: &[f32],
    [batch, channels, height, width]: [usize; 4],
    w: &[f32],
    shape: [usize; 4],
    bias: Option<&[f32]>,
    options: &Conv2dOptions,
) -> Vec<f64> {
    let [c_out, c_in, kh, kw] = shape;
    let [_, _, oh, ow] = conv2d_output_shape([batch, channels, height, width], &shape, options);
    let mut y = vec![0.0; batch * c_out * oh * ow];
    for (i, y) in y.iter_mut().enumerate() {
        let (column, row) = (i % ow, i / ow % oh);
        let (o, n) = (i / ow / oh % c_out, i / ow / oh / c_out);
        *y = bias.map_or(0.0, |bias| f64::from(bias[o]));
        let first = o / (c_out / options.groups) * c_in;
        for c in 0..c_in {
            for a in 0..kh {
                for b in 0..kw {
                    let at = |out: usize, axis: usize, k: usize| {
                        (out * options.stride[axis] + k * options.dilation[axis]) as isize
                            - options.padding[axis].0 as isize
                    };
                    let (h, v) = (at(row, 0, a), at(column, 1, b));
                    let inside =
                        (0..height as isize).contains(&h) && (0..width as isize).contains(&v);
                    if inside {
                        let plane = (n * channels + first + c) * height;
                        let x = x[(plane + h as usize) * width + v as usize];
                        let w = w[((o * c_in + c) * kh + a) * kw + b];
                        *y += f64::from(x) * f64::from(w);
                    }
                }
            }
        }
    }
    y
}

#[test]
fn conv2d_equals_the_dense_loops() {
    let mut random = Random::new(32);
    let default = Conv2dOptions::default();
    let cases = [
        default,
        Conv2dOptions {
            stride: [2, 3],
            ..default
        },
        Conv2dOptions {
            padding: [(1, 2), (3, 0)],
            ..default
        },
        Conv2dOptions {
            dilation: [2, 1],
            padding: [(2, 2), (1, 1)],
            ..default
        },
        Conv2dOptions {
            groups: 2,
            stride: [1, 2],
            padding: [(0, 1), (2, 1)],
            dilation: [1, 2],
        },
    ];
    for options in cases {
        for [c_out, c_in, kh, kw] in [[4, 3, 3, 2], [2, 1, 1, 1], [2, 40, 1, 2]] {
            let shape = [c_out, c_in, kh, kw];
            for grouping in Grouping::examples(&shape) {
                let weight = packed(&mut random, &shape, grouping, 3);
                let dense = weight.unpack();
                for batch in [0, 1, 2] {
                    let input = [batch, c_in * options.groups, 6, 7];
                    let x = random.normals(input.iter().product(), 1.0);
                    let bias = random.normals(c_out, 1.0);
                    for bias in [None, Some(bias.as_slice())] {
                        let output = conv2d_output_shape(input, &shape, &options);
                        let mut y = vec![f32::NAN; output.iter().product()];
                        conv2d(
                            &x,
                            input,
                            &weight,
                            &Mode::Exact,
                            &Affine::bias(bias),
                            &options,
                            &mut y,
                        );
                        let expected = dense_conv2d(&x, input, &dense, shape, bias, &options);
                        let what = format!("{options:?} {}", weight.grouping().describe(&shape));
                        assert_close(&y, &expected, c_in * kh * kw, &what);
                    }
                }
            }
        }
    }
}

#[test]
fn padding_contributes_nothing() {
    // A kernel that hangs over the border everywhere sees the one input only.
    let shape = [1, 1, 3, 3];
    let grouping = Grouping::kernelwise(&shape).unwrap();
    let weight = PackedWeight::pack(&shape, grouping, 1, &[0; 9], &[0.5], &[1]).unwrap();
    let options = Conv2dOptions {
        padding: [(1, 1); 2],
        ..Conv2dOptions::default()
    };
    let mut y = [f32::NAN];
    conv2d(
        &[3.0],
        [1, 1, 1, 1],
        &weight,
        &Mode::Exact,
        &Affine::default(),
        &options,
        &mut y,
    );
    assert_eq!(y, [1.5]);
}

#[test]
fn output_shapes() {
    let shape = |input, options: Conv2dOptions| conv2d_output_shape(input, &[8, 3, 3, 5], &options);
    let default = Conv2dOptions::default();
    assert_eq!(shape([2, 3, 28, 28], default), [2, 8, 26, 24]);
    let strided = Conv2dOptions {
        stride: [2, 2],
        padding: [(1, 1), (2, 2)],
        ..default
    };
    assert_eq!(shape([2, 3, 28, 28], strided), [2, 8, 14, 14]);
    let dilated = Conv2dOptions {
        dilation: [2, 3],
        ..default
    };
    assert_eq!(shape([0, 3, 28, 28], dilated), [0, 8, 24, 16]);
    let grouped = Conv2dOptions {
        groups: 4,
        ..default
    };
    assert_eq!(shape([1, 12, 3, 5], grouped), [1, 8, 1, 1]);
}

/// A weight of zeros that takes part in shape checks only.
fn empty(shape: &[usize], grouping: Grouping) -> PackedWeight {
    let groups = grouping.groups(shape);
    let codes = vec![0; shape.iter().product()];
    PackedWeight::pack(
        shape,
        grouping,
        1,
        &codes,
        &vec![0.0; groups],
        &vec![0; groups],
    )
    .unwrap()
}

fn conv_with(input: [usize; 4], options: Conv2dOptions) {
    let shape = [2, 3, 3, 3];
    let weight = empty(&shape, Grouping::kernelwise(&shape).unwrap());
    let x = vec![0.0; input.iter().product()];
    conv2d(
        &x,
        input,
        &weight,
        &Mode::Exact,
        &Affine::default(),
        &options,
        &mut [],
    );
}

#[test]
#[should_panic(expected = "`input` has 4 channels_in, `weight` 3 in each of 1 groups")]
fn wrong_channels_are_named() {
    conv_with([1, 4, 8, 8], Conv2dOptions::default());
}

#[test]
#[should_panic(expected = "the kernel reaches over 3 of width, but the padded input has 2")]
fn a_kernel_that_is_too_large_is_named() {
    conv_with([1, 3, 8, 2], Conv2dOptions::default());
}

#[test]
#[should_panic(expected = "the stride of height is 0")]
fn a_stride_of_zero_is_named() {
    let options = Conv2dOptions {
        stride: [0, 1],
        ..Conv2dOptions::default()
    };
    conv_with([1, 3, 8, 8], options);
}

#[test]
#[should_panic(expected = "2 channels_out do not fall into 3 groups")]
fn groups_that_do_not_divide_are_named() {
    let options = Conv2dOptions {
        groups: 3,
        ..Conv2dOptions::default()
    };
    conv_with([1, 9, 8, 8], options);
}

#[test]
#[should_panic(expected = "`output` holds 0 values")]
fn a_short_output_is_named() {
    conv_with([1, 3, 8, 8], Conv2dOptions::default());
}

#[test]
#[should_panic(expected = "linear: `input` holds 5 values, but [(\"batch\", 2), (\"d_in\", 3)]")]
fn a_short_input_is_named() {
    let weight = empty(&[3, 2], Grouping::subchannelwise(&[3, 2], 1).unwrap());
    linear(
        &[0.0; 5],
        2,
        &weight,
        &Mode::Exact,
        &Affine::default(),
        &mut [0.0; 4],
    );
}

#[test]
#[should_panic(expected = "the groups of `weight` lie along axis 0, but d_out is axis 1")]
fn a_weight_grouped_by_inputs_is_named() {
    let weight = empty(&[3, 2], Grouping::new(vec![0, 1], 2).unwrap());
    linear(
        &[0.0; 3],
        1,
        &weight,
        &Mode::Exact,
        &Affine::default(),
        &mut [0.0; 2],
    );
}
