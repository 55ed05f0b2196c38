//! One channel × one small kernel, in f32.
//!
//! With the padding written out, the input under one weight for neighbouring outputs of a row is one
//! run of memory. Some vectors of outputs, of one row or of several, are kept in registers while all
//! weights pass.

use alloc::vec::Vec;

use super::Ends;
use super::activations::nearest;
use crate::cpu::levels::Levels;
use crate::cpu::simd::{LANES, Simd, Task, first_lanes};

/// A weight and how far its input lies behind the place of an output.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Tap {
    pub offset: usize,
    pub weight: f32,
}

/// What becomes of an input before it is multiplied.
#[derive(Clone, Copy)]
pub(in crate::cpu) enum InputMap<'a> {
    /// Nothing.
    Copy,
    /// The nearest multiple of a scale, in units of it; the scale's inverse.
    Round(f32),
    /// The nearest level.
    Level(&'a Levels),
}

impl InputMap<'_> {
    #[inline(always)]
    fn map<S: Simd>(self, simd: S, x: S::F) -> S::F {
        match self {
            Self::Copy => x,
            Self::Round(inverse) => {
                // Where floats are as far apart as integers, a sum is rounded to one, ties to even.
                const WHOLE: f32 = (3 << 22) as f32;
                let x = simd.f_mul(x, simd.f_splat(inverse));
                simd.f_add(simd.f_add(x, simd.f_splat(WHOLE)), simd.f_splat(-WHOLE))
            }
            Self::Level(levels) => nearest(simd, levels, x),
        }
    }
}

/// Rows of an input, mapped, to their places in a padded channel whose places are sorted by their
/// remainders by the stride.
pub(in crate::cpu) struct Fill<'a> {
    /// `[rows, width]`.
    pub input: &'a [f32],
    pub width: usize,
    pub map: InputMap<'a>,
    /// Rows and columns of padding before the input.
    pub before: [usize; 2],
    pub stride: [usize; 2],
    /// Rows and columns of one remainder.
    pub size: [usize; 2],
    /// Room for the input.
    pub mapped: &'a mut Vec<f32>,
    /// Of the padding nothing is written.
    pub output: &'a mut [f32],
}

impl Task for Fill<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { width, mapped, .. } = self;
        let [down, across] = self.stride;
        let [top, left] = self.before;
        let [rows, columns] = self.size;
        let mut input = self.input;
        if across == 2 || !matches!(self.map, InputMap::Copy) {
            // Pairs of vectors are read behind the end.
            mapped.resize(input.len() + 2 * LANES, 0.0);
            map_all(simd, self.map, input, &mut mapped[..input.len()]);
            input = mapped;
        }
        for remainder in 0..across.min(width) {
            // Where the first of the input's columns with this remainder lies.
            let column = (remainder + left) / across;
            let first_row = (remainder + left) % across * rows;
            let count = (width - remainder).div_ceil(across);
            let (mut over, mut row) = (top % down, top / down);
            for y in 0..self.input.len() / width {
                let place = (over * across * rows + first_row + row) * columns + column;
                let to = &mut self.output[place..][..count];
                let from = &input[y * width + remainder..];
                match across {
                    1 => copy_row(to, from),
                    2 if count >= LANES => even(simd, to, from),
                    _ => {
                        for (to, &x) in to.iter_mut().zip(from.iter().step_by(across)) {
                            *to = x;
                        }
                    }
                }
                over += 1;
                if over == down {
                    (over, row) = (0, row + 1);
                }
            }
        }
    }
}

#[inline(always)]
fn map_all<S: Simd>(simd: S, map: InputMap<'_>, from: &[f32], to: &mut [f32]) {
    if let InputMap::Copy = map {
        to.copy_from_slice(from);
        return;
    }
    let (whole, rest) = from.as_chunks();
    let (to_whole, to_rest) = to.as_chunks_mut();
    for (from, to) in whole.iter().zip(to_whole) {
        simd.f_store(map.map(simd, simd.f_load(from)), to);
    }
    let mut x = [0.0; LANES];
    x[..rest.len()].copy_from_slice(rest);
    let mut mapped = [0.0; LANES];
    simd.f_store(map.map(simd, simd.f_load(&x)), &mut mapped);
    to_rest.copy_from_slice(&mapped[..rest.len()]);
}

/// Every second value, at least a vector of them.
#[inline(always)]
fn even<S: Simd>(simd: S, to: &mut [f32], from: &[f32]) {
    let mut done = 0;
    while done < to.len() {
        // The last vector begins early enough to be whole.
        let first = done.min(to.len() - LANES);
        let [a, b] = [2 * first, 2 * first + LANES].map(
            #[inline(always)]
            |at| simd.f_load(from[at..].first_chunk().expect("room for two vectors")),
        );
        let to = to[first..].first_chunk_mut().expect("a whole vector");
        simd.f_store(simd.f_even(a, b), to);
        done = first + LANES;
    }
}

/// Copies a short row in pieces that may overlap, without a call.
#[inline(always)]
fn copy_row(to: &mut [f32], from: &[f32]) {
    match to.len() {
        LANES.. => copy_pieces::<LANES>(to, from),
        8.. => copy_pieces::<8>(to, from),
        4.. => copy_pieces::<4>(to, from),
        _ => copy_pieces::<1>(to, from),
    }
}

#[inline(always)]
fn copy_pieces<const N: usize>(to: &mut [f32], from: &[f32]) {
    let mut done = 0;
    while done < to.len() {
        let first = done.min(to.len() - N);
        let piece: &mut [f32; N] = to[first..].first_chunk_mut().expect("a whole piece");
        *piece = *from[first..].first_chunk().expect("as long");
        done = first + N;
    }
}

/// `factor·(scale·Σ) + offset` at some rows of outputs of a channel.
pub(in crate::cpu) struct Depthwise<'a> {
    pub taps: &'a [Tap],
    /// Inputs of the first row, and of all that follow.
    pub input: &'a [f32],
    /// Distance of the inputs of neighbouring rows.
    pub columns: usize,
    pub scale: f32,
    /// Factor and offset.
    pub affine: (f32, f32),
    pub ends: Ends<'a>,
    /// The place of the first output among all.
    pub place: usize,
    /// Outputs of a row.
    pub width: usize,
    /// `[rows, width]`.
    pub output: &'a mut [f32],
    /// Room to work in.
    pub sums: &'a mut Vec<f32>,
}

impl Task for Depthwise<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { width, columns, .. } = self;
        let block = Block {
            taps: self.taps,
            input: self.input,
            columns,
            scale: self.scale,
            affine: self.affine,
        };
        if width >= LANES {
            block.rows(simd, width, self.output);
        } else {
            // Narrow rows are computed as one, padding included.
            let rows = self.output.len() / width;
            let flat = ((rows - 1) * columns + width).next_multiple_of(LANES);
            self.sums.resize(flat, 0.0);
            block.rows(simd, flat, self.sums);
            let sums = self.sums.chunks(columns);
            for (to, sums) in self.output.chunks_exact_mut(width).zip(sums) {
                copy_row(to, &sums[..width]);
            }
        }
        if self.ends == Ends::default() {
            return;
        }
        // Rows overlap where they are computed, so that this is a pass of its own, in the first
        // cache.
        for (part, to) in self.output.chunks_mut(LANES).enumerate() {
            let y = simd.f_load(&first_lanes(to));
            self.ends.finish(simd, y, self.place + part * LANES, to);
        }
    }
}

/// What is the same for all outputs of a channel.
struct Block<'a> {
    taps: &'a [Tap],
    input: &'a [f32],
    columns: usize,
    scale: f32,
    affine: (f32, f32),
}

impl Block<'_> {
    /// Rows of at least a vector.
    #[inline(always)]
    fn rows<S: Simd>(&self, simd: S, width: usize, output: &mut [f32]) {
        let rows = output.len() / width;
        let farthest = self.taps.iter().map(|tap| tap.offset).max().unwrap_or(0);
        assert!(width >= LANES && rows > 0, "no whole vector");
        assert!(
            farthest + (rows - 1) * self.columns + width <= self.input.len(),
            "a weight lies outside of the input"
        );
        // The last vectors and rows begin early enough to be whole: what others have computed
        // already, they compute again.
        let mut column = 0;
        while column < width {
            let vectors = (width - column).div_ceil(LANES);
            let mut row = 0;
            let mut done = 1;
            while row < rows {
                (row, done) = match (rows - row, vectors) {
                    (1, 4..) if rows == 1 => {
                        (1, self.block::<S, 1, 4>(simd, [row, column], width, output))
                    }
                    (_, 2..) if rows >= 4 && S::REGISTERS >= 32 => {
                        let at = [row.min(rows - 4), column];
                        (row + 4, self.block::<S, 4, 2>(simd, at, width, output))
                    }
                    (_, _) if rows >= 4 => {
                        let at = [row.min(rows - 4), column];
                        (row + 4, self.block::<S, 4, 1>(simd, at, width, output))
                    }
                    (_, _) => (
                        row + 1,
                        self.block::<S, 1, 1>(simd, [row, column], width, output),
                    ),
                };
            }
            column += done * LANES;
        }
    }

    /// `V` vectors of `R` rows; returns `V`.
    #[inline(always)]
    fn block<S: Simd, const R: usize, const V: usize>(
        &self,
        simd: S,
        [row, column]: [usize; 2],
        width: usize,
        output: &mut [f32],
    ) -> usize {
        let mut firsts = [0; V];
        for (v, first) in firsts.iter_mut().enumerate() {
            *first = (column + v * LANES).min(width - LANES);
        }
        let mut sums = [[simd.f_splat(0.0); V]; R];
        for tap in self.taps {
            let weight = simd.f_splat(tap.weight);
            for (r, sums) in sums.iter_mut().enumerate() {
                let start = tap.offset + (row + r) * self.columns;
                for (&first, sum) in firsts.iter().zip(sums) {
                    debug_assert!(start + first + LANES <= self.input.len());
                    // SAFETY: `rows` has asserted that the last vector of the last row lies inside
                    // from the farthest offset on.
                    let x = unsafe { &*self.input.as_ptr().add(start + first).cast() };
                    *sum = simd.f_fma(weight, simd.f_load(x), *sum);
                }
            }
        }
        let (factor, offset) = self.affine;
        let [scale, factor, offset] = [self.scale, factor, offset].map(
            #[inline(always)]
            |x| simd.f_splat(x),
        );
        for (r, sums) in sums.iter().enumerate() {
            let to = &mut output[(row + r) * width..][..width];
            for (&first, &sum) in firsts.iter().zip(sums) {
                let y = simd.f_fma(factor, simd.f_mul(scale, sum), offset);
                let to = to[first..].first_chunk_mut().expect("a whole vector");
                simd.f_store(y, to);
            }
        }
        V
    }
}
