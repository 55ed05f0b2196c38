//! Sums → outputs: scale and offset, a residual, an activation.

use super::LINES;
use crate::cpu::simd::{LANES, Line, Simd, Task, first_lanes, flat_mut, store_first};
use crate::cpu::threads::Shared;
use crate::cpu::tiles::NONE;
use crate::cpu::{Activation, Affine};

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
        // Most layers.
        let range = match self.ends.residual {
            None => self.ends.activation.range(),
            Some(_) => None,
        };
        let [low, high] = range.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
        let (low, high) = (simd.f_splat(low), simd.f_splat(high));
        for (part, sums) in self.sums.chunks(LANES).enumerate() {
            let mut rows = [Line([0.0; LANES]); LANES];
            for (row, sum) in rows.iter_mut().zip(sums) {
                let y = simd.f_fma(scale, simd.f_load(&sum.0), offset);
                simd.f_store(simd.f_min(high, simd.f_max(low, y)), &mut row.0);
            }
            simd.transpose(&mut rows);
            for (row, start) in rows.iter().zip(self.starts) {
                if let Some(start) = start {
                    let place = start + part * LANES;
                    // SAFETY: whoever made `starts` keeps tasks apart; lanes have channels of
                    // their own.
                    let to = unsafe { self.output.part(place, sums.len()) };
                    match range {
                        Some(_) => store_first(simd, simd.f_load(&row.0), to),
                        None => self.ends.finish(simd, simd.f_load(&row.0), place, to),
                    }
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
        let (mut places, mut count) = ([0; LANES], 0);
        for (place, &output) in places.iter_mut().zip(self.outputs) {
            if output != NONE {
                *place = output as usize;
                count += 1;
            }
        }
        let places = &places[..count];
        let side_by_side = places.is_sorted_by(|&a, &b| a + 1 == b);
        for (i, sum) in self.sums.iter().enumerate() {
            let scale = simd.f_splat(self.scales.map_or(1.0, |scales| scales[i]));
            let scaled = simd.f_mul(scale, simd.f_load(&sum.0));
            let y = simd.f_add(simd.f_mul(factors, scaled), offsets);
            let row = self.first + i * self.row;
            if let (true, Some(&first)) = (side_by_side, places.first()) {
                // SAFETY: whoever made the task keeps it apart from others.
                let to = unsafe { self.output.part(row + first, count) };
                self.ends.finish(simd, y, row + first, to);
                continue;
            }
            // SAFETY: whoever made the task keeps it apart from others.
            unsafe { self.ends.finish_apart(simd, y, row, places, self.output) };
        }
    }
}

/// Where the sums of an image's channels go, whose rows may be longer in the sums than in the output.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct ToRows<'a> {
    /// What a sum's 1 stands for.
    pub scale: f32,
    pub affine: &'a Affine<'a>,
    /// Sums of a row.
    pub columns: usize,
    /// Rows and columns of the output.
    pub size: [usize; 2],
    /// Where the first channel begins in the output.
    pub start: usize,
    pub output: &'a Shared<'a, f32>,
}

/// Sums side by side that go to outputs side by side.
#[derive(Clone, Copy, Default)]
struct Run {
    sum: usize,
    place: usize,
    len: usize,
}

/// The runs of a tile.
pub(in crate::cpu) struct Runs {
    list: [Run; LINES * LANES],
    count: usize,
}

impl ToRows<'_> {
    /// The runs among `sums` of the places from `first` on, and the `skip` before them.
    #[inline(always)]
    pub fn runs(&self, first: usize, [skip, sums]: [usize; 2]) -> Runs {
        let ([mut height, mut width], mut columns) = (self.size, self.columns);
        if columns == width {
            (height, width, columns) = (1, height * width, height * width);
        }
        let mut runs = Runs {
            list: [Run::default(); LINES * LANES],
            count: 0,
        };
        let (mut row, mut column) = match height {
            1 => (0, first),
            _ => (first / columns, first % columns),
        };
        let mut sum = skip;
        while sum < sums && row < height {
            if column < width {
                runs.list[runs.count] = Run {
                    sum,
                    place: row * width + column,
                    len: (width - column).min(sums - sum),
                };
                runs.count += 1;
            }
            sum += columns.saturating_sub(column).max(1);
            (row, column) = (row + 1, 0);
        }
        runs
    }

    /// Finishes the sums of a tile of one output.
    ///
    /// # Safety
    /// No other task may write the places of the runs in this output.
    #[inline(always)]
    pub unsafe fn finish<S: Simd>(self, simd: S, runs: &Runs, output: usize, sums: &[Line<f32>]) {
        let ends = self.affine.ends();
        let start = self.start + output * self.size[0] * self.size[1];
        let runs = &runs.list[..runs.count];
        let (factor, offset) = self.affine.of(output);
        let affine = LineAffine::<S> {
            factor: simd.f_splat(self.scale * factor),
            offset: simd.f_splat(offset),
        };
        // Most tiles of most layers.
        if let &[run] = runs
            && run.len == LANES * sums.len()
            && let Some([low, high]) = ends.activation.range()
        {
            let (low, high) = (simd.f_splat(low), simd.f_splat(high));
            let place = start + run.place;
            // SAFETY: the caller keeps tasks apart.
            let to = unsafe { self.output.part(place, run.len) };
            let residual = ends.residual.map(|residual| &residual[place..][..run.len]);
            for (line, (to, sum)) in to.as_chunks_mut().0.iter_mut().zip(sums).enumerate() {
                let mut y = affine.of(simd, simd.f_load(&sum.0));
                if let Some(residual) = residual {
                    y = simd.f_add(y, simd.f_load(&residual.as_chunks().0[line]));
                }
                simd.f_store(simd.f_min(high, simd.f_max(low, y)), to);
            }
            return;
        }
        let mut values = [Line([0.0; LANES]); LINES];
        if let Some(residual) = ends.residual {
            for run in runs {
                let to = &mut flat_mut(&mut values)[run.sum..][..run.len];
                copy_row(to, &residual[start + run.place..][..run.len]);
            }
        }
        for (value, sum) in values.iter_mut().zip(sums) {
            let y = affine.of(simd, simd.f_load(&sum.0));
            let y = simd.f_add(y, simd.f_load(&value.0));
            simd.f_store(ends.activation.apply(simd, y), &mut value.0);
        }
        for run in runs {
            // SAFETY: as above.
            let to = unsafe { self.output.part(start + run.place, run.len) };
            copy_row(to, &flat_mut(&mut values)[run.sum..][..run.len]);
        }
    }
}

/// Scale and offset of an output in all lanes.
struct LineAffine<S: Simd> {
    factor: S::F,
    offset: S::F,
}

impl<S: Simd> LineAffine<S> {
    #[inline(always)]
    fn of(&self, simd: S, sum: S::F) -> S::F {
        simd.f_fma(self.factor, sum, self.offset)
    }
}

/// The sums of some outputs at a tile.
pub(in crate::cpu) struct FinishTile<'a> {
    pub rows: ToRows<'a>,
    /// The first place.
    pub first: usize,
    /// The first output.
    pub output: usize,
    /// `[outputs, lines]`. No other task may write these places.
    pub sums: &'a [Line<f32>],
    pub lines: usize,
}

impl Task for FinishTile<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let runs = self.rows.runs(self.first, [0, self.lines * LANES]);
        for (output, sums) in (self.output..).zip(self.sums.chunks_exact(self.lines)) {
            // SAFETY: whoever made this keeps tasks apart.
            unsafe { self.rows.finish(simd, &runs, output, sums) };
        }
    }
}

/// Copies a row in pieces that may overlap, without a call.
#[inline(always)]
pub(super) fn copy_row(to: &mut [f32], from: &[f32]) {
    let len = to.len();
    copy_rows((to, len), (from, len), [1, len]);
}

/// Copies `[rows, len]` values; rows lie a distance apart.
#[inline(always)]
pub(super) fn copy_rows(to: (&mut [f32], usize), from: (&[f32], usize), size: [usize; 2]) {
    match size[1] {
        LANES.. => copy_pieces::<LANES>(to, from, size),
        8.. => copy_pieces::<8>(to, from, size),
        4.. => copy_pieces::<4>(to, from, size),
        _ => copy_pieces::<1>(to, from, size),
    }
}

#[inline(always)]
fn copy_pieces<const N: usize>(
    (to, to_distance): (&mut [f32], usize),
    (from, from_distance): (&[f32], usize),
    [rows, len]: [usize; 2],
) {
    for row in 0..rows {
        let to = &mut to[row * to_distance..][..len];
        let from = &from[row * from_distance..][..len];
        let mut done = 0;
        while done < len {
            let first = done.min(len - N);
            let piece: &mut [f32; N] = to[first..].first_chunk_mut().expect("a whole piece");
            *piece = *from[first..].first_chunk().expect("as long");
            done = first + N;
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
