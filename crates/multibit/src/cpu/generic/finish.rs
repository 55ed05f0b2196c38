//! Sums → outputs.

use alloc::vec::Vec;

use super::Sums;
use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::cpu::threads::Shared;
use crate::cpu::tiles::NONE;

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

/// Brings the sums of a block of outputs to their places in rows:
/// `output = scale·(row scale·sum) + offset`.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Scatter<'a> {
    /// `[rows, lanes]`.
    pub sums: &'a [Line<f32>],
    /// The output of each lane, or [`NONE`].
    pub outputs: &'a [u32],
    /// Scale and offset by lane.
    pub affine: [[f32; LANES]; 2],
    /// The scale of each row; 1 without any.
    pub scales: Option<&'a [f32]>,
    /// The place of output 0 in the first row.
    pub first: usize,
    /// Values of a row.
    pub row: usize,
    /// No other task may write these outputs of these rows.
    pub output: &'a Shared<'a, f32>,
}

impl Task for Scatter<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let [factors, offsets] = self.affine;
        let (factors, offsets) = (simd.f_load(&factors), simd.f_load(&offsets));
        let outputs = self.outputs;
        let side_by_side = outputs.is_sorted_by(|&a, &b| a + 1 == b) && outputs[LANES - 1] != NONE;
        for (i, sum) in self.sums.iter().enumerate() {
            let scale = simd.f_splat(self.scales.map_or(1.0, |scales| scales[i]));
            let scaled = simd.f_mul(scale, simd.f_load(&sum.0));
            let y = simd.f_add(simd.f_mul(factors, scaled), offsets);
            let row = self.first + i * self.row;
            if side_by_side {
                // SAFETY: whoever made the task keeps it apart from others.
                let to = unsafe { self.output.part(row + outputs[0] as usize, LANES) };
                simd.f_store(y, to.first_chunk_mut().expect("a vector"));
                continue;
            }
            let mut lanes = [0.0; LANES];
            simd.f_store(y, &mut lanes);
            for (&y, &output) in lanes.iter().zip(outputs) {
                if output != NONE {
                    // SAFETY: whoever made the task keeps it apart from others.
                    unsafe { self.output.part(row + output as usize, 1)[0] = y };
                }
            }
        }
    }
}

/// [`Scatter`] of sums whose lanes are rows, of sixteen outputs.
pub(in crate::cpu) struct ScatterTile<'a> {
    /// All but its sums.
    pub scatter: Scatter<'a>,
    pub sums: &'a [Sums],
    pub rows: usize,
}

impl Task for ScatterTile<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (line, first) in (0..self.rows).step_by(LANES).enumerate() {
            let mut square = [Line([0.0; LANES]); LANES];
            for (to, sums) in square.iter_mut().zip(self.sums) {
                *to = sums[line];
            }
            simd.transpose(&mut square);
            let count = (self.rows - first).min(LANES);
            let scatter = Scatter {
                sums: &square[..count],
                scales: self.scatter.scales.map(|scales| &scales[first..]),
                first: self.scatter.first + first * self.scatter.row,
                ..self.scatter
            };
            scatter.run(simd);
        }
    }
}

/// `scale·sum + offset` of a channel whose rows are longer in the sums than in the output.
pub(in crate::cpu) struct FinishRows<'a, I> {
    /// The sums of the channel, in their order.
    pub sums: I,
    /// What a sum's 1 stands for.
    pub scale: f32,
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
        let (factor, offset) = self.affine;
        let (factor, offset) = (simd.f_splat(factor), simd.f_splat(offset));
        let scale = simd.f_splat(self.scale);
        self.values.clear();
        for sum in self.sums {
            let mut line = [0.0; LANES];
            let sum = simd.f_mul(scale, simd.f_load(&sum.0));
            simd.f_store(simd.f_fma(factor, sum, offset), &mut line);
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
