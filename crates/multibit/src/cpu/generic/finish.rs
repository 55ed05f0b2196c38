//! Sums → outputs: scale and offset, a residual, an activation.

use alloc::vec::Vec;

use crate::cpu::Activation;
use crate::cpu::simd::{LANES, Line, Simd, Task, first_lanes, store_first};
use crate::cpu::threads::Shared;
use crate::cpu::tiles::NONE;

/// What follows scale and offset: the one end of all layers whose outputs are values.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::cpu) struct Ends<'a> {
    /// In the shape of the output.
    pub residual: Option<&'a [f32]>,
    pub activation: Activation,
}

impl Ends<'_> {
    /// Finishes neighbouring outputs, `to` from `place` on: up to sixteen.
    #[inline(always)]
    pub(in crate::cpu) fn finish<S: Simd>(self, simd: S, y: S::F, place: usize, to: &mut [f32]) {
        let count = to.len().min(LANES);
        let y = match self.residual {
            Some(residual) => {
                let residual = &residual[place..][..count];
                simd.f_add(y, simd.f_load(&first_lanes(residual)))
            }
            None => y,
        };
        store_first(simd, self.activation.apply(simd, y), &mut to[..count]);
    }

    /// Finishes outputs that lie apart, the first lanes at their places behind `first`.
    ///
    /// # Safety
    /// No other task may write these places.
    #[inline(always)]
    unsafe fn finish_apart<S: Simd>(
        self,
        simd: S,
        y: S::F,
        first: usize,
        places: &[usize],
        output: &Shared<'_, f32>,
    ) {
        let mut lanes = [0.0; LANES];
        let y = match self.residual {
            Some(residual) => {
                for (lane, place) in lanes.iter_mut().zip(places) {
                    *lane = residual[first + place];
                }
                simd.f_add(y, simd.f_load(&lanes))
            }
            None => y,
        };
        simd.f_store(self.activation.apply(simd, y), &mut lanes);
        for (&y, place) in lanes.iter().zip(places) {
            // SAFETY: the caller keeps tasks apart.
            unsafe { output.part(first + place, 1)[0] = y };
        }
    }
}

/// The outputs of a block of channels, side by side, at some places of each.
pub(in crate::cpu) struct Finish<'a> {
    /// `[positions, lanes]`.
    pub sums: &'a [Line<f32>],
    /// Scale and offset by lane.
    pub affine: [[f32; LANES]; 2],
    pub ends: Ends<'a>,
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
        if let [sum] = self.sums {
            let y = simd.f_fma(scale, simd.f_load(&sum.0), offset);
            let (mut places, mut count) = ([0; LANES], 0);
            for (to, place) in places.iter_mut().zip(self.starts) {
                if let Some(place) = place {
                    *to = place;
                    count += 1;
                }
            }
            let places = &places[..count];
            // SAFETY: whoever made `starts` keeps tasks apart.
            unsafe { self.ends.finish_apart(simd, y, 0, places, self.output) };
            return;
        }
        for (part, sums) in self.sums.chunks(LANES).enumerate() {
            let mut rows = [Line([0.0; LANES]); LANES];
            for (row, sum) in rows.iter_mut().zip(sums) {
                let y = simd.f_fma(scale, simd.f_load(&sum.0), offset);
                simd.f_store(y, &mut row.0);
            }
            simd.transpose(&mut rows);
            for (row, start) in rows.iter().zip(self.starts) {
                if let Some(start) = start {
                    let place = start + part * LANES;
                    // SAFETY: whoever made `starts` keeps tasks apart; lanes have channels of
                    // their own.
                    let to = unsafe { self.output.part(place, sums.len()) };
                    self.ends.finish(simd, simd.f_load(&row.0), place, to);
                }
            }
        }
    }
}

/// Brings the sums of a block of outputs to their places in rows.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Scatter<'a> {
    /// `[rows, lanes]`.
    pub sums: &'a [Line<f32>],
    /// The output of each lane, or [`NONE`].
    pub outputs: &'a [u32],
    /// Scale and offset by lane.
    pub affine: [[f32; LANES]; 2],
    pub ends: Ends<'a>,
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
        let (mut places, mut count) = ([0; LANES], 0);
        if !side_by_side {
            for (place, &output) in places.iter_mut().zip(outputs) {
                if output != NONE {
                    *place = output as usize;
                    count += 1;
                }
            }
        }
        for (i, sum) in self.sums.iter().enumerate() {
            let scale = simd.f_splat(self.scales.map_or(1.0, |scales| scales[i]));
            let scaled = simd.f_mul(scale, simd.f_load(&sum.0));
            let y = simd.f_add(simd.f_mul(factors, scaled), offsets);
            let row = self.first + i * self.row;
            if side_by_side {
                let place = row + outputs[0] as usize;
                // SAFETY: whoever made the task keeps it apart from others.
                let to = unsafe { self.output.part(place, LANES) };
                self.ends.finish(simd, y, place, to);
                continue;
            }
            let places = &places[..count];
            // SAFETY: whoever made the task keeps it apart from others.
            unsafe { self.ends.finish_apart(simd, y, row, places, self.output) };
        }
    }
}

/// The outputs of a channel whose rows are longer in the sums than in the output.
pub(in crate::cpu) struct FinishRows<'a, I> {
    /// The sums of the channel, in their order.
    pub sums: I,
    /// What a sum's 1 stands for.
    pub scale: f32,
    /// Scale and offset.
    pub affine: (f32, f32),
    pub ends: Ends<'a>,
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
        let mut place = self.start + first;
        // SAFETY: whoever made `start` and `place` keeps tasks apart.
        let mut to = unsafe { self.output.part(place, end - first) };
        let mut column = self.place % self.columns;
        while !to.is_empty() {
            let count = width.saturating_sub(column).min(values.len()).min(to.len());
            // In whole vectors while there is room: what is behind the row is written later.
            for done in (0..count).step_by(LANES) {
                let part = values.len().min(done + LANES);
                let y = simd.f_load(&first_lanes(&values[done..part]));
                let to = &mut to[done..];
                let room = if to.len() < LANES {
                    count - done
                } else {
                    LANES
                };
                self.ends.finish(simd, y, place + done, &mut to[..room]);
            }
            place += count;
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
