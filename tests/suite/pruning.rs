//! Which coordinates a pruning step chooses.

use burn_alq::CoordinateType;
use burn_alq::optim::prune::{self, Budget, Candidates, CoordinateId, offers};
use burn_alq::optim::{Cost, Size};

/// [`prune::select`] with all coordinates known.
fn select(deltas: &[Vec<f32>], sizes: &[Size], budget: &Budget) -> Vec<CoordinateId> {
    let layers = deltas.iter().enumerate();
    let all = layers
        .map(|(layer, deltas)| Candidates::all(layer, deltas))
        .collect();
    prune::select(all, sizes, budget).expect("all are known")
}

/// A budget whose loss goes all at once.
fn budget(cost: Cost, at_most: f64, top_k: f64) -> Budget {
    Budget {
        cost,
        at_most,
        top_k,
        loss_share: 1.0,
        floor: 0.0,
    }
}

fn layer(delta: &[f32], max_bits: usize, len: usize) -> (Vec<f32>, Size) {
    let groups = delta.len() / max_bits;
    let live = delta.iter().filter(|d| **d != f32::INFINITY).count();
    let size = Size {
        groups,
        len,
        coordinates: live,
        widest: max_bits as u8,
        frozen: false,
        stands_for: None,
    };
    (delta.to_vec(), size)
}

fn places(ids: &[CoordinateId]) -> Vec<(usize, usize)> {
    ids.iter().map(|id| (id.layer, id.place)).collect()
}

#[test]
fn the_smallest_of_all_layers_go_first() {
    let (a, size_a) = layer(&[0.5, 0.1, 0.9, f32::INFINITY], 2, 10);
    let (b, size_b) = layer(&[0.3, 0.2], 1, 10);
    let budget = budget(Cost::Coordinates, 2.0, 1.0);
    let ids = select(&[a, b], &[size_a, size_b], &budget);
    assert_eq!(places(&ids), [(0, 1), (1, 1), (1, 0)]);
}

#[test]
fn a_layer_offers_no_more_than_its_share_at_a_time() {
    // Layer 0 has the three smallest, but may offer two of its ten at a time.
    let small: Vec<f32> = (1..=10).map(|i| i as f32).collect();
    let large: Vec<f32> = (1..=10).map(|i| 3.5 + i as f32).collect();
    let (a, size_a) = layer(&small, 1, 10);
    let (b, size_b) = layer(&large, 1, 10);
    let budget = budget(Cost::Coordinates, 17.0, 0.2);
    // What goes is 15 %, so the offer is widened to 30 %.
    let ids = select(&[a.clone(), b.clone()], &[size_a, size_b], &budget);
    assert_eq!(places(&ids), [(0, 0), (0, 1), (0, 2)]);
    let budget = Budget {
        at_most: 18.0,
        ..budget
    };
    let ids = select(&[a, b], &[size_a, size_b], &budget);
    assert_eq!(places(&ids), [(0, 0), (0, 1)]);
}

#[test]
fn counts_are_exact_even_beyond_one_offer() {
    let (a, size) = layer(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], 1, 10);
    for at_most in 0..=7 {
        let budget = budget(Cost::Coordinates, f64::from(at_most), 0.01);
        let ids = select(core::slice::from_ref(&a), &[size], &budget);
        assert_eq!(ids.len(), 7 - at_most as usize);
    }
}

#[test]
fn bits_and_bytes_stop_at_the_coordinate_that_crosses_the_budget() {
    let (a, size_a) = layer(&[0.1, 0.3], 1, 100);
    let (b, size_b) = layer(&[0.2, 0.4], 1, 8);
    let bits = budget(Cost::BaseBits, 108.0, 1.0);
    let ids = select(&[a.clone(), b.clone()], &[size_a, size_b], &bits);
    assert_eq!(places(&ids), [(0, 0), (1, 0)]);
    // (200 + 7) / 8 + 8 + 1 and 2 + 8 + 1 bytes before; 13 + 4 + 1 for layer 0 after one.
    let bytes = budget(Cost::Bytes(CoordinateType::F32), 30.0, 1.0);
    let ids = select(&[a, b], &[size_a, size_b], &bytes);
    assert_eq!(places(&ids), [(0, 0)]);
}

#[test]
fn without_candidates_nothing_is_dropped() {
    let (a, size) = layer(&[f32::INFINITY; 4], 2, 10);
    let budget = budget(Cost::Coordinates, -1.0, 0.5);
    assert!(select(&[a], &[size], &budget).is_empty());
}

#[test]
fn a_share_of_the_loss_goes_at_a_time() {
    let (a, size) = layer(&[-5.0, 1.0, 2.0, 3.0, 4.0, 90.0], 1, 10);
    for (loss_share, expected) in [(0.3, 3), (0.29, 2), (0.999, 4), (1.0, 5), (0.0, 1)] {
        let budget = Budget {
            loss_share,
            ..budget(Cost::Coordinates, 1.0, 1.0)
        };
        // The last one stays in any case, and its loss does not count.
        let ids = select(core::slice::from_ref(&a), &[size], &budget);
        assert_eq!(ids.len(), expected, "{loss_share} of the loss");
        assert!(ids.iter().enumerate().all(|(place, id)| id.place == place));
    }
    let (free, size) = layer(&[-1.0, -2.0, 0.0], 1, 10);
    let budget = Budget {
        loss_share: 0.1,
        ..budget(Cost::Coordinates, 0.0, 1.0)
    };
    assert_eq!(select(&[free], &[size], &budget).len(), 3);
}

#[test]
fn not_a_number_goes_last() {
    let (a, size) = layer(&[f32::NAN, 0.2, 0.1], 1, 10);
    let budget = budget(Cost::Coordinates, 1.0, 1.0);
    let ids = select(&[a], &[size], &budget);
    assert_eq!(places(&ids), [(0, 2), (0, 1)]);
}

#[test]
fn what_is_offered_first_is_enough_unless_it_is_used_up() {
    let small: Vec<f32> = (1..=10).map(|i| i as f32).collect();
    let large: Vec<f32> = (1..=10).map(|i| 3.5 + i as f32).collect();
    let (a, size_a) = layer(&small, 1, 10);
    let (b, size_b) = layer(&large, 1, 1000);
    let sizes = [size_a, size_b];
    let deltas = [a, b];
    let known = |offers: &[usize]| {
        let layers = deltas.iter().zip(offers).enumerate();
        layers
            .map(|(layer, (deltas, &offer))| {
                let smallest = deltas.iter().copied().zip(0..).take(offer);
                Candidates::new(layer, deltas.len(), smallest)
            })
            .collect::<Vec<_>>()
    };
    let budget = budget(Cost::Coordinates, 17.0, 0.2);
    let first = offers(&sizes, &budget);
    // 15 % go, so 30 % and what rounding adds are offered.
    assert_eq!(first, [4, 4]);
    let ids = prune::select(known(&first), &sizes, &budget).unwrap();
    assert_eq!(ids, select(&deltas, &sizes, &budget));
    let met = Budget {
        at_most: 20.0,
        ..budget
    };
    assert_eq!(offers(&sizes, &met), [0, 0]);
    assert_eq!(
        prune::select(known(&[0, 0]), &sizes, &met),
        Some(Vec::new())
    );
    // One coordinate less than offered: not to be answered from what is known.
    assert_eq!(prune::select(known(&[3, 4]), &sizes, &budget), None);
}

/// No layer is emptied to pay for another: at its floor it gives nothing more, whatever it would cost.
#[test]
fn a_layer_keeps_its_floor() {
    let cheap: Vec<f32> = (1..=20).map(|i| 0.01 * i as f32).collect();
    let dear: Vec<f32> = (1..=20).map(|i| 10.0 + i as f32).collect();
    let (a, size_a) = layer(&cheap, 1, 10);
    let (b, size_b) = layer(&dear, 1, 10);
    let layers = [a, b];
    let left = |floor: f64, at_most: f64| {
        let budget = Budget {
            floor,
            ..budget(Cost::Coordinates, at_most, 0.05)
        };
        let mut left = [20, 20];
        for id in select(&layers, &[size_a, size_b], &budget) {
            left[id.layer] -= 1;
        }
        left
    };
    assert_eq!(left(0.0, 20.0), [0, 20], "asked for");
    assert_eq!(left(1e-9, 20.0), [1, 19], "one coordinate");
    // 20 groups, a fifth of a bit.
    assert_eq!(left(0.2, 20.0), [4, 16]);
    assert_eq!(left(0.2, 3.0), [4, 4], "what cannot be met");
    assert_eq!(left(9.0, 3.0), [20, 20], "more than there is");
}
