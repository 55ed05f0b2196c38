//! Softmax and layer norm against f64.

mod support;

use multibit::cpu::{Isa, layer_norm, softmax};
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
