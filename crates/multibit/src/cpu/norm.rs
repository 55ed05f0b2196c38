//! Softmax and layer norm over the last axis.

use super::generic::{LayerNorm, Softmax};
use super::threads::{self, Shared};
use super::{Isa, assert_len};

/// Values that a task takes, about.
const PART: usize = 4096;

/// Cuts rows into tasks: rows of each, and how many there are.
fn cut(rows: usize, len: usize) -> (usize, usize) {
    let part = (PART / len).max(1);
    (part, rows.div_ceil(part))
}

/// Softmax of each row, in place: `e^xᵢ / Σⱼ e^xⱼ`, or quiet, `e^xᵢ / (1 + Σⱼ e^xⱼ)`.
///
/// A result is wrong by at most 10⁻⁶ of itself in rows of up to 4096 values; results below 10⁻³⁸
/// are 0 or denormal. A row with NaN or +∞, or of −∞ alone unless quiet, becomes NaN.
///
/// # Shapes
/// - `values`: `[rows, len]`
///
/// # Panics
/// If the values are not whole rows.
pub fn softmax(isa: Isa, values: &mut [f32], len: usize, quiet: bool) {
    if values.is_empty() {
        return;
    }
    let size = values.len();
    assert!(
        len > 0 && size.is_multiple_of(len),
        "softmax: {size} values are not rows of {len}"
    );
    let (part, tasks) = cut(size / len, len);
    let values = Shared::new(values);
    threads::for_each(tasks, 2 * size, |task| {
        let first = task * part * len;
        isa.run(Softmax {
            // SAFETY: each task has rows of its own.
            values: unsafe { values.part(first, (part * len).min(size - first)) },
            len,
            quiet,
        });
    });
}

/// Layer norm of each row: `γ·(x − mean)/√(variance + ε) + β`, the variance being the mean of
/// squared differences.
///
/// Computed in f32, with the differences rounded before they are squared: wrong by at most 10⁻⁶ of
/// the largest `|γ·x|/√(variance + ε)` of the row plus 10⁻⁷ of the result. A row with NaN or an
/// infinity becomes NaN.
///
/// # Shapes
/// - `input`: `[rows, len]`
/// - `gamma`, `beta`: `[len]`
/// - `output`: `[rows, len]`, written whole
///
/// # Panics
/// If a slice has another length.
pub fn layer_norm(
    isa: Isa,
    input: &[f32],
    gamma: &[f32],
    beta: Option<&[f32]>,
    epsilon: f64,
    output: &mut [f32],
) {
    let (size, len) = (input.len(), gamma.len());
    let rows = size.checked_div(len).unwrap_or(0);
    let axes = [("rows", rows), ("len", len)];
    assert_len("layer_norm", "input", size, &axes);
    assert_len("layer_norm", "output", output.len(), &axes);
    if let Some(beta) = beta {
        assert_len("layer_norm", "beta", beta.len(), &[("len", len)]);
    }
    if input.is_empty() {
        return;
    }
    let (part, tasks) = cut(rows, len);
    let output = Shared::new(output);
    threads::for_each(tasks, size / 2, |task| {
        let first = task * part * len;
        let count = (part * len).min(size - first);
        isa.run(LayerNorm {
            input: &input[first..][..count],
            gamma,
            beta,
            epsilon: epsilon as f32,
            // SAFETY: each task has rows of its own.
            output: unsafe { output.part(first, count) },
        });
    });
}
