//! Structured sketching of one group.

use crate::{combine, dot, solve};

/// Bases and ascending positive coordinates of one group, at most `min(len, max_bits)`.
pub fn sketch(w: &[f64], max_bits: usize) -> (Vec<Vec<f64>>, Vec<f64>) {
    let norm = dot(w, w);
    let (mut bases, mut alpha): (Vec<Vec<f64>>, Vec<f64>) = Default::default();
    let mut residual = w.to_vec();
    while norm > 0.0
        && bases.len() < w.len().min(max_bits)
        && dot(&residual, &residual) >= 1e-6 * norm
    {
        bases.push(
            residual
                .iter()
                .map(|r| if *r < 0.0 { -1.0 } else { 1.0 })
                .collect(),
        );
        alpha = least_squares(&bases, w);
        let fitted = combine(&bases, &alpha, w.len());
        residual = w.iter().zip(fitted).map(|(w, fitted)| w - fitted).collect();
    }
    let mut pairs: Vec<(f64, Vec<f64>)> = alpha
        .into_iter()
        .zip(bases)
        .filter(|(a, _)| *a != 0.0)
        .map(|(a, b)| (a.abs(), b.iter().map(|b| b * a.signum()).collect()))
        .collect();
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (alpha, bases) = pairs.into_iter().unzip();
    (bases, alpha)
}

/// `(BᵀB)⁻¹ Bᵀ w`.
fn least_squares(bases: &[Vec<f64>], w: &[f64]) -> Vec<f64> {
    let gram = bases
        .iter()
        .map(|a| bases.iter().map(|b| dot(a, b)).collect());
    solve(gram.collect(), bases.iter().map(|b| dot(b, w)).collect())
}
