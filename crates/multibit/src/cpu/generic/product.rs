//! Products of dense matrices in f32.

use crate::cpu::simd::{LANES, Simd, Task, first_lanes, store_first};

/// Rows of the left matrix that lie together.
pub(in crate::cpu) const PANEL_ROWS: usize = 6;

/// `C = A B`, or `C += A B`.
pub(in crate::cpu) struct Product<'a> {
    /// `[panels, inner, PANEL_ROWS]`: six rows of `A` side by side, the last ones filled up.
    pub a: &'a [f32],
    /// `[inner, width]`, whole vectors wide.
    pub b: &'a [f32],
    pub width: usize,
    pub c: &'a mut [f32],
    /// Distance of rows of `C`.
    pub stride: usize,
    /// Rows and columns of `C`.
    pub size: [usize; 2],
    pub inner: usize,
    /// Whether it is added to what is there.
    pub add: bool,
}

impl Task for Product<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let columns = self.size[1];
        let mut first = 0;
        // As many vectors as the registers hold with six rows of sums.
        while S::REGISTERS >= 32 && first + 3 * LANES < columns {
            self.strip::<S, 4>(simd, first);
            first += 4 * LANES;
        }
        while first < columns {
            self.strip::<S, 1>(simd, first);
            first += LANES;
        }
    }
}

impl Product<'_> {
    /// Columns `first..first + V·LANES`, as far as there are any.
    #[inline(always)]
    fn strip<S: Simd, const V: usize>(&mut self, simd: S, first: usize) {
        let [rows, columns] = self.size;
        let columns = columns.min(first + V * LANES) - first;
        let panels = self.a.chunks_exact(self.inner * PANEL_ROWS);
        for (panel, start) in panels.zip((0..rows).step_by(PANEL_ROWS)) {
            let mut sums = [[simd.f_splat(0.0); V]; PANEL_ROWS];
            let steps = panel.as_chunks::<PANEL_ROWS>().0.iter();
            for (a, b) in steps.zip(self.b.chunks_exact(self.width)) {
                let (b, _) = b[first..][..V * LANES].as_chunks::<LANES>();
                for (sums, &a) in sums.iter_mut().zip(a) {
                    let a = simd.f_splat(a);
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = simd.f_fma(a, simd.f_load(b), *sum);
                    }
                }
            }
            for (row, sums) in (start..rows).zip(sums) {
                let c = &mut self.c[row * self.stride + first..][..columns];
                for (c, sum) in c.chunks_mut(LANES).zip(sums) {
                    let sum = match self.add {
                        true => simd.f_add(sum, simd.f_load(&first_lanes(c))),
                        false => sum,
                    };
                    store_first(simd, sum, c);
                }
            }
        }
    }
}

/// Lays the rows of a matrix out for [`Product`]: row `r`, column `k` is `at(r, k)`.
pub(in crate::cpu) fn pack_panels(
    rows: usize,
    inner: usize,
    to: &mut [f32],
    at: impl Fn(usize, usize) -> f32,
) {
    let panels = to.chunks_exact_mut(inner * PANEL_ROWS);
    for (panel, first) in panels.zip((0..rows).step_by(PANEL_ROWS)) {
        for (k, step) in panel.as_chunks_mut::<PANEL_ROWS>().0.iter_mut().enumerate() {
            for (row, value) in (first..).zip(step) {
                *value = if row < rows { at(row, k) } else { 0.0 };
            }
        }
    }
}

/// Length of [`pack_panels`]' result.
pub(in crate::cpu) fn panels_len(rows: usize, inner: usize) -> usize {
    rows.div_ceil(PANEL_ROWS) * PANEL_ROWS * inner
}
