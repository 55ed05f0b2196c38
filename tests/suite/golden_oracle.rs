//! The oracle against the authors' program, corrected where it is at fault (`golden/README.md`).
//!
//! Tolerances are those of the golden README: the vectors are f32.

use burn_alq_tests::golden::{Layout, cases, count, load, numbers};
use burn_alq_tests::step::{self, Ridge};
use burn_alq_tests::{Group, combine, dot, prune, sketch};
use serde_json::Value;

const ALPHA: f64 = 2e-5;
const WEIGHT: f64 = 2e-5;
/// What the authors' program adds.
const RIDGE: Ridge = Ridge::Absolute(1e-6);

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance,
            "{what}[{i}]: {found} is not {expected}"
        );
    }
}

/// Relative, as sums of squares have any size.
fn assert_moments(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let tolerance = 1e-5 * expected.abs() + 1e-7;
        assert!(
            (found - expected).abs() <= tolerance,
            "{what}[{i}]: {found} is not {expected}"
        );
    }
}

fn residual(w: &[f64], bases: &[Vec<f64>], alpha: &[f64]) -> f64 {
    let fitted = combine(bases, alpha, w.len());
    let r: Vec<f64> = w.iter().zip(fitted).map(|(w, f)| w - f).collect();
    let norm = dot(w, w);
    if norm > 0.0 { dot(&r, &r) / norm } else { 0.0 }
}

#[test]
fn sketches_of_vectors() {
    let file = load("sketch_vectors.json");
    let mut compared = 0;
    for case in cases(&file) {
        let label = case["label"].as_str().unwrap();
        let w = numbers(&case["w"]);
        let (bases, alpha) = sketch::sketch(&w, count(&case["max_bit"]));
        if !case["expected"].is_null() {
            assert_eq!(alpha.len(), 0, "{label}: a group of zeros is empty");
            continue;
        }
        let residuals = numbers(&case["rel_residual_sq"]);
        let expected = residuals.last().unwrap();
        // Stored with three digits.
        assert!(
            (residual(&w, &bases, &alpha) - expected).abs() <= 1e-3,
            "{label}: residual"
        );
        if case["sign_margin"]
            .as_f64()
            .is_some_and(|margin| margin > 1e-4)
        {
            assert_eq!(alpha.len(), count(&case["dim"]), "{label}: width");
            assert_close(&alpha, &numbers(&case["alpha"]), ALPHA, label);
            compared += 1;
        }
    }
    assert!(compared > 15, "most cases are unambiguous: {compared}");
}

#[test]
fn sketches_of_layers() {
    let file = load("sketch_layers.json");
    let mut exact = 0;
    for case in cases(&file) {
        let label = case["label"].as_str().unwrap();
        let layout = Layout::new(&case["B"]["shape"], &case["w"]["shape"], &case["structure"]);
        let mask = numbers(&case["mask"]);
        let alphas = layout.live(&numbers(&case["alpha"]), &mask);
        let bases = layout.bases(&numbers(&case["B"]), &mask);
        let margins = numbers(&case["group_sign_margin"]);
        let residuals = numbers(&case["group_rel_residual_sq_reference"]);
        let groups = layout.groups(&numbers(&case["w"]));
        for (group, w) in groups.iter().enumerate() {
            let (found_bases, found) = sketch::sketch(w, layout.slots);
            if margins[group] > 1e-4 {
                assert_close(&found, &alphas[group], ALPHA, label);
                assert_eq!(found_bases, bases[group], "{label}: bases of group {group}");
                exact += 1;
            } else {
                // A sign is noise here, and may as well lead to a better basis.
                let found = residual(w, &found_bases, &found);
                assert!(
                    found <= residuals[group] + 1e-4,
                    "{label}: residual of {group}"
                );
            }
        }
    }
    assert_eq!(exact, 408 - 75, "unambiguous groups");
}

#[test]
fn nearest_levels() {
    for case in cases(&load("optimize_bin_basis.json")) {
        let label = case["label"].as_str().unwrap();
        let layout = Layout::new(
            &case["B_out"]["shape"],
            &case["weight_shape"],
            &case["structure"],
        );
        let mask = numbers(&case["mask"]);
        let alphas = layout.live(&numbers(&case["alpha"]), &mask);
        let expected = layout.bases(&numbers(&case["B_out"]), &mask);
        let [w, p, h] = ["w_FP", "pseudo_grad", "pseudo_hessian"]
            .map(|name| layout.groups(&numbers(&case[name])));
        for group in 0..layout.groups {
            let target: Vec<f64> = (0..layout.len)
                .map(|j| w[group][j] - p[group][j] / h[group][j])
                .collect();
            let found = step::nearest(&alphas[group], &target);
            assert_eq!(found, expected[group], "{label}: group {group}");
        }
    }
}

#[test]
fn speedup() {
    for case in cases(&load("speedup.json")) {
        let label = case["label"].as_str().unwrap();
        let layout = Layout::new(
            &case["B_in"]["shape"],
            &case["weight_shape"],
            &case["structure"],
        );
        let mask = numbers(&case["mask"]);
        let bases = layout.bases(&numbers(&case["B_in"]), &mask);
        let expected = layout.live(&numbers(&case["alpha_signed_before_flip"]), &mask);
        let [w, p, h] = ["w_FP", "pseudo_grad", "pseudo_hessian"]
            .map(|name| layout.groups(&numbers(&case[name])));
        let mut total = 0.0;
        for group in 0..layout.groups {
            let alpha = step::speedup(&bases[group], &w[group], &p[group], &h[group], RIDGE);
            assert_close(&alpha, &expected[group], ALPHA, label);
            let new = combine(&bases[group], &alpha, layout.len);
            total += step::local_model(&w[group], &p[group], &h[group], &new);
        }
        let expected = case["corrected"]["quadratic_model"].as_f64().unwrap();
        assert!(
            (total - expected).abs() <= 1e-4 * (1.0 + expected.abs()),
            "{label}: {total}"
        );
    }
}

/// With dependent bases the coordinates are noise; what they reach is not.
#[test]
fn speedup_with_dependent_bases() {
    for case in cases(&load("speedup_degenerate.json")) {
        let label = case["label"].as_str().unwrap();
        let layout = Layout::new(
            &case["B_in"]["shape"],
            &case["weight_shape"],
            &case["structure"],
        );
        let bases = layout.bases(&numbers(&case["B_in"]), &numbers(&case["mask"]));
        let [w, p, h] = ["w_FP", "pseudo_grad", "pseudo_hessian"]
            .map(|name| layout.groups(&numbers(&case[name])));
        let total: f64 = (0..layout.groups)
            .map(|group| {
                let alpha = step::speedup(&bases[group], &w[group], &p[group], &h[group], RIDGE);
                let new = combine(&bases[group], &alpha, layout.len);
                step::local_model(&w[group], &p[group], &h[group], &new)
            })
            .sum();
        let expected = case["quadratic_model_float64"].as_f64().unwrap();
        assert!(
            (total - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
            "{label}: {total}"
        );
    }
}

#[test]
fn gradients_in_the_alpha_domain() {
    for case in cases(&load("alpha_grad_hessian.json")) {
        let label = case["label"].as_str().unwrap();
        let layout = Layout::new(
            &case["B"]["shape"],
            &case["weight_shape"],
            &case["structure"],
        );
        let mask = numbers(&case["mask"]);
        let expected = layout.live(&numbers(&case["grad_alpha"]), &mask);
        let groups = layout.groups(&numbers(&case["grad_w"]));
        let bases = layout.bases(&numbers(&case["B"]), &mask);
        for (group, (bases, g)) in bases.into_iter().zip(groups).enumerate() {
            let width = bases.len();
            let group_state = Group::new(layout.len, bases, vec![1.0; width]);
            // f32 sums of up to some dozen numbers near 1.
            assert_close(&group_state.project(&g), &expected[group], 2e-5, label);
        }
    }
}

#[test]
fn pruning_ranks_live_coordinates_by_their_own_importance() {
    for case in cases(&load("pruning.json")) {
        let label = case["label"].as_str().unwrap();
        let layout = Layout::new(
            &case["B"]["shape"],
            &case["weight_shape"],
            &case["structure"],
        );
        let mask = numbers(&case["mask"]);
        let [alpha, p, h] = ["alpha", "pseudo_grad_alpha", "pseudo_hessian_alpha"]
            .map(|name| layout.live(&numbers(&case[name]), &mask));
        let deltas: Vec<Vec<f64>> = (0..layout.groups)
            .map(|group| {
                let slots = alpha[group].iter().zip(p[group].iter().zip(&h[group]));
                slots.map(|(a, (p, h))| -p * a + 0.5 * h * a * a).collect()
            })
            .collect();
        let expected = layout.live(&numbers(&case["importance_full"]), &mask);
        for (found, expected) in deltas.iter().zip(&expected) {
            assert_close(found, expected, 1e-5, label);
        }
        // Golden names slots in the full table, the oracle live ones.
        let slots: Vec<Vec<usize>> = mask
            .chunks_exact(layout.slots)
            .enumerate()
            .map(|(group, mask)| {
                let live = (0..layout.slots).filter(|&slot| mask[slot] != 0.0);
                live.map(|slot| group * layout.slots + slot).collect()
            })
            .collect();
        let expected: Vec<usize> = case["prune_flat_indices"]
            .as_array()
            .unwrap()
            .iter()
            .map(count)
            .collect();
        let top = count(&case["num_top"]);
        let dropped = prune::select(&[deltas], &[top], expected.len());
        let mut found: Vec<usize> = dropped
            .into_iter()
            .map(|(_, group, i)| slots[group][i])
            .collect();
        found.sort_unstable();
        let order: Vec<usize> = case["order_flat_index"]
            .as_array()
            .unwrap()
            .iter()
            .map(count)
            .collect();
        let mut smallest = order[..expected.len()].to_vec();
        smallest.sort_unstable();
        assert_eq!(found, smallest, "{label}");
    }
}

/// One layer of a golden trajectory while it is replayed.
struct Layer {
    layout: Layout,
    groups: Vec<Group>,
    centre: Option<Vec<Vec<f64>>>,
}

impl Layer {
    fn new(init: &Value) -> Self {
        let layout = Layout::new(&init["B_shape"], &init["shape_w"], &init["structure"]);
        let [bases, alpha, mask] = ["B", "alpha", "mask"].map(|name| numbers(&init[name]));
        let mut groups = layout.state(&bases, &alpha, &mask);
        let centre = layout.groups(&numbers(&init["w_FP"]));
        for (group, w) in groups.iter_mut().zip(&centre) {
            group.latent = w.clone();
        }
        Self {
            layout,
            groups,
            // The authors' program takes its first step around the float weights.
            centre: Some(centre),
        }
    }

    fn check(&self, golden: &Value, what: &str) {
        let mask = numbers(&golden["mask"]);
        let alphas = self.layout.live(&numbers(&golden["alpha"]), &mask);
        let bases = self.layout.bases(&numbers(&golden["B"]), &mask);
        let m_alpha = self.layout.live(&numbers(&golden["exp_avg_alpha"]), &mask);
        let v_alpha = self
            .layout
            .live(&numbers(&golden["exp_avg_sq_alpha"]), &mask);
        let v_max_alpha = self
            .layout
            .live(&numbers(&golden["max_exp_avg_sq_alpha"]), &mask);
        let [weights, m, v, v_max] = ["param", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
            .map(|name| self.layout.groups(&numbers(&golden[name])));
        for (i, group) in self.groups.iter().enumerate() {
            assert_eq!(
                group.alpha.len(),
                alphas[i].len(),
                "{what}: width of group {i}"
            );
            // A coordinate step of the reference may leave a negative coordinate; ours is the same
            // with its basis and its first moment negated.
            let signs: Vec<f64> = alphas[i]
                .iter()
                .map(|a| if *a < 0.0 { -1.0 } else { 1.0 })
                .collect();
            let signed =
                |x: &[f64]| -> Vec<f64> { x.iter().zip(&signs).map(|(x, s)| x * s).collect() };
            assert_close(&group.alpha, &signed(&alphas[i]), ALPHA, what);
            for (k, basis) in group.bases.iter().enumerate() {
                let expected: Vec<f64> = bases[i][k].iter().map(|b| b * signs[k]).collect();
                assert_eq!(*basis, expected, "{what}: basis {k} of group {i}");
            }
            assert_close(&group.reconstruct(), &weights[i], WEIGHT, what);
            assert_moments(&group.m, &m[i], what);
            assert_moments(&group.v, &v[i], what);
            assert_moments(&group.v_max, &v_max[i], what);
            assert_moments(&group.m_alpha, &signed(&m_alpha[i]), what);
            assert_moments(&group.v_alpha, &v_alpha[i], what);
            assert_moments(&group.v_max_alpha, &v_max_alpha[i], what);
        }
    }
}

/// The pruning step of all layers with the reference's preselection counts.
fn prune_step(layers: &mut [Layer], grads: &[Vec<Vec<f64>>], step: &Value, lr: f64, t: u32) {
    let deltas: Vec<Vec<Vec<f64>>> = layers
        .iter_mut()
        .zip(grads)
        .map(|(layer, grads)| {
            let groups = layer.groups.iter_mut().zip(grads);
            groups
                .map(|(group, g)| step::importance(group, g, lr, t))
                .collect()
        })
        .collect();
    let rates = numbers(&step["pruning_rate"]);
    let draws = numbers(&step["random_draws"]);
    let top: Vec<usize> = deltas
        .iter()
        .zip(draws)
        .map(|(groups, draw)| {
            let share = groups.iter().map(Vec::len).sum::<usize>() as f64 * rates[0];
            share.floor() as usize + usize::from(draw < share.fract())
        })
        .collect();
    let candidates: usize = top.iter().sum();
    let count = (candidates as f64 * rates[1]) as usize;
    let dropped = prune::select(&deltas, &top, count);
    for (l, layer) in layers.iter_mut().enumerate() {
        for (g, group) in layer.groups.iter_mut().enumerate() {
            let of_group = dropped.iter().filter(|id| (id.0, id.1) == (l, g));
            let indices: Vec<usize> = of_group.map(|id| id.2).collect();
            prune::drop(group, &indices);
        }
    }
}

fn replay(name: &str) {
    for case in cases(&load(name)) {
        let label = case["label"].as_str().unwrap();
        let mut layers: Vec<Layer> = case["init"]
            .as_array()
            .unwrap()
            .iter()
            .map(Layer::new)
            .collect();
        for (index, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let (t, lr) = (index as u32 + 1, step["lr"].as_f64().unwrap());
            let grads: Vec<Vec<Vec<f64>>> = layers
                .iter()
                .zip(step["grads"].as_array().unwrap())
                .map(|(layer, grads)| layer.layout.groups(&numbers(grads)))
                .collect();
            let what = format!("{name} {label} step {index}");
            if step["pruning_rate"].is_array() {
                prune_step(&mut layers, &grads, step, lr, t);
            } else {
                for (layer, grads) in layers.iter_mut().zip(&grads) {
                    let centre = layer.centre.take();
                    for (i, (group, g)) in layer.groups.iter_mut().zip(grads).enumerate() {
                        let centre = centre.as_ref().map(|centre| centre[i].as_slice());
                        match step["mode"].as_str().unwrap() {
                            "basis" => step::basis(group, centre, g, lr, t, RIDGE),
                            "coordinate" => step::coordinate(group, g, lr, t),
                            "ste" => {
                                if index > 0
                                    && centre.is_none()
                                    && case["steps"][index - 1]["mode"] != "ste"
                                {
                                    group.latent = group.reconstruct();
                                }
                                step::ste(group, g, lr, t, RIDGE);
                            }
                            other => panic!("no mode {other}"),
                        }
                    }
                }
            }
            for (layer, golden) in layers.iter().zip(step["layers"].as_array().unwrap()) {
                layer.check(golden, &what);
            }
        }
    }
}

#[test]
fn trajectories() {
    for name in ["basis", "coordinate", "ste", "conv", "mixed_prune"] {
        replay(&format!("trajectory_{name}.json"));
    }
}

/// `Δ` is the local model of dropping a coordinate, by definition.
#[test]
fn importance_is_the_modelled_loss() {
    let bases = vec![vec![1.0, -1.0, 1.0], vec![1.0, 1.0, -1.0]];
    let mut group = Group::new(3, bases, vec![0.4, 0.9]);
    let deltas = step::importance(&mut group, &[0.3, -0.1, 0.2], 1e-2, 1);
    for (i, delta) in deltas.iter().enumerate() {
        let expected = step::loss_of_dropping(&group, i, 1e-2, 1);
        assert!((delta - expected).abs() < 1e-15);
    }
}
