//! The paper's sketch of one group: a basis after the other, none of them taken back.

use alloc::vec::Vec;

use crate::MAX_BITS;
use crate::bits::code_mask;
use crate::math::solve_spd;

/// A residual of this share of the squared norm ends a group's sketch.
const STOP: f64 = 1e-6;

/// Bases into `codes`; coordinates of either sign, and their number.
pub(super) fn greedy(
    weights: &[f32],
    max_bits: usize,
    codes: &mut [u8],
    residual: &mut Vec<f64>,
) -> ([f64; MAX_BITS], usize) {
    let n = weights.len();
    let mut alpha = [0.0; MAX_BITS];
    let mut gram = [[n as f64; MAX_BITS]; MAX_BITS];
    let mut rhs = [0.0; MAX_BITS];
    residual.clear();
    residual.extend(weights.iter().map(|&weight| f64::from(weight)));
    let norm: f64 = residual.iter().map(|residual| residual * residual).sum();
    let mut left = norm;
    let most = n.min(max_bits);
    let mut bases = 0;
    // Sums wait for each other, so that passes take less time together than one after the other.
    while bases < most && left != 0.0 && left >= STOP * norm {
        let mut differing = [0; MAX_BITS];
        for ((code, &residual), &weight) in codes.iter_mut().zip(&*residual).zip(weights) {
            let is_negative = residual < 0.0;
            let bit = u8::from(is_negative);
            for (i, differing) in differing[..bases].iter_mut().enumerate() {
                *differing += usize::from((*code >> i & 1) ^ bit);
            }
            *code |= bit << bases;
            let weight = f64::from(weight);
            rhs[bases] += if is_negative { -weight } else { weight };
        }
        for (product, differing) in gram[bases][..bases].iter_mut().zip(differing) {
            *product = n as f64 - 2.0 * differing as f64;
        }
        let Some(solution) = solve(&gram, &rhs, bases + 1) else {
            // Only rounding could do this; the bases so far stand.
            codes.iter_mut().for_each(|code| *code &= code_mask(bases));
            break;
        };
        alpha = solution;
        bases += 1;
        if bases == most {
            break;
        }
        let levels = levels(&alpha[..bases]);
        left = 0.0;
        for ((residual, &code), &weight) in residual.iter_mut().zip(&*codes).zip(weights) {
            *residual = f64::from(weight) - levels[usize::from(code)];
            left += *residual * *residual;
        }
    }
    (alpha, bases)
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
