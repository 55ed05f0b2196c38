//! Activations → bit planes.
//!
//! The sign bits of a level change from level to level in a known way, so plane `j` of an
//! activation is its bit in the lowest level, changed once for each threshold below it.

use core::mem::MaybeUninit;

use crate::cpu::levels::{HALVES, LevelTables, Levels, MAX_ACTIVATION_BITS};
use crate::cpu::simd::{LANES, Line, Simd, Task, first_lanes};

/// Thirty-two channels of an image: one word a pixel and plane, bit `c` of channel `c`.
///
/// # Shapes
/// - `input`: `[channels ≤ 32, pixels]`
/// - `output`: `[planes, pixels]`
pub(in crate::cpu) struct PackChannels<'a> {
    pub input: &'a [f32],
    pub pixels: usize,
    pub levels: &'a Levels,
    pub output: &'a mut [u32],
}

impl Task for PackChannels<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.levels.bits() {
            1 => self.planes::<S, 1>(simd),
            2 => self.planes::<S, 2>(simd),
            3 => self.planes::<S, 3>(simd),
            _ => self.planes::<S, MAX_ACTIVATION_BITS>(simd),
        }
    }
}

/// Vectors of pixels at once: a few lines of the cache of one channel after the other.
const WIDE: usize = 4;

impl PackChannels<'_> {
    #[inline(always)]
    fn planes<S: Simd, const P: usize>(mut self, simd: S) {
        let mut first = 0;
        if S::REGISTERS >= 32 {
            while self.pixels - first >= WIDE * LANES {
                self.pack::<S, P, WIDE>(simd, first);
                first += WIDE * LANES;
            }
        }
        while self.pixels - first >= LANES {
            self.pack::<S, P, 1>(simd, first);
            first += LANES;
        }
        if first < self.pixels {
            self.pack_tail::<S, P>(simd, first);
        }
    }

    /// `V` vectors of pixels from `first` on.
    #[inline(always)]
    fn pack<S: Simd, const P: usize, const V: usize>(&mut self, simd: S, first: usize) {
        let mut planes = self.lowest::<S, P, V>(simd);
        for (channel, values) in self.input.chunks_exact(self.pixels).enumerate() {
            let vectors = values[first..].as_chunks::<LANES>().0;
            let vectors: &[_; V] = vectors.first_chunk().expect("as many pixels");
            let mut x = [simd.f_splat(0.0); V];
            for (x, vector) in x.iter_mut().zip(vectors) {
                *x = simd.f_load(vector);
            }
            self.toggle(simd, &x, channel, &mut planes);
        }
        for (j, planes) in planes.iter().enumerate() {
            for (v, &plane) in planes.iter().enumerate() {
                let mut line = Line([0; LANES]);
                simd.store(plane, &mut line);
                let place = j * self.pixels + first + v * LANES;
                self.output[place..][..LANES].copy_from_slice(&line.0);
            }
        }
    }

    /// The last pixels, fewer than a vector.
    #[inline(always)]
    fn pack_tail<S: Simd, const P: usize>(&mut self, simd: S, first: usize) {
        let count = self.pixels - first;
        let mut planes = self.lowest::<S, P, 1>(simd);
        let mut tail = [0.0; LANES];
        for (channel, values) in self.input.chunks_exact(self.pixels).enumerate() {
            tail[..count].copy_from_slice(&values[first..]);
            self.toggle(simd, &[simd.f_load(&tail)], channel, &mut planes);
        }
        for (j, &[plane]) in planes.iter().enumerate() {
            let mut line = Line([0; LANES]);
            simd.store(plane, &mut line);
            self.output[j * self.pixels + first..][..count].copy_from_slice(&line.0[..count]);
        }
    }

    /// The signs of the lowest level in all channels.
    #[inline(always)]
    fn lowest<S: Simd, const P: usize, const V: usize>(&self, simd: S) -> [[S::U; V]; P] {
        let channels = self.input.len() / self.pixels;
        let all = u32::MAX >> (32 - channels);
        let mut planes = [[simd.zero(); V]; P];
        for (j, plane) in planes.iter_mut().enumerate() {
            if self.levels.code(0) >> j & 1 == 1 {
                *plane = [simd.splat(all); V];
            }
        }
        planes
    }

    /// Changes the signs of a channel where `x` is above a threshold.
    #[inline(always)]
    fn toggle<S: Simd, const P: usize, const V: usize>(
        &self,
        simd: S,
        x: &[S::F; V],
        channel: usize,
        planes: &mut [[S::U; V]; P],
    ) {
        if S::REGISTERS >= 32 && P > 2 {
            let tables = self.levels.tables();
            for (v, &x) in x.iter().enumerate() {
                let rank = rank::<S, P>(simd, tables, x);
                for (changed, plane) in tables.changed.iter().zip(&mut *planes) {
                    let changed = simd.entry(changed, rank);
                    let changed = simd.greater(changed, simd.f_splat(0.0));
                    plane[v] = simd.toggle(plane[v], changed, 1 << channel);
                }
            }
            return;
        }
        for (threshold, change) in self.levels.changes() {
            let threshold = simd.f_splat(threshold);
            for (v, &x) in x.iter().enumerate() {
                let above = simd.greater(x, threshold);
                for (j, plane) in planes.iter_mut().enumerate() {
                    // Bits that do not change meet a word without bits: no branch.
                    let bit = u32::from(change >> j & 1) << channel;
                    plane[v] = simd.toggle(plane[v], above, bit);
                }
            }
        }
    }
}

/// Each value at its level.
pub(in crate::cpu) struct Quantize<'a> {
    pub input: &'a [f32],
    pub levels: &'a Levels,
    /// As long as the input; written whole.
    pub output: &'a mut [MaybeUninit<f32>],
}

impl Task for Quantize<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // What is written might be the levels: a copy stays in registers.
        let tables = self.levels.tables().clone();
        let bits = self.levels.bits();
        let places = self.output.chunks_mut(LANES);
        for (x, to) in self.input.chunks(LANES).zip(places) {
            let x = simd.f_load(&first_lanes(x));
            let mut levels = [0.0; LANES];
            let nearest = match bits {
                3 if S::REGISTERS >= 32 => nearest_by_rank::<S, 3>(simd, &tables, x),
                4 if S::REGISTERS >= 32 => nearest_by_rank::<S, 4>(simd, &tables, x),
                _ => nearest(simd, self.levels, x),
            };
            simd.f_store(nearest, &mut levels);
            match to.first_chunk_mut::<LANES>() {
                Some(to) => *to = levels.map(MaybeUninit::new),
                None => {
                    to.write_copy_of_slice(&levels[..to.len()]);
                }
            }
        }
    }
}

/// The nearest levels.
///
/// The bits of a level's f32 change from level to level in a known way too.
#[inline(always)]
pub(super) fn nearest<S: Simd>(simd: S, levels: &Levels, x: S::F) -> S::F {
    let values = levels.values();
    if S::REGISTERS >= 32 && values.len() > 4 {
        let tables = levels.tables();
        return match levels.bits() {
            3 => nearest_by_rank::<S, 3>(simd, tables, x),
            _ => nearest_by_rank::<S, MAX_ACTIVATION_BITS>(simd, tables, x),
        };
    }
    let mut level = simd.splat(values[0].to_bits());
    for (&threshold, pair) in levels.thresholds().iter().zip(values.windows(2)) {
        let above = simd.greater(x, simd.f_splat(threshold));
        level = simd.toggle(level, above, pair[0].to_bits() ^ pair[1].to_bits());
    }
    simd.as_floats(level)
}

/// The nearest of the levels of `B` bits.
#[inline(always)]
fn nearest_by_rank<S: Simd, const B: usize>(simd: S, tables: &LevelTables, x: S::F) -> S::F {
    simd.entry(&tables.values, rank::<S, B>(simd, tables, x))
}

/// How many thresholds of `B` bits are below, by halving; for instruction sets that look up by one
/// instruction.
#[inline(always)]
fn rank<S: Simd, const B: usize>(simd: S, tables: &LevelTables, x: S::F) -> S::U {
    let mut rank = simd.zero();
    let first = MAX_ACTIVATION_BITS - B;
    for (halfway, &half) in tables.halfway[first..].iter().zip(&HALVES[first..]) {
        let above = simd.greater(x, simd.entry(halfway, rank));
        rank = simd.toggle(rank, above, half as u32);
    }
    rank
}

/// Values in a row, cut into groups that begin on a new word.
///
/// # Shapes
/// - `input`: `[groups, len]`
/// - `output`: `[planes, groups, words]`
pub(in crate::cpu) struct PackRows<'a> {
    pub input: &'a [f32],
    pub len: usize,
    pub levels: &'a Levels,
    pub output: &'a mut [u32],
}

impl Task for PackRows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.levels.bits() {
            1 => self.planes::<S, 1>(simd),
            2 => self.planes::<S, 2>(simd),
            3 => self.planes::<S, 3>(simd),
            _ => self.planes::<S, MAX_ACTIVATION_BITS>(simd),
        }
    }
}

impl PackRows<'_> {
    #[inline(always)]
    fn planes<S: Simd, const P: usize>(self, simd: S) {
        let words = self.len.div_ceil(32);
        let plane_words = self.input.len() / self.len * words;
        let groups = self.input.chunks_exact(self.len).enumerate();
        for (group, values) in groups {
            for (word, values) in values.chunks(32).enumerate() {
                let (low, high) = values.split_at(values.len().min(LANES));
                let low = self.signs::<S, P>(simd, low);
                let high = self.signs::<S, P>(simd, high);
                for j in 0..P {
                    self.output[j * plane_words + group * words + word] = low[j] | high[j] << LANES;
                }
            }
        }
    }

    /// The signs of up to sixteen values.
    #[inline(always)]
    fn signs<S: Simd, const P: usize>(&self, simd: S, values: &[f32]) -> [u32; P] {
        let all = ((1 << values.len()) - 1) as u32;
        let x = match values.first_chunk::<LANES>() {
            Some(x) => simd.f_load(x),
            None => {
                let mut x = [0.0; LANES];
                x[..values.len()].copy_from_slice(values);
                simd.f_load(&x)
            }
        };
        let mut planes = [0; P];
        for (j, plane) in planes.iter_mut().enumerate() {
            if self.levels.code(0) >> j & 1 == 1 {
                *plane = all;
            }
        }
        for (threshold, change) in self.levels.changes() {
            let above = simd.bits(simd.greater(x, simd.f_splat(threshold))) & all;
            for (j, plane) in planes.iter_mut().enumerate() {
                if change >> j & 1 == 1 {
                    *plane ^= above;
                }
            }
        }
        planes
    }
}
