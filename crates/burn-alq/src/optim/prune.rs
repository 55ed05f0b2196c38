//! Which coordinates go: the ranking across layers of the pruning step.

use alloc::vec::Vec;

use crate::weight::{Cost, Size, total};

/// A place in a layer's full `[groups, max_bits]` table of coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CoordinateId {
    /// The layer, in the order of the module tree.
    pub layer: usize,
    /// `group * max_bits + slot`.
    pub place: usize,
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
    /// Average bitwidth that every layer keeps, and never less than one coordinate; with 0, layers may
    /// be emptied.
    pub floor: f64,
}

impl Budget {
    /// Coordinates that a layer keeps.
    pub fn least(&self, size: &Size) -> usize {
        least(size, self.floor)
    }
}

/// Coordinates that a layer keeps by an average bitwidth.
pub(crate) fn least(size: &Size, floor: f64) -> usize {
    if floor <= 0.0 {
        return 0;
    }
    let least = libm::ceil(size.groups as f64 * floor) as usize;
    least.max(1).min(size.coordinates)
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
/// A layer at its [`floor`](Budget::floor) gives nothing more, and where all are, the budget is not met.
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
    let floors: Vec<usize> = sizes.iter().map(|size| budget.least(size)).collect();
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
            if size.coordinates <= floors[id.layer] {
                continue;
            }
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
