//! What the inputs of a layer say about its weights: `H = Σ x xᵀ`, and its factor.

use alloc::vec::Vec;

use thiserror::Error;

use super::check_len;
use crate::math::{multiply, sqrt};
use crate::parts::each_part;

/// Sums that a product of two slices runs side by side.
const LANES: usize = 16;

/// Rows that are eliminated together.
const BLOCK: usize = 32;

/// Why a matrix is no Hessian of a layer's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HessianError {
    /// An entry is NaN or infinite: a sample was, or the sum went beyond the type.
    #[error("the Hessian of {inputs} inputs is not finite at row {row}, column {column}")]
    NotFinite {
        /// Inputs of the layer.
        inputs: usize,
        /// The entry's row.
        row: usize,
        /// The entry's column.
        column: usize,
    },
    /// No sum of `x xᵀ` makes this matrix, even with damping.
    #[error("the Hessian of {inputs} inputs is not positive semidefinite: found at row {row}")]
    Indefinite {
        /// Inputs of the layer.
        inputs: usize,
        /// The row at which elimination met a pivot that is not positive.
        row: usize,
    },
}

/// The quadratic form `(w − ŵ)ᵀ H (w − ŵ)` that one output's weights `w` are to be sketched in, damped
/// and factored.
///
/// `H = Σ x xᵀ` over samples `x` of the inputs makes it the squared error of the output. Its scale does
/// not matter. Damping adds a share of the mean of its diagonal to the diagonal: directions that no
/// sample showed still count, and more where there were few samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Hessian {
    /// `[d]`, of mean 1.
    diagonal: Vec<f32>,
    /// What the given matrix was multiplied by.
    scale: f64,
    full: Option<Full>,
}

/// A Hessian that is not diagonal.
#[derive(Debug, Clone, PartialEq)]
struct Full {
    /// `[d, d]`.
    matrix: Vec<f32>,
    /// `[d, d]`, the lower triangular `N` of `H = NᵀN`, other entries not used.
    factor: Vec<f32>,
}

impl Hessian {
    /// `H` as a matrix; only its lower triangle is read.
    ///
    /// # Shapes
    /// - `matrix`: `[d, d]`
    ///
    /// # Errors
    /// If an entry is not finite or the damped matrix is not positive definite.
    ///
    /// # Panics
    /// If `matrix` is not square, or `damping` is negative or not finite.
    pub fn new<T: Copy + Into<f64>>(
        matrix: &[T],
        inputs: usize,
        damping: f64,
    ) -> Result<Self, HessianError> {
        assert_eq!(
            matrix.len(),
            inputs * inputs,
            "`matrix` holds {} values, but {inputs} inputs need {}",
            matrix.len(),
            inputs * inputs
        );
        let (share, scale) = Self::scale((0..inputs).map(|i| matrix[i * inputs + i]), damping)?;
        let mut lower = alloc::vec![0.0f64; inputs * inputs];
        for row in 0..inputs {
            for column in 0..=row {
                let entry: f64 = matrix[row * inputs + column].into();
                if !entry.is_finite() {
                    return Err(HessianError::NotFinite {
                        inputs,
                        row,
                        column,
                    });
                }
                lower[row * inputs + column] = entry * scale;
            }
            lower[row * inputs + row] += share;
        }
        let mut dense = alloc::vec![0.0f32; inputs * inputs];
        for row in 0..inputs {
            for column in 0..=row {
                let entry = lower[row * inputs + column] as f32;
                dense[row * inputs + column] = entry;
                dense[column * inputs + row] = entry;
            }
        }
        factor(&mut lower, inputs)?;
        let mut lower: Vec<f32> = lower.into_iter().map(|entry| entry as f32).collect();
        for pivot in lower.iter_mut().step_by(inputs + 1) {
            *pivot = pivot.max(f32::MIN_POSITIVE);
        }
        Ok(Self {
            diagonal: (0..inputs).map(|i| dense[i * inputs + i]).collect(),
            scale,
            full: Some(Full {
                matrix: dense,
                factor: lower,
            }),
        })
    }

    /// `H` of which only the diagonal is known: inputs that do not depend on each other, or the
    /// diagonal of a Fisher matrix.
    ///
    /// # Errors
    /// If an entry is not finite or negative.
    ///
    /// # Panics
    /// If `damping` is negative or not finite.
    pub fn diagonal<T: Copy + Into<f64>>(
        diagonal: &[T],
        damping: f64,
    ) -> Result<Self, HessianError> {
        let (share, scale) = Self::scale(diagonal.iter().copied(), damping)?;
        let damped = diagonal
            .iter()
            .map(|&entry| ((entry.into() * scale + share) as f32).max(f32::MIN_POSITIVE));
        Ok(Self {
            diagonal: damped.collect(),
            scale,
            full: None,
        })
    }

    /// What is added to a diagonal entry, and what it is multiplied by before, so that the mean is 1.
    fn scale<T: Into<f64>>(
        diagonal: impl ExactSizeIterator<Item = T>,
        damping: f64,
    ) -> Result<(f64, f64), HessianError> {
        assert!(
            damping >= 0.0 && damping.is_finite(),
            "`damping` is {damping}, but must not be negative"
        );
        let inputs = diagonal.len();
        // Halves and smaller: the sum of finite numbers stays finite.
        let (mut sum, each) = (0.0, 1.0 / inputs as f64);
        for (row, entry) in diagonal.enumerate() {
            let entry = entry.into();
            if !entry.is_finite() {
                let column = row;
                return Err(HessianError::NotFinite {
                    inputs,
                    row,
                    column,
                });
            }
            if entry < 0.0 {
                return Err(HessianError::Indefinite { inputs, row });
            }
            sum += entry * each;
        }
        // Inputs that are always 0: all weights count the same.
        if sum < f64::MIN_POSITIVE {
            return Ok((1.0, 0.0));
        }
        let whole = 1.0 + damping;
        Ok((damping / whole, 1.0 / (sum * whole)))
    }

    /// Inputs of the layer.
    pub fn inputs(&self) -> usize {
        self.diagonal.len()
    }

    /// Weights whose outputs are nearest to what they should be, `w + H⁻¹ Σ e xᵀ` with the damped `H`.
    ///
    /// `e` is what an output lacks on an input `x` where `H` was summed up. If that was behind layers
    /// that are quantized already, `e = y − (W x + b)` with the float model's `y` makes up for their
    /// errors, also those that reach a sum by its other branch. Damping keeps the weights near `w`.
    ///
    /// # Shapes
    /// - `weights`, `lacking`, result: `[outputs, d]`; `lacking` is `Σ e xᵀ` over the samples of `H`
    ///
    /// # Panics
    /// If a slice has another length.
    pub fn least_squares<T: Copy + Into<f64> + Sync>(
        &self,
        weights: &[f32],
        lacking: &[T],
    ) -> Vec<f32> {
        let d = self.inputs();
        check_len("weights", weights.len(), weights.len() / d, d);
        check_len("lacking", lacking.len(), weights.len() / d, d);
        let mut result = weights.to_vec();
        let cost = weights.len().saturating_mul(d);
        each_part(&mut result, d, cost, |output, weights| {
            let lacking = &lacking[output * d..][..d];
            let mut x: Vec<f64> = lacking.iter().map(|&x| x.into() * self.scale).collect();
            // First Nᵀ, then N.
            for j in (0..d).rev() {
                let (row, pivot) = self.factor_row(j);
                x[j] /= f64::from(pivot);
                let solved = x[j];
                for (x, &entry) in x.iter_mut().zip(row) {
                    *x -= solved * f64::from(entry);
                }
            }
            for j in 0..d {
                let (row, pivot) = self.factor_row(j);
                let known = row.iter().zip(&x).map(|(&entry, x)| f64::from(entry) * x);
                x[j] = (x[j] - known.sum::<f64>()) / f64::from(pivot);
            }
            for (weight, x) in weights.iter_mut().zip(&x) {
                *weight = (f64::from(*weight) + x) as f32;
            }
        });
        result
    }

    /// Groups of an output.
    pub(super) fn groups_of(&self, len: usize) -> usize {
        let inputs = self.inputs();
        assert!(len > 0, "`len` is 0, a group needs at least one weight");
        assert!(
            inputs > 0 && inputs.is_multiple_of(len),
            "{inputs} inputs are not a whole number of groups of {len}"
        );
        inputs / len
    }

    pub(super) fn is_diagonal(&self) -> bool {
        self.full.is_none()
    }

    /// `H_jj`.
    pub(super) fn entry(&self, j: usize) -> f32 {
        self.diagonal[j]
    }

    /// Row `j` of `H`; nothing of a diagonal one.
    pub(super) fn row(&self, j: usize) -> &[f32] {
        let d = self.diagonal.len();
        self.full
            .as_ref()
            .map_or(&[], |full| &full.matrix[j * d..][..d])
    }

    /// `G H`, of rows as long as there are inputs.
    pub(super) fn times(&self, g: &[f32]) -> Vec<f32> {
        let d = self.diagonal.len();
        match &self.full {
            Some(full) => multiply(g, &full.matrix, d, d),
            None => {
                let entries = self.diagonal.iter().cycle();
                g.iter().zip(entries).map(|(g, entry)| g * entry).collect()
            }
        }
    }

    /// Row `j` of `N` before its diagonal, and `N_jj`. A diagonal one has nothing before it.
    pub(super) fn factor_row(&self, j: usize) -> (&[f32], f32) {
        match &self.full {
            Some(full) => {
                let row = &full.factor[j * self.diagonal.len()..];
                (&row[..j], row[j])
            }
            None => (&[], sqrt(self.diagonal[j])),
        }
    }
}

/// The lower triangular `N` of `A = NᵀN`, in place of the lower triangle of `A`: Cholesky's method from
/// the last row to the first, a block of rows at a time.
fn factor(a: &mut [f64], n: usize) -> Result<(), HessianError> {
    let mut end = n;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let (above, block) = a.split_at_mut(start * n);
        let block = &mut block[..(end - start) * n];
        for j in (start..end).rev() {
            let (before, row) = block.split_at_mut((j - start) * n);
            let pivot = row[j];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return Err(HessianError::Indefinite { inputs: n, row: j });
            }
            let root = libm::sqrt(pivot);
            row[..j].iter_mut().for_each(|entry| *entry /= root);
            row[j] = root;
            for i in start..j {
                subtract(&mut before[(i - start) * n..][..=i], row[i], &row[..=i]);
            }
        }
        let cost = above.len().saturating_mul(end - start);
        each_part(above, n, cost, |i, row| {
            for factor in block.chunks_exact(n).rev() {
                subtract(&mut row[..=i], factor[i], &factor[..=i]);
            }
        });
        end = start;
    }
    Ok(())
}

/// `Σ x y`, in a fixed order.
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (x, y) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let rest = x.remainder().iter().zip(y.remainder());
    let rest: f32 = rest.map(|(x, y)| x * y).sum();
    for (x, y) in x.zip(y) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `y ← y + a x`.
pub(super) fn add(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// `y ← y − a x`.
fn subtract(y: &mut [f64], a: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y -= a * x;
    }
}
