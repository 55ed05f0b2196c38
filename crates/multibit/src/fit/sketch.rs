//! Structured sketching: the initial bases and coordinates (paper section 4.1).

use alloc::vec::Vec;
use core::fmt;

use super::solve::solve_spd;
use crate::MAX_BITS;

/// A sketched weight in training form.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch {
    /// `[groups * len]`, bit `i` set where basis `i` is −1.
    pub codes: Vec<u8>,
    /// `[groups * max_bits]`, ascending in each group, 0 from its width on.
    pub coordinates: Vec<f32>,
    /// `[groups]`.
    pub widths: Vec<u8>,
}

/// A weight cannot be sketched.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum SketchError {
    /// A weight is NaN or infinite.
    NotFinite {
        /// Its place in the grouped weight.
        index: usize,
        /// Its value.
        value: f32,
    },
}

impl fmt::Display for SketchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { index, value } => {
                write!(f, "weight {index} (in the order of the groups) is {value}")
            }
        }
    }
}

impl core::error::Error for SketchError {}

/// Stop when this share of the squared norm is left.
const RESIDUAL: f64 = 1e-6;

/// Approximates every group by a sum of scaled ±1 vectors, greedily: the next basis is the sign of
/// the residual (+1 for 0), then all coordinates are refitted by least squares.
///
/// At most `min(len, max_bits)` bases; fewer where the residual vanishes, none for a group of
/// zeros.
///
/// # Shapes
/// - `weights`: `[groups * len]`
///
/// # Errors
/// If a weight is not finite.
///
/// # Panics
/// If `len` is 0 or does not divide the weights, or `max_bits` is not 1 to [`MAX_BITS`].
pub fn sketch(weights: &[f32], len: usize, max_bits: usize) -> Result<Sketch, SketchError> {
    assert!(
        len > 0 && weights.len().is_multiple_of(len),
        "weights: groups of {len}"
    );
    assert!(
        (1..=MAX_BITS).contains(&max_bits),
        "max_bits: 1 to {MAX_BITS}, not {max_bits}"
    );
    if let Some(index) = weights.iter().position(|w| !w.is_finite()) {
        let value = weights[index];
        return Err(SketchError::NotFinite { index, value });
    }
    let groups = weights.len() / len;
    let mut sketch = Sketch {
        codes: alloc::vec![0; weights.len()],
        coordinates: alloc::vec![0.0; groups * max_bits],
        widths: alloc::vec![0; groups],
    };
    for group in 0..groups {
        sketch.widths[group] = sketch_group(
            &weights[group * len..][..len],
            &mut sketch.codes[group * len..][..len],
            &mut sketch.coordinates[group * max_bits..][..max_bits],
        );
    }
    Ok(sketch)
}

/// Sketches one group into zeroed slots; returns its width.
fn sketch_group(weights: &[f32], codes: &mut [u8], coordinates: &mut [f32]) -> u8 {
    let bits = coordinates.len().min(weights.len());
    // Scaled by the largest weight, so that no square under- or overflows.
    let scale = weights.iter().fold(0.0f32, |max, w| max.max(w.abs()));
    if scale < f32::MIN_POSITIVE {
        return 0;
    }
    let weights: Vec<f64> = weights
        .iter()
        .map(|&w| f64::from(w) / f64::from(scale))
        .collect();
    let norm: f64 = weights.iter().map(|w| w * w).sum();
    let mut residual = weights.clone();
    let mut alpha = [0.0; MAX_BITS];
    let mut width = 0;
    while width < bits {
        let left: f64 = residual.iter().map(|r| r * r).sum();
        if left < RESIDUAL * norm {
            break;
        }
        for (code, r) in codes.iter_mut().zip(&residual) {
            *code |= u8::from(*r < 0.0) << width;
        }
        width += 1;
        let Some(refitted) = least_squares(codes, &weights, width) else {
            // The new basis depends on the others, up to rounding: it adds nothing.
            width -= 1;
            codes.iter_mut().for_each(|code| *code &= !(1 << width));
            break;
        };
        alpha = refitted;
        for ((r, w), &code) in residual.iter_mut().zip(&weights).zip(codes.iter()) {
            *r = *w - (0..width).map(|i| sign(code, i) * alpha[i]).sum::<f64>();
        }
    }
    normalize(codes, alpha, width, scale, coordinates)
}

fn sign(code: u8, i: usize) -> f64 {
    if code >> i & 1 == 0 { 1.0 } else { -1.0 }
}

/// `(BᵀB)⁻¹ Bᵀw`.
fn least_squares(codes: &[u8], weights: &[f64], width: usize) -> Option<[f64; MAX_BITS]> {
    let mut matrix = [0.0; MAX_BITS * MAX_BITS];
    let mut rhs = [0.0; MAX_BITS];
    for (&code, w) in codes.iter().zip(weights) {
        for i in 0..width {
            rhs[i] += sign(code, i) * w;
            for k in 0..=i {
                matrix[i * width + k] += sign(code, i) * sign(code, k);
            }
        }
    }
    solve_spd(&mut matrix[..width * width], &mut rhs[..width], width).ok()?;
    rhs.iter().all(|a| a.is_finite()).then_some(rhs)
}

/// Positive coordinates in ascending order, without those that are 0; returns the width.
fn normalize(
    codes: &mut [u8],
    mut alpha: [f64; MAX_BITS],
    width: usize,
    scale: f32,
    coordinates: &mut [f32],
) -> u8 {
    let mut flips = 0;
    for (i, a) in alpha[..width].iter_mut().enumerate() {
        flips |= u8::from(*a < 0.0) << i;
        *a = a.abs() * f64::from(scale);
    }
    let mut order: Vec<usize> = (0..width)
        .filter(|&i| (f32::MIN_POSITIVE..=f32::MAX).contains(&(alpha[i] as f32)))
        .collect();
    order.sort_by(|&i, &k| alpha[i].total_cmp(&alpha[k]));
    for (slot, &i) in order.iter().enumerate() {
        coordinates[slot] = alpha[i] as f32;
    }
    for code in codes {
        let signs = *code ^ flips;
        *code = order
            .iter()
            .enumerate()
            .fold(0, |code, (slot, &i)| code | (signs >> i & 1) << slot);
    }
    order.len() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::reconstruct;
    use crate::testing::Random;

    fn error(weights: &[f32], len: usize, max_bits: usize) -> f64 {
        let s = sketch(weights, len, max_bits).unwrap();
        let mut out = alloc::vec![0.0; weights.len()];
        reconstruct(&s.codes, &s.coordinates, &s.widths, len, max_bits, &mut out);
        let square = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
        weights.iter().zip(&out).map(square).sum()
    }

    #[test]
    fn a_further_basis_never_hurts() {
        let mut random = Random::new(5);
        for len in [1, 2, 5, 25, 64, 400] {
            let weights: Vec<f32> = (0..len * 6).map(|_| random.normal()).collect();
            let errors: Vec<f64> = (1..=MAX_BITS)
                .map(|bits| error(&weights, len, bits))
                .collect();
            // The reconstruction is rounded to f32.
            let slack = 1e-9 * errors[0] + 1e-9;
            assert!(
                errors.is_sorted_by(|a, b| *b <= a + slack),
                "{len}: {errors:?}"
            );
        }
    }

    #[test]
    fn coordinates_are_positive_and_ascending_and_absent_ones_zero() {
        let mut random = Random::new(6);
        let weights: Vec<f32> = (0..25 * 100).map(|_| random.normal()).collect();
        let s = sketch(&weights, 25, 6).unwrap();
        for (group, &width) in s.widths.iter().enumerate() {
            let (live, absent) = s.coordinates[group * 6..][..6].split_at(width.into());
            assert!(live.iter().all(|&a| a > 0.0) && live.is_sorted());
            assert!(absent.iter().all(|&a| a == 0.0));
            let codes = &s.codes[group * 25..][..25];
            assert!(codes.iter().all(|&code| u32::from(code) >> width == 0));
        }
    }

    #[test]
    fn a_group_of_few_levels_stops_early() {
        // Two magnitudes: two bases are exact.
        let weights: Vec<f32> = (0..40).map(|j| [1.0, -1.0, 3.0, -3.0][j % 4]).collect();
        let s = sketch(&weights, 40, 6).unwrap();
        assert_eq!(s.widths, [2]);
        assert_eq!(s.coordinates, [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(error(&weights, 40, 6), 0.0);
    }

    #[test]
    fn zeros_and_extremes_do_not_fail() {
        let s = sketch(&[0.0, -0.0, 0.0], 3, 4).unwrap();
        assert_eq!((s.widths[0], s.coordinates[0]), (0, 0.0));
        // Their squares underflow and overflow f32.
        for scale in [1e-30, 1e30f32] {
            let s = sketch(&[scale, -scale, 2.0 * scale], 3, 2).unwrap();
            assert_eq!(s.widths, [2]);
            assert!(s.coordinates.iter().all(|a| a.is_finite() && *a > 0.0));
        }
        let subnormal = f32::MIN_POSITIVE / 4.0;
        assert_eq!(sketch(&[subnormal; 4], 4, 2).unwrap().widths, [0]);
        assert_eq!(sketch(&[0.5], 1, 6).unwrap().widths, [1]);
        let error = sketch(&[0.0, f32::NAN], 1, 2).unwrap_err();
        assert!(matches!(error, SketchError::NotFinite { index: 1, .. }));
    }
}
