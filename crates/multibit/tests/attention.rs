//! Attention against f64.

mod support;

use multibit::cpu::{Attention, Isa, Masks, Rows};
use support::{Random, panic_message};

/// Context and weights by their definition.
fn definition(
    a: &Attention,
    [query, key, value]: [Rows<'_>; 3],
    masks: &Masks<'_>,
) -> (Vec<f64>, Vec<f64>) {
    let mut context = vec![0.0; a.batch * a.queries * a.heads * a.width];
    let mut weights = Vec::new();
    let at = |rows: Rows<'_>, row: usize, head: usize, i: usize| {
        f64::from(rows.values[row * rows.stride + head * a.width + i])
    };
    for (n, head, i) in (0..a.batch * a.heads * a.queries).map(|i| {
        (
            i / a.queries / a.heads,
            i / a.queries % a.heads,
            i % a.queries,
        )
    }) {
        let row = n * a.queries + i;
        let scores: Vec<f64> = (0..a.keys)
            .map(|j| {
                let out = masks.pad.is_some_and(|mask| mask[n * a.keys + j] != 0)
                    || masks.pairs.is_some_and(|mask| mask[row * a.keys + j] != 0);
                if out {
                    return f64::from(a.min_float);
                }
                let product = |c| at(query, row, head, c) * at(key, n * a.keys + j, head, c);
                (0..a.width).map(product).sum::<f64>() * f64::from(a.scale)
            })
            .collect();
        let largest = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let e: Vec<f64> = scores.iter().map(|x| (x - largest).exp()).collect();
        let sum = e.iter().sum::<f64>() + if a.quiet { (-largest).exp() } else { 0.0 };
        for (j, e) in e.iter().enumerate() {
            weights.push(e / sum);
            for c in 0..a.width {
                context[row * a.heads * a.width + head * a.width + c] +=
                    e / sum * at(value, n * a.keys + j, head, c);
            }
        }
    }
    (context, weights)
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        // Scores below 30 are sums of up to 80 products, each rounded: powers of them are wrong by
        // that much, and contexts are sums of values below 6 with weights of 1 together.
        let close = (f64::from(found) - expected).abs() <= 2e-5;
        assert!(close, "{what}: {found} for {expected} at {i}");
    }
}

fn case(queries: usize, keys: usize, heads: usize, width: usize, batch: usize) -> Attention {
    Attention {
        batch,
        heads,
        queries,
        keys,
        width,
        scale: 1.0 / (width as f32).sqrt(),
        min_float: -1e4,
        quiet: false,
    }
}

#[test]
fn attention_equals_its_definition() {
    let mut random = Random::new(85);
    let cases = [
        case(1, 1, 1, 1, 1),
        case(1, 40, 2, 32, 2),
        case(16, 16, 3, 32, 2),
        case(13, 33, 2, 64, 1),
        case(25, 7, 1, 20, 3),
        case(130, 70, 1, 80, 1),
        case(7, 100, 2, 48, 1),
        case(0, 5, 2, 4, 1),
        case(3, 5, 2, 4, 0),
    ];
    for isa in Isa::available() {
        for case in cases {
            let model = case.heads * case.width;
            // Query, key and value side by side in one buffer, and a little more.
            let stride = 3 * model + 5;
            let rows = case.batch * case.queries.max(case.keys);
            let x = random.normals(rows * stride, 1.0);
            let rows = [0, 1, 2].map(|i| Rows {
                values: x.get(i * model..).unwrap_or(&[]),
                stride,
            });
            let mut mask = |len: usize| -> Vec<u8> {
                (0..len)
                    .map(|_| u8::from(random.below(3) == 0) * 255)
                    .collect()
            };
            let (pad, pairs) = (
                mask(case.batch * case.keys),
                mask(case.batch * case.queries * case.keys),
            );
            let masks = [
                Masks::default(),
                Masks {
                    pad: Some(&pad),
                    pairs: None,
                },
                Masks {
                    pad: Some(&pad),
                    pairs: Some(&pairs),
                },
            ];
            for masks in masks {
                for quiet in [false, true] {
                    let attention = Attention { quiet, ..case };
                    let (context, weights) = definition(&attention, rows, &masks);
                    let mut y = vec![f32::NAN; context.len()];
                    attention.forward(isa, rows, &masks, &mut y, None);
                    let what = format!("{isa}: {attention:?}");
                    assert_close(&y, &context, &what);
                    y.fill(f32::NAN);
                    let mut w = vec![f32::NAN; weights.len()];
                    attention.forward(isa, rows, &masks, &mut y, Some(&mut w));
                    assert_close(&y, &context, &what);
                    assert_close(&w, &weights, &what);
                }
            }
        }
    }
}

/// A head, a sequence and a query that see nothing of it keep their numbers.
#[test]
fn what_is_not_finite_stays_in_its_rows() {
    let attention = case(20, 18, 2, 16, 2);
    let stride = 32;
    let mut random = Random::new(86);
    let query = random.normals(40 * stride, 1.0);
    let key = random.normals(36 * stride, 1.0);
    let value = random.normals(36 * stride, 1.0);
    for isa in Isa::available() {
        let run = |query: &[f32], key: &[f32], value: &[f32]| {
            let mut y = vec![0.0; 40 * stride];
            let rows = [query, key, value].map(|values| Rows { values, stride });
            attention.forward(isa, rows, &Masks::default(), &mut y, None);
            y
        };
        let expected = run(&query, &key, &value);
        let mut bad = query.clone();
        bad[3 * stride + 17] = f32::NAN;
        for (i, (y, expected)) in run(&bad, &key, &value).iter().zip(&expected).enumerate() {
            // Query 3 of the first sequence, in the second head.
            let seen = i / stride == 3 && i % stride >= 16;
            assert!(
                y == expected && !seen || y.is_nan() && seen,
                "{isa}: query at {i}"
            );
        }
        let mut bad = value.clone();
        bad[20 * stride + 4] = f32::NAN;
        for (i, (y, expected)) in run(&query, &key, &bad).iter().zip(&expected).enumerate() {
            let seen = i / stride >= 20 && i % stride == 4;
            assert!(
                y == expected && !seen || y.is_nan() && seen,
                "{isa}: value at {i}"
            );
        }
    }
}

/// All keys masked: each has the same weight, and in quiet softmax none has any.
#[test]
fn masked_rows_are_as_in_burn() {
    for isa in Isa::available() {
        for (quiet, expected) in [(false, 0.25), (true, 0.0)] {
            let attention = Attention {
                quiet,
                ..case(1, 4, 1, 2, 1)
            };
            let rows = [[1.0; 2].as_slice(), &[1.0; 8], &[1.0; 8]];
            let rows = rows.map(|values| Rows { values, stride: 2 });
            let masks = Masks {
                pad: Some(&[1; 4]),
                pairs: None,
            };
            let (mut y, mut weights) = ([f32::NAN; 2], [f32::NAN; 4]);
            attention.forward(isa, rows, &masks, &mut y, Some(&mut weights));
            assert_eq!(weights, [expected; 4], "{isa}");
        }
    }
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program there")]
fn wrong_lengths_are_named() {
    let attention = case(2, 3, 1, 4, 1);
    let x = [0.0; 12];
    let rows = |len: usize, stride| Rows {
        values: &x[..len],
        stride,
    };
    let run = |rows: [Rows<'_>; 3], masks: Masks<'_>, context: usize| {
        panic_message(|| {
            attention.forward(Isa::best(), rows, &masks, &mut vec![0.0; context], None);
        })
    };
    let good = [rows(8, 4), rows(12, 4), rows(12, 4)];
    let none = Masks::default();
    for (found, expected) in [
        (
            run([rows(7, 4), good[1], good[2]], none, 8),
            "`query` holds 7 values",
        ),
        (
            run([good[0], rows(11, 4), good[2]], none, 8),
            "`key` holds 11 values",
        ),
        (
            run([good[0], good[1], rows(12, 3)], none, 8),
            "a row of `value` has 4 values",
        ),
        (run(good, none, 7), "`context` holds 7 values"),
        (
            run(
                good,
                Masks {
                    pad: Some(&[0]),
                    pairs: None,
                },
                8,
            ),
            "`masks.pad` holds 1",
        ),
        (
            run(
                good,
                Masks {
                    pad: None,
                    pairs: Some(&[0]),
                },
                8,
            ),
            "`masks.pairs` holds 1",
        ),
    ] {
        assert!(found.contains(expected), "{found}");
    }
}
