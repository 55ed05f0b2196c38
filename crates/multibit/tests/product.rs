//! Laws of products of two matrices of signs.

mod support;

use multibit::CoordinateType::{self, Bf16, F16, F32};
use multibit::fit::{Hessian, Product, SketchError, product, reconstruct, sketch};
use support::Random;

/// `S F diag(c)`, as it is written.
fn values(product: &Product) -> Vec<f32> {
    let dense = |sketch: &multibit::fit::Sketch| {
        let mut out = vec![0.0; sketch.codes.len()];
        let (len, max_bits) = (sketch.len, sketch.max_bits);
        reconstruct(
            &sketch.codes,
            &sketch.coordinates,
            &sketch.widths,
            len,
            max_bits,
            &mut out,
        );
        out
    };
    let (first, second) = (dense(&product.first), dense(&product.second));
    let (rank, inputs) = (product.second.len, product.first.len);
    let outputs = product.second.widths.len();
    let mut out = Vec::new();
    for i in 0..outputs {
        for j in 0..inputs {
            let sum: f32 = (0..rank)
                .map(|k| second[i * rank + k] * first[k * inputs + j])
                .sum();
            out.push(sum * product.scale[j]);
        }
    }
    out
}

/// `‖w − ŵ‖² / ‖w‖²`.
fn left(weights: &[f32], values: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let norm: f64 = weights.iter().map(|&w| square(w)).sum();
    let error: f64 = weights.iter().zip(values).map(|(w, v)| square(w - v)).sum();
    error / norm
}

/// Inputs that all count the same.
fn equal(inputs: usize) -> Hessian {
    Hessian::diagonal(&vec![1.0f32; inputs], 0.0).unwrap()
}

fn fit(weights: &[f32], inputs: usize, rank: usize) -> Product {
    let product = product(weights, &equal(inputs), rank, F32).unwrap();
    assert_eq!(product.first.len, inputs);
    assert_eq!(product.first.widths.len(), rank);
    assert_eq!(product.second.len, rank);
    assert_eq!(product.second.widths.len(), weights.len() / inputs);
    assert_eq!(product.scale.len(), inputs);
    product
}

/// A product of random signs with scales.
fn planted(random: &mut Random, [outputs, rank, inputs]: [usize; 3]) -> Vec<f32> {
    let mut signs = |len: usize| -> Vec<f32> {
        let sign = |_| if random.below(2) == 0 { 1.0 } else { -1.0 };
        (0..len).map(sign).collect()
    };
    let (second, first) = (signs(outputs * rank), signs(rank * inputs));
    let mut scales = |len: usize| -> Vec<f32> { (0..len).map(|_| 0.5 + random.unit()).collect() };
    let (s, m, c) = (scales(outputs), scales(rank), scales(inputs));
    let entry = |place: usize| {
        let (i, j) = (place / inputs, place % inputs);
        let sum = (0..rank).map(|k| second[i * rank + k] * m[k] * first[k * inputs + j]);
        0.1 * s[i] * c[j] * sum.sum::<f32>()
    };
    (0..outputs * inputs).map(entry).collect()
}

#[test]
fn a_planted_product_is_found() {
    for shape in [[9, 1, 14], [40, 2, 30], [96, 4, 64], [33, 3, 130]] {
        let [_, rank, inputs] = shape;
        for seed in 0..3 {
            let weights = planted(&mut Random::new(seed), shape);
            let found = fit(&weights, inputs, rank);
            let left = left(&weights, &values(&found));
            assert!(left < 1e-4, "{shape:?}, {seed}: {left} is left");
        }
    }
}

#[test]
fn any_shape_has_a_product() {
    let mut random = Random::new(2);
    for (outputs, inputs, rank) in [
        (1, 1, 1),
        (1, 7, 2),
        (7, 1, 2),
        (3, 5, 40),
        (65, 63, 13),
        (130, 9, 1),
    ] {
        let weights = random.normals(outputs * inputs, 0.1);
        let found = fit(&weights, inputs, rank);
        let left = left(&weights, &values(&found));
        assert!(left < 1.0, "{outputs} × {inputs}, {rank}: {left}");
        // One number, and any single row or column of a rank of one, is exact.
        if rank >= outputs.min(inputs) && outputs.min(inputs) == 1 {
            assert!(left < 1e-6, "{outputs} × {inputs}, {rank}: {left}");
        }
    }
    let none = product(&[], &equal(4), 2, F32).unwrap();
    assert!(none.second.widths.is_empty());
}

#[test]
fn a_higher_rank_leaves_less_and_one_bit_less_than_a_basis() {
    let (outputs, inputs) = (96, 80);
    let mut random = Random::new(4);
    // Some directions are stronger than others, as in trained weights.
    let low = 12;
    let (u, v) = (
        random.normals(outputs * low, 1.0),
        random.normals(low * inputs, 1.0),
    );
    let mut weights = random.normals(outputs * inputs, 0.3);
    for (place, w) in weights.iter_mut().enumerate() {
        let (i, j) = (place / inputs, place % inputs);
        *w += (0..low)
            .map(|k| u[i * low + k] * v[k * inputs + j])
            .sum::<f32>();
    }
    let mut last = 1.0;
    for rank in [4, 8, 16, 32, 43] {
        let left = left(&weights, &values(&fit(&weights, inputs, rank)));
        assert!(left < last, "rank {rank}: {left} after {last}");
        last = left;
    }
    // 43 · (96 + 80) signs are 0.99 bits a weight.
    let basis = sketch(&weights, inputs, 1, F32).unwrap();
    let mut levels = vec![0.0; weights.len()];
    reconstruct(
        &basis.codes,
        &basis.coordinates,
        &basis.widths,
        inputs,
        1,
        &mut levels,
    );
    let basis = left(&weights, &levels);
    assert!(last < 0.8 * basis, "{last} against {basis}");
}

#[test]
fn outputs_count_as_their_inputs_say() {
    let (outputs, inputs, rank) = (32, 24, 10);
    let mut random = Random::new(8);
    let weights = random.normals(outputs * inputs, 0.1);
    // Inputs that depend on each other, and one that is far larger.
    let mut h = vec![0.0f32; inputs * inputs];
    for _ in 0..200 {
        let mut x = random.normals(inputs, 1.0);
        for j in 1..inputs {
            x[j] = 0.7 * x[j - 1] + 0.7 * x[j];
        }
        x[5] *= 30.0;
        for (row, a) in h.chunks_exact_mut(inputs).zip(&x) {
            for (sum, b) in row.iter_mut().zip(&x) {
                *sum += a * b;
            }
        }
    }
    let error = |product: &Product| -> f64 {
        let values = values(product);
        let rows = weights
            .chunks_exact(inputs)
            .zip(values.chunks_exact(inputs));
        let of_row = |(w, v): (&[f32], &[f32])| -> f64 {
            let left = |j: usize| f64::from(w[j] - v[j]);
            let pairs = (0..inputs * inputs).map(|e| (e / inputs, e % inputs, h[e]));
            pairs
                .map(|(i, j, h)| left(i) * f64::from(h) * left(j))
                .sum()
        };
        rows.map(of_row).sum()
    };
    let hessian = Hessian::new(&h, inputs, 0.01).unwrap();
    let seeing = error(&product(&weights, &hessian, rank, F32).unwrap());
    let blind = error(&product(&weights, &equal(inputs), rank, F32).unwrap());
    assert!(seeing < 0.5 * blind, "{seeing} against {blind}");
}

/// Weights in which something is out of line stay finite, and as near as others.
#[test]
fn constant_zero_and_outlying_weights() {
    let (outputs, inputs, rank) = (20, 12, 4);
    let mut random = Random::new(6);
    let normal = random.normals(outputs * inputs, 0.1);
    let with = |change: &dyn Fn(usize, usize, f32) -> f32| -> Vec<f32> {
        let places = normal.iter().enumerate();
        places
            .map(|(e, &w)| change(e / inputs, e % inputs, w))
            .collect()
    };
    let usual = left(&normal, &values(&fit(&normal, inputs, rank)));
    for (name, weights, most) in [
        ("constant", with(&|_, _, _| 0.3), 1e-9),
        (
            "a row of zeros",
            with(&|i, _, w| if i == 3 { 0.0 } else { w }),
            usual * 1.2,
        ),
        (
            "a column of zeros",
            with(&|_, j, w| if j == 3 { 0.0 } else { w }),
            usual * 1.2,
        ),
        (
            "a large column",
            with(&|_, j, w| if j == 3 { 1e4 * w } else { w }),
            usual,
        ),
        (
            "a large row",
            with(&|i, _, w| if i == 3 { 1e4 * w } else { w }),
            usual,
        ),
        ("huge", with(&|_, _, w| 3e38 * w), usual * 1.01),
        ("tiny", with(&|_, _, w| 1e-30 * w), usual * 1.01),
    ] {
        let found = values(&fit(&weights, inputs, rank));
        assert!(found.iter().all(|value| value.is_finite()), "{name}");
        let left = left(&weights, &found);
        assert!(left <= most, "{name}: {left}, not {most}");
    }
    let zeros = fit(&vec![0.0; outputs * inputs], inputs, rank);
    assert!(values(&zeros).iter().all(|&value| value == 0.0));
    assert!(zeros.first.widths.iter().all(|&width| width == 0));
}

#[test]
fn scales_are_numbers_of_the_type_that_stores_them() {
    let mut random = Random::new(9);
    let weights = random.normals(48 * 40, 0.1);
    let left = |kind: CoordinateType| {
        let found = product(&weights, &equal(40), 16, kind).unwrap();
        let scales = found.scale.iter().map(|c| c.abs());
        let all = scales.chain(found.first.coordinates.iter().copied());
        let mut all = all.chain(found.second.coordinates.iter().copied());
        assert!(all.all(|scale| kind.holds(scale)), "{kind:?}");
        left(&weights, &values(&found))
    };
    let exact = left(F32);
    for kind in [F16, Bf16] {
        let rounded = left(kind);
        assert!(
            (rounded - exact).abs() < 0.05 * exact,
            "{kind:?}: {rounded}, {exact}"
        );
    }
}

#[test]
fn the_same_weights_give_the_same_bits() {
    let weights = Random::new(1).normals(150 * 70, 0.1);
    assert_eq!(fit(&weights, 70, 20), fit(&weights, 70, 20));
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let mut weights = vec![0.1; 12];
    weights[7] = f32::NAN;
    let error = product(&weights, &equal(4), 2, F32);
    assert_eq!(error, Err(SketchError::NotFinite { index: 7 }));
}

#[test]
#[should_panic(expected = "`rank` is 0")]
fn a_rank_of_none_panics() {
    let _ = product(&[0.1; 12], &equal(4), 0, F32);
}

#[test]
#[should_panic(expected = "`weights` holds 13 values")]
fn a_part_of_an_output_panics() {
    let _ = product(&[0.1; 13], &equal(4), 2, F32);
}
