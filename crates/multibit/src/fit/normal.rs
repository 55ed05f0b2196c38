//! Sums over a group by basis: `Bᵀx`, and the normal equations `BᵀHB`, `Bᵀy`.
//!
//! All of them depend on a weight through its code only. So a long group is first summed by code
//! into `2^I` buckets, and the `I²` sums over weights become sums over buckets: signs by bit are a
//! Walsh–Hadamard transform. A group with fewer weights than buckets is summed as it is.

use crate::MAX_BITS;
use crate::bits::{CODES, code_mask};
use crate::math::solve_spd_rounded;

/// `Bᵀ x` of one group; 0 from `width` on.
pub(super) fn project_group(codes: &[u8], width: usize, x: &[f32]) -> [f64; MAX_BITS] {
    if width == 0 {
        [0.0; MAX_BITS]
    } else if codes.len() < 1 << width {
        project_direct(codes, width, x)
    } else {
        project_buckets(codes, width, x)
    }
}

fn project_direct(codes: &[u8], width: usize, x: &[f32]) -> [f64; MAX_BITS] {
    let mut sums = [0.0; MAX_BITS];
    for (&code, &x) in codes.iter().zip(x) {
        for (i, sum) in sums[..width].iter_mut().enumerate() {
            *sum += negated(f64::from(x), code >> i);
        }
    }
    sums
}

fn project_buckets(codes: &[u8], width: usize, x: &[f32]) -> [f64; MAX_BITS] {
    let mut buckets = [0.0; CODES];
    let mask = code_mask(width);
    for (&code, &x) in codes.iter().zip(x) {
        buckets[usize::from(code & mask)] += f64::from(x);
    }
    let mut sums = [0.0; MAX_BITS];
    for i in (0..width).rev() {
        let (positive, negative) = buckets.split_at_mut(1 << i);
        for (positive, &negative) in positive.iter_mut().zip(negative.iter()) {
            sums[i] += *positive - negative;
            // The lower bits do not ask for this one any more.
            *positive += negative;
        }
    }
    sums
}

/// The normal equations of one group's coordinates: `gram · α = rhs`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Normal {
    /// `BᵀHB`, symmetric; its diagonal is `Σh`.
    pub gram: [[f64; MAX_BITS]; MAX_BITS],
    /// `Bᵀ(H·centre − p)`.
    pub rhs: [f64; MAX_BITS],
}

impl Normal {
    /// Sums up a group of `width >= 1` bases.
    pub fn new(codes: &[u8], width: usize, h: &[f32], centre: &[f32], p: &[f32]) -> Self {
        let terms = codes.iter().copied().zip(terms(h, centre, p));
        Self::sum(codes.len(), width, terms)
    }

    /// Sums up about `count` codes of `width >= 1` bits, each with its `h` and `h·centre − p`.
    pub fn sum(count: usize, width: usize, terms: impl Iterator<Item = (u8, [f64; 2])>) -> Self {
        if count < 1 << width {
            Self::direct(width, terms)
        } else {
            Self::buckets(width, terms)
        }
    }

    fn direct(width: usize, terms: impl Iterator<Item = (u8, [f64; 2])>) -> Self {
        let mut gram = [[0.0; MAX_BITS]; MAX_BITS];
        let mut rhs = [0.0; MAX_BITS];
        for (code, [h, y]) in terms {
            for i in 0..width {
                rhs[i] += negated(y, code >> i);
                let row = &mut gram[i];
                for (k, sum) in row[..=i].iter_mut().enumerate() {
                    *sum += negated(h, (code >> i) ^ (code >> k));
                }
            }
        }
        let lower = gram;
        for (i, row) in lower[..width].iter().enumerate() {
            for (k, &sum) in row[..i].iter().enumerate() {
                gram[k][i] = sum;
            }
        }
        Self { gram, rhs }
    }

    fn buckets(width: usize, terms: impl Iterator<Item = (u8, [f64; 2])>) -> Self {
        let mut buckets = [[0.0; 2]; CODES];
        let mask = code_mask(width);
        for (code, [h, y]) in terms {
            let bucket = &mut buckets[usize::from(code & mask)];
            bucket[0] += h;
            bucket[1] += y;
        }
        let sums = &mut buckets[..1 << width];
        walsh_hadamard(sums);
        let mut gram = [[0.0; MAX_BITS]; MAX_BITS];
        let mut rhs = [0.0; MAX_BITS];
        for i in 0..width {
            rhs[i] = sums[1 << i][1];
            for k in 0..width {
                gram[i][k] = sums[(1 << i) ^ (1 << k)][0];
            }
        }
        Self { gram, rhs }
    }

    /// `(BᵀHB + λI)⁻¹ Bᵀ(H·centre − p)` of `width` bases, with `λ` as `ridge` times the mean
    /// diagonal, if it exists and fits f32. From the last coordinate on, each is rounded, and the
    /// others are fitted to what that leaves.
    pub fn solve(
        &self,
        width: usize,
        ridge: f64,
        round: impl Fn(f64) -> f64,
    ) -> Option<[f64; MAX_BITS]> {
        let mut a = [0.0; MAX_BITS * MAX_BITS];
        let mut alpha = self.rhs;
        // Every diagonal entry is Σh; dividing by it keeps the numbers near 1.
        let scale = 1.0 / self.gram[0][0];
        for (row, gram) in a.chunks_exact_mut(width).zip(&self.gram[..width]) {
            for (a, gram) in row.iter_mut().zip(gram) {
                *a = gram * scale;
            }
        }
        for i in 0..width {
            a[i * width + i] = 1.0 + ridge;
            alpha[i] *= scale;
        }
        let (a, unknowns) = (&mut a[..width * width], &mut alpha[..width]);
        solve_spd_rounded(a, unknowns, width, round).ok()?;
        let fits = |x: &f64| (*x as f32).is_finite();
        alpha[..width].iter().all(fits).then_some(alpha)
    }

    /// The local model of the loss at coordinates `alpha`, up to a constant of the centre:
    /// `½ αᵀ BᵀHB α − αᵀ Bᵀ(H·centre − p)`.
    pub fn model(&self, alpha: &[f64]) -> f64 {
        let mut model = 0.0;
        for (i, (row, &a)) in self.gram.iter().zip(alpha).enumerate() {
            let product: f64 = row.iter().zip(alpha).map(|(g, a)| g * a).sum();
            model += a * (0.5 * product - self.rhs[i]);
        }
        model
    }
}

/// `h` and `h·centre − p` of each weight.
fn terms(h: &[f32], centre: &[f32], p: &[f32]) -> impl Iterator<Item = [f64; 2]> {
    h.iter().zip(centre).zip(p).map(|((&h, &centre), &p)| {
        let h = f64::from(h);
        [h, h * f64::from(centre) - f64::from(p)]
    })
}

/// `x`, negated where the lowest bit of `code` is set.
#[inline(always)]
fn negated(x: f64, code: u8) -> f64 {
    f64::from_bits(x.to_bits() ^ (u64::from(code & 1) << 63))
}

/// `out[mask] = Σ_code ±in[code]`, with − where `code & mask` has an odd number of bits.
fn walsh_hadamard(sums: &mut [[f64; 2]]) {
    let mut half = 1;
    while half < sums.len() {
        for block in sums.chunks_exact_mut(2 * half) {
            let (even, odd) = block.split_at_mut(half);
            for (even, odd) in even.iter_mut().zip(odd) {
                for (even, odd) in even.iter_mut().zip(odd) {
                    (*even, *odd) = (*even + *odd, *even - *odd);
                }
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn values(seed: u32, len: usize) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        (0..len).map(|_| next() as f32 / u32::MAX as f32).collect()
    }

    /// Relative to the sum of magnitudes; the two orders differ by rounding in f64 only.
    const TOLERANCE: f64 = 1e-13;

    #[test]
    fn buckets_equal_the_direct_sums() {
        for width in 1..=MAX_BITS {
            for len in [1, 7, 300] {
                let codes: Vec<u8> = values(width as u32, len)
                    .iter()
                    .map(|x| (x * 255.0) as u8 & code_mask(width))
                    .collect();
                let [h, centre, p] = [11, 12, 13].map(|seed| values(seed, len));
                let terms = || codes.iter().copied().zip(terms(&h, &centre, &p));
                let direct = Normal::direct(width, terms());
                let buckets = Normal::buckets(width, terms());
                let scale = TOLERANCE * len as f64;
                for i in 0..MAX_BITS {
                    assert!((direct.rhs[i] - buckets.rhs[i]).abs() < scale, "rhs {i}");
                    for k in 0..MAX_BITS {
                        let difference = direct.gram[i][k] - buckets.gram[i][k];
                        assert!(difference.abs() < scale, "gram {i} {k} of {width}");
                    }
                }
                let direct = project_direct(&codes, width, &p);
                let buckets = project_buckets(&codes, width, &p);
                for (direct, buckets) in direct.iter().zip(buckets) {
                    assert!((direct - buckets).abs() < scale, "projection");
                }
            }
        }
    }

    #[test]
    fn a_known_group() {
        // Signs (+,+), (−,+), (+,−) with h = 1, 2, 3 and h·centre − p = 4, 5, 6.
        let codes = [0b00, 0b01, 0b10];
        let normal = Normal::new(&codes, 2, &[1.0, 2.0, 3.0], &[5.0; 3], &[1.0, 5.0, 9.0]);
        assert_eq!(normal.gram[0][..2], [6.0, -4.0]);
        assert_eq!(normal.gram[1][..2], [-4.0, 6.0]);
        assert_eq!(normal.rhs[..2], [5.0, 3.0]);
        // ½·(6 − 4 − 4 + 6) − (5 + 3)
        assert_eq!(normal.model(&[1.0, 1.0]), -6.0);
        assert_eq!(project_group(&codes, 2, &[4.0, 5.0, 6.0])[..2], [5.0, 3.0]);
    }
}
