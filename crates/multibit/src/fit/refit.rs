//! The refit of coordinates: normal equations of one group, and their solution.

use super::solve::solve_spd;
use crate::MAX_BITS;

/// `x ← W x` with `W[i][j] = (−1)^popcount(i & j)`.
///
/// # Panics
/// If the length is not a power of two.
pub(super) fn walsh_hadamard(x: &mut [f64]) {
    assert!(x.len().is_power_of_two(), "x: a power of two");
    let mut half = 1;
    while half < x.len() {
        for block in x.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

/// Coordinates of one group that minimize the local model for fixed bases:
/// `α = (BᵀHB + λI)⁻¹ Bᵀ r`, where λ is `ridge` times the mean diagonal of `BᵀHB`.
///
/// The diagonal is `Σh` everywhere, and an entry depends on the signs of two bases only, so
/// for groups longer than their number of levels the sums go into one bucket a code, and a
/// Walsh–Hadamard transform of the buckets holds all entries: `(BᵀHB)_ik` at index
/// `2^i | 2^k`, `(Bᵀr)_i` at index `2^i`.
///
/// Returns `None` if there is no finite solution.
///
/// # Shapes
/// - codes, h, r: `[len]`
pub(super) fn coordinates(
    codes: &[u8],
    width: usize,
    h: &[f32],
    r: &[f32],
    ridge: f64,
) -> Option<[f32; MAX_BITS]> {
    let mut matrix = [0.0; MAX_BITS * MAX_BITS];
    let mut rhs = [0.0; MAX_BITS];
    let total = if codes.len() >= 1 << width {
        by_buckets(codes, width, h, r, &mut matrix, &mut rhs)
    } else {
        directly(codes, width, h, r, &mut matrix, &mut rhs)
    };
    for i in 0..width {
        matrix[i * width + i] = total + ridge * total;
    }
    solve_spd(&mut matrix[..width * width], &mut rhs[..width], width).ok()?;
    let alpha = rhs.map(|a| a as f32);
    alpha.iter().all(|a| a.is_finite()).then_some(alpha)
}

/// Fills the strict lower triangle of `BᵀHB` and `Bᵀr`; returns `Σh`.
fn by_buckets(
    codes: &[u8],
    width: usize,
    h: &[f32],
    r: &[f32],
    matrix: &mut [f64],
    rhs: &mut [f64],
) -> f64 {
    let count = 1 << width;
    let mut h_buckets = [0.0; 1 << MAX_BITS];
    let mut r_buckets = [0.0; 1 << MAX_BITS];
    for ((&code, &h), &r) in codes.iter().zip(h).zip(r) {
        h_buckets[usize::from(code)] += f64::from(h);
        r_buckets[usize::from(code)] += f64::from(r);
    }
    walsh_hadamard(&mut h_buckets[..count]);
    walsh_hadamard(&mut r_buckets[..count]);
    for i in 0..width {
        for k in 0..i {
            matrix[i * width + k] = h_buckets[1 << i | 1 << k];
        }
        rhs[i] = r_buckets[1 << i];
    }
    h_buckets[0]
}

/// The same, weight by weight.
fn directly(
    codes: &[u8],
    width: usize,
    h: &[f32],
    r: &[f32],
    matrix: &mut [f64],
    rhs: &mut [f64],
) -> f64 {
    let mut total = 0.0;
    for ((&code, &h), &r) in codes.iter().zip(h).zip(r) {
        let (h, r) = (f64::from(h), f64::from(r));
        total += h;
        for i in 0..width {
            let sign = if code >> i & 1 == 0 { 1.0 } else { -1.0 };
            rhs[i] += sign * r;
            for k in 0..i {
                let equal = (code >> i ^ code >> k) & 1 == 0;
                matrix[i * width + k] += if equal { h } else { -h };
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::testing::Random;

    #[test]
    fn buckets_and_direct_sums_agree() {
        let mut random = Random::new(3);
        for width in 1..=MAX_BITS {
            let len = 300;
            let codes: Vec<u8> = (0..len).map(|_| random.below(1 << width) as u8).collect();
            let h: Vec<f32> = (0..len).map(|_| random.uniform() + 0.01).collect();
            let r: Vec<f32> = (0..len).map(|_| random.normal()).collect();
            let mut a = ([0.0; 64], [0.0; 8]);
            let mut b = a;
            let total_a = by_buckets(&codes, width, &h, &r, &mut a.0, &mut a.1);
            let total_b = directly(&codes, width, &h, &r, &mut b.0, &mut b.1);
            let pairs = a.0.iter().chain(&a.1).zip(b.0.iter().chain(&b.1));
            for (x, y) in pairs.chain([(&total_a, &total_b)]) {
                // f64 sums of 300 numbers near 1.
                assert!((x - y).abs() < 1e-10, "{x} is not {y}");
            }
        }
    }

    #[test]
    fn refit_finds_the_coordinates_of_an_exact_group() {
        let mut random = Random::new(4);
        let alpha = [0.3, 0.7, 1.9];
        for len in [6, 7, 8, 9, 50] {
            // All eight codes where there is room, so that the bases are independent.
            let codes: Vec<u8> = (0..len).map(|j| [1, 2, 4, 7, 0, 3, 5, 6][j % 8]).collect();
            let h: Vec<f32> = (0..len).map(|_| random.uniform() + 0.1).collect();
            let r: Vec<f32> = codes
                .iter()
                .zip(&h)
                .map(|(&code, h)| h * crate::fit::value(&alpha, code))
                .collect();
            let found = coordinates(&codes, 3, &h, &r, 1e-9).unwrap();
            for (found, expected) in found.iter().zip(alpha) {
                // r is rounded to f32, conditions are below 100.
                assert!((found - expected).abs() < 2e-5, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn dependent_bases_and_extreme_curvatures_have_a_finite_solution() {
        for scale in [1e-8f32, 1.0, 1e8] {
            let codes = [0b00, 0b11, 0b00, 0b11, 0b00];
            let h = [scale; 5];
            let r = [scale, -scale, scale, -scale, scale];
            let alpha = coordinates(&codes, 2, &h, &r, 1e-6).unwrap();
            // The two bases are equal, so only the sum of their coordinates counts.
            assert!((alpha[0] + alpha[1] - 1.0).abs() < 1e-5, "{alpha:?}");
        }
    }
}
