//! Laws of sketching by what samples of the inputs say, and of choosing bitwidths.

mod support;

use multibit::CoordinateType::{self, Bf16, F16, F32};
use multibit::fit::{Hessian, HessianError, Sketch, SketchError, allocate, calibrate};
use multibit::fit::{reconstruct, sketch};
use support::{Random, State};

const DAMPING: f64 = 0.01;

/// `Σ x xᵀ` over samples whose neighbours depend on each other, some larger than others.
fn moments(random: &mut Random, d: usize, samples: usize) -> Vec<f64> {
    let mut h = vec![0.0; d * d];
    for _ in 0..samples {
        let mut x = random.normals(d, 1.0);
        for j in 1..d {
            x[j] = (0.8 * x[j - 1] + 0.6 * x[j]) * if j % 5 == 3 { 2.0 } else { 1.0 };
        }
        for (row, a) in h.chunks_exact_mut(d).zip(&x) {
            for (sum, b) in row.iter_mut().zip(&x) {
                *sum += f64::from(a * b);
            }
        }
    }
    h
}

/// What damping makes of it, with a diagonal of mean 1.
fn damped(h: &[f64], d: usize) -> Vec<f64> {
    let mean = h.iter().step_by(d + 1).sum::<f64>() / d as f64;
    let entry = |(i, &x): (usize, &f64)| {
        let share = if i % (d + 1) == 0 {
            DAMPING * mean
        } else {
            0.0
        };
        (x + share) / (mean * (1.0 + DAMPING))
    };
    h.iter().enumerate().map(entry).collect()
}

/// `(w − ŵ)ᵀ H (w − ŵ)`.
fn form(w: &[f32], values: &[f32], h: &[f64]) -> f64 {
    let d = w.len();
    let left: Vec<f64> = w
        .iter()
        .zip(values)
        .map(|(a, b)| f64::from(*a) - f64::from(*b))
        .collect();
    let row = |i: usize| -> f64 { (0..d).map(|k| h[i * d + k] * left[k]).sum() };
    (0..d).map(|i| left[i] * row(i)).sum()
}

fn values(sketch: &Sketch) -> Vec<f32> {
    let mut values = vec![0.0; sketch.codes.len()];
    let (len, max_bits) = (sketch.len, sketch.max_bits);
    reconstruct(
        &sketch.codes,
        &sketch.coordinates,
        &sketch.widths,
        len,
        max_bits,
        &mut values,
    );
    values
}

/// Errors of all outputs.
fn errors(weights: &[f32], sketch: &Sketch, h: &[f64], d: usize) -> f64 {
    let rows = weights.chunks_exact(d);
    let values = values(sketch);
    rows.zip(values.chunks_exact(d))
        .map(|(w, v)| form(w, v, h))
        .sum()
}

/// The least error that coordinates for these codes leave, by eliminating `(BᵀHB | BᵀHw)`.
fn best_of(codes: usize, bits: usize, w: &[f32], h: &[f64]) -> f64 {
    let d = w.len();
    let sign = |i: usize, j: usize| {
        if codes >> (j * bits + i) & 1 == 1 {
            -1.0f64
        } else {
            1.0
        }
    };
    let product = |a: &dyn Fn(usize) -> f64, b: &dyn Fn(usize) -> f64| -> f64 {
        (0..d * d).map(|e| a(e / d) * h[e] * b(e % d)).sum()
    };
    let target = |j: usize| f64::from(w[j]);
    let rhs: Vec<f64> = (0..bits)
        .map(|i| product(&|j| sign(i, j), &target))
        .collect();
    let gram = |i: usize, k: usize| product(&|j| sign(i, j), &|j| sign(k, j));
    let whole = product(&target, &target);
    match bits {
        1 => whole - rhs[0] * rhs[0] / gram(0, 0),
        _ => {
            let (a, b, c) = (gram(0, 0), gram(0, 1), gram(1, 1));
            let determinant = a * c - b * b;
            if determinant < 1e-9 * a * c {
                return whole - rhs[0] * rhs[0] / a;
            }
            let x = (c * rhs[0] - b * rhs[1]) / determinant;
            let y = (a * rhs[1] - b * rhs[0]) / determinant;
            whole - rhs[0] * x - rhs[1] * y
        }
    }
}

#[test]
fn near_the_best_of_all_codes() {
    for (bits, d) in [(1, 7), (2, 5)] {
        let (mut found, mut best, mut free) = (0.0, 0.0, 0.0);
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let h = moments(&mut random, d, 20);
            let hessian = Hessian::new(&h, d, DAMPING).unwrap();
            let h = damped(&h, d);
            let w = random.normals(d, 0.1);
            let codes = 0..1usize << (bits * d);
            let least = codes.map(|codes| best_of(codes, bits, &w, &h));
            let least = least.fold(f64::INFINITY, f64::min);
            let each = calibrate(&w, &hessian, d, &[bits as u8], F32, 20).unwrap();
            let error = errors(&w, &each, &h, d);
            assert!(
                error >= least * (1.0 - 1e-4) - 1e-9,
                "{error} is below {least}"
            );
            found += error;
            best += least;
            free += errors(&w, &sketch(&w, d, bits, F32).unwrap(), &h, d);
        }
        assert!(found < 1.5 * best, "{bits} bits: {found}, at best {best}");
        assert!(
            found < 0.7 * free,
            "{bits} bits: {found}, without inputs {free}"
        );
    }
}

/// Weights, the Hessian of their inputs and that as numbers: of groups of odd lengths, of inputs that
/// are always 0, of fewer samples than inputs, of none.
fn cases() -> Vec<(&'static str, usize, usize, Vec<f64>)> {
    let mut random = Random::new(5);
    let mut dead = moments(&mut random, 36, 90);
    for i in 0..36 * 36 {
        if [7, 8, 20]
            .iter()
            .any(|dead| i / 36 == *dead || i % 36 == *dead)
        {
            dead[i] = 0.0;
        }
    }
    let plain = moments(&mut random, 36, 90);
    vec![
        ("one group", 36, 36, plain.clone()),
        ("groups of 9", 36, 9, plain.clone()),
        ("groups of 1", 36, 1, plain),
        ("odd groups", 35, 7, moments(&mut random, 35, 200)),
        ("longer than a block", 99, 33, moments(&mut random, 99, 300)),
        ("dead inputs", 36, 12, dead),
        ("singular", 40, 20, moments(&mut random, 40, 6)),
        ("no sample", 40, 20, vec![0.0; 1600]),
    ]
}

#[test]
fn sweeps_never_hurt_and_inputs_help() {
    for (name, d, len, h) in cases() {
        let weights = Random::new(6).normals(12 * d, 0.1);
        let hessian = Hessian::new(&h, d, DAMPING).unwrap();
        let known = h.iter().any(|&x| x != 0.0);
        let h = if known {
            damped(&h, d)
        } else {
            (0..d * d)
                .map(|i| f64::from(u8::from(i % (d + 1) == 0)))
                .collect()
        };
        for bits in 1..=4u8 {
            for kind in [F32, F16, Bf16] {
                let what = format!("{name}, {bits} bits, {kind}");
                let free = sketch(&weights, len, bits.into(), kind).unwrap();
                let free = errors(&weights, &free, &h, d);
                let mut last = f64::INFINITY;
                for sweeps in [0, 1, 2, 6] {
                    let widths = vec![bits; weights.len() / len];
                    let found = calibrate(&weights, &hessian, len, &widths, kind, sweeps).unwrap();
                    State::from_sketch(found.clone()).assert_invariants(&what);
                    assert!(found.coordinates.iter().all(|&a| kind.holds(a)), "{what}");
                    let error = errors(&weights, &found, &h, d);
                    // Sums are f32.
                    assert!(error <= last * (1.0 + 1e-5), "{what}: {error} after {last}");
                    last = error;
                }
                let share = if known && len > 1 { 0.95 } else { 1.0 + 1e-6 };
                assert!(
                    last <= share * free,
                    "{what}: {last}, without inputs {free}"
                );
            }
        }
    }
}

/// A sweep that changes nothing leaves no single weight that would rather have another level.
#[test]
fn no_weight_alone_would_move() {
    let (d, len, bits) = (24, 8, 2);
    let mut random = Random::new(9);
    let h = moments(&mut random, d, 60);
    let hessian = Hessian::new(&h, d, DAMPING).unwrap();
    let h = damped(&h, d);
    let w = random.normals(d, 0.1);
    let found = calibrate(&w, &hessian, len, &[bits; 3], F32, 100).unwrap();
    let error = errors(&w, &found, &h, d);
    for j in 0..d {
        for code in 0..1 << bits {
            let mut other = found.clone();
            other.codes[j] = code;
            let moved = errors(&w, &other, &h, d);
            assert!(
                moved > error * (1.0 - 1e-5),
                "weight {j}: {moved} of {error}"
            );
        }
    }
}

#[test]
fn without_dependence_it_is_the_sketch_or_better() {
    let (d, len) = (60, 15);
    let weights = Random::new(3).normals(8 * d, 0.2);
    let identity: Vec<f32> = (0..d * d)
        .map(|i| f32::from(u8::from(i % (d + 1) == 0)))
        .collect();
    let ones = Hessian::diagonal(&vec![3.0f32; d], DAMPING).unwrap();
    for bits in 1..=8u8 {
        let widths = vec![bits; weights.len() / len];
        let free = sketch(&weights, len, bits.into(), F16).unwrap();
        let found = calibrate(&weights, &ones, len, &widths, F16, 0).unwrap();
        let h: Vec<f64> = identity.iter().copied().map(f64::from).collect();
        let [free, found] = [&free, &found].map(|sketch| errors(&weights, sketch, &h, d));
        assert!(
            found <= free * (1.0 + 1e-6),
            "{bits} bits: {found}, sketched {free}"
        );
        let full = Hessian::new(&identity, d, DAMPING).unwrap();
        let full = calibrate(&weights, &full, len, &widths, F16, 4).unwrap();
        let full = errors(&weights, &full, &h, d);
        assert!(
            full <= free * (1.0 + 1e-6),
            "{bits} bits: {full}, sketched {free}"
        );
    }
}

/// A weight that no input shows does not cost the others.
#[test]
fn weights_count_what_their_inputs_do() {
    let weights = [0.1, -0.1, 0.1, 50.0];
    let diagonal = Hessian::diagonal(&[1.0, 1.0, 1.0, 0.0], 0.0).unwrap();
    let found = calibrate(&weights, &diagonal, 4, &[1], F32, 1).unwrap();
    assert!(
        (found.coordinates[0] - 0.1).abs() < 1e-6,
        "{:?}",
        found.coordinates
    );
    let equal = Hessian::diagonal(&[1.0; 4], 0.0).unwrap();
    let found = calibrate(&weights, &equal, 4, &[1], F32, 1).unwrap();
    assert!(found.coordinates[0] > 10.0, "{:?}", found.coordinates);
}

#[test]
fn groups_keep_their_widths() {
    let d = 24;
    let mut random = Random::new(2);
    let hessian = Hessian::new(&moments(&mut random, d, 50), d, DAMPING).unwrap();
    let mut weights = random.normals(2 * d, 0.1);
    weights[40..].fill(0.0);
    let widths = [0, 3, 1, 2, 0, 2];
    let found = calibrate(&weights, &hessian, 8, &widths, F16, 3).unwrap();
    assert_eq!((found.max_bits, found.len), (3, 8));
    assert_eq!(
        found.widths[..5],
        widths[..5],
        "the last had to make up for one before"
    );
    assert_eq!(values(&found)[..8], [0.0; 8]);
    State::from_sketch(found).assert_invariants("widths");
    let none = calibrate(&weights, &hessian, 8, &[0; 6], F16, 3).unwrap();
    assert_eq!(values(&none), [0.0; 48]);
    assert!(
        calibrate(&[], &hessian, 8, &[], F16, 3)
            .unwrap()
            .codes
            .is_empty()
    );
}

/// Samples of `y` on other inputs than those that the weights were made for.
#[test]
fn least_squares_finds_the_weights_of_the_outputs() {
    let (d, outputs) = (10, 3);
    let mut random = Random::new(4);
    let (w, wanted) = (
        random.normals(outputs * d, 1.0),
        random.normals(outputs * d, 1.0),
    );
    let (mut h, mut lacking) = (vec![0.0; d * d], vec![0.0; outputs * d]);
    for _ in 0..100 {
        let x = random.normals(d, 30.0);
        for (row, a) in h.chunks_exact_mut(d).zip(&x) {
            row.iter_mut()
                .zip(&x)
                .for_each(|(sum, b)| *sum += f64::from(a * b));
        }
        for (output, row) in lacking.chunks_exact_mut(d).enumerate() {
            let pairs = wanted[output * d..].iter().zip(&w[output * d..]).zip(&x);
            let e: f64 = pairs.map(|((y, w), x)| f64::from((y - w) * x)).sum();
            row.iter_mut()
                .zip(&x)
                .for_each(|(sum, x)| *sum += e * f64::from(*x));
        }
    }
    let found = Hessian::new(&h, d, 0.0)
        .unwrap()
        .least_squares(&w, &lacking);
    for (found, wanted) in found.iter().zip(&wanted) {
        assert!((found - wanted).abs() < 1e-4, "{found}, not {wanted}");
    }
    let kept = Hessian::new(&h, d, 1e9)
        .unwrap()
        .least_squares(&w, &lacking);
    for (kept, w) in kept.iter().zip(&w) {
        assert!((kept - w).abs() < 1e-4, "damping keeps {w}, not {kept}");
    }
    let alone: Vec<f64> = h.iter().step_by(d + 1).copied().collect();
    let alone = Hessian::diagonal(&alone, 0.0)
        .unwrap()
        .least_squares(&w, &lacking);
    let first = f64::from(w[0]) + lacking[0] / h[0];
    assert!((f64::from(alone[0]) - first).abs() < 1e-5);
}

#[test]
fn what_is_no_hessian_is_refused() {
    let not_finite = |row, column| HessianError::NotFinite {
        inputs: 2,
        row,
        column,
    };
    let indefinite = |row| HessianError::Indefinite { inputs: 2, row };
    let new = |matrix: [f64; 4]| Hessian::new(&matrix, 2, DAMPING).unwrap_err();
    assert_eq!(new([1.0, 0.0, f64::NAN, 1.0]), not_finite(1, 0));
    assert_eq!(new([f64::INFINITY, 0.0, 0.0, 1.0]), not_finite(0, 0));
    assert_eq!(new([1.0, 0.0, 0.0, -1.0]), indefinite(1));
    assert_eq!(new([1.0, 0.0, 2.0, 1.0]), indefinite(0));
    let diagonal = |diagonal: [f32; 2]| Hessian::diagonal(&diagonal, 0.0).unwrap_err();
    assert_eq!(diagonal([1.0, f32::NAN]), not_finite(1, 1));
    assert_eq!(diagonal([-1.0, 1.0]), indefinite(0));
    let text = not_finite(1, 0).to_string();
    assert_eq!(
        text,
        "the Hessian of 2 inputs is not finite at row 1, column 0"
    );
    assert!(
        indefinite(0)
            .to_string()
            .ends_with("not positive semidefinite: found at row 0")
    );
    let huge = Hessian::new(&[f64::MAX, 0.0, 0.0, f64::MAX], 2, DAMPING).unwrap();
    let weights = [1.0, f32::NAN];
    let error = SketchError::NotFinite { index: 1 };
    assert_eq!(calibrate(&weights, &huge, 2, &[1], F32, 1), Err(error));
}

#[test]
#[should_panic(expected = "10 inputs are not a whole number of groups of 4")]
fn groups_of_other_lengths_are_refused() {
    let hessian = Hessian::diagonal(&[1.0; 10], 0.0).unwrap();
    let _ = calibrate(&[0.0; 20], &hessian, 4, &[1; 5], CoordinateType::F32, 0);
}

/// Of all widths that fit, those chosen leave the least: the curves are convex and bases alike.
#[test]
fn a_budget_goes_where_it_takes_most_away() {
    let curves = [
        [8.0, 4.0, 2.0, 1.0], // halves
        [2.0, 0.5, 0.1, 0.0],
        [100.0, 10.0, 1.0, 0.5],
        [0.0, 0.0, 0.0, 0.0], // a group of zeros
    ];
    let flat: Vec<f64> = curves.iter().flatten().copied().collect();
    for budget in 0..13 {
        let widths = allocate(&flat, 3, &[10; 4], 10 * budget + 9);
        let left = |widths: &[usize]| -> f64 { (0..4).map(|g| curves[g][widths[g]]).sum() };
        let all = (0..256).map(|i| [i & 3, i >> 2 & 3, i >> 4 & 3, i >> 6]);
        let fitting = all.filter(|widths| widths.iter().sum::<usize>() <= budget);
        let best = fitting
            .map(|widths| left(&widths))
            .fold(f64::INFINITY, f64::min);
        let widths: Vec<usize> = widths.iter().map(|&width| width.into()).collect();
        assert!(widths.iter().sum::<usize>() <= budget && widths[3] == 0);
        assert_eq!(left(&widths), best, "{budget} bases: {widths:?}");
    }
    // The first basis alone gains nothing, two together much; a basis of fewer bits is cheaper.
    assert_eq!(
        allocate(&[9.0, 9.0, 0.0, 4.0, 2.0, 1.0], 2, &[5, 5], 10),
        [2, 0]
    );
    assert_eq!(allocate(&[4.0, 1.0, 4.0, 1.0], 1, &[9, 5], 9), [0, 1]);
}
