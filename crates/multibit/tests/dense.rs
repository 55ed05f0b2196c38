//! Dense convolutions against plain loops. Numbers are small integers, so sums are exact in any order.

mod support;

use multibit::cpu::{Conv2dOptions, DenseConv2d, Isa};
use support::{Random, panic_message};

fn integers(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.below(7) as f32 - 3.0).collect()
}

/// Every product of the definition: where it reads the input, where the weight, where it goes.
fn products(
    input: [usize; 4],
    weight: [usize; 4],
    output: [usize; 4],
    options: &Conv2dOptions,
    mut each: impl FnMut([usize; 3]),
) {
    let at = |shape: [usize; 4], place: [usize; 4]| {
        place
            .iter()
            .zip(shape)
            .fold(0, |at, (place, size)| at * size + place)
    };
    let [batch, outputs, height, width] = output;
    let [_, channels, kernel_height, kernel_width] = weight;
    for image in 0..batch {
        for o in 0..outputs {
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                for c in 0..channels {
                    for (ky, kx) in
                        (0..kernel_height).flat_map(|y| (0..kernel_width).map(move |x| (y, x)))
                    {
                        let place = |axis: usize, at: usize, element: usize| {
                            let at = at * options.stride[axis] + element * options.dilation[axis];
                            at.checked_sub(options.padding[axis].0)
                                .filter(|&at| at < input[2 + axis])
                        };
                        if let (Some(iy), Some(ix)) = (place(0, y, ky), place(1, x, kx)) {
                            each([
                                at(input, [image, c, iy, ix]),
                                at(weight, [o, c, ky, kx]),
                                at(output, [image, o, y, x]),
                            ]);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn outputs_and_gradients_are_those_of_the_definition() {
    let plain = Conv2dOptions::default;
    let padded = |padding| Conv2dOptions {
        padding: [(padding, padding); 2],
        ..plain()
    };
    let uneven = Conv2dOptions {
        stride: [2, 3],
        padding: [(1, 0), (2, 3)],
        dilation: [2, 1],
        groups: 1,
    };
    let cases = [
        ([2, 3, 8, 8], [5, 3, 3, 3], padded(1)),
        ([1, 16, 5, 7], [16, 16, 3, 3], padded(1)),
        // More than a tile, a batch that parts do not divide, channels that vectors do not.
        ([9, 20, 33, 31], [13, 20, 3, 3], padded(1)),
        ([3, 7, 9, 9], [70, 7, 1, 1], plain()),
        ([2, 4, 11, 13], [6, 4, 3, 5], uneven),
        (
            [2, 2, 6, 6],
            [3, 2, 2, 2],
            Conv2dOptions {
                stride: [2, 2],
                ..plain()
            },
        ),
        // A kernel that is mostly outside.
        ([1, 1, 2, 2], [1, 1, 5, 5], padded(2)),
        ([1, 1, 1, 1], [1, 1, 1, 1], padded(3)),
        ([0, 3, 4, 4], [2, 3, 3, 3], padded(1)),
    ];
    let mut random = Random::new(7);
    for (input_shape, weight_shape, options) in cases {
        let conv = DenseConv2d::new(input_shape, weight_shape, &options);
        let output_shape = conv.output_shape();
        let [input, weight, grad] = [input_shape, weight_shape, output_shape]
            .map(|shape| integers(&mut random, shape.iter().product()));
        let mut expected = [&grad, &input, &weight].map(|like| vec![0.0; like.len()]);
        products(
            input_shape,
            weight_shape,
            output_shape,
            &options,
            |[i, w, o]| {
                expected[0][o] += input[i] * weight[w];
                expected[1][i] += grad[o] * weight[w];
                expected[2][w] += grad[o] * input[i];
            },
        );
        for isa in Isa::available() {
            let mut found = expected.each_ref().map(|like| vec![f32::NAN; like.len()]);
            let [output, input_grad, weight_grad] = &mut found;
            conv.forward(isa, &input, &weight, output);
            conv.input_grad(isa, &weight, &grad, input_grad);
            conv.weight_grad(isa, &input, &grad, weight_grad);
            assert_eq!(
                found, expected,
                "{isa}: {input_shape:?} by {weight_shape:?}"
            );
        }
    }
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program there")]
fn misuse_is_named() {
    let options = Conv2dOptions {
        groups: 2,
        ..Conv2dOptions::default()
    };
    let message = panic_message(|| {
        DenseConv2d::new([1, 4, 3, 3], [2, 2, 1, 1], &options);
    });
    assert!(message.contains("no groups"), "{message}");
    let conv = DenseConv2d::new([1, 4, 3, 3], [2, 4, 1, 1], &Conv2dOptions::default());
    let message = panic_message(|| {
        conv.forward(Isa::PORTABLE, &[0.0; 36], &[0.0; 7], &mut [0.0; 18]);
    });
    assert!(message.contains("weight"), "{message}");
}
