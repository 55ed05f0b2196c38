//! The method in f64, slow and readable: the definition that everything else is judged by.
//!
//! Written from the paper (Qu et al., *Adaptive Loss-aware Quantization for Multi-bit Networks*,
//! CVPR 2020), with plain vectors, brute force over all `2^I` levels and Gaussian elimination; it
//! shares no code with the crates under test. `golden_oracle` holds it against vectors computed by
//! the authors' program.

pub mod golden;
pub mod prune;
pub mod sketch;
pub mod step;

/// One group of a multi-bit weight with its moments in both domains.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// One vector of ±1 per basis.
    pub bases: Vec<Vec<f64>>,
    /// One coordinate per basis.
    pub alpha: Vec<f64>,
    /// First moment, a weight each.
    pub m: Vec<f64>,
    /// Second moment.
    pub v: Vec<f64>,
    /// Largest second moment so far.
    pub v_max: Vec<f64>,
    /// First moment in the α domain, a basis each.
    pub m_alpha: Vec<f64>,
    /// Second moment in the α domain.
    pub v_alpha: Vec<f64>,
    /// Largest second moment so far in the α domain.
    pub v_max_alpha: Vec<f64>,
    /// The kept full-precision weights of the STE phase.
    pub latent: Vec<f64>,
}

impl Group {
    /// A group with zero moments, whose kept weights are its reconstruction.
    pub fn new(len: usize, bases: Vec<Vec<f64>>, alpha: Vec<f64>) -> Self {
        let width = alpha.len();
        let mut group = Self {
            bases,
            alpha,
            m: vec![0.0; len],
            v: vec![0.0; len],
            v_max: vec![0.0; len],
            m_alpha: vec![0.0; width],
            v_alpha: vec![0.0; width],
            v_max_alpha: vec![0.0; width],
            latent: Vec::new(),
        };
        group.latent = group.reconstruct();
        group
    }

    /// `ŵ = B α`.
    pub fn reconstruct(&self) -> Vec<f64> {
        combine(&self.bases, &self.alpha, self.m.len())
    }

    /// `Bᵀ x`.
    pub fn project(&self, x: &[f64]) -> Vec<f64> {
        self.bases.iter().map(|basis| dot(basis, x)).collect()
    }
}

/// `Σ_i α_i b_i`, of length `len`.
pub fn combine(bases: &[Vec<f64>], alpha: &[f64], len: usize) -> Vec<f64> {
    let mut sum = vec![0.0; len];
    for (basis, a) in bases.iter().zip(alpha) {
        for (sum, b) in sum.iter_mut().zip(basis) {
            *sum += a * b;
        }
    }
    sum
}

/// `Σ x_j y_j`.
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Solves `A x = b` by Gaussian elimination with partial pivoting.
///
/// # Panics
/// If the matrix is singular.
pub fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|&i, &k| a[i][column].abs().total_cmp(&a[k][column].abs()))
            .expect("a column has rows");
        a.swap(column, pivot);
        b.swap(column, pivot);
        assert!(a[column][column] != 0.0, "singular matrix");
        let (row, value) = (a[column].clone(), b[column]);
        for below in column + 1..n {
            let factor = a[below][column] / row[column];
            for (x, y) in a[below].iter_mut().zip(&row) {
                *x -= factor * y;
            }
            b[below] -= factor * value;
        }
    }
    for row in (0..n).rev() {
        for k in row + 1..n {
            b[row] -= a[row][k] * b[k];
        }
        b[row] /= a[row][row];
    }
    b
}

/// The README's program, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// A program for each place that a model goes to.
#[cfg(doctest)]
#[doc = include_str!("../../crates/burn-alq/DEPLOY.md")]
pub struct Deploy;
