//! Structured sketching: float weights → bases and coordinates.

use alloc::vec::Vec;

use thiserror::Error;

use super::check_max_bits;
use crate::MAX_BITS;
use crate::bits::code_mask;
use crate::math::solve_spd;

/// A residual of this share of the squared norm ends a group's sketch.
const STOP: f64 = 1e-6;

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

/// Approximates every group by a sum of scaled ±1 vectors, greedily: `w ≈ Σᵢ αᵢ bᵢ`.
///
/// Until a group has `min(len, max_bits)` bases or `‖r‖² < 1e-6 ‖w‖²`: the next basis is `sign(r)`
/// of the residual `r = w − Bα`, with `sign(0) = +1`, and all coordinates are refitted by least
/// squares, `α = (BᵀB)⁻¹Bᵀw`. Then coordinates are made positive (`αᵢ` and `bᵢ` negated together)
/// and put in ascending order; those below the smallest normal f32 are dropped, and if all together
/// are beyond f32, they are scaled down so that no weight is infinite. Computed in f64.
///
/// Structured sketching, Qu et al., CVPR 2020.
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
pub fn sketch(weights: &[f32], len: usize, max_bits: usize) -> Result<Sketch, SketchError> {
    assert!(len > 0, "`len` is 0, a group needs at least one weight");
    check_max_bits(max_bits);
    assert!(
        weights.len().is_multiple_of(len),
        "`weights` holds {} values, not a whole number of groups of {len}",
        weights.len()
    );
    if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
        return Err(SketchError::NotFinite { index });
    }
    let groups = weights.len() / len;
    let mut sketch = Sketch {
        codes: alloc::vec![0; weights.len()],
        coordinates: alloc::vec![0.0; groups * max_bits],
        widths: alloc::vec![0; groups],
        max_bits,
        len,
    };
    let mut residual = alloc::vec![0.0; len];
    for (group, weights) in weights.chunks_exact(len).enumerate() {
        let codes = &mut sketch.codes[group * len..][..len];
        let (alpha, bases) = greedy(weights, max_bits, codes, &mut residual);
        let slots = &mut sketch.coordinates[group * max_bits..][..max_bits];
        sketch.widths[group] = normalize(&alpha[..bases], codes, slots);
    }
    Ok(sketch)
}

/// Bases into `codes`; coordinates of either sign, and their number.
fn greedy(
    weights: &[f32],
    max_bits: usize,
    codes: &mut [u8],
    residual: &mut [f64],
) -> ([f64; MAX_BITS], usize) {
    let n = weights.len();
    let mut alpha = [0.0; MAX_BITS];
    let mut gram = [[n as f64; MAX_BITS]; MAX_BITS];
    let mut rhs = [0.0; MAX_BITS];
    for (residual, &weight) in residual.iter_mut().zip(weights) {
        *residual = f64::from(weight);
    }
    let norm = square(residual);
    let mut bases = 0;
    while bases < n.min(max_bits) {
        let left = square(residual);
        if left == 0.0 || left < STOP * norm {
            break;
        }
        for (code, &residual) in codes.iter_mut().zip(&*residual) {
            *code |= u8::from(residual < 0.0) << bases;
        }
        for (i, product) in gram[bases][..bases].iter_mut().enumerate() {
            let differ = |code: &&u8| ((**code >> i) ^ (**code >> bases)) & 1 == 1;
            let differing = codes.iter().filter(differ).count();
            *product = n as f64 - 2.0 * differing as f64;
        }
        for (&code, &weight) in codes.iter().zip(weights) {
            let weight = f64::from(weight);
            rhs[bases] += if code >> bases & 1 == 1 {
                -weight
            } else {
                weight
            };
        }
        let Some(solution) = solve(&gram, &rhs, bases + 1) else {
            // Only rounding could do this; the bases so far stand.
            codes.iter_mut().for_each(|code| *code &= code_mask(bases));
            break;
        };
        alpha = solution;
        bases += 1;
        let levels = levels(&alpha[..bases]);
        let values = codes.iter().map(|&code| levels[usize::from(code)]);
        for ((residual, value), &weight) in residual.iter_mut().zip(values).zip(weights) {
            *residual = f64::from(weight) - value;
        }
    }
    (alpha, bases)
}

fn square(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum()
}

/// Least squares for the first `bases` bases; `gram` holds the lower triangle.
fn solve(
    gram: &[[f64; MAX_BITS]; MAX_BITS],
    rhs: &[f64; MAX_BITS],
    bases: usize,
) -> Option<[f64; MAX_BITS]> {
    let mut a = [0.0; MAX_BITS * MAX_BITS];
    for (row, gram) in a.chunks_exact_mut(bases).zip(&gram[..bases]) {
        row.copy_from_slice(&gram[..bases]);
    }
    let mut alpha = *rhs;
    solve_spd(&mut a[..bases * bases], &mut alpha[..bases], bases).ok()?;
    Some(alpha)
}

/// The value of every code, in f64.
fn levels(alpha: &[f64]) -> [f64; 1 << MAX_BITS] {
    let mut levels = [0.0; 1 << MAX_BITS];
    for (i, &alpha) in alpha.iter().enumerate() {
        let (positive, negative) = levels.split_at_mut(1 << i);
        for (positive, negative) in positive.iter_mut().zip(negative) {
            *negative = *positive - alpha;
            *positive += alpha;
        }
    }
    levels
}

/// Positive, nonzero, ascending coordinates into `slots` and the codes to match; the new width.
fn normalize(alpha: &[f64], codes: &mut [u8], slots: &mut [f32]) -> u8 {
    let mut order = [0; MAX_BITS];
    let mut width = 0;
    // All signs equal is the largest level; rounding lifts its sum, if it is one, by less.
    let largest = f64::from(f32::MAX) * (1.0 - 8.0 * f64::from(f32::EPSILON));
    let sum: f64 = alpha.iter().map(|alpha| alpha.abs()).sum();
    let is_beyond = alpha.len() > 1 && sum > largest;
    let fit = if is_beyond { largest / sum } else { 1.0 };
    let rounded = |i: usize| (alpha[i].abs() * fit) as f32;
    for i in 0..alpha.len() {
        if rounded(i) >= f32::MIN_POSITIVE {
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
    for code in codes {
        *code = moved[usize::from(*code)];
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
        let width = normalize(&[0.5, -0.25, 1e-40], &mut codes, &mut slots);
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
                normalize(&alpha[..bases], &mut [], &mut slots);
                let sum: f32 = slots.iter().sum();
                assert!(sum.is_finite() && sum > 0.99 * f32::MAX, "{slots:?}");
            }
        }
    }
}
