//! Laws of sketching.

mod support;

use multibit::fit::{SketchError, sketch};
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

#[test]
fn coordinates_ascend() {
    let weights = Random::new(2).normals(10 * 30, 1.0);
    let sketch = sketch(&weights, 30, 5).unwrap();
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
            sketch(&weights, 2, 3),
            Err(SketchError::NotFinite { index: 2 })
        );
    }
}

#[test]
#[should_panic(expected = "`weights` holds 7 values, not a whole number of groups of 2")]
fn a_ragged_weight_is_refused() {
    let _ = sketch(&[0.0; 7], 2, 3);
}

#[test]
#[should_panic(expected = "`max_bits` is 9, but must be 1 to 8")]
fn more_bits_than_a_code_has_are_refused() {
    let _ = sketch(&[0.0; 8], 2, 9);
}
