//! Products of dense matrices in f32, row after row in memory, for what is fitted once.

use alloc::vec::Vec;

use crate::parts::each_part;

/// Rows of the left matrix that a block computes together, and columns of the right one.
const ROWS: usize = 4;
const COLUMNS: usize = 8;

/// Rows of a task.
const TASK: usize = 64;

/// `A B`; each entry is summed in one order, on however many threads.
///
/// # Shapes
/// - `a`: `[m, inner]`, `b`: `[inner, columns]`, result: `[m, columns]`
pub(crate) fn multiply(a: &[f32], b: &[f32], inner: usize, columns: usize) -> Vec<f32> {
    debug_assert_eq!(b.len(), inner * columns);
    let rows = a.len() / inner.max(1);
    let mut out = alloc::vec![0.0; rows * columns];
    if out.is_empty() {
        return out;
    }
    let cost = a.len().saturating_mul(columns);
    each_part(&mut out, TASK * columns, cost, |index, out| {
        let a = &a[index * TASK * inner..][..out.len() / columns * inner];
        block(a, b, inner, columns, out);
    });
    out
}

/// Some rows of a product.
fn block(a: &[f32], b: &[f32], inner: usize, columns: usize, out: &mut [f32]) {
    let mut panel = alloc::vec![[0.0; COLUMNS]; inner];
    for start in (0..columns).step_by(COLUMNS) {
        let width = COLUMNS.min(columns - start);
        for (panel, b) in panel.iter_mut().zip(b.chunks_exact(columns)) {
            panel[..width].copy_from_slice(&b[start..][..width]);
        }
        let bands = a.chunks(ROWS * inner).zip(out.chunks_mut(ROWS * columns));
        for (a, out) in bands {
            let count = a.len() / inner;
            // Rows that are not there are computed as the first, and dropped.
            let row = |i: usize| &a[if i < count { i * inner } else { 0 }..][..inner];
            let sums = sums(core::array::from_fn(row), &panel);
            for (out, sums) in out.chunks_exact_mut(columns).zip(sums) {
                out[start..][..width].copy_from_slice(&sums[..width]);
            }
        }
    }
}

/// The products of some rows with some columns.
fn sums(rows: [&[f32]; ROWS], panel: &[[f32; COLUMNS]]) -> [[f32; COLUMNS]; ROWS] {
    let mut sums = [[0.0; COLUMNS]; ROWS];
    let rows = rows.map(|row| &row[..panel.len()]);
    for (k, column) in panel.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(rows) {
            for (sum, x) in sums.iter_mut().zip(column) {
                *sum += row[k] * x;
            }
        }
    }
    sums
}

/// `Aᵀ` of an `A` with so many columns.
pub(crate) fn transposed(a: &[f32], columns: usize) -> Vec<f32> {
    let rows = a.len() / columns.max(1);
    let mut out = Vec::with_capacity(a.len());
    for column in 0..columns {
        out.extend((0..rows).map(|row| a[row * columns + column]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_sums_of_products() {
        let entry = |i: usize| ((i * 37 + 11) % 17) as f32 - 8.0;
        for (m, inner, n) in [
            (1, 1, 1),
            (3, 5, 7),
            (4, 8, 8),
            (130, 9, 33),
            (2, 3, 0),
            (0, 2, 2),
        ] {
            let a: Vec<f32> = (0..m * inner).map(entry).collect();
            let b: Vec<f32> = (0..inner * n).map(|i| entry(i + 5)).collect();
            let found = multiply(&a, &b, inner, n);
            assert_eq!(found.len(), m * n);
            for (place, found) in found.iter().enumerate() {
                let (i, j) = (place / n, place % n);
                let sum: f32 = (0..inner).map(|k| a[i * inner + k] * b[k * n + j]).sum();
                assert_eq!(*found, sum, "{m} × {inner} × {n} at {i}, {j}");
            }
            let back = transposed(&transposed(&a, inner), m);
            assert_eq!(back, a);
        }
    }
}
