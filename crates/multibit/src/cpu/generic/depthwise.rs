//! One channel × one small kernel, in f32.
//!
//! With the padding written out, the input under one weight for neighbouring outputs of a row is one
//! run of memory. Some vectors of outputs, of one row or of several, are kept in registers while all
//! weights pass.

use alloc::vec::Vec;

use super::Ends;
use super::activations::nearest;
use super::finish::{copy_row, copy_rows};
use crate::cpu::levels::Levels;
use crate::cpu::simd::{LANES, Simd, Task, first_lanes};

/// Weights of a column of the kernel whose inputs for an output lie in neighbouring rows: they share
/// what they load for neighbouring rows of outputs.
#[derive(Clone, Copy, Default)]
pub(in crate::cpu) struct Taps {
    /// How far the input of the first lies behind the place of an output.
    pub offset: usize,
    /// How many there are.
    pub len: usize,
    pub weights: [f32; MOST_TAPS],
}

pub(in crate::cpu) const MOST_TAPS: usize = 3;

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
        // Vectors of several rows at once, unless each row has some.
        let mut map = self.map;
        let mut input = self.input;
        let len = input.len();
        // Half of such rows side by side is half of all of them.
        let halves = across == 2 && width.is_multiple_of(2) && width < 2 * LANES;
        // Pairs of vectors are read behind the end.
        mapped.resize(len + 2 * LANES + len / 2, 0.0);
        let (mapped, half) = mapped.split_at_mut(len + 2 * LANES);
        if across > 1 || width < LANES && !matches!(map, InputMap::Copy) {
            map_row(simd, map, input, &mut mapped[..len]);
            (input, map) = (mapped, InputMap::Copy);
        }
        for remainder in 0..across.min(width) {
            // Where the first of the input's columns with this remainder lies.
            let column = (remainder + left) / across;
            let first_row = (remainder + left) % across * rows;
            let count = (width - remainder).div_ceil(across);
            let (mut from, mut distance) = (&input[remainder..], width);
            if halves {
                even(simd, half, from);
                (from, distance) = (&*half, count);
            }
            for over in 0..down {
                // The rows with this remainder.
                let first = (over + down - top % down) % down;
                let row = (top + first) / down + over * across * rows + first_row;
                let rows = (len / width).saturating_sub(first).div_ceil(down);
                let to = &mut self.output[row * columns + column..];
                let from = &from[(first * distance).min(from.len())..];
                if halves || across == 1 && matches!(map, InputMap::Copy) {
                    copy_rows((to, columns), (from, down * distance), [rows, count]);
                    continue;
                }
                for y in 0..rows {
                    let to = &mut to[y * columns..][..count];
                    let from = &from[y * down * width..];
                    match across {
                        1 => map_row(simd, map, from, to),
                        2 => even(simd, to, from),
                        _ => {
                            for (to, &x) in to.iter_mut().zip(from.iter().step_by(across)) {
                                *to = x;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// As many values as there is room for, mapped.
#[inline(always)]
fn map_row<S: Simd>(simd: S, map: InputMap<'_>, from: &[f32], to: &mut [f32]) {
    if let InputMap::Copy = map {
        return copy_row(to, from);
    }
    if to.len() < LANES {
        let mut line = [0.0; LANES];
        copy_row(&mut line[..to.len()], from);
        simd.f_store(map.map(simd, simd.f_load(&line)), &mut line);
        return copy_row(to, &line);
    }
    let mut done = 0;
    while done < to.len() {
        // The last vector begins early enough to be whole.
        let first = done.min(to.len() - LANES);
        let x = simd.f_load(from[first..].first_chunk().expect("as long"));
        let to = to[first..].first_chunk_mut().expect("a whole vector");
        simd.f_store(map.map(simd, x), to);
        done = first + LANES;
    }
}

/// Every second value; two vectors may be read from wherever `to` has one.
#[inline(always)]
fn even<S: Simd>(simd: S, to: &mut [f32], from: &[f32]) {
    let mut done = 0;
    while done < to.len() {
        // The last vector begins early enough to be whole.
        let first = done.min(to.len().saturating_sub(LANES));
        let two = from[2 * first..].as_chunks().0;
        let x = simd.f_even(simd.f_load(&two[0]), simd.f_load(&two[1]));
        match to[first..].first_chunk_mut() {
            Some(to) => simd.f_store(x, to),
            None => {
                let mut line = [0.0; LANES];
                simd.f_store(x, &mut line);
                copy_row(to, &line);
            }
        }
        done = first + LANES;
    }
}

/// `factor·(scale·Σ) + offset` at some rows of outputs of a channel.
pub(in crate::cpu) struct Depthwise<'a> {
    pub taps: &'a [Taps],
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
            copy_rows((self.output, width), (self.sums, columns), [rows, width]);
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
    taps: &'a [Taps],
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
        let reach = |taps: &Taps| {
            assert!((1..=MOST_TAPS).contains(&taps.len), "no or too many taps");
            taps.offset + (taps.len - 1) * self.columns
        };
        let farthest = self.taps.iter().map(reach).max().unwrap_or(0);
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
        for taps in self.taps {
            match taps.len {
                1 => self.add::<S, R, V, 1>(simd, taps, row, &firsts, &mut sums),
                2 => self.add::<S, R, V, 2>(simd, taps, row, &firsts, &mut sums),
                _ => self.add::<S, R, V, MOST_TAPS>(simd, taps, row, &firsts, &mut sums),
            }
        }
        let (factor, offset) = self.affine;
        let (factor, offset) = (simd.f_splat(self.scale * factor), simd.f_splat(offset));
        for (r, sums) in sums.iter().enumerate() {
            let to = &mut output[(row + r) * width..][..width];
            for (&first, &sum) in firsts.iter().zip(sums) {
                let y = simd.f_fma(factor, sum, offset);
                let to = to[first..].first_chunk_mut().expect("a whole vector");
                simd.f_store(y, to);
            }
        }
        V
    }
    /// Adds `T` taps to sums of `R` rows from `row` on.
    #[inline(always)]
    fn add<S: Simd, const R: usize, const V: usize, const T: usize>(
        &self,
        simd: S,
        taps: &Taps,
        row: usize,
        firsts: &[usize; V],
        sums: &mut [[S::F; V]; R],
    ) {
        let mut weights = [simd.f_splat(0.0); T];
        for (to, &weight) in weights.iter_mut().zip(&taps.weights) {
            *to = simd.f_splat(weight);
        }
        // Rows by constants: in a loop over them, each would ask which sums it is for.
        self.add_row::<S, R, V, T, 0>(simd, taps.offset, row, firsts, &weights, sums);
        self.add_row::<S, R, V, T, 1>(simd, taps.offset, row, firsts, &weights, sums);
        self.add_row::<S, R, V, T, 2>(simd, taps.offset, row, firsts, &weights, sums);
        self.add_row::<S, R, V, T, 3>(simd, taps.offset, row, firsts, &weights, sums);
        self.add_row::<S, R, V, T, 4>(simd, taps.offset, row, firsts, &weights, sums);
        self.add_row::<S, R, V, T, 5>(simd, taps.offset, row, firsts, &weights, sums);
    }

    /// Adds what the `I`-th row of inputs from `row` on adds to sums.
    #[inline(always)]
    fn add_row<S: Simd, const R: usize, const V: usize, const T: usize, const I: usize>(
        &self,
        simd: S,
        offset: usize,
        row: usize,
        firsts: &[usize; V],
        weights: &[S::F; T],
        sums: &mut [[S::F; V]; R],
    ) {
        const { assert!(R + T - 1 <= 6) };
        if I >= R + T - 1 {
            return;
        }
        let start = offset + (row + I) * self.columns;
        let mut x = [simd.f_splat(0.0); V];
        for (&first, x) in firsts.iter().zip(&mut x) {
            debug_assert!(start + first + LANES <= self.input.len());
            // SAFETY: `rows` has asserted that the last vector of the last row lies inside from the
            // farthest tap on.
            let line = unsafe { &*self.input.as_ptr().add(start + first).cast() };
            *x = simd.f_load(line);
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            if r <= I && I - r < T {
                for (sum, &x) in sums.iter_mut().zip(&x) {
                    *sum = simd.f_fma(weights[I - r], x, *sum);
                }
            }
        }
    }
}
