//! The slice kernels against the golden vectors: sketches, and whole trajectories.

use burn_alq::optim::prune::{Budget, Candidates, select};
use burn_alq::optim::{Cost, Size};
use burn_alq_tests::golden::{Layout, cases, count, load, numbers};
use burn_alq_tests::{Group, prune};
use multibit::fit;
use serde_json::Value;

use crate::support::{State, assert_groups, narrow, params, widen};

#[test]
fn sketches_of_layers() {
    let file = load("sketch_layers.json");
    let mut exact = 0;
    for case in cases(&file) {
        let label = case["label"].as_str().unwrap();
        let layout = Layout::new(&case["B"]["shape"], &case["w"]["shape"], &case["structure"]);
        let mask = numbers(&case["mask"]);
        let (bases, alphas) = (numbers(&case["B"]), numbers(&case["alpha"]));
        let expected = layout.state(&bases, &alphas, &mask);
        let margins = numbers(&case["group_sign_margin"]);
        let residuals = numbers(&case["group_rel_residual_sq_reference"]);
        let groups = layout.groups(&numbers(&case["w"]));
        let slots = layout.slots.min(multibit::MAX_BITS);
        for (index, w) in groups.iter().enumerate() {
            let sketch = fit::greedy(&narrow(w), layout.len, slots).unwrap();
            let zeros = |like: usize| fit::Moments::default().map(|()| vec![0.0; like]);
            let state = State {
                len: layout.len,
                max_bits: slots,
                state: fit::State {
                    weight: zeros(sketch.codes.len()),
                    alpha: zeros(sketch.coordinates.len()),
                    codes: sketch.codes,
                    coordinates: sketch.coordinates,
                    widths: sketch.widths,
                },
            };
            let found = state.group(0);
            if margins[index] > 1e-4 {
                assert_groups(&[found], &expected[index..=index], 2e-5, label);
                exact += 1;
            } else {
                let square = |x: f64| x * x;
                let fitted = found.reconstruct();
                let error: f64 = w.iter().zip(fitted).map(|(w, f)| square(w - f)).sum();
                let norm: f64 = w.iter().copied().map(square).sum();
                // A sign is noise here, and may as well lead to a better basis.
                assert!(
                    error <= (residuals[index] + 1e-4) * norm,
                    "{label}: residual of {index}"
                );
            }
        }
    }
    assert_eq!(exact, 408 - 75, "unambiguous groups");
}

/// One layer of a trajectory.
struct Layer {
    layout: Layout,
    state: State,
    /// Around which the authors' program takes its first step.
    centre: Option<Vec<f32>>,
    latent: Vec<f32>,
}

impl Layer {
    fn new(init: &Value) -> Self {
        let layout = Layout::new(&init["B_shape"], &init["shape_w"], &init["structure"]);
        let [bases, alpha, mask] = ["B", "alpha", "mask"].map(|name| numbers(&init[name]));
        let groups = layout.state(&bases, &alpha, &mask);
        let centre = narrow(&layout.groups(&numbers(&init["w_FP"])).concat());
        Self {
            state: State::new(&positive(groups), layout.len, layout.slots),
            latent: centre.clone(),
            centre: Some(centre),
            layout,
        }
    }

    fn step(&mut self, mode: &str, grads: &[f32], lr: f64, t: u32) {
        // The authors' program adds 1e-6 whatever the matrix: so small here that the difference to
        // a relative ridge stays within the tolerance.
        let params = params(lr, t, 1e-6);
        let mut out = vec![0.0; grads.len()];
        let (centre, latent) = (self.centre.take(), &mut self.latent);
        self.state.with(|state| match mode {
            "basis" => fit::basis(state, centre.as_deref(), grads, &params, &mut out),
            "coordinate" => fit::coordinate(state, grads, &params, &mut out),
            "ste" => fit::ste(state, latent, grads, &params, &mut out),
            other => panic!("no mode {other}"),
        });
        let reconstructed: Vec<f64> = self
            .state
            .groups()
            .iter()
            .flat_map(Group::reconstruct)
            .collect();
        for (out, expected) in widen(&out).iter().zip(reconstructed) {
            assert!(
                (out - expected).abs() < 1e-6,
                "a step returns its reconstruction"
            );
        }
    }

    fn golden(&self, golden: &Value) -> Vec<Group> {
        let [bases, alpha, mask] = ["B", "alpha", "mask"].map(|name| numbers(&golden[name]));
        let mut groups = self.layout.state(&bases, &alpha, &mask);
        let weights = |name: &str| self.layout.groups(&numbers(&golden[name]));
        let slots = |name: &str| self.layout.live(&numbers(&golden[name]), &mask);
        let (m, v, v_max) = (
            weights("exp_avg"),
            weights("exp_avg_sq"),
            weights("max_exp_avg_sq"),
        );
        let (ma, va) = (slots("exp_avg_alpha"), slots("exp_avg_sq_alpha"));
        let va_max = slots("max_exp_avg_sq_alpha");
        for (i, group) in groups.iter_mut().enumerate() {
            (group.m, group.v, group.v_max) = (m[i].clone(), v[i].clone(), v_max[i].clone());
            group.m_alpha = ma[i].clone();
            group.v_alpha = va[i].clone();
            group.v_max_alpha = va_max[i].clone();
        }
        positive(groups)
    }
}

/// The same groups with positive coordinates: a negative one is negated with its basis and its
/// first moment.
fn positive(mut groups: Vec<Group>) -> Vec<Group> {
    for group in &mut groups {
        for i in 0..group.alpha.len() {
            if group.alpha[i] < 0.0 {
                group.alpha[i] = -group.alpha[i];
                group.m_alpha[i] = -group.m_alpha[i];
                group.bases[i].iter_mut().for_each(|b| *b = -*b);
            }
        }
    }
    groups
}

/// The pruning step with the reference's preselection counts.
fn prune_step(layers: &mut [Layer], grads: &[Vec<f32>], step: &Value, lr: f64, t: u32) {
    let mut tables = Vec::new();
    for (layer, grads) in layers.iter_mut().zip(grads) {
        let mut delta = vec![0.0; layer.state.state.coordinates.len()];
        layer.state.with(|state| {
            fit::importance(state, grads, &params(lr, t, 1e-6), &mut delta);
        });
        tables.push(delta);
    }
    let deltas: Vec<Vec<Vec<f64>>> = layers
        .iter()
        .zip(&tables)
        .map(|(layer, delta)| {
            let groups = delta
                .chunks_exact(layer.layout.slots)
                .zip(&layer.state.state.widths);
            groups
                .map(|(delta, &width)| widen(&delta[..width.into()]))
                .collect()
        })
        .collect();
    let rates = numbers(&step["pruning_rate"]);
    let draws = numbers(&step["random_draws"]);
    let top = deltas.iter().zip(draws).map(|(groups, draw)| {
        let share = groups.iter().map(Vec::len).sum::<usize>() as f64 * rates[0];
        share.floor() as usize + usize::from(draw < share.fract())
    });
    let top: Vec<usize> = top.collect();
    let count = (top.iter().sum::<usize>() as f64 * rates[1]) as usize;
    let dropped = prune::select(&deltas, &top, count);
    for (index, layer) in layers.iter_mut().enumerate() {
        let mut marks = vec![false; layer.state.state.coordinates.len()];
        for (_, group, i) in dropped.iter().filter(|id| id.0 == index) {
            marks[group * layer.layout.slots + i] = true;
        }
        let mut out = vec![0.0; layer.state.state.codes.len()];
        layer.state.with(|state| {
            fit::drop_coordinates(state, &marks, &mut out);
        });
    }
}

#[test]
fn trajectories() {
    for name in ["basis", "coordinate", "ste", "conv", "mixed_prune"] {
        let name = format!("trajectory_{name}.json");
        for case in cases(&load(&name)) {
            let init = case["init"].as_array().unwrap();
            let mut layers: Vec<Layer> = init.iter().map(Layer::new).collect();
            let mut last = "";
            for (index, step) in case["steps"].as_array().unwrap().iter().enumerate() {
                let (t, lr) = (index as u32 + 1, step["lr"].as_f64().unwrap());
                let mode = step["mode"].as_str().unwrap();
                let grads = layers.iter().zip(step["grads"].as_array().unwrap());
                let grads: Vec<Vec<f32>> = grads
                    .map(|(layer, grads)| narrow(&layer.layout.groups(&numbers(grads)).concat()))
                    .collect();
                if step["pruning_rate"].is_array() {
                    prune_step(&mut layers, &grads, step, lr, t);
                } else {
                    for (layer, grads) in layers.iter_mut().zip(&grads) {
                        if mode == "ste" && index > 0 && last != "ste" {
                            let groups = layer.state.groups();
                            let weights = groups.iter().flat_map(Group::reconstruct);
                            layer.latent = narrow(&weights.collect::<Vec<f64>>());
                        }
                        layer.step(mode, grads, lr, t);
                    }
                }
                last = mode;
                let what = format!("{name} {} step {index}", case["label"]);
                for (layer, golden) in layers.iter().zip(step["layers"].as_array().unwrap()) {
                    assert_groups(&layer.state.groups(), &layer.golden(golden), 2e-5, &what);
                }
                assert!(count(&step["t"]) == index);
            }
        }
    }
}

/// The ranking drops the live coordinates of smallest importance, by their places in the full table.
#[test]
fn pruning_ranks_live_coordinates_by_their_own_importance() {
    for case in cases(&load("pruning.json")) {
        let mask = numbers(&case["mask"]);
        let importance = numbers(&case["importance_full"]);
        let deltas = mask.iter().zip(importance);
        let deltas: Vec<f32> = deltas
            .map(|(mask, delta)| {
                if *mask == 0.0 {
                    f32::INFINITY
                } else {
                    delta as f32
                }
            })
            .collect();
        let layout = Layout::new(
            &case["B"]["shape"],
            &case["weight_shape"],
            &case["structure"],
        );
        let live = mask.iter().filter(|mask| **mask != 0.0).count();
        let order = case["order_flat_index"]
            .as_array()
            .unwrap()
            .iter()
            .map(count);
        let going = case["prune_flat_indices"].as_array().unwrap().len();
        let mut expected: Vec<usize> = order.take(going).collect();
        expected.sort_unstable();
        let size = Size {
            groups: layout.groups,
            len: layout.len,
            coordinates: live,
            widest: layout.slots as u8,
            frozen: false,
            stands_for: None,
        };
        let budget = Budget {
            cost: Cost::Coordinates,
            at_most: (live - going) as f64,
            top_k: count(&case["num_top"]) as f64 / live as f64,
            loss_share: 1.0,
            floor: 0.0,
        };
        let mut found: Vec<usize> = select(vec![Candidates::all(0, &deltas)], &[size], &budget)
            .unwrap()
            .iter()
            .map(|id| id.place)
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{}", case["label"]);
    }
}
