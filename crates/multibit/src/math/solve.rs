//! A small symmetric positive definite system.

use thiserror::Error;

use crate::MAX_BITS;

/// The matrix of a system is not positive definite, as far as rounding lets tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the matrix is not positive definite at row {pivot}")]
pub(crate) struct NotPositiveDefinite {
    /// The row at which elimination met a pivot that is not positive and finite.
    pub(crate) pivot: usize,
}

/// Solves `A x = b` in place by Cholesky's method.
///
/// # Shapes
/// - `a`: `[n, n]`, row-major; only the lower triangle is read, and becomes the factor `L` of
///   `A = L Lᵀ`
/// - `b`: `[n]`, becomes `x`
///
/// # Errors
/// If a pivot is not positive and finite; `a` and `b` are then partly overwritten. A `b` that is not
/// finite gives such an `x`.
///
/// # Panics
/// If `n` is above [`MAX_BITS`] or a slice has another length.
pub(crate) fn solve_spd(a: &mut [f64], b: &mut [f64], n: usize) -> Result<(), NotPositiveDefinite> {
    solve_spd_rounded(a, b, n, |x| x)
}

/// [`solve_spd`] with an `x` that is rounded: from the last unknown to the first, each by `round`
/// once it solves the system together with those rounded before and the best of those to come
/// (Babai's nearest plane, which minimizes `xᵀAx − 2xᵀb` step by step).
pub(crate) fn solve_spd_rounded(
    a: &mut [f64],
    b: &mut [f64],
    n: usize,
    round: impl Fn(f64) -> f64,
) -> Result<(), NotPositiveDefinite> {
    assert!(n <= MAX_BITS, "`n` is {n}, but at most {MAX_BITS}");
    assert_eq!(a.len(), n * n, "`a` is not {n} × {n}");
    assert_eq!(b.len(), n, "`b` does not hold {n} values");
    for j in 0..n {
        for k in 0..j {
            a[j * n + j] -= a[j * n + k] * a[j * n + k];
        }
        let pivot = a[j * n + j];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return Err(NotPositiveDefinite { pivot: j });
        }
        let root = libm::sqrt(pivot);
        a[j * n + j] = root;
        for i in j + 1..n {
            for k in 0..j {
                a[i * n + j] -= a[i * n + k] * a[j * n + k];
            }
            a[i * n + j] /= root;
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
        b[i] = round(b[i] / a[i * n + i]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    /// `A = M Mᵀ + I` from a fixed pattern, and `b = A x` for `x = 1, 2, …`.
    fn system(n: usize) -> (Vec<f64>, Vec<f64>) {
        let m = |i: usize, k: usize| ((i * 7 + k * 3) % 5) as f64 - 2.0;
        let mut a = alloc::vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                let dot: f64 = (0..n).map(|k| m(i, k) * m(j, k)).sum();
                a[i * n + j] = dot + f64::from(u8::from(i == j));
            }
        }
        let b = (0..n)
            .map(|i| (0..n).map(|j| a[i * n + j] * (j + 1) as f64).sum())
            .collect();
        (a, b)
    }

    #[test]
    fn solves_every_size() {
        for n in 0..=MAX_BITS {
            let (mut a, mut b) = system(n);
            solve_spd(&mut a, &mut b, n).unwrap();
            for (i, x) in b.iter().enumerate() {
                // Condition below 1e3, so 1e-16 · 1e3 · 8 with room to spare.
                assert!((x - (i + 1) as f64).abs() < 1e-11, "{x} at {i} of {n}");
            }
        }
    }

    /// Of two unknowns on a grid of 1, the first makes up for what rounding the second took.
    #[test]
    fn what_is_left_fits_what_is_rounded() {
        // x = (2.4, 1.4): rounded alone it would be (2, 1).
        let (mut a, mut x) = ([2.0, 1.5, 1.5, 2.0], [6.9, 6.4]);
        solve_spd_rounded(&mut a, &mut x, 2, f64::round).unwrap();
        assert_eq!(x, [3.0, 1.0], "(6.9 − 1.5·1) / 2 = 2.7");
    }

    #[test]
    fn a_system_of_no_equations_is_solved() {
        assert_eq!(solve_spd(&mut [], &mut [], 0), Ok(()));
        let mut x = [f64::NAN, 1.0];
        assert_eq!(solve_spd(&mut [1.0, 0.0, 0.0, 1.0], &mut x, 2), Ok(()));
        assert!(x[0].is_nan(), "as float arithmetic has it");
    }

    #[test]
    fn names_the_pivot_that_fails() {
        let mut a = [1.0, 0.0, 1.0, 1.0];
        let error = solve_spd(&mut a, &mut [1.0, 1.0], 2);
        assert_eq!(error, Err(NotPositiveDefinite { pivot: 1 }));
        let mut a = [f64::NAN];
        let error = solve_spd(&mut a, &mut [1.0], 1);
        assert_eq!(error, Err(NotPositiveDefinite { pivot: 0 }));
        let mut a = [f64::INFINITY];
        let error = solve_spd(&mut a, &mut [1.0], 1);
        assert_eq!(error, Err(NotPositiveDefinite { pivot: 0 }));
        assert_eq!(
            NotPositiveDefinite { pivot: 2 }.to_string(),
            "the matrix is not positive definite at row 2"
        );
    }
}
