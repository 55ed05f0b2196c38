//! Laws of sketching.

mod support;

use multibit::CoordinateType::{self, Bf16, F16, F32};
use multibit::fit::{self, SketchError, greedy, reconstruct, sketch};
use support::{Random, State};

fn squared_error(weights: &[f32], state: &State) -> f64 {
    let pairs = weights.iter().zip(state.reconstruct());
    pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[test]
fn a_further_basis_never_hurts() {
    let mut random = Random::new(1);
    for len in [1, 3, 9, 25, 400] {
        let weights = random.normals(4 * len, 0.1);
        let norm: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
        let mut last = norm;
        for max_bits in 1..=8 {
            let state = State::sketched(&weights, len, max_bits);
            state.assert_invariants("sketch");
            let error = squared_error(&weights, &state);
            // Coordinates are rounded to f32: a relative 1e-7 of each weight.
            let rounding = 1e-12 * norm;
            assert!(error <= last + rounding, "{len}: {error} after {last}");
            last = error;
        }
        assert!(last < 0.1 * norm, "8 bits leave {} of {len}", last / norm);
    }
}

/// Weights of many kinds, 720 of each.
fn kinds() -> Vec<(&'static str, Vec<f32>)> {
    let mut random = Random::new(6);
    let normals = random.normals(720, 0.05);
    let each = |f: &dyn Fn(usize, f32) -> f32| -> Vec<f32> {
        let numbered = normals.iter().enumerate();
        numbered.map(|(i, &x)| f(i, x)).collect()
    };
    vec![
        ("uniform", (0..720).map(|_| random.unit() - 0.5).collect()),
        ("pruned", each(&|_, x| if x.abs() < 0.06 { 0.0 } else { x })),
        ("of three values", each(&|i, _| [0.25, -0.25, 0.0][i % 3])),
        ("on a grid", each(&|_, x| (x * 100.0).round() * 0.01)),
        ("shifted", each(&|_, x| x + 0.2)),
        ("of one sign", each(&|_, x| x.abs())),
        (
            "with outliers",
            each(&|i, x| if i % 97 == 5 { 4.0 } else { x }),
        ),
        ("constant", each(&|_, _| 0.3)),
        ("zero", each(&|_, _| 0.0)),
        ("zero but one", each(&|i, _| f32::from(u8::from(i == 100)))),
        ("large for f16", each(&|_, x| 1e7 * x)),
        ("small for f16", each(&|_, x| 1e-6 * x)),
        ("nothing for f16", each(&|_, x| 1e-9 * x)),
        ("normal", normals.clone()),
    ]
}

/// Squared errors of each group.
fn group_errors(weights: &[f32], sketch: &fit::Sketch, coordinates: &[f32]) -> Vec<f64> {
    let (len, max_bits) = (sketch.len, sketch.max_bits);
    let mut values = vec![0.0; weights.len()];
    reconstruct(
        &sketch.codes,
        coordinates,
        &sketch.widths,
        len,
        max_bits,
        &mut values,
    );
    let groups = weights.chunks(len).zip(values.chunks(len));
    let square = |(&w, &v): (&f32, &f32)| (f64::from(w) - f64::from(v)).powi(2);
    groups
        .map(|(w, v)| w.iter().zip(v).map(square).sum())
        .collect()
}

#[test]
fn a_sketch_is_never_worse_than_the_greedy_one() {
    for (name, weights) in kinds() {
        for len in [1, 2, 3, 9, 40, 720] {
            for bits in 1..=8 {
                let plain = greedy(&weights, len, bits).unwrap();
                for kind in [F32, F16, Bf16] {
                    let what = format!("{name}, groups of {len}, {bits} bits, {kind}");
                    let found = sketch(&weights, len, bits, kind).unwrap();
                    State::from_sketch(found.clone()).assert_invariants(&what);
                    // What is nearest to 0 is 0; what is beyond the type is its largest.
                    let round = |&a: &f32| {
                        if kind.nearest(a) == 0.0 {
                            0.0
                        } else {
                            kind.round(a)
                        }
                    };
                    let rounded: Vec<f32> = plain.coordinates.iter().map(round).collect();
                    let plain_errors = group_errors(&weights, &plain, &rounded);
                    let errors = group_errors(&weights, &found, &found.coordinates);
                    let of_groups = errors.iter().zip(&plain_errors).enumerate();
                    for (group, (error, plain)) in of_groups {
                        assert!(error <= plain, "{what}: {error} after {plain} in {group}");
                    }
                    assert!(found.coordinates.iter().all(|&a| kind.holds(a)), "{what}");
                    let widths = found.widths.iter().zip(&plain.widths);
                    for (found, plain) in widths {
                        assert!(found <= plain, "{what}: no bases are added");
                        assert!(kind != F32 || found == plain, "{what}: none is lost");
                    }
                }
            }
        }
    }
}

/// What is left of normal weights, near the best that any levels could leave (Lloyd and Max: 0.343,
/// 0.186, 0.0975, 0.0500 for 2 to 5 bits, and half with each further bit).
#[test]
fn a_sketch_is_near_the_best() {
    let weights = Random::new(7).normals(16 * 1024, 0.1);
    let norm: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
    let bounds = [0.345, 0.188, 0.100, 0.053, 0.028, 0.0145, 0.0080];
    for (bits, bound) in (2..=8).zip(bounds) {
        for (kind, room) in [(F32, 1.0), (F16, 1.01), (Bf16, 1.08)] {
            let found = sketch(&weights, 1024, bits, kind).unwrap();
            let errors = group_errors(&weights, &found, &found.coordinates);
            let left = (errors.iter().sum::<f64>() / norm).sqrt();
            assert!(left < room * bound, "{bits} bits, {kind}: {left}");
        }
    }
}

/// Coordinates of two bytes are fitted as they are stored: rounding those of f32 leaves more.
#[test]
fn coordinates_of_two_bytes_make_up_for_each_other() {
    let weights = Random::new(8).normals(64 * 300, 0.1);
    let left = |kind: CoordinateType, round: bool| {
        let mut found = sketch(&weights, 300, 8, kind).unwrap();
        if round {
            found
                .coordinates
                .iter_mut()
                .for_each(|a| *a = Bf16.round(*a));
        }
        let errors = group_errors(&weights, &found, &found.coordinates);
        errors.iter().sum::<f64>().sqrt()
    };
    let (exact, fitted, rounded) = (left(F32, false), left(Bf16, false), left(F32, true));
    assert!(fitted < 1.1 * exact, "{fitted} of {exact}");
    assert!(fitted < 0.98 * rounded, "{fitted} of {rounded}");
}

#[test]
fn coordinates_ascend() {
    let weights = Random::new(2).normals(10 * 30, 1.0);
    let sketch = sketch(&weights, 30, 5, F32).unwrap();
    for (slots, &width) in sketch.coordinates.chunks(5).zip(&sketch.widths) {
        assert!(slots[..usize::from(width)].is_sorted(), "{slots:?}");
    }
    assert!(sketch.widths.iter().all(|&width| width == 5));
}

#[test]
fn a_group_of_exactly_k_bases_is_recovered() {
    let mut random = Random::new(3);
    for k in 1..=4u8 {
        // Each coordinate above the sum of the smaller ones: greedy signs find the bases.
        let mut truth = State::random(&mut random, 64, 4, &[k; 5]);
        for slots in truth.coordinates.chunks_mut(4) {
            for (i, alpha) in slots[..usize::from(k)].iter_mut().enumerate() {
                *alpha = 0.1 * 3f32.powi(i as i32);
            }
        }
        let weights = truth.reconstruct();
        let found = State::sketched(&weights, 64, 8);
        assert_eq!(found.widths, [k; 5]);
        for (group, slots) in found.coordinates.chunks(8).enumerate() {
            let truth = &truth.coordinates[group * 4..][..usize::from(k)];
            for (found, truth) in slots.iter().zip(truth) {
                // Least squares in f64 on weights rounded to f32.
                assert!((found - truth).abs() < 1e-6, "{found} for {truth}");
            }
        }
        let mask = ((1u16 << k) - 1) as u8;
        assert!(found.codes.iter().all(|code| code & !mask == 0));
        assert_eq!(found.codes, truth.codes);
    }
}

#[test]
fn one_basis_is_the_mean_magnitude() {
    let state = State::sketched(&[0.5, -1.5, 0.0, -2.0], 4, 1);
    assert_eq!(state.coordinates, [1.0]);
    assert_eq!(state.codes, [0, 1, 0, 1], "sign(0) is +1");
}

#[test]
fn two_magnitudes_are_exact_with_two_bases() {
    let weights = [3.0, -1.0, 1.0, -3.0];
    let state = State::sketched(&weights, 4, 6);
    assert_eq!(state.coordinates, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(state.reconstruct(), weights);
}

#[test]
fn a_group_has_no_more_bases_than_weights() {
    let state = State::sketched(&[0.3, 0.7, -0.1, 5.0], 1, 6);
    assert_eq!(state.widths, [1; 4]);
    assert_eq!(state.reconstruct(), [0.3, 0.7, -0.1, 5.0]);
}

#[test]
fn zeros_and_numbers_too_small_get_no_basis() {
    let tiny = f32::from_bits(3);
    for value in [0.0, -0.0, tiny] {
        let state = State::sketched(&[value; 10], 5, 6);
        assert_eq!(state.widths, [0, 0], "{value:e}");
        state.assert_invariants("tiny");
        assert_eq!(state.reconstruct(), [0.0; 10]);
    }
}

#[test]
fn extreme_magnitudes_stay_finite() {
    for scale in [1e-36, 1e-30, 1e-20, 1e20, 1e37] {
        let weights: Vec<f32> = Random::new(4).normals(40, scale);
        let state = State::sketched(&weights, 20, 6);
        state.assert_invariants("extreme");
        let norm: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
        assert!(
            squared_error(&weights, &state) < 0.01 * norm,
            "six bits of twenty normal weights at {scale:e}"
        );
    }
    let state = State::sketched(&[f32::MAX, -f32::MAX, f32::MAX], 3, 6);
    assert_eq!(state.reconstruct(), [f32::MAX, -f32::MAX, f32::MAX]);
}

#[test]
fn what_is_not_finite_is_an_error() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let weights = [1.0, 2.0, value, 4.0];
        assert_eq!(
            sketch(&weights, 2, 3, F32),
            Err(SketchError::NotFinite { index: 2 })
        );
        assert_eq!(
            greedy(&weights, 2, 3),
            Err(SketchError::NotFinite { index: 2 })
        );
    }
}

#[test]
#[should_panic(expected = "`weights` holds 7 values, not a whole number of groups of 2")]
fn a_ragged_weight_is_refused() {
    let _ = sketch(&[0.0; 7], 2, 3, F32);
}

#[test]
#[should_panic(expected = "`max_bits` is 9, but must be 1 to 8")]
fn more_bits_than_a_code_has_are_refused() {
    let _ = greedy(&[0.0; 8], 2, 9);
}
