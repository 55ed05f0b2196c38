//! Numbers at the edges of f32, and beyond: the right answer or a named error, never a panic that
//! is not documented. The quantizer and the packed form; kernels are in `kernel_numbers.rs`.

mod support;

use multibit::fit::{
    SketchError, StepParams, basis, coordinate, drop_coordinates, importance, local_model, project,
    reconstruct, sketch, ste,
};
use multibit::{CoordinateType, Grouping, PackedWeight};
use support::{Random, State, panic_message};

/// What a gradient should not be, but may.
const HOSTILE: [f32; 8] = [
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::MAX,
    -1e30,
    1e-45,
    -1e-30,
    0.0,
];

fn valid(state: &State, what: &str) {
    state.assert_invariants(what);
    let groups = state.groups();
    let shape = [state.len, groups];
    let grouping = Grouping::subchannelwise(&shape, 1).unwrap();
    let packed = PackedWeight::pack(
        &shape,
        grouping,
        state.max_bits,
        &state.codes,
        &state.coordinates,
        &state.widths,
    );
    let grouped = packed.unwrap().unpack_grouped();
    assert_eq!(grouped, state.reconstruct(), "{what}");
}

/// A power of two scales every number exactly, and f64 has room for all powers in between.
#[test]
fn a_sketch_scales_with_its_weights() {
    let weights = Random::new(1).normals(8 * 40, 1.0);
    let at_one = sketch(&weights, 40, 5, CoordinateType::F32).unwrap();
    for exponent in [-100, -30, 30, 100] {
        let scale = 2f32.powi(exponent);
        let scaled: Vec<f32> = weights.iter().map(|w| w * scale).collect();
        let sketch = sketch(&scaled, 40, 5, CoordinateType::F32).unwrap();
        assert_eq!(sketch.codes, at_one.codes, "2^{exponent}");
        let coordinates: Vec<f32> = at_one.coordinates.iter().map(|a| a * scale).collect();
        assert_eq!(sketch.coordinates, coordinates, "2^{exponent}");
    }
}

#[test]
fn sketches_of_few_different_weights_are_exact() {
    for value in [1e-37f32, 0.3, 1e30, f32::MAX] {
        for len in [1, 2, 100] {
            let state = State::sketched(&vec![-value; len], len, 8);
            assert_eq!(state.widths, [1]);
            assert_eq!(state.reconstruct(), vec![-value; len]);
            let value = 0.9 * value;
            let pairs: Vec<f32> = (0..2 * len)
                .map(|i| if i % 3 == 0 { value } else { -0.5 * value })
                .collect();
            let state = State::sketched(&pairs, 2 * len, 8);
            for (found, expected) in state.reconstruct().iter().zip(&pairs) {
                // A rounding of each of two coordinates and of their sum.
                let room = 2.0 * f32::EPSILON * expected.abs();
                assert!((found - expected).abs() <= room, "{found} for {expected}");
            }
        }
    }
}

#[test]
fn a_sketch_of_nothing_has_no_groups() {
    let sketch = sketch(&[], 4, 3, CoordinateType::F32).unwrap();
    assert!(sketch.codes.is_empty() && sketch.coordinates.is_empty() && sketch.widths.is_empty());
}

#[test]
fn weights_without_a_normal_number_become_zero() {
    for value in [0.0, -0.0, 1e-45, 1e-39] {
        let state = State::sketched(&[value, -value, value], 3, 4);
        assert_eq!(state.widths, [0], "{value}");
        assert_eq!(state.reconstruct(), [0.0; 3]);
    }
}

/// Near the largest f32 the sum of rounded coordinates may exceed it; it becomes that, not infinite.
#[test]
fn the_largest_weights_stay_finite() {
    let mut random = Random::new(2);
    for len in [3, 5, 50] {
        for _ in 0..200 {
            let weights: Vec<f32> = (0..len)
                .map(|_| f32::MAX * (1.0 - 0.1 * random.unit()))
                .collect();
            for kind in [
                CoordinateType::F32,
                CoordinateType::F16,
                CoordinateType::Bf16,
            ] {
                let state = State::from_sketch(sketch(&weights, len, 4, kind).unwrap());
                valid(&state, "sketch");
                assert!(state.reconstruct().iter().all(|w| w.is_finite()), "{kind}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_is_not_sketched() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = sketch(&[1.0, value, 1.0, 1.0], 2, 2, CoordinateType::Bf16);
        assert_eq!(error, Err(SketchError::NotFinite { index: 1 }));
    }
}

type Step = fn(&mut State, &[f32], &StepParams);

/// A step of each kind, by its name.
fn steps() -> [(&'static str, Step); 5] {
    fn out(state: &State) -> Vec<f32> {
        vec![f32::NAN; state.weights()]
    }
    fn checked(state: &State, out: &[f32]) {
        assert_eq!(out, state.reconstruct());
    }
    [
        ("basis", |state, grad, params| {
            let mut y = out(state);
            let mut w = state.parts();
            basis(&mut w, None, grad, params, &mut y);
            checked(state, &y);
        }),
        ("basis around a centre", |state, grad, params| {
            let mut y = out(state);
            let centre = state.reconstruct();
            let mut w = state.parts();
            basis(&mut w, Some(&centre), grad, params, &mut y);
            checked(state, &y);
        }),
        ("ste", |state, grad, params| {
            let mut y = out(state);
            let mut latent = state.reconstruct();
            let mut w = state.parts();
            ste(&mut w, &mut latent, grad, params, &mut y);
            checked(state, &y);
        }),
        ("coordinate", |state, grad, params| {
            let mut y = out(state);
            let mut w = state.parts();
            coordinate(&mut w, grad, params, &mut y);
            checked(state, &y);
        }),
        ("prune", |state, grad, params| {
            let mut y = out(state);
            let mut delta = vec![0.0; state.coordinates.len()];
            let mut w = state.parts();
            importance(&mut w, grad, params, &mut delta);
            let drop: Vec<bool> = delta.iter().map(|&delta| delta < 0.0).collect();
            drop_coordinates(&mut w, &drop, &mut y);
            checked(state, &y);
        }),
    ]
}

const WIDTHS: [u8; 5] = [0, 1, 3, 8, 2];

#[test]
fn no_gradient_breaks_a_weight() {
    let mut random = Random::new(3);
    for (name, step) in steps() {
        for len in [1, 7, 300] {
            for value in HOSTILE {
                for everywhere in [false, true] {
                    let mut state = State::random(&mut random, len, 8, &WIDTHS);
                    for t in 1..=3 {
                        let mut grad = random.normals(state.weights(), 0.1);
                        if everywhere {
                            grad.fill(value);
                        } else {
                            grad[len * 3] = value;
                        }
                        let params = StepParams {
                            t,
                            ..StepParams::default()
                        };
                        step(&mut state, &grad, &params);
                        valid(
                            &state,
                            &format!("{name}, {value} in groups of {len}, step {t}"),
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_hostile_gradient_stays_in_its_group() {
    let mut random = Random::new(4);
    for (name, step) in steps() {
        for value in HOSTILE {
            let len = 20;
            let start = State::random(&mut random, len, 8, &WIDTHS);
            let grad = random.normals(start.weights(), 0.1);
            let mut hostile = grad.clone();
            hostile[3 * len + 5] = value;
            let [one, other] = [grad, hostile].map(|grad| {
                let mut state = start.clone();
                step(&mut state, &grad, &StepParams::default());
                state
            });
            for group in [0, 1, 2, 4] {
                let weights = group * len..(group + 1) * len;
                let slots = group * 8..(group + 1) * 8;
                assert_eq!(
                    one.codes[weights.clone()],
                    other.codes[weights.clone()],
                    "{name}"
                );
                assert_eq!(
                    one.weight.m[weights.clone()],
                    other.weight.m[weights],
                    "{name}"
                );
                assert_eq!(
                    one.coordinates[slots.clone()],
                    other.coordinates[slots.clone()]
                );
                assert_eq!(one.alpha.v_max[slots.clone()], other.alpha.v_max[slots]);
            }
        }
    }
}

/// Exactly where nothing is refitted; else up to the ridge, and the rounding of the coordinates.
#[test]
fn without_a_learning_rate_or_a_gradient_nothing_moves() {
    let mut random = Random::new(5);
    for (name, step) in steps() {
        for scale in [1e-30, 1.0, 1e30] {
            for (lr, grad_scale) in [(0.0, 0.1), (0.0, 1e15), (1e-3, 0.0)] {
                let mut state = State::random(&mut random, 40, 8, &WIDTHS);
                state.coordinates.iter_mut().for_each(|a| *a *= scale);
                let before = state.reconstruct();
                let grad = random.normals(state.weights(), grad_scale);
                let params = StepParams {
                    lr,
                    ..StepParams::default()
                };
                step(&mut state, &grad, &params);
                let largest = before.iter().fold(0.0f32, |a, w| a.max(w.abs()));
                let exact = grad_scale == 0.0 || matches!(name, "coordinate" | "prune");
                // Eight coordinates, each shrunk by a millionth and rounded.
                let room = if exact { 0.0 } else { 1e-5 * largest };
                for (after, before) in state.reconstruct().iter().zip(&before) {
                    let what = format!("{name}: {after} for {before} at {scale}, {grad_scale}");
                    assert!((after - before).abs() <= room, "{what}");
                }
            }
        }
    }
}

/// Columns of B that are equal, and more of them than weights.
#[test]
fn bases_that_depend_on_each_other_are_no_harm() {
    for ridge in [0.0, 1e-6, 1e300] {
        for len in [1, 3] {
            let mut state = State::random(&mut Random::new(6), len, 8, &[8]);
            state.coordinates.fill(0.1);
            state.codes.fill(0);
            for (_, step) in steps() {
                let params = StepParams {
                    ridge,
                    ..StepParams::default()
                };
                step(&mut state, &vec![0.3; len], &params);
                valid(&state, "dependent bases");
            }
        }
    }
}

#[test]
fn no_groups_are_no_work() {
    for (_, step) in steps() {
        let mut state = State::random(&mut Random::new(7), 4, 3, &[]);
        step(&mut state, &[], &StepParams::default());
    }
    reconstruct(&[], &[], &[], 4, 3, &mut []);
    project(&[], &[], 4, 3, &[], &mut []);
    assert_eq!(local_model(&[], &[], &[], &[]), 0.0);
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program there")]
fn numbers_of_a_step_that_are_out_of_range_are_named() {
    type Change = fn(&mut StepParams);
    let cases: [(&str, Change); 16] = [
        ("t", |p| p.t = 0),
        ("lr", |p| p.lr = f64::NAN),
        ("lr", |p| p.lr = f64::INFINITY),
        // Infinite in f32, which would make a gradient of 0 NaN.
        ("lr", |p| p.lr = 1e39),
        ("beta1", |p| p.beta1 = 1.0),
        ("beta1", |p| p.beta1 = -0.1),
        ("beta1", |p| p.beta1 = f64::NAN),
        ("beta2", |p| p.beta2 = 1.0),
        ("beta2", |p| p.beta2 = f64::NAN),
        ("epsilon", |p| p.epsilon = 0.0),
        ("epsilon", |p| p.epsilon = 1e-60),
        ("epsilon", |p| p.epsilon = 1e39),
        ("epsilon", |p| p.epsilon = f64::NAN),
        ("ridge", |p| p.ridge = -1e-6),
        ("ridge", |p| p.ridge = f64::NAN),
        ("ridge", |p| p.ridge = f64::INFINITY),
    ];
    for (name, change) in cases {
        let mut params = StepParams::default();
        change(&mut params);
        for (step_name, step) in steps() {
            let mut state = State::random(&mut Random::new(8), 4, 2, &[2]);
            let before = state.clone();
            let message = panic_message(|| step(&mut state, &[0.1; 4], &params));
            assert!(
                message.contains(&format!("`{name}`")),
                "{step_name}: {message}"
            );
            assert_eq!(
                state, before,
                "{step_name} has checked before it moved anything"
            );
        }
    }
}

#[test]
fn an_importance_that_is_not_a_number_is_documented() {
    let mut state = State::random(&mut Random::new(9), 4, 2, &[2, 1]);
    let mut delta = [0.0; 4];
    let mut w = state.parts();
    let grad = [f32::NAN, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1];
    importance(&mut w, &grad, &StepParams::default(), &mut delta);
    assert!(delta[0].is_nan() && delta[1].is_nan());
    assert!(delta[2].is_finite());
    assert_eq!(delta[3], f32::INFINITY);
}

/// Coordinates of any positive size come back from the packed form and from its sections.
#[test]
fn coordinates_of_every_size_are_packed() {
    let shape = [3, 1];
    let grouping = Grouping::subchannelwise(&shape, 1).unwrap();
    for alpha in [1e-45, 1e-38, 1e-30, 1.0, 1e30, f32::MAX] {
        let codes = [0b00, 0b01, 0b11];
        let pack = |coordinates: &[f32]| {
            PackedWeight::pack(&shape, grouping.clone(), 2, &codes, coordinates, &[2]).unwrap()
        };
        let packed = pack(&[alpha, alpha]);
        assert_eq!(packed.unpack(), [alpha + alpha, 0.0, -alpha - alpha]);
        let decoded = PackedWeight::decode(
            &shape,
            grouping.clone(),
            packed.width_bits(),
            &packed.encode_widths(),
            &CoordinateType::F32.decode(&packed.encode_coordinates()),
            &packed.encode_bases(),
        );
        assert_eq!(decoded, Ok(packed));
    }
}

#[test]
fn coordinate_types_round_anything() {
    for kind in [
        CoordinateType::F32,
        CoordinateType::F16,
        CoordinateType::Bf16,
    ] {
        let largest = kind.round(f32::INFINITY);
        assert!(largest.is_finite() && largest >= 65504.0, "{kind}");
        let smallest = kind.round(-1.0);
        assert!(smallest > 0.0 && smallest < 1e-6, "{kind}");
        assert_eq!(kind.round(1e-45), smallest, "{kind}");
        assert_eq!(kind.round(-0.0), 0.0, "{kind}");
        assert!(
            kind.round(f32::NAN).is_nan(),
            "{kind}: a fault stays visible"
        );
        assert!(!kind.holds(f32::NAN), "{kind}");
        assert!(
            kind.encode(&[]).is_empty() && kind.decode(&[1]).is_empty(),
            "{kind}"
        );
    }
}
