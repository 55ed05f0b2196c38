//! Structured sketching: float weights → bases and coordinates.

use alloc::vec::Vec;

use thiserror::Error;

use super::check_max_bits;
use super::greedy::greedy as greedy_group;
use super::nearest::NearestCode;
use super::refine::Refinement;
use crate::bits::{Codebook, code_mask};
use crate::{CoordinateType, MAX_BITS};

/// A share of the squared norm that rounding to f32 leaves of an exact sketch.
const EXACT: f64 = 1e-13;

/// A sketched weight in training form.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch {
    /// `[groups, len]`; bit `i` set where basis `i` is −1.
    pub codes: Vec<u8>,
    /// `[groups, max_bits]`; the first `width` of a group positive and ascending, the others 0.
    pub coordinates: Vec<f32>,
    /// `[groups]`.
    pub widths: Vec<u8>,
    /// Slots of a group.
    pub max_bits: usize,
    /// Weights of a group.
    pub len: usize,
}

/// Why a weight could not be sketched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SketchError {
    /// A weight is NaN or infinite.
    #[error("grouped weight {index} is not finite")]
    NotFinite {
        /// Its place in the groups.
        index: usize,
    },
}

/// Approximates every group by a sum of scaled ±1 vectors, `w ≈ Σᵢ αᵢ bᵢ`, with coordinates that
/// `coordinate_type` holds.
///
/// From the [`greedy`] sketch, which is never refined once a basis is taken, and from other starts
/// at its bitwidth, in turn: every weight takes the nearest of its group's levels `Σᵢ ±αᵢ`, and all
/// coordinates are refitted by least squares, `α = (BᵀB)⁻¹Bᵀw`, those of two bytes one after the
/// other as they are stored. The other starts are equal steps up to several magnitudes, and the best
/// coordinates of some distributions. The best of all stays; a group's squared error is never above
/// that of the greedy sketch with coordinates rounded to the type, and it has no more bases; with
/// coordinates in f32 it has as many. Sums are f64.
///
/// What is left of a transformer's weights without training, `‖w − ŵ‖ / ‖w‖` in percent, and what
/// the greedy sketch leaves (mean of all 36 linear layers of MiniLM-L6, a group for each output):
///
/// | bits | 2 | 3 | 4 | 5 | 6 | 7 | 8 |
/// |---|---|---|---|---|---|---|---|
/// | refined | 35.7 | 19.5 | 10.3 | 5.4 | 2.8 | 1.4 | 0.73 |
/// | refined, bf16 | 35.7 | 19.5 | 10.3 | 5.4 | 2.8 | 1.5 | 0.77 |
/// | greedy | 37.7 | 25.3 | 18.5 | 14.1 | 11.1 | 9.3 | 7.3 |
///
/// A group of one basis stays as it is: its mean magnitude is the best. Coordinates whose nearest
/// number in the type is 0 are dropped, and those beyond its range become its largest. Each group is
/// for itself, so threads (feature `rayon`) change no bit.
///
/// # Shapes
/// - `weights`: `[groups, len]`
///
/// # Errors
/// If a weight is not finite.
///
/// # Panics
/// If `len` is 0 or does not divide the number of weights, or `max_bits` is not 1 to
/// [`MAX_BITS`].
pub fn sketch(
    weights: &[f32],
    len: usize,
    max_bits: usize,
    coordinate_type: CoordinateType,
) -> Result<Sketch, SketchError> {
    each_group(weights, len, max_bits, coordinate_type, Room::refined)
}

/// Approximates every group by a sum of scaled ±1 vectors, greedily: `w ≈ Σᵢ αᵢ bᵢ`.
///
/// Until a group has `min(len, max_bits)` bases or `‖r‖² < 1e-6 ‖w‖²`: the next basis is `sign(r)`
/// of the residual `r = w − Bα`, with `sign(0) = +1`, and all coordinates are refitted by least
/// squares, `α = (BᵀB)⁻¹Bᵀw`. Then coordinates are made positive (`αᵢ` and `bᵢ` negated together)
/// and put in ascending order; those below the smallest normal f32 are dropped, and if all together
/// are beyond f32, they are scaled down so that no weight is infinite. Computed in f64.
///
/// Structured sketching, Qu et al., CVPR 2020. [`sketch`] goes on from here.
///
/// A group of zeros, or of numbers too small for a coordinate, gets width 0. `BᵀB` is never
/// singular: `r` is orthogonal to the span of `B` and `rᵀ sign(r) > 0`.
///
/// # Shapes
/// - `weights`: `[groups, len]`
///
/// # Errors
/// If a weight is not finite.
///
/// # Panics
/// If `len` is 0 or does not divide the number of weights, or `max_bits` is not 1 to
/// [`MAX_BITS`].
pub fn greedy(weights: &[f32], len: usize, max_bits: usize) -> Result<Sketch, SketchError> {
    each_group(weights, len, max_bits, CoordinateType::F32, Room::greedy)
}

/// Sketches one group into codes and slots that are 0; returns its width.
type SketchGroup = fn(&mut Room, &[f32], &mut [u8], &mut [f32]) -> u8;

fn each_group(
    weights: &[f32],
    len: usize,
    max_bits: usize,
    coordinate_type: CoordinateType,
    group: SketchGroup,
) -> Result<Sketch, SketchError> {
    assert!(len > 0, "`len` is 0, a group needs at least one weight");
    check_max_bits(max_bits);
    assert!(
        weights.len().is_multiple_of(len),
        "`weights` holds {} values, not a whole number of groups of {len}",
        weights.len()
    );
    check_finite(weights)?;
    let mut sketch = Sketch::empty(weights.len() / len, len, max_bits);
    sketch.in_parts(weights, 1, |weights, codes, slots, widths| {
        let mut room = Room::new(coordinate_type);
        let weights = weights.chunks_exact(len).zip(codes.chunks_exact_mut(len));
        let slots = slots.chunks_exact_mut(max_bits).zip(widths);
        for ((weights, codes), (slots, width)) in weights.zip(slots) {
            *width = group(&mut room, weights, codes, slots);
        }
    });
    Ok(sketch)
}

impl Sketch {
    /// Groups of width 0.
    pub(super) fn empty(groups: usize, len: usize, max_bits: usize) -> Self {
        Self {
            codes: alloc::vec![0; groups * len],
            coordinates: alloc::vec![0.0; groups * max_bits],
            widths: alloc::vec![0; groups],
            max_bits,
            len,
        }
    }

    /// Calls `fit(weights, codes, coordinates, widths)` with parts of whole `unit`s of groups, on all
    /// threads.
    pub(super) fn in_parts(
        &mut self,
        weights: &[f32],
        unit: usize,
        fit: impl Fn(&[f32], &mut [u8], &mut [f32], &mut [u8]) + Sync,
    ) {
        #[cfg(feature = "rayon")]
        {
            use rayon::prelude::*;

            // Some parts for each thread: groups take unequal time.
            let units = self.widths.len().div_ceil(unit);
            let part = unit * units.div_ceil(4 * rayon::current_num_threads()).max(1);
            let weights = weights.par_chunks(part * self.len);
            let weights = weights.zip(self.codes.par_chunks_mut(part * self.len));
            let slots = self.coordinates.par_chunks_mut(part * self.max_bits);
            let slots = slots.zip(self.widths.par_chunks_mut(part));
            let parts = weights.zip(slots);
            parts
                .for_each(|((weights, codes), (slots, widths))| fit(weights, codes, slots, widths));
        }
        #[cfg(not(feature = "rayon"))]
        {
            let _ = unit;
            fit(
                weights,
                &mut self.codes,
                &mut self.coordinates,
                &mut self.widths,
            );
        }
    }
}

pub(super) fn check_finite(weights: &[f32]) -> Result<(), SketchError> {
    match weights.iter().position(|w| !w.is_finite()) {
        Some(index) => Err(SketchError::NotFinite { index }),
        None => Ok(()),
    }
}

/// What is reused from group to group.
pub(super) struct Room {
    coordinate_type: CoordinateType,
    refinement: Refinement,
    nearest: NearestCode,
    codes: Vec<u8>,
}

impl Room {
    pub(super) fn new(coordinate_type: CoordinateType) -> Self {
        Self {
            coordinate_type,
            refinement: Refinement::new(coordinate_type),
            nearest: NearestCode::new(),
            codes: Vec::new(),
        }
    }

    fn greedy(&mut self, weights: &[f32], codes: &mut [u8], slots: &mut [f32]) -> u8 {
        let residual = self.refinement.lend();
        let (alpha, bases) = greedy_group(weights, slots.len(), codes, residual);
        normalize(&alpha[..bases], codes, slots, self.coordinate_type)
    }

    fn refined(&mut self, weights: &[f32], codes: &mut [u8], slots: &mut [f32]) -> u8 {
        self.weighted(weights, None, codes, slots)
    }

    /// Sketches a group so that `Σ h (w − ŵ)²` is least, with `h` as 1 if it is not given.
    pub(super) fn weighted(
        &mut self,
        weights: &[f32],
        h: Option<&[f32]>,
        codes: &mut [u8],
        slots: &mut [f32],
    ) -> u8 {
        let width = self.greedy(weights, codes, slots);
        let live = &slots[..usize::from(width)];
        // The best that one basis can be is the mean magnitude.
        if width == 0 || (width == 1 && h.is_none()) {
            return width;
        }
        let norm = error(weights, h, codes, &Codebook::new());
        self.nearest.build_codebook(live);
        let left = error(weights, h, codes, self.nearest.codebook());
        if left <= EXACT * norm {
            return width;
        }
        let refined = self.refinement.group(weights, h, live);
        let mut found = [0.0; MAX_BITS];
        let alpha = refined.map(f64::from);
        let refined = normalize(
            &alpha[..live.len()],
            &mut [],
            &mut found,
            self.coordinate_type,
        );
        let found = &found[..usize::from(refined)];
        self.nearest.build(found);
        self.codes.resize(weights.len(), 0);
        self.nearest.assign(weights, &mut self.codes);
        if error(weights, h, &self.codes, self.nearest.codebook()) < left {
            codes.copy_from_slice(&self.codes);
            slots.fill(0.0);
            slots[..found.len()].copy_from_slice(found);
            return refined;
        }
        width
    }
}

/// `Σ h (w − ŵ)²`.
fn error(weights: &[f32], h: Option<&[f32]>, codes: &[u8], codebook: &Codebook) -> f64 {
    let squares = weights.iter().zip(codes).map(|(&weight, &code)| {
        let left = f64::from(weight) - f64::from(codebook.value(code));
        left * left
    });
    match h {
        Some(h) => squares
            .zip(h)
            .map(|(square, &h)| square * f64::from(h))
            .sum(),
        None => squares.sum(),
    }
}

/// The magnitude of a coordinate as a type stores it; 0 if that is below the smallest coordinate.
pub(super) fn stored(alpha: f64, coordinate_type: CoordinateType) -> f32 {
    let magnitude = alpha.abs() as f32;
    if coordinate_type.nearest(magnitude) < f32::MIN_POSITIVE {
        return 0.0;
    }
    coordinate_type.round(magnitude)
}

/// Positive, nonzero, ascending coordinates into `slots` and the codes to match; the new width.
pub(super) fn normalize(
    alpha: &[f64],
    codes: &mut [u8],
    slots: &mut [f32],
    coordinate_type: CoordinateType,
) -> u8 {
    let mut order = [0; MAX_BITS];
    let mut width = 0;
    // All signs equal is the largest level; rounding lifts its sum, if it is one, by less.
    let rounding = match coordinate_type {
        CoordinateType::F32 => 8.0 * f64::from(f32::EPSILON),
        CoordinateType::F16 | CoordinateType::Bf16 => 1.0 / 128.0,
    };
    let largest = f64::from(f32::MAX) * (1.0 - rounding);
    let sum: f64 = alpha.iter().map(|alpha| alpha.abs()).sum();
    let is_beyond = alpha.len() > 1 && sum > largest;
    let fit = if is_beyond { largest / sum } else { 1.0 };
    let rounded = |i: usize| stored(alpha[i] * fit, coordinate_type);
    for i in 0..alpha.len() {
        if rounded(i) > 0.0 {
            order[width] = i;
            width += 1;
        }
    }
    let order = &mut order[..width];
    order.sort_by(|&a, &b| alpha[a].abs().total_cmp(&alpha[b].abs()));
    let mut moved = [0u8; 1 << MAX_BITS];
    for (code, moved) in (0..=code_mask(alpha.len())).zip(&mut moved) {
        for (to, &from) in order.iter().enumerate() {
            let bit = ((code >> from) & 1) ^ u8::from(alpha[from] < 0.0);
            *moved |= bit << to;
        }
    }
    for (slot, &from) in slots.iter_mut().zip(&*order) {
        *slot = rounded(from);
    }
    if (0..=code_mask(alpha.len()))
        .zip(moved)
        .any(|(code, moved)| code != moved)
    {
        for code in codes {
            *code = moved[usize::from(*code)];
        }
    }
    width as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Greedy least squares on ordinary weights gives positive coordinates by itself, so this part
    /// is put to work alone.
    #[test]
    fn negative_coordinates_flip_and_zeros_go() {
        let mut codes = [0b000, 0b001, 0b010, 0b100, 0b111];
        let mut slots = [0.0; 3];
        let width = normalize(
            &[0.5, -0.25, 1e-40],
            &mut codes,
            &mut slots,
            CoordinateType::F32,
        );
        assert_eq!(width, 2);
        assert_eq!(slots, [0.25, 0.5, 0.0]);
        assert_eq!(codes, [0b01, 0b11, 0b00, 0b01, 0b10]);
    }

    /// Rounded up one by one, and again when they are added, they could pass the largest number.
    #[test]
    fn coordinates_beyond_f32_shrink_until_their_sum_is_finite() {
        let mut state = 1u64;
        let mut unit = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for bases in 2..=MAX_BITS {
            for _ in 0..500 {
                let mut alpha = [0.0; MAX_BITS];
                alpha[..bases].fill_with(|| f64::from(f32::MAX) * (0.6 + 0.4 * unit()));
                let mut slots = [0.0; MAX_BITS];
                normalize(&alpha[..bases], &mut [], &mut slots, CoordinateType::F32);
                let sum: f32 = slots.iter().sum();
                assert!(sum.is_finite() && sum > 0.99 * f32::MAX, "{slots:?}");
            }
        }
    }
}
