//! Which coordinates go: the ranking across layers of the pruning step.

use alloc::vec::Vec;

use multibit::{CoordinateType, Grouping};

/// A place in a layer's full `[groups, max_bits]` table of coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoordinateId {
    /// The layer, in the order of the module tree.
    pub layer: usize,
    /// `group * max_bits + slot`.
    pub place: usize,
}

/// What a pruning budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Live coordinates.
    Coordinates,
    /// Bits of bases, `Σ n·I`.
    BaseBits,
    /// Bytes of the packed weights: bases, coordinates of this type, widths.
    Bytes(CoordinateType),
}

/// How much may remain after a pruning step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// The unit.
    pub cost: Cost,
    /// Coordinates are dropped until at most this much is left.
    pub at_most: f64,
    /// Share of a layer's live coordinates that it offers at a time.
    pub top_k: f64,
    /// Share of the modelled loss of all that has to go that may go in this step, though at least
    /// one coordinate does; 1 for all.
    pub loss_share: f64,
}

/// Size of a weight with the given widths, by [`Cost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Groups.
    pub groups: usize,
    /// Weights of a group.
    pub len: usize,
    /// Live coordinates.
    pub coordinates: usize,
    /// The largest width, which decides the bits that a width is stored with.
    pub widest: u8,
}

impl Size {
    /// The size of a weight cut by `grouping`.
    pub fn new(grouping: &Grouping, widths: &[u8]) -> Self {
        Self {
            groups: widths.len(),
            len: grouping.len(),
            coordinates: widths.iter().map(|&width| usize::from(width)).sum(),
            widest: widths.iter().copied().max().unwrap_or(0),
        }
    }

    /// Weights.
    pub fn weights(&self) -> usize {
        self.groups * self.len
    }

    /// Bits of bases.
    pub fn base_bits(&self) -> usize {
        self.coordinates * self.len
    }

    /// Bytes when packed with coordinates of a type.
    pub fn bytes(&self, coordinates: CoordinateType) -> usize {
        let width_bits = (u8::BITS - self.widest.leading_zeros()).max(1) as usize;
        self.base_bits().div_ceil(8)
            + coordinates.bytes() * self.coordinates
            + (self.groups * width_bits).div_ceil(8)
    }

    /// The size in a unit.
    pub fn cost(&self, cost: Cost) -> usize {
        match cost {
            Cost::Coordinates => self.coordinates,
            Cost::BaseBits => self.base_bits(),
            Cost::Bytes(coordinates) => self.bytes(coordinates),
        }
    }
}

/// The total size of several weights in a unit.
pub fn total(sizes: &[Size], cost: Cost) -> usize {
    sizes.iter().map(|size| size.cost(cost)).sum()
}

/// Live coordinates of a layer, of which those with the smallest `Δ` are known.
#[derive(Debug, Clone)]
pub struct Candidates {
    live: usize,
    /// The smallest last.
    ranked: Vec<(f32, CoordinateId)>,
}

impl Candidates {
    /// Known coordinates of a layer by `Δ` and place, of `live` that there are. A `Δ` that is
    /// infinite is of no coordinate.
    pub fn new(layer: usize, live: usize, known: impl IntoIterator<Item = (f32, usize)>) -> Self {
        let mut ranked: Vec<(f32, CoordinateId)> = known
            .into_iter()
            .filter(|(delta, _)| *delta != f32::INFINITY)
            .map(|(delta, place)| {
                let delta = if delta.is_nan() { f32::MAX } else { delta };
                (delta, CoordinateId { layer, place })
            })
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        Self { live, ranked }
    }

    /// All coordinates of a layer by the `Δ` of every place.
    pub fn all(layer: usize, deltas: &[f32]) -> Self {
        let places = deltas.iter().copied().zip(0..);
        let mut all = Self::new(layer, 0, places);
        all.live = all.ranked.len();
        all
    }

    /// Takes an offer out, none if it is not known.
    fn offer(&mut self, share: f64) -> Option<Vec<(f32, CoordinateId)>> {
        let offer = offer(self.live, share);
        let kept = self.ranked.len().checked_sub(offer)?;
        self.live -= offer;
        Some(self.ranked.split_off(kept))
    }
}

/// The share of its live coordinates that a layer offers.
fn share(sizes: &[Size], budget: &Budget) -> f64 {
    let left = total(sizes, budget.cost);
    let excess = 1.0 - budget.at_most.max(0.0) / (left as f64).max(1.0);
    budget.top_k.max(2.0 * excess).min(1.0)
}

fn offer(live: usize, share: f64) -> usize {
    (libm::ceil(live as f64 * share) as usize).max(1).min(live)
}

/// How many coordinates each layer offers first: what [`select`] needs to know, unless that is used
/// up. None where the budget is met already.
pub fn offers(sizes: &[Size], budget: &Budget) -> Vec<usize> {
    let share = share(sizes, budget);
    let met = total(sizes, budget.cost) as f64 <= budget.at_most;
    let of = |size: &Size| {
        if met {
            0
        } else {
            offer(size.coordinates, share)
        }
    };
    sizes.iter().map(of).collect()
}

/// Chooses the coordinates to drop; none at all if more would have to be known of a layer.
///
/// Every layer offers the `top_k` share (at least one) of its live coordinates with the smallest
/// `Δ`; what all layers offer is ranked together, and the smallest are dropped until the budget is
/// met exactly: the last coordinate dropped is the one that crosses it.
///
/// An offer must be larger than what goes, or small layers would lose whatever they offer: where
/// `top_k` is too small for that, the share is twice the share of the size that goes. When an offer
/// is used up all the same, the layers offer again from what is left.
///
/// Ties go to the earlier place. A NaN ranks last. With a [`loss_share`](Budget::loss_share) below
/// 1, only the first of those go.
pub fn select(
    mut layers: Vec<Candidates>,
    sizes: &[Size],
    budget: &Budget,
) -> Option<Vec<CoordinateId>> {
    let mut sizes = sizes.to_vec();
    let share = share(&sizes, budget);
    let mut left = total(&sizes, budget.cost);
    let mut dropped = Vec::new();
    while left as f64 > budget.at_most {
        let mut offered = Vec::new();
        for layer in &mut layers {
            offered.extend(layer.offer(share)?);
        }
        if offered.is_empty() {
            break;
        }
        offered.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (delta, id) in offered {
            let size = &mut sizes[id.layer];
            let before = size.cost(budget.cost);
            size.coordinates -= 1;
            left -= before - size.cost(budget.cost);
            dropped.push((delta, id));
            if left as f64 <= budget.at_most {
                break;
            }
        }
    }
    if budget.loss_share < 1.0 {
        dropped.truncate(affordable(&dropped, budget.loss_share));
    }
    Some(dropped.into_iter().map(|(_, id)| id).collect())
}

/// How many coordinates, of those that are to be dropped in this order, take a share of the loss of
/// all. What lowers the loss costs nothing.
fn affordable(dropped: &[(f32, CoordinateId)], share: f64) -> usize {
    let loss = |&(delta, _): &(f32, CoordinateId)| f64::from(delta.max(0.0));
    let most = share * dropped.iter().map(loss).sum::<f64>();
    let mut sum = 0.0;
    let count = dropped.iter().take_while(|drop| {
        sum += loss(drop);
        sum <= most
    });
    count.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [`super::select`] with all coordinates known.
    fn select(deltas: &[Vec<f32>], sizes: &[Size], budget: &Budget) -> Vec<CoordinateId> {
        let layers = deltas.iter().enumerate();
        let all = layers
            .map(|(layer, deltas)| Candidates::all(layer, deltas))
            .collect();
        super::select(all, sizes, budget).expect("all are known")
    }

    fn layer(delta: &[f32], max_bits: usize, len: usize) -> (Vec<f32>, Size) {
        let groups = delta.len() / max_bits;
        let live = delta.iter().filter(|d| **d != f32::INFINITY).count();
        let size = Size {
            groups,
            len,
            coordinates: live,
            widest: max_bits as u8,
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
        let budget = Budget {
            cost: Cost::Coordinates,
            at_most: 2.0,
            top_k: 1.0,
            loss_share: 1.0,
        };
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
        let budget = Budget {
            cost: Cost::Coordinates,
            at_most: 17.0,
            top_k: 0.2,
            loss_share: 1.0,
        };
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
            let budget = Budget {
                cost: Cost::Coordinates,
                at_most: f64::from(at_most),
                top_k: 0.01,
                loss_share: 1.0,
            };
            let ids = select(core::slice::from_ref(&a), &[size], &budget);
            assert_eq!(ids.len(), 7 - at_most as usize);
        }
    }

    #[test]
    fn bits_and_bytes_stop_at_the_coordinate_that_crosses_the_budget() {
        let (a, size_a) = layer(&[0.1, 0.3], 1, 100);
        let (b, size_b) = layer(&[0.2, 0.4], 1, 8);
        let bits = Budget {
            cost: Cost::BaseBits,
            at_most: 108.0,
            top_k: 1.0,
            loss_share: 1.0,
        };
        let ids = select(&[a.clone(), b.clone()], &[size_a, size_b], &bits);
        assert_eq!(places(&ids), [(0, 0), (1, 0)]);
        // (200 + 7) / 8 + 8 + 1 and 2 + 8 + 1 bytes before; 13 + 4 + 1 for layer 0 after one.
        let bytes = Budget {
            cost: Cost::Bytes(CoordinateType::F32),
            at_most: 30.0,
            top_k: 1.0,
            loss_share: 1.0,
        };
        let ids = select(&[a, b], &[size_a, size_b], &bytes);
        assert_eq!(places(&ids), [(0, 0)]);
    }

    #[test]
    fn without_candidates_nothing_is_dropped() {
        let (a, size) = layer(&[f32::INFINITY; 4], 2, 10);
        let budget = Budget {
            cost: Cost::Coordinates,
            at_most: -1.0,
            top_k: 0.5,
            loss_share: 1.0,
        };
        assert!(select(&[a], &[size], &budget).is_empty());
    }

    #[test]
    fn a_share_of_the_loss_goes_at_a_time() {
        let (a, size) = layer(&[-5.0, 1.0, 2.0, 3.0, 4.0, 90.0], 1, 10);
        for (loss_share, expected) in [(0.3, 3), (0.29, 2), (0.999, 4), (1.0, 5), (0.0, 1)] {
            let budget = Budget {
                cost: Cost::Coordinates,
                at_most: 1.0,
                top_k: 1.0,
                loss_share,
            };
            // The last one stays in any case, and its loss does not count.
            let ids = select(core::slice::from_ref(&a), &[size], &budget);
            assert_eq!(ids.len(), expected, "{loss_share} of the loss");
            assert!(ids.iter().enumerate().all(|(place, id)| id.place == place));
        }
        let (free, size) = layer(&[-1.0, -2.0, 0.0], 1, 10);
        let budget = Budget {
            cost: Cost::Coordinates,
            at_most: 0.0,
            top_k: 1.0,
            loss_share: 0.1,
        };
        assert_eq!(select(&[free], &[size], &budget).len(), 3);
    }

    #[test]
    fn not_a_number_goes_last() {
        let (a, size) = layer(&[f32::NAN, 0.2, 0.1], 1, 10);
        let budget = Budget {
            cost: Cost::Coordinates,
            at_most: 1.0,
            top_k: 1.0,
            loss_share: 1.0,
        };
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
        let budget = Budget {
            cost: Cost::Coordinates,
            at_most: 17.0,
            top_k: 0.2,
            loss_share: 1.0,
        };
        let first = offers(&sizes, &budget);
        // 15 % go, so 30 % and what rounding adds are offered.
        assert_eq!(first, [4, 4]);
        let ids = super::select(known(&first), &sizes, &budget).unwrap();
        assert_eq!(ids, select(&deltas, &sizes, &budget));
        let met = Budget {
            at_most: 20.0,
            ..budget
        };
        assert_eq!(offers(&sizes, &met), [0, 0]);
        assert_eq!(
            super::select(known(&[0, 0]), &sizes, &met),
            Some(Vec::new())
        );
        // One coordinate less than offered: not to be answered from what is known.
        assert_eq!(super::select(known(&[3, 4]), &sizes, &budget), None);
    }
}
