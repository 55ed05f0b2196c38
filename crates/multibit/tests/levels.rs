//! The levels of activations.

use multibit::cpu::{Levels, LevelsError};

#[test]
fn all_sums_of_the_coordinates_in_order() {
    let levels = Levels::new(1.0, &[0.5, 0.25]).unwrap();
    assert_eq!(levels.values(), [0.25, 0.75, 1.25, 1.75]);
    assert_eq!(levels.thresholds(), [0.5, 1.0, 1.5]);
    // The nearest; half-way the lower one; NaN the lowest.
    let cases = [
        (-9.0, 0.25),
        (0.5, 0.25),
        (0.51, 0.75),
        (1.4, 1.25),
        (9.0, 1.75),
        (f32::NAN, 0.25),
    ];
    for (x, level) in cases {
        assert_eq!(levels.quantize(x), level, "{x}");
    }
}

#[test]
fn uniform_levels_begin_at_zero() {
    let levels = Levels::uniform(2, 3.0).unwrap();
    assert_eq!(levels.values(), [0.0, 1.0, 2.0, 3.0]);
    assert_eq!(Levels::uniform(1, 2.0).unwrap().values(), [0.0, 2.0]);
}

#[test]
fn a_fit_finds_the_levels_that_made_the_data() {
    let made = Levels::new(1.5, &[1.1, 0.4]).unwrap();
    // Seven activations at each level, assigned to other levels in the same order.
    let counts = [7.0; 4];
    let sums: Vec<f64> = made.values().iter().map(|&x| 7.0 * f64::from(x)).collect();
    let fitted = Levels::uniform(2, 5.0).unwrap().refit(&counts, &sums);
    for (found, expected) in fitted.values().iter().zip(made.values()) {
        // The weight of the present values is a millionth.
        assert!((found - expected).abs() < 1e-4, "{fitted:?}");
    }
}

#[test]
fn levels_that_nothing_takes_do_no_harm() {
    let levels = Levels::uniform(3, 7.0).unwrap();
    let mut counts = [0.0; 8];
    let mut sums = [0.0; 8];
    (counts[2], sums[2]) = (10.0, 21.0);
    let fitted = levels.refit(&counts, &sums);
    assert!((fitted.values()[2] - 2.1).abs() < 1e-3, "{fitted:?}");
    assert_eq!(levels.refit(&[0.0; 8], &[0.0; 8]), levels, "no data");
    assert_eq!(
        levels.refit(&[1.0; 8], &[f64::NAN; 8]),
        levels,
        "not a number"
    );
}

#[test]
fn blending_keeps_its_share() {
    let (old, new) = (Levels::uniform(1, 2.0), Levels::uniform(1, 4.0));
    let blend = old.unwrap().blend(&new.unwrap(), 0.75);
    assert_eq!(blend.values(), [0.0, 2.5]);
}

#[test]
fn what_is_no_level_is_named() {
    let error = |reference, gammas: &[f32]| Levels::new(reference, gammas).unwrap_err();
    assert_eq!(error(0.0, &[]), LevelsError::Bits { bits: 0 });
    assert_eq!(error(0.0, &[1.0; 5]), LevelsError::Bits { bits: 5 });
    assert_eq!(
        error(0.0, &[1.0, -2.0]).to_string(),
        "coordinate 1 is not positive and finite"
    );
    assert_eq!(
        error(f32::INFINITY, &[1.0]).to_string(),
        "x_ref is not finite"
    );
}

#[test]
fn many_values_at_once() {
    let levels = Levels::new(0.4, &[0.7, 0.2, 0.3]).unwrap();
    let x: Vec<f32> = (0..40_001).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
    let mut found = vec![f32::NAN; x.len()];
    levels.quantize_all(&x, &mut found);
    let expected: Vec<f32> = x.iter().map(|&x| levels.quantize(x)).collect();
    assert_eq!(found, expected);
}
