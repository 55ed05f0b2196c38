//! The steps of `burn-alq` against the oracle: the slice kernels on Flex, the default bodies of the
//! backend extension on other devices.

use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::Layout;
use burn_alq::optim::step::WeightLayout;
use burn_alq::optim::step::{self, TensorState};
use burn_alq::{GroupingRule, MultiBitData};
use burn_alq_tests::step::Ridge;
use burn_alq_tests::{Group, prune, step as oracle};

use crate::devices::device;
use crate::support::{Random, State, assert_groups, narrow, params, random_groups, widen};

const RIDGE: f64 = 1e-6;

/// One weight on a device, beside the oracle's.
struct Pair {
    layout: WeightLayout,
    state: TensorState,
    latent: Option<Tensor<2>>,
    groups: Vec<Group>,
    max_bits: usize,
    device: Device,
    t: u32,
}

impl Pair {
    fn new(
        device: &Device,
        shape: &[usize],
        rule: GroupingRule,
        groups: Vec<Group>,
        max_bits: usize,
    ) -> Self {
        let grouping = rule.grouping(Layout::Direct, shape).unwrap();
        let state = State::new(&groups, grouping.len(), max_bits).state;
        let data = MultiBitData {
            shape: shape.to_vec(),
            grouping: grouping.clone(),
            max_bits,
            codes: state.codes,
            coordinates: state.coordinates,
            widths: state.widths,
            arithmetic: None,
        };
        let attached = data.to_device(device);
        Self {
            layout: WeightLayout::new(shape.to_vec(), grouping),
            state: step::start(&attached),
            latent: None,
            groups,
            max_bits,
            device: device.clone(),
            t: 0,
        }
    }

    /// Gradients of the groups as one tensor in the weight's own layout.
    fn tensor(&self, grads: &[Vec<f64>]) -> Tensor<1> {
        let grouped = narrow(&grads.concat());
        let mut weight = vec![0.0; grouped.len()];
        self.layout
            .grouping
            .scatter(&self.layout.shape, &grouped, &mut weight);
        Tensor::from_data(weight.as_slice(), &self.device)
    }

    fn found(&self) -> Vec<Group> {
        let ints = |data: TensorData| data.convert::<u8>().try_into_vec().unwrap();
        let state = State {
            len: self.layout.grouping.len(),
            max_bits: self.max_bits,
            state: self.state.clone().map(
                |codes| ints(codes.into_data()),
                |widths| ints(widths.into_data()),
                |floats| floats.into_data().try_into_vec().unwrap(),
            ),
        };
        state.groups()
    }

    /// The weight that a step returned is the reconstruction, in the weight's own layout.
    fn check(&self, weight: Tensor<1>, what: &str) {
        let weight: Vec<f32> = weight.into_data().try_into_vec().unwrap();
        let mut grouped = vec![0.0; weight.len()];
        self.layout
            .grouping
            .gather(&self.layout.shape, &weight, &mut grouped);
        let expected: Vec<f64> = self.groups.iter().flat_map(Group::reconstruct).collect();
        for (found, expected) in widen(&grouped).iter().zip(expected) {
            assert!(
                (found - expected).abs() < 2e-5,
                "{what}: weight {found} is not {expected}"
            );
        }
        // f32 moments and sums of up to some hundred terms.
        assert_groups(&self.found(), &self.groups, 2e-5, what);
    }

    fn step(&mut self, kind: &str, grads: &[Vec<f64>], lr: f64, what: &str) {
        self.t += 1;
        let (t, ridge) = (self.t, Ridge::Relative(RIDGE));
        for (group, g) in self.groups.iter_mut().zip(grads) {
            match kind {
                "basis" => oracle::basis(group, None, g, lr, t, ridge),
                "coordinate" => oracle::coordinate(group, g, lr, t),
                "ste" => oracle::ste(group, g, lr, t, ridge),
                other => panic!("no step {other}"),
            }
        }
        let (state, grad) = (self.state.clone(), self.tensor(grads));
        let params = params(lr, t, RIDGE);
        let weight;
        (self.state, weight) = match kind {
            "basis" => step::basis(state, grad, &self.layout, params),
            "coordinate" => step::coordinate(state, grad, &self.layout, params),
            _ => {
                let latent = self.latent.take().unwrap();
                let (state, latent, weight) = step::ste(state, latent, grad, &self.layout, params);
                self.latent = Some(latent);
                (state, weight)
            }
        };
        self.check(weight, what);
    }

    /// A pruning step that drops `count` coordinates.
    fn prune(&mut self, grads: &[Vec<f64>], lr: f64, count: usize, what: &str) {
        self.t += 1;
        let groups = self.groups.iter_mut().zip(grads);
        let deltas: Vec<Vec<f64>> = groups
            .map(|(group, g)| oracle::importance(group, g, lr, self.t))
            .collect();
        let (state, found) = step::importance(
            self.state.clone(),
            self.tensor(grads),
            &self.layout,
            params(lr, self.t, RIDGE),
        );
        let found: Vec<f32> = found.into_data().try_into_vec().unwrap();
        for (found, expected) in found.chunks_exact(self.max_bits).zip(&deltas) {
            for (slot, found) in found.iter().enumerate() {
                match expected.get(slot) {
                    Some(expected) => {
                        assert!((f64::from(*found) - expected).abs() < 1e-6, "{what}: Δ")
                    }
                    None => assert_eq!(*found, f32::INFINITY, "{what}: Δ of an absent slot"),
                }
            }
        }
        let mut marks = vec![false; self.groups.len() * self.max_bits];
        let all = deltas.iter().map(Vec::len).sum();
        let dropped = prune::select(&[deltas], &[all], count);
        for (index, group) in self.groups.iter_mut().enumerate() {
            let of_group = dropped.iter().filter(|id| id.1 == index);
            let slots: Vec<usize> = of_group.map(|id| id.2).collect();
            slots
                .iter()
                .for_each(|slot| marks[index * self.max_bits + slot] = true);
            prune::drop(group, &slots);
        }
        let weight;
        (self.state, weight) = step::drop_coordinates(state, &marks, &self.layout);
        self.check(weight, what);
    }
}

/// Twelve steps of all kinds, on every grouping, with widths from 0 to 6.
#[test]
fn steps_agree_with_the_oracle() {
    let cases: [(&[usize], GroupingRule); 5] = [
        (&[4, 3, 5, 5], GroupingRule::Kernelwise),
        (&[4, 16, 2, 1], GroupingRule::Pixelwise),
        (&[6, 8, 3, 3], GroupingRule::Channelwise),
        (&[150, 3], GroupingRule::Subchannelwise(1)),
        (&[90, 4], GroupingRule::Subchannelwise(2)),
    ];
    let device = device();
    for (case, (shape, rule)) in cases.into_iter().enumerate() {
        let mut random = Random::new(case as u64 + 1);
        let grouping = rule.grouping(Layout::Direct, shape).unwrap();
        let (groups, len) = (grouping.groups(shape), grouping.len());
        // Wide groups need room, or their bases depend on each other and coordinates are noise.
        let widest = if len < 20 { 2 } else { 6 };
        let widths: Vec<usize> = (0..groups).map(|group| group % (widest + 1)).collect();
        let start = random_groups(&mut random, len, &widths);
        let mut pair = Pair::new(&device, shape, rule, start, 6);
        for (index, kind) in [
            "basis",
            "basis",
            "coordinate",
            "coordinate",
            "prune",
            "prune",
            "basis",
            "coordinate",
            "prune",
            "ste",
            "ste",
            "coordinate",
        ]
        .into_iter()
        .enumerate()
        {
            let what = format!("{rule:?}, step {index} ({kind})");
            let grads: Vec<Vec<f64>> = (0..groups).map(|_| random.normals(len, 0.1)).collect();
            if kind == "prune" {
                let live: usize = pair.groups.iter().map(|group| group.alpha.len()).sum();
                pair.prune(&grads, 1e-2, live / 5, &what);
                continue;
            }
            if kind == "ste" && pair.latent.is_none() {
                pair.latent = Some(step::reconstruct(&pair.state));
                for group in &mut pair.groups {
                    group.latent = group.reconstruct();
                }
            }
            pair.step(kind, &grads, 1e-2, &what);
        }
    }
}

/// Groups that never had a gradient, and dependent bases, leave finite weights everywhere.
#[test]
fn silent_and_dependent_groups_do_not_fail() {
    let device = device();
    let signs = vec![1.0, -1.0, 1.0, 1.0];
    let twice = Group::new(4, vec![signs.clone(), signs.clone()], vec![0.25, 0.5]);
    let silent = Group::new(4, vec![signs], vec![0.5]);
    let groups = vec![twice, silent.clone()];
    let mut pair = Pair::new(&device, &[4, 2], GroupingRule::Subchannelwise(1), groups, 3);
    for t in 1..=3 {
        let grads = [vec![0.1, 0.2, -0.1, 0.3], vec![0.0; 4]];
        let (state, grad) = (pair.state.clone(), pair.tensor(&grads));
        let weight;
        (pair.state, weight) = step::basis(state, grad, &pair.layout, params(1e-3, t, RIDGE));
        let weight: Vec<f32> = weight.into_data().try_into_vec().unwrap();
        assert!(weight.iter().all(|w| w.is_finite()), "{weight:?}");
    }
    let found = pair.found();
    assert_eq!(found[1].alpha, silent.alpha, "a silent group does not move");
    assert_eq!(found[1].bases, silent.bases, "a silent group does not move");
}

/// What pruning reads back: the smallest increases, of equal ones the earlier, NaN last.
#[test]
fn the_smallest_increases_are_found() {
    let device = device();
    let mut random = Random::new(31);
    // Few distinct values, so that most of them are equal to others.
    let mut delta: Vec<f32> = (0..6000)
        .map(|_| ((random.uniform() - 0.5) * 9.0).round() as f32 * 1e-3)
        .collect();
    delta[17] = f32::NAN;
    delta[18] = -f32::NAN;
    delta[4000] = f32::INFINITY;
    delta[5000] = -1e-38;
    let mut ranked: Vec<usize> = (0..delta.len()).collect();
    ranked.sort_by(|&a, &b| {
        let nan = delta[a].is_nan().cmp(&delta[b].is_nan());
        let order = nan.then(delta[a].total_cmp(&delta[b]));
        let order = if delta[a].is_nan() && delta[b].is_nan() {
            nan
        } else {
            order
        };
        order.then(a.cmp(&b))
    });
    for count in [0, 1, 257, 5999, 6000] {
        let tensor = Tensor::<1>::from_data(delta.as_slice(), &device).reshape([1500, 4]);
        let mut found = step::smallest(tensor, count);
        found.sort_by_key(|&(_, place)| place);
        let mut expected = ranked[..count].to_vec();
        expected.sort_unstable();
        let places: Vec<usize> = found.iter().map(|&(_, place)| place).collect();
        assert_eq!(places, expected, "{count} smallest");
        for (value, place) in found {
            assert!(value == delta[place] || value.is_nan() && delta[place].is_nan());
        }
    }
}
