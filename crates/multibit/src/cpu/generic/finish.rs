//! Sums → outputs.

use alloc::vec::Vec;

use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::cpu::threads::Shared;

/// `scale·sum + offset` of a block of channels, side by side, at some places of each.
pub(in crate::cpu) struct Finish<'a> {
    /// `[positions, lanes]`.
    pub sums: &'a [Line<f32>],
    /// Scale and offset by lane.
    pub affine: [[f32; LANES]; 2],
    /// Where each lane's places begin in the output; none for a lane without channel.
    ///
    /// No other task may write these places.
    pub starts: [Option<usize>; LANES],
    pub output: &'a Shared<'a, f32>,
}

impl Task for Finish<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let [scale, offset] = self.affine;
        let (scale, offset) = (simd.f_load(&scale), simd.f_load(&offset));
        for (part, sums) in self.sums.chunks(LANES).enumerate() {
            let mut rows = [Line([0.0; LANES]); LANES];
            for (row, sum) in rows.iter_mut().zip(sums) {
                let y = simd.f_fma(scale, simd.f_load(&sum.0), offset);
                simd.f_store(y, &mut row.0);
            }
            simd.transpose(&mut rows);
            for (row, start) in rows.iter().zip(self.starts) {
                if let Some(start) = start {
                    // SAFETY: whoever made `starts` keeps tasks apart; lanes have channels of
                    // their own.
                    let to = unsafe { self.output.part(start + part * LANES, sums.len()) };
                    match to.first_chunk_mut() {
                        Some(to) => simd.f_store(simd.f_load(&row.0), to),
                        None => to.copy_from_slice(&row.0[..sums.len()]),
                    }
                }
            }
        }
    }
}

/// `scale·sum + offset` of a channel whose rows are longer in the sums than in the output.
pub(in crate::cpu) struct FinishRows<'a, I> {
    /// The sums of the channel, in their order.
    pub sums: I,
    /// Scale and offset.
    pub affine: (f32, f32),
    /// The place of the first sum in its rows.
    pub place: usize,
    /// Sums of a row.
    pub columns: usize,
    /// Where the channel begins in the output; no other task may write these places of it.
    pub start: usize,
    /// Rows and columns of the output.
    pub size: [usize; 2],
    /// Room for the sums.
    pub values: &'a mut Vec<f32>,
    pub output: &'a Shared<'a, f32>,
}

impl<'a, I: Iterator<Item = &'a Line<f32>>> Task for FinishRows<'a, I> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (scale, offset) = self.affine;
        let (scale, offset) = (simd.f_splat(scale), simd.f_splat(offset));
        self.values.clear();
        for sum in self.sums {
            let mut line = [0.0; LANES];
            simd.f_store(simd.f_fma(scale, simd.f_load(&sum.0), offset), &mut line);
            self.values.extend_from_slice(&line);
        }
        let mut values = self.values.as_slice();
        let [height, width] = self.size;
        let before = |place: usize| {
            let (row, column) = (place / self.columns, place % self.columns);
            (row * width + column.min(width)).min(height * width)
        };
        let (first, end) = (before(self.place), before(self.place + values.len()));
        // SAFETY: whoever made `start` and `place` keeps tasks apart.
        let mut to = unsafe { self.output.part(self.start + first, end - first) };
        let mut column = self.place % self.columns;
        while !to.is_empty() {
            let count = width.saturating_sub(column).min(values.len()).min(to.len());
            copy(to, values, count);
            to = &mut to[count..];
            values = &values[values.len().min(self.columns - column)..];
            column = 0;
        }
    }
}

/// Copies `len` values, in whole vectors while there is room: what is behind them is written later.
#[inline(always)]
pub(super) fn copy(to: &mut [f32], from: &[f32], len: usize) {
    let mut done = 0;
    while done < len {
        let rest = len - done;
        match (to[done..].first_chunk_mut(), from[done..].first_chunk()) {
            (Some(to), Some(from)) => *to = *from as [f32; LANES],
            (_, _) => {
                to[done..][..rest.min(LANES)].copy_from_slice(&from[done..][..rest.min(LANES)])
            }
        }
        done += LANES;
    }
}
