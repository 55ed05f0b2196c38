//! Small symmetric positive definite systems.

use core::fmt;

/// The matrix is not positive definite in floating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPositiveDefinite {
    /// Where the factorization stopped.
    pub pivot: usize,
}

impl fmt::Display for NotPositiveDefinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "matrix is not positive definite at pivot {}", self.pivot)
    }
}

impl core::error::Error for NotPositiveDefinite {}

/// Solves `A x = b` by Cholesky's factorization `A = L Lᵀ`.
///
/// # Arguments
/// - `a`: `[n * n]` row-major, its lower triangle is read and overwritten by `L`
/// - `b`: `[n]`, overwritten by `x`
///
/// # Errors
/// If a pivot is not positive, or NaN.
///
/// # Panics
/// If the lengths do not fit `n`.
pub fn solve_spd(a: &mut [f64], b: &mut [f64], n: usize) -> Result<(), NotPositiveDefinite> {
    assert_eq!(a.len(), n * n, "a: n × n");
    assert_eq!(b.len(), n, "b: n");
    for j in 0..n {
        let mut pivot = a[j * n + j];
        for k in 0..j {
            pivot -= a[j * n + k] * a[j * n + k];
        }
        if pivot.is_nan() || pivot <= 0.0 {
            return Err(NotPositiveDefinite { pivot: j });
        }
        let pivot = libm::sqrt(pivot);
        a[j * n + j] = pivot;
        for i in j + 1..n {
            let mut sum = a[i * n + j];
            for k in 0..j {
                sum -= a[i * n + k] * a[j * n + k];
            }
            a[i * n + j] = sum / pivot;
        }
    }
    for i in 0..n {
        for k in 0..i {
            b[i] -= a[i * n + k] * b[k];
        }
        b[i] /= a[i * n + i];
    }
    for i in (0..n).rev() {
        for k in i + 1..n {
            b[i] -= a[k * n + i] * b[k];
        }
        b[i] /= a[i * n + i];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::testing::Random;

    #[test]
    fn solves_random_systems() {
        let mut random = Random::new(2);
        for n in 1..=8 {
            let root: Vec<f64> = (0..n * n).map(|_| f64::from(random.normal())).collect();
            let matrix: Vec<f64> = (0..n * n)
                .map(|at| {
                    let (i, j) = (at / n, at % n);
                    let dot: f64 = (0..n).map(|k| root[i * n + k] * root[j * n + k]).sum();
                    dot + if i == j { 0.1 } else { 0.0 }
                })
                .collect();
            let x: Vec<f64> = (0..n).map(|_| f64::from(random.normal())).collect();
            let mut b: Vec<f64> = (0..n)
                .map(|i| (0..n).map(|j| matrix[i * n + j] * x[j]).sum())
                .collect();
            solve_spd(&mut matrix.clone(), &mut b, n).unwrap();
            for (found, expected) in b.iter().zip(&x) {
                // Conditions up to about 10³ times 2⁻⁵².
                assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
            }
        }
    }

    #[test]
    fn an_indefinite_matrix_is_refused() {
        let mut a = [1.0, 0.0, 2.0, 1.0];
        let error = solve_spd(&mut a, &mut [1.0, 1.0], 2);
        assert_eq!(error, Err(NotPositiveDefinite { pivot: 1 }));
        let error = solve_spd(&mut [f64::NAN], &mut [1.0], 1);
        assert_eq!(error, Err(NotPositiveDefinite { pivot: 0 }));
    }
}
