//! What follows the sums of a layer: residual and activation, in every arithmetic and at every end.

mod support;

use std::sync::Arc;

use multibit::Grouping;
use multibit::cpu::{
    Activation, Affine, Conv2dKernel, Isa, LinearKernel, conv2d_output_shape, reference,
};
use support::{Random, conv_options, modes, packed, panic_message};

/// With a residual or without, and what follows it.
const ENDS: [(bool, Activation); 3] = [
    (false, Activation::Relu6),
    (true, Activation::Identity),
    (true, Activation::Gelu),
];

/// `run` with an epilogue equals `run` with scale and offset, and then the epilogue by its definition.
fn assert_follows(
    affine: Affine<'_>,
    residual: &[f32],
    run: impl Fn(&Affine<'_>) -> Vec<f32>,
    what: &str,
) {
    let plain = run(&affine);
    for (is_added, activation) in ENDS {
        let residual = is_added.then_some(residual);
        let found = run(&Affine {
            residual,
            activation,
            ..affine
        });
        for (i, (y, found)) in plain.iter().zip(found).enumerate() {
            let x = f64::from(*y) + residual.map_or(0.0, |residual| f64::from(residual[i]));
            let expected = reference::activation(activation, x);
            // The sum is rounded, and an activation is wrong by up to 10^-7 of its input.
            let error = 5e-7 * (1.0 + x.abs());
            let close = (f64::from(found) - expected).abs() <= error;
            assert!(
                close,
                "{what}: {activation:?} of {x} is {found}, not {expected}"
            );
        }
    }
}

#[test]
fn linear_layers_end_in_one_pass() {
    let mut random = Random::new(91);
    for [d_in, d_out] in [[12, 5], [36, 17], [70, 64]] {
        let shape = [d_in, d_out];
        let grouping = Grouping::examples(&shape).into_iter().next().unwrap();
        let weight = packed(&mut random, &shape, grouping, 2);
        let numbers = random.normals(2 * d_out, 1.0);
        for batch in [1, 3, 9, 40] {
            let x = random.normals(batch * d_in, 1.0);
            let residual = random.normals(batch * d_out, 1.0);
            for affine in support::affines(&numbers[..d_out], &numbers[d_out..]) {
                for mode in modes() {
                    for isa in Isa::available() {
                        let kernel = LinearKernel::new(&weight, mode.arithmetic())
                            .unwrap()
                            .on(isa);
                        let run = |affine: &Affine<'_>| {
                            let mut y = vec![f32::NAN; batch * d_out];
                            kernel.forward(&mode, &x, batch, affine, &mut y);
                            y
                        };
                        let what = format!("{isa} {mode} [{d_in}, {d_out}] batch {batch}");
                        assert_follows(affine, &residual, run, &what);
                    }
                    let run = |affine: &Affine<'_>| {
                        let mut y = vec![f32::NAN; batch * d_out];
                        reference::linear(&x, batch, &weight, &mode, affine, &mut y);
                        y
                    };
                    assert_follows(affine, &residual, run, "the definition");
                }
            }
        }
    }
}

#[test]
fn convolutions_end_in_one_pass() {
    let mut random = Random::new(92);
    for options in conv_options() {
        for [out, group_in, kernel] in [[4, 3, 3], [18, 40, 1], [34, 5, 2]] {
            let shape = [out, group_in, kernel, kernel];
            let grouping = Grouping::examples(&shape).into_iter().next().unwrap();
            let weight = Arc::new(packed(&mut random, &shape, grouping, 2));
            let numbers = random.normals(2 * out, 1.0);
            let affine = Affine {
                scale: Some(&numbers[..out]),
                offset: Some(&numbers[out..]),
                ..Affine::default()
            };
            // One image; a few; so many that they are the lanes. One place of each, and more.
            for (batch, size) in [(1, [7, 6]), (2, [5, 23]), (17, [3, 3])] {
                let input = [batch, group_in * options.groups, size[0], size[1]];
                let output = conv2d_output_shape(input, &shape, &options);
                let x = random.normals(input.iter().product(), 1.0);
                let residual = random.normals(output.iter().product(), 1.0);
                for mode in modes() {
                    for isa in Isa::available() {
                        let kernel =
                            Conv2dKernel::new(weight.clone(), options.groups, mode.arithmetic());
                        let kernel = kernel.unwrap().on(isa);
                        let run = |affine: &Affine<'_>| {
                            let mut y = vec![f32::NAN; residual.len()];
                            kernel.forward(&mode, &x, input, affine, &options, &mut y);
                            y
                        };
                        let what = format!("{isa} {mode} {shape:?} {options:?} {input:?}");
                        assert_follows(affine, &residual, run, &what);
                    }
                }
            }
        }
    }
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program there")]
fn a_residual_of_another_shape_is_named() {
    let mut random = Random::new(93);
    let shape = [4, 3];
    let grouping = Grouping::examples(&shape).into_iter().next().unwrap();
    let weight = packed(&mut random, &shape, grouping, 2);
    let kernel = LinearKernel::new(&weight, multibit::cpu::Arithmetic::Exact).unwrap();
    let affine = Affine {
        residual: Some(&[0.0; 5]),
        ..Affine::default()
    };
    let mode = multibit::cpu::Mode::Exact;
    let message = panic_message(|| kernel.forward(&mode, &[0.0; 8], 2, &affine, &mut [0.0; 6]));
    let expected = "linear: `residual` holds 5 values, but [(\"batch\", 2), (\"d_out\", 3)] need 6";
    assert!(message.contains(expected), "{message}");
}
