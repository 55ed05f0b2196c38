//! Softmax and layer norm against f64.

mod support;

use multibit::cpu::{BatchNorm, Isa, Statistics, layer_norm, softmax};
use support::{Random, panic_message};

/// Around vectors and their fours.
const LENGTHS: [usize; 9] = [1, 2, 15, 16, 17, 64, 100, 384, 4099];

fn softmax_f64(row: &[f32], quiet: bool) -> Vec<f64> {
    let largest = row.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let largest = f64::from(largest);
    let e: Vec<f64> = row
        .iter()
        .map(|&x| (f64::from(x) - largest).exp())
        .collect();
    let sum = e.iter().sum::<f64>() + if quiet { (-largest).exp() } else { 0.0 };
    e.into_iter().map(|e| e / sum).collect()
}

#[test]
fn softmax_equals_its_definition() {
    let mut random = Random::new(83);
    for isa in Isa::available() {
        for len in LENGTHS {
            for (rows, scale) in [(0, 1.0), (1, 1.0), (5, 10.0), (40, 50.0)] {
                let x = random.normals(rows * len, scale);
                for quiet in [false, true] {
                    let mut y = x.clone();
                    softmax(isa, &mut y, len, quiet);
                    for (x, y) in x.chunks_exact(len).zip(y.chunks_exact(len)) {
                        for (&y, expected) in y.iter().zip(softmax_f64(x, quiet)) {
                            // Differences of up to 600 are rounded in f32 before the power.
                            let error = 1e-6 * expected * f64::from(scale).max(1.0) + 2e-38;
                            let close = (f64::from(y) - expected).abs() <= error;
                            assert!(close, "{isa}: {y} for {expected} in {len} {quiet}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn softmax_of_what_is_not_finite() {
    let infinite = f32::NEG_INFINITY;
    for isa in Isa::available() {
        for len in [1, 7, 16, 40] {
            let run = |row: Vec<f32>, quiet| {
                let mut row = row;
                softmax(isa, &mut row, len, quiet);
                row
            };
            for quiet in [false, true] {
                for bad in [f32::NAN, f32::INFINITY] {
                    let mut row = vec![0.5; len];
                    row[len / 2] = bad;
                    let all = run(row, quiet).iter().all(|y| y.is_nan());
                    assert!(all, "{isa}: {bad} among {len}");
                }
                // Masked by an infinity: nothing.
                let mut row = vec![infinite; len];
                row[len / 2] = 0.0;
                let y = run(row, quiet);
                let whole = if quiet { 0.5 } else { 1.0 };
                assert!((y[len / 2] - whole).abs() < 1e-6, "{isa}: {len}");
                assert_eq!(y.iter().filter(|&&y| y != 0.0).count(), 1, "{isa}: {len}");
            }
            assert!(run(vec![infinite; len], false).iter().all(|y| y.is_nan()));
            assert_eq!(
                run(vec![infinite; len], true),
                vec![0.0; len],
                "{isa}: {len}"
            );
            assert_eq!(run(vec![-1e4; len], true), vec![0.0; len], "{isa}: {len}");
        }
    }
}

#[test]
fn layer_norm_equals_its_definition() {
    let mut random = Random::new(84);
    for isa in Isa::available() {
        for len in LENGTHS {
            for rows in [0, 1, 3, 70] {
                // A mean that is large beside the deviation.
                let x: Vec<f32> = random
                    .normals(rows * len, 2.0)
                    .iter()
                    .map(|x| x + 5.0)
                    .collect();
                let numbers = random.normals(2 * len, 1.0);
                let (gamma, offsets) = numbers.split_at(len);
                for beta in [None, Some(offsets)] {
                    let mut y = vec![f32::NAN; x.len()];
                    layer_norm(isa, &x, gamma, beta, 1e-5, &mut y);
                    for (x, y) in x.chunks_exact(len).zip(y.chunks_exact(len)) {
                        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / len as f64;
                        let square = |&x: &f32| (f64::from(x) - mean) * (f64::from(x) - mean);
                        let deviation =
                            (x.iter().map(square).sum::<f64>() / len as f64 + 1e-5).sqrt();
                        let largest = (0..len)
                            .map(|i| f64::from(gamma[i] * x[i]).abs() / deviation)
                            .fold(0.0, f64::max);
                        for i in 0..len {
                            let beta = beta.map_or(0.0, |beta| f64::from(beta[i]));
                            let expected =
                                (f64::from(x[i]) - mean) / deviation * f64::from(gamma[i]) + beta;
                            let error = 1e-6 * largest + 1e-7 * expected.abs();
                            let close = (f64::from(y[i]) - expected).abs() <= error;
                            assert!(close, "{isa}: {} for {expected} in {len}", y[i]);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_stays_alone() {
    for isa in Isa::available() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x: Vec<f32> = (0..60).map(|i| i as f32).collect();
            x[25] = bad;
            let mut y = vec![0.0; 60];
            layer_norm(isa, &x, &[1.0; 20], None, 1e-5, &mut y);
            for (i, y) in y.iter().enumerate() {
                assert_eq!(y.is_nan(), i / 20 == 1, "{isa}: {bad} at {i}");
            }
        }
    }
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program there")]
fn wrong_lengths_are_named() {
    let isa = Isa::best();
    let message = panic_message(|| softmax(isa, &mut [0.0; 5], 2, false));
    assert_eq!(message, "softmax: 5 values are not rows of 2");
    let message = panic_message(|| layer_norm(isa, &[0.0; 5], &[1.0; 2], None, 0.0, &mut [0.0; 5]));
    assert!(
        message.contains("layer_norm: `input` holds 5 values"),
        "{message}"
    );
    let beta = Some(&[1.0][..]);
    let message = panic_message(|| layer_norm(isa, &[0.0; 4], &[1.0; 2], beta, 0.0, &mut [0.0; 4]));
    assert!(
        message.contains("layer_norm: `beta` holds 1 values"),
        "{message}"
    );
}

/// Batch norm and its gradients by their definitions, in f64: output, statistics, gradients of input, `γ`
/// and `β`.
fn batch_norm_f64(
    norm: &BatchNorm,
    [input, grad]: [&[f32]; 2],
    [gamma, beta]: [&[f32]; 2],
) -> [Vec<f64>; 6] {
    let BatchNorm { channels, len, .. } = *norm;
    let count = norm.batch * len;
    let mut found = [0; 6].map(|_| Vec::new());
    found[0] = vec![0.0; input.len()];
    found[3] = vec![0.0; input.len()];
    for c in 0..channels {
        let places = || {
            (0..norm.batch).flat_map(move |b| (0..len).map(move |i| (b * channels + c) * len + i))
        };
        let mean_of =
            |value: &dyn Fn(usize) -> f64| places().map(value).sum::<f64>() / count as f64;
        let x = |at: usize| f64::from(input[at]);
        let g = |at: usize| f64::from(grad[at]);
        let mean = mean_of(&x);
        let variance = mean_of(&|at| (x(at) - mean).powi(2));
        let deviation = (variance + norm.epsilon).sqrt();
        let normal = |at: usize| (x(at) - mean) / deviation;
        let (mean_g, mean_along) = (mean_of(&g), mean_of(&|at| g(at) * normal(at)));
        let [gamma, beta] = [gamma[c], beta[c]].map(f64::from);
        for at in places() {
            found[0][at] = gamma * normal(at) + beta;
            found[3][at] = gamma / deviation * (g(at) - mean_g - normal(at) * mean_along);
        }
        found[1].push(mean);
        found[2].push(variance);
        found[4].push(mean_along * count as f64);
        found[5].push(mean_g * count as f64);
    }
    found
}

#[test]
fn batch_norm_and_its_gradients_are_those_of_the_definition() {
    let mut random = Random::new(11);
    for (batch, channels, len) in [(1, 1, 2), (4, 3, 1), (3, 5, 17), (64, 2, 1024), (7, 9, 100)] {
        let norm = BatchNorm {
            batch,
            channels,
            len,
            epsilon: 1e-5,
        };
        let size = batch * channels * len;
        // A mean of three deviations.
        let input: Vec<f32> = random.normals(size, 2.0).iter().map(|x| x + 6.0).collect();
        let grad = random.normals(size, 1.0);
        let [gamma, beta] = [0; 2].map(|_| random.normals(channels, 1.0));
        let expected = batch_norm_f64(&norm, [&input, &grad], [&gamma, &beta]);
        for isa in Isa::available() {
            let mut output = vec![f32::NAN; size];
            let statistics = norm.forward(isa, &input, [&gamma, &beta], &mut output);
            let mut input_grad = vec![f32::NAN; size];
            let inputs = [&input[..], &grad];
            let terms = norm.backward(isa, inputs, &gamma, &statistics, &mut input_grad);
            let Statistics { mean, variance } = statistics;
            let found = [output, mean, variance, input_grad, terms.gamma, terms.beta];
            for (what, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let largest = expected.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
                for (&found, expected) in found.iter().zip(expected) {
                    // Sums of a thousand in f32, of numbers that cancel to a third.
                    let error = (f64::from(found) - expected).abs();
                    let close = error <= 2e-5 * largest.max(1.0);
                    assert!(close, "{isa}: {found} for {expected} of {what} in {norm:?}");
                }
            }
        }
    }
}
