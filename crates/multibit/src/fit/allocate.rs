//! Bitwidths of groups under a budget, by what their sketches leave.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::hessian::Hessian;
use super::sketch::{Room, SketchError, check_finite, error};
use super::{check_len, check_max_bits};
use crate::CoordinateType;
use crate::bits::Codebook;

/// What the sketch of each group leaves at each bitwidth: `Σⱼ Nⱼⱼ² (w − ŵ)ⱼ²`, its share of
/// `(w − ŵ)ᵀ H (w − ŵ)` when later weights make up for it ([`calibrate`](super::calibrate())), in units
/// of the mean of `H`'s diagonal.
///
/// # Shapes
/// - `weights`: `[outputs, d_in]`
/// - result: `[groups, max_bits + 1]`, from no bases on
///
/// # Errors
/// If a weight is not finite.
///
/// # Panics
/// If `len` does not divide `d_in`, `d_in` not the weights, or `max_bits` is not 1 to
/// [`MAX_BITS`](crate::MAX_BITS).
pub fn error_curves(
    weights: &[f32],
    hessian: &Hessian,
    len: usize,
    max_bits: usize,
    coordinate_type: CoordinateType,
) -> Result<Vec<f64>, SketchError> {
    check_max_bits(max_bits);
    let groups = hessian.groups_of(len);
    let inputs = hessian.inputs();
    check_len("weights", weights.len(), weights.len() / inputs, inputs);
    check_finite(weights)?;
    let pivots = (0..inputs).map(|j| hessian.factor_row(j).1);
    let h: Vec<f32> = pivots.map(|pivot| pivot * pivot).collect();
    let points = max_bits + 1;
    let mut curves = alloc::vec![0.0; weights.len() / len * points];
    let output = |(weights, curves): (&[f32], &mut [f64])| {
        let mut room = Room::new(coordinate_type);
        let (mut codes, mut codebook) = (alloc::vec![0; len], Codebook::new());
        let weights = weights.chunks_exact(len).zip(h.chunks_exact(len));
        for ((weights, h), curve) in weights.zip(curves.chunks_exact_mut(points)) {
            for (bits, left) in curve.iter_mut().enumerate() {
                let mut slots = [0.0; crate::MAX_BITS];
                codes.fill(0);
                let width = match bits {
                    0 => 0,
                    _ => room.weighted(weights, Some(h), &mut codes, &mut slots[..bits]),
                };
                codebook.build(&slots[..usize::from(width)]);
                *left = error(weights, Some(h), &codes, &codebook);
            }
        }
    };
    #[cfg(feature = "rayon")]
    {
        use rayon::prelude::*;

        let curves = curves.par_chunks_exact_mut(groups * points);
        weights
            .par_chunks_exact(inputs)
            .zip(curves)
            .for_each(output);
    }
    #[cfg(not(feature = "rayon"))]
    {
        let curves = curves.chunks_exact_mut(groups * points);
        weights.chunks_exact(inputs).zip(curves).for_each(output);
    }
    Ok(curves)
}

/// Bitwidths of groups, of one weight or many, of which all together store no more than a budget, by
/// what they leave at each bitwidth.
///
/// The next bases go where they take the most error away for each bit that they store, until none
/// fits any more. Where a curve is not convex, several bases are taken at once.
///
/// # Shapes
/// - `curves`: `[groups, max_bits + 1]`, as from [`error_curves`], times what the weight matters
/// - `basis_bits`: `[groups]`, the bits that one basis stores: signs and a coordinate
/// - result: `[groups]`
///
/// # Panics
/// If a slice has another length, `max_bits` is not 1 to [`MAX_BITS`](crate::MAX_BITS), or a basis
/// stores nothing.
pub fn allocate(curves: &[f64], max_bits: usize, basis_bits: &[usize], budget: usize) -> Vec<u8> {
    check_max_bits(max_bits);
    check_len("curves", curves.len(), basis_bits.len(), max_bits + 1);
    assert!(
        basis_bits.iter().all(|&bits| bits > 0),
        "`basis_bits` holds 0, but a basis stores a coordinate at least"
    );
    let curve = |group: usize| &curves[group * (max_bits + 1)..][..=max_bits];
    let step = |group: usize, from: u8| Step::best(curve(group), basis_bits[group], group, from);
    let mut widths = alloc::vec![0; basis_bits.len()];
    let mut left = budget;
    let mut steps: BinaryHeap<Step> = (0..widths.len()).filter_map(|g| step(g, 0)).collect();
    while let Some(Step { group, to, .. }) = steps.pop() {
        let bases = usize::from(to - widths[group]);
        // A group that is too large now stays as it is: the budget does not grow.
        if let Some(rest) = left.checked_sub(bases * basis_bits[group]) {
            left = rest;
            widths[group] = to;
            steps.extend(step(group, to));
        }
    }
    widths
}

/// A group's next bases.
struct Step {
    /// Error taken away for each bit stored.
    gain: f64,
    group: usize,
    to: u8,
}

impl Step {
    /// The step with the largest gain, if there is one.
    fn best(curve: &[f64], basis_bits: usize, group: usize, from: u8) -> Option<Self> {
        let gain = |to: usize| {
            let bases = to - usize::from(from);
            (curve[usize::from(from)] - curve[to]) / (bases * basis_bits) as f64
        };
        let steps = (usize::from(from) + 1..curve.len()).map(|to| Self {
            gain: gain(to),
            group,
            to: to as u8,
        });
        // Of equal gains the shortest step.
        let best = steps.rev().max_by(|a, b| a.gain.total_cmp(&b.gain));
        best.filter(|best| best.gain > 0.0)
    }
}

impl Ord for Step {
    /// By gain, and of equal gains the first group.
    fn cmp(&self, other: &Self) -> Ordering {
        let gain = self.gain.total_cmp(&other.gain);
        gain.then_with(|| other.group.cmp(&self.group))
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Step {}
