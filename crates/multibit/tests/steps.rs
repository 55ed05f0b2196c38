//! Laws of the optimization steps, and plain f64 arithmetic to compare them with.

mod support;

use multibit::fit::{
    StepParams, basis, coordinate, drop_coordinates, importance, local_model, project, ste,
};
use support::{Random, State, model, panic_message};

/// Groups of kernels and of long runs, shorter and longer than `2^I`.
const LENGTHS: [usize; 4] = [1, 9, 25, 300];
const WIDTHS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 8];

fn params(t: u32) -> StepParams {
    StepParams {
        t,
        ..StepParams::default()
    }
}

fn basis_step(state: &mut State, grad: &[f32], params: &StepParams) -> Vec<f32> {
    let mut out = vec![f32::NAN; state.weights()];
    let mut w = state.parts();
    basis(&mut w, None, grad, params, &mut out);
    out
}

fn coordinate_step(state: &mut State, grad: &[f32], params: &StepParams) -> Vec<f32> {
    let mut out = vec![f32::NAN; state.weights()];
    let mut w = state.parts();
    coordinate(&mut w, grad, params, &mut out);
    out
}

/// `p` and `h` of all weights, from moments after their update.
fn models(state: &State, params: &StepParams) -> (Vec<f32>, Vec<f32>) {
    let pairs = state.weight.m.iter().zip(&state.weight.v_max);
    pairs
        .map(|(&m, &v_max)| model(params, m, v_max))
        .map(|(p, h)| (p as f32, h as f32))
        .unzip()
}

/// Rounding of the model near `centre`: a relative f32 rounding of the weights, of which the
/// quadratic makes `Σ h w²`, and the ridge, of which it makes half as much.
fn slack(centre: &[f32], h: &[f32], params: &StepParams) -> f64 {
    let weight = centre
        .iter()
        .zip(h)
        .map(|(&w, &h)| f64::from(h) * f64::from(w).powi(2))
        .sum::<f64>();
    (1e-6 + params.ridge) * weight + 1e-30
}

#[test]
fn a_basis_step_never_raises_the_local_model() {
    let mut random = Random::new(11);
    for len in LENGTHS {
        for grad_scale in [1e-6, 1e-2, 10.0] {
            let mut state = State::random(&mut random, len, 8, &WIDTHS);
            for t in 1..=8 {
                let params = params(t);
                let before = state.reconstruct();
                let grad = random.normals(state.weights(), grad_scale);
                let out = basis_step(&mut state, &grad, &params);
                assert_eq!(out, state.reconstruct());
                state.assert_invariants("basis");
                let (p, h) = models(&state, &params);
                for group in 0..state.groups() {
                    let span = group * len..(group + 1) * len;
                    let (before, out) = (&before[span.clone()], &out[span.clone()]);
                    let (p, h) = (&p[span.clone()], &h[span]);
                    let rise = local_model(before, p, h, out);
                    let slack = slack(before, h, &params);
                    assert!(
                        rise <= slack,
                        "group {group} of {len} at step {t}: {rise} > {slack}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_basis_step_lowers_the_local_model_where_it_can() {
    let mut random = Random::new(12);
    let mut state = State::sketched(&random.normals(10 * 100, 0.1), 100, 3);
    let params = StepParams {
        lr: 0.05,
        ..params(1)
    };
    let before = state.reconstruct();
    let grad = random.normals(1000, 0.1);
    let out = basis_step(&mut state, &grad, &params);
    let (p, h) = models(&state, &params);
    for group in 0..10 {
        let span = group * 100..(group + 1) * 100;
        let [before, out, p, h] = [&before, &out, &p, &h].map(|x| &x[span.clone()]);
        let target: Vec<f32> = (0..100).map(|j| before[j] - p[j] / h[j]).collect();
        let least = local_model(before, p, h, &target);
        let reached = local_model(before, p, h, out);
        assert!(reached < 0.1 * least, "{reached} of {least}");
    }
}

/// The basis step's coordinates solve their normal equations.
#[test]
fn coordinates_of_a_basis_step_are_the_least_squares() {
    let mut random = Random::new(13);
    for len in [60, 300] {
        let mut state = State::sketched(&random.normals(6 * len, 0.1), len, 4);
        let grad = random.normals(6 * len, 0.1);
        let before = state.reconstruct();
        let params = params(1);
        basis_step(&mut state, &grad, &params);
        let (p, h) = models(&state, &params);
        for group in 0..6 {
            let total: f64 = h[group * len..][..len].iter().map(|&h| f64::from(h)).sum();
            let alpha = &state.coordinates[group * 4..][..4];
            for i in 0..4 {
                // Bᵀ(H Bα − (H·before − p)) + λα = 0
                let gradient = state.project(group, i, |j| {
                    let value: f64 = (0..4).map(|k| state.sign(j, k) * f64::from(alpha[k])).sum();
                    f64::from(h[j]) * (value - f64::from(before[j])) + f64::from(p[j])
                });
                let gradient = gradient + params.ridge * total * f64::from(alpha[i]);
                // α, p and h are rounded to f32.
                let rounding = 1e-6 * total * 0.1;
                assert!(gradient.abs() < rounding, "{gradient} > {rounding}");
            }
        }
    }
}

#[test]
fn a_basis_step_assigns_the_nearest_of_the_old_levels() {
    let mut random = Random::new(14);
    let mut state = State::sketched(&random.normals(5 * 40, 0.1), 40, 3);
    let old = state.clone();
    let centre = random.normals(5 * 40, 0.1);
    let grad = random.normals(5 * 40, 0.01);
    let mut out = vec![0.0; 200];
    let mut w = state.parts();
    basis(&mut w, Some(&centre), &grad, &params(1), &mut out);
    let (p, h) = models(&state, &params(1));
    let mut flips = [None; 15];
    for j in 0..200 {
        let alpha = &old.coordinates[j / 40 * 3..][..3];
        let target = centre[j] - p[j] / h[j];
        let distance = |code: u8| {
            let signed = |i: usize| {
                if code >> i & 1 == 1 {
                    -alpha[i]
                } else {
                    alpha[i]
                }
            };
            ((0..3).map(signed).sum::<f32>() - target).abs()
        };
        let best = (0..8).min_by(|&a, &b| distance(a).total_cmp(&distance(b)));
        let best = best.unwrap();
        // Up to the sign of a whole basis, which may have been negated with its coordinate.
        for i in 0..3 {
            let differs = (state.codes[j] ^ best) >> i & 1;
            let flip = flips[j / 40 * 3 + i].get_or_insert(differs);
            assert_eq!(differs, *flip, "weight {j}, basis {i}");
        }
    }
}

#[test]
fn moments_carry_over_from_weights_to_coordinates() {
    let mut random = Random::new(15);
    let mut state = State::random(&mut random, 50, 6, &[0, 1, 4, 6]);
    for t in 1..=3 {
        let old = state.clone();
        let grad = random.normals(200, 0.1);
        basis_step(&mut state, &grad, &params(t));
        for (j, &g) in grad.iter().enumerate() {
            let [g, m, v] = [g, old.weight.m[j], old.weight.v[j]].map(f64::from);
            let v = 0.999 * v + 0.001 * g * g;
            assert!((f64::from(state.weight.m[j]) - (0.9 * m + 0.1 * g)).abs() < 1e-7);
            assert!((f64::from(state.weight.v[j]) - v).abs() < 1e-6 * v + 1e-12);
            let v_max = v.max(f64::from(old.weight.v_max[j]));
            assert!((f64::from(state.weight.v_max[j]) - v_max).abs() < 1e-6 * v_max + 1e-12);
        }
        for group in 0..4 {
            for i in 0..usize::from(state.widths[group]) {
                let slot = group * 6 + i;
                let m = state.project(group, i, |j| f64::from(state.weight.m[j]));
                assert!((f64::from(state.alpha.m[slot]) - m).abs() < 1e-6 * m.abs() + 1e-9);
                let span = group * 50..(group + 1) * 50;
                for (sum, all) in [
                    (state.alpha.v[slot], &state.weight.v),
                    (state.alpha.v_max[slot], &state.weight.v_max),
                ] {
                    let expected: f64 = all[span.clone()].iter().map(|&v| f64::from(v)).sum();
                    assert!((f64::from(sum) - expected).abs() < 1e-6 * expected);
                }
            }
        }
    }
}

#[test]
fn a_group_without_gradients_is_left_alone() {
    let mut random = Random::new(16);
    let mut state = State::random(&mut random, 30, 4, &[4, 4, 0]);
    let mut grad = random.normals(90, 0.1);
    grad[30..60].fill(0.0);
    let old = state.clone();
    for t in 1..=5 {
        basis_step(&mut state, &grad, &params(t));
    }
    assert_eq!(state.codes[30..60], old.codes[30..60]);
    assert_eq!(state.coordinates[4..8], old.coordinates[4..8]);
    assert_ne!(state.coordinates[..4], old.coordinates[..4]);
    assert_ne!(
        state.weight.m[60..],
        old.weight.m[60..],
        "moments of empty groups advance"
    );
}

#[test]
fn dependent_bases_and_extreme_curvatures_do_not_fail() {
    let mut random = Random::new(17);
    for len in [4, 25, 300] {
        for scale in [1e-18, 1e-9, 1.0, 1e9, 1e18] {
            for ridge in [1e-6, 0.0] {
                let mut state = State::random(&mut random, len, 6, &[6, 6, 2]);
                // The first group has each basis twice, in the third all weights agree.
                for code in &mut state.codes[..len] {
                    *code = (*code & 0b111) * 0b1001;
                }
                state.codes[2 * len..].fill(0b01);
                for t in 1..=6 {
                    let params = StepParams { ridge, ..params(t) };
                    let before = state.reconstruct();
                    let grad = random.normals(3 * len, scale);
                    let out = basis_step(&mut state, &grad, &params);
                    state.assert_invariants("degenerate");
                    let (p, h) = models(&state, &params);
                    for group in 0..3 {
                        let span = group * len..(group + 1) * len;
                        let [before, out, p, h] = [&before, &out, &p, &h].map(|x| &x[span.clone()]);
                        let rise = local_model(before, p, h, out);
                        assert!(rise.is_finite());
                        if ridge > 0.0 {
                            let slack = slack(before, h, &params);
                            assert!(rise <= slack, "{len} at {scale:e}: {rise} > {slack}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_leaves_a_valid_weight() {
    let mut random = Random::new(18);
    for value in [f32::NAN, f32::INFINITY] {
        let mut state = State::random(&mut random, 20, 4, &[3, 4]);
        let mut grad = random.normals(40, 0.1);
        grad[5] = value;
        let old = state.clone();
        basis_step(&mut state, &grad, &params(1));
        assert_eq!(state.codes[..20], old.codes[..20]);
        assert_eq!(state.coordinates[..4], old.coordinates[..4]);
        assert_ne!(state.coordinates[4..], old.coordinates[4..]);
        coordinate_step(&mut state, &grad, &params(2));
        assert_eq!(state.coordinates[..4], old.coordinates[..4]);
    }
}

#[test]
fn an_ste_step_is_a_basis_step_around_the_kept_weight() {
    let mut random = Random::new(19);
    let mut state = State::random(&mut random, 25, 5, &[0, 2, 5]);
    let mut other = state.clone();
    let mut latent = random.normals(75, 0.1);
    for t in 1..=4 {
        let (params, grad) = (params(t), random.normals(75, 0.1));
        let before = latent.clone();
        let [mut out, mut expected] = [vec![0.0; 75], vec![0.0; 75]];
        let mut w = state.parts();
        ste(&mut w, &mut latent, &grad, &params, &mut out);
        let mut w = other.parts();
        basis(&mut w, Some(&before), &grad, &params, &mut expected);
        assert_eq!(out, expected);
        assert_eq!(state, other);
        for j in 0..75 {
            let (p, h) = model(&params, state.weight.m[j], state.weight.v_max[j]);
            let moved = f64::from(before[j]) - p / h;
            // A few roundings to f32 of numbers below 1.
            assert!((f64::from(latent[j]) - moved).abs() < 1e-6, "weight {j}");
        }
        assert_ne!(latent[..25], before[..25], "a pruned group's weight moves");
    }
}

#[test]
fn a_coordinate_step_is_amsgrad_on_the_coordinates() {
    let mut random = Random::new(20);
    for len in [7, 300] {
        let mut state = State::random(&mut random, len, 6, &[0, 1, 3, 6]);
        // α, m, v, v̂ of each slot, in f64; signs stay with the coordinate.
        let mut plain: Vec<[f64; 4]> = state
            .coordinates
            .iter()
            .map(|&alpha| [f64::from(alpha), 0.0, 0.0, 0.0])
            .collect();
        let start = state.clone();
        let mut negated = 0;
        for t in 1..=40 {
            let params = StepParams {
                lr: 0.02,
                ..params(t)
            };
            let grad = random.normals(4 * len, 0.1);
            let out = coordinate_step(&mut state, &grad, &params);
            assert_eq!(out, state.reconstruct());
            state.assert_invariants("coordinate");
            for group in 0..4 {
                for i in 0..usize::from(state.widths[group]) {
                    let slot = group * 6 + i;
                    let [alpha, m, v, v_max] = &mut plain[slot];
                    let g = start.project(group, i, |j| f64::from(grad[j]));
                    *m = 0.9 * *m + 0.1 * g;
                    *v = 0.999 * *v + 0.001 * g * g;
                    *v_max = v_max.max(*v);
                    let p = params.lr / (1.0 - 0.9f64.powi(t as i32)) * *m;
                    let h = (v_max.sqrt() + 1e-8) / (1.0 - 0.999f64.powi(t as i32)).sqrt();
                    *alpha -= p / h;
                    // A basis was negated exactly where the plain coordinate is negative.
                    let first = group * len;
                    let flipped = (state.codes[first] ^ start.codes[first]) >> i & 1 == 1;
                    let sign = if flipped { -1.0 } else { 1.0 };
                    negated += u32::from(flipped);
                    let alpha_now = sign * f64::from(state.coordinates[slot]);
                    // Forty steps of f32 roundings of numbers near 1.
                    assert!(
                        (alpha_now - *alpha).abs() < 1e-5,
                        "{alpha_now} for {alpha} at {t}"
                    );
                    let m_now = sign * f64::from(state.alpha.m[slot]);
                    assert!((m_now - *m).abs() < 1e-5, "{m_now} for {m}");
                }
            }
        }
        assert!(negated > 0, "no coordinate changed its sign");
    }
}

#[test]
fn both_domains_advance_at_every_step() {
    let mut random = Random::new(21);
    let mut by_coordinate = State::random(&mut random, 30, 4, &[4, 2]);
    let mut by_importance = by_coordinate.clone();
    let mut by_basis = by_coordinate.clone();
    let grad = random.normals(60, 0.1);
    coordinate_step(&mut by_coordinate, &grad, &params(1));
    basis_step(&mut by_basis, &grad, &params(1));
    let mut delta = vec![0.0; 8];
    let mut w = by_importance.parts();
    importance(&mut w, &grad, &params(1), &mut delta);
    for other in [&by_coordinate, &by_importance] {
        assert_eq!(other.weight.m, by_basis.weight.m);
        assert_eq!(other.weight.v, by_basis.weight.v);
        assert_eq!(other.weight.v_max, by_basis.weight.v_max);
    }
    assert_eq!(by_importance.alpha.v, by_coordinate.alpha.v);
}

#[test]
fn importance_moves_nothing_and_predicts_the_model() {
    let mut random = Random::new(22);
    let mut state = State::random(&mut random, 40, 5, &[0, 2, 5]);
    for t in 1..=3 {
        let old = state.clone();
        let grad = random.normals(120, 0.1);
        let mut delta = vec![0.0; 15];
        let mut w = state.parts();
        importance(&mut w, &grad, &params(t), &mut delta);
        assert_eq!(state.codes, old.codes);
        assert_eq!(state.coordinates, old.coordinates);
        for (slot, &delta) in delta.iter().enumerate() {
            if slot % 5 >= usize::from(state.widths[slot / 5]) {
                assert_eq!(delta, f32::INFINITY, "slot {slot} is absent");
                continue;
            }
            let alpha = f64::from(state.coordinates[slot]);
            let (p, h) = model(&params(t), state.alpha.m[slot], state.alpha.v_max[slot]);
            let expected = -p * alpha + 0.5 * h * alpha * alpha;
            let scale = (p * alpha).abs() + h * alpha * alpha;
            assert!((f64::from(delta) - expected).abs() < 1e-6 * scale);
        }
    }
}

#[test]
fn what_is_dropped_is_zero_and_absent() {
    let mut random = Random::new(23);
    let widths = [0, 1, 3, 6, 6];
    let mut state = State::random(&mut random, 20, 6, &widths);
    let grad = random.normals(100, 0.1);
    coordinate_step(&mut state, &grad, &params(1));
    let old = state.clone();
    let mut drop: Vec<bool> = (0..30).map(|_| random.below(2) == 0).collect();
    drop[24..].fill(true);
    let mut out = vec![f32::NAN; 100];
    let mut w = state.parts();
    drop_coordinates(&mut w, &drop, &mut out);
    state.assert_invariants("drop");
    assert_eq!(out, state.reconstruct());
    assert_eq!(state.widths[4], 0);
    assert_eq!(out[80..], [0.0; 20]);
    for (group, &width) in widths.iter().enumerate() {
        let stay: Vec<usize> = (0..usize::from(width))
            .filter(|i| !drop[group * 6 + i])
            .collect();
        assert_eq!(usize::from(state.widths[group]), stay.len());
        for (to, &from) in stay.iter().enumerate() {
            let (to, from) = (group * 6 + to, group * 6 + from);
            assert_eq!(state.coordinates[to], old.coordinates[from]);
            assert_eq!(state.alpha.m[to], old.alpha.m[from]);
            assert_eq!(state.alpha.v[to], old.alpha.v[from]);
            assert_eq!(state.alpha.v_max[to], old.alpha.v_max[from]);
        }
        for (j, &out) in out.iter().enumerate().skip(group * 20).take(20) {
            let value: f32 = stay.iter().fold(0.0, |sum, &i| {
                sum + old.sign(j, i) as f32 * old.coordinates[group * 6 + i]
            });
            assert_eq!(out, value, "weight {j}");
        }
    }
    assert_eq!(state.weight.m, old.weight.m, "moments of the weights stay");
}

#[test]
fn pruned_slots_stay_absent_through_every_step() {
    let mut random = Random::new(24);
    let mut state = State::random(&mut random, 25, 4, &[4, 4, 4]);
    let mut drop = vec![false; 12];
    drop[1] = true;
    drop[4..8].fill(true);
    let mut latent = state.reconstruct();
    let mut out = vec![0.0; 75];
    let mut w = state.parts();
    drop_coordinates(&mut w, &drop, &mut out);
    for t in 1..=9 {
        let grad = random.normals(75, 0.1);
        // Moments that something else left there go.
        for slot in 3..8 {
            state.alpha.m[slot] = 0.5;
            state.alpha.v[slot] = 0.5;
            state.alpha.v_max[slot] = 0.5;
        }
        match t % 3 {
            0 => {
                let mut w = state.parts();
                ste(&mut w, &mut latent, &grad, &params(t), &mut out);
            }
            1 => out = basis_step(&mut state, &grad, &params(t)),
            _ => out = coordinate_step(&mut state, &grad, &params(t)),
        }
        assert_eq!(state.widths, [3, 0, 4]);
        assert_eq!(out[25..50], [0.0; 25]);
        state.assert_invariants("after pruning");
    }
}

#[test]
fn the_projection_is_the_transpose() {
    let mut random = Random::new(25);
    for len in LENGTHS {
        let state = State::random(&mut random, len, 8, &WIDTHS);
        let grad = random.normals(state.weights(), 1.0);
        let mut out = vec![f32::NAN; 8 * WIDTHS.len()];
        project(&state.codes, &state.widths, len, 8, &grad, &mut out);
        for (slot, &found) in out.iter().enumerate() {
            let (group, i) = (slot / 8, slot % 8);
            if i >= usize::from(state.widths[group]) {
                assert_eq!(found, 0.0);
            } else {
                let expected = state.project(group, i, |j| f64::from(grad[j]));
                // One rounding to f32 of a sum of at most 300 normals.
                assert!((f64::from(found) - expected).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn the_same_input_gives_the_same_bits() {
    let run = || {
        let mut random = Random::new(26);
        let mut state = State::sketched(&random.normals(20 * 25, 0.1), 25, 6);
        for t in 1..=5 {
            let grad = random.normals(500, 0.1);
            basis_step(&mut state, &grad, &params(2 * t - 1));
            coordinate_step(&mut state, &grad, &params(2 * t));
        }
        state
    };
    assert_eq!(run(), run());
}

#[test]
#[should_panic(expected = "`grad` holds 5 values, but 2 groups of 3 need 6")]
fn a_short_gradient_is_named() {
    let mut state = State::random(&mut Random::new(27), 3, 2, &[1, 2]);
    basis_step(&mut state, &[0.0; 5], &params(1));
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "a panic ends the program there")]
fn a_state_that_does_not_fit_together_is_named() {
    type Change = fn(&mut State);
    let changes: [(Change, &str); 5] = [
        (|s| s.max_bits = 9, "`max_bits` is 9, but must be 1 to 8"),
        (|s| s.widths[1] = 3, "group 1 has 3 bits, `max_bits` is 2"),
        (
            |s| _ = s.codes.pop(),
            "`codes` holds 5 values, but 2 groups of 3 need 6",
        ),
        (|s| _ = s.coordinates.pop(), "`coordinates` holds 3 values"),
        (
            |s| _ = s.alpha.v.pop(),
            "`v_alpha` holds 3 values, but 2 groups of 2 need 4",
        ),
    ];
    for (change, message) in changes {
        let mut state = State::random(&mut Random::new(27), 3, 2, &[1, 2]);
        change(&mut state);
        let found = panic_message(|| _ = basis_step(&mut state, &[0.0; 6], &params(1)));
        assert!(found.contains(message), "{found}");
    }
}

#[test]
#[should_panic(expected = "`t` is 0, but steps count from 1")]
fn steps_count_from_one() {
    let mut state = State::random(&mut Random::new(28), 3, 2, &[1, 2]);
    coordinate_step(&mut state, &[0.0; 6], &params(0));
}

#[test]
fn a_system_without_a_solution_keeps_the_coordinates() {
    // Two bases of one weight are always dependent, and nothing holds them apart without a ridge.
    let mut state = State::random(&mut Random::new(29), 1, 2, &[2]);
    state.coordinates = vec![0.25, 0.5];
    state.codes = vec![0b00];
    let params = StepParams {
        lr: 0.4,
        ridge: 0.0,
        ..params(1)
    };
    // AMSGrad's first step is lr · sign(g): the target is 0.75 − 0.4.
    let out = basis_step(&mut state, &[1.0], &params);
    assert_eq!(state.coordinates, [0.25, 0.5]);
    assert_eq!(out, [0.25], "the level nearest to 0.35");
}
