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
