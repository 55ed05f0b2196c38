//! Bits × bits: XOR, popcount, then coordinates.
//!
//! `Σ ±1·±1 = n − 2·popcount(b ^ d)` over the `n` weights of a group, exact. An output is
//! ```text
//! y = Σ_steps α·( x_ref·(n − 2·popcount(b)) + Σ_planes γⱼ·(n − 2·popcount(b ^ dⱼ)) )
//! ```
//! The first term in the bracket does not depend on the input. Words of the activations that lie in
//! the padding of a convolution are not visited, and `n` counts what is visited: padding is 0, not
//! a level.

use alloc::vec;
use alloc::vec::Vec;

use crate::cpu::simd::{LANES, Line, Simd, Task};
use crate::cpu::tiles::Tiles;

/// Words of activations that meet a line of weights at once.
const WIDE: usize = 24;

/// Positions whose sums are kept in the first cache.
const POSITIONS: usize = 192;

/// Positions of an output that see the same part of the kernel.
pub(in crate::cpu) struct Class {
    /// For each position: where its activations begin, and its place in the output.
    pub positions: Vec<(isize, usize)>,
    /// For each group: line of a step and distance from where the activations begin.
    pub taps: Vec<Vec<(usize, isize)>>,
    /// For each group: weights that are visited.
    pub counts: Vec<i32>,
    /// For each group, which bits of its words are visited; empty if all are.
    pub masks: Vec<Vec<u32>>,
}

/// One block of outputs at all positions of one image.
pub(in crate::cpu) struct Bitwise<'a> {
    pub tiles: &'a Tiles,
    pub block: usize,
    /// Words of the activations of one image, all planes.
    pub activations: &'a [u32],
    /// Distance of the planes, in words.
    pub plane_stride: usize,
    /// `x_ref`.
    pub reference: f32,
    /// `γ`.
    pub gammas: &'a [f32],
    pub classes: &'a [Class],
    /// Receives the sums of a position: `[positions, lanes]`.
    pub output: &'a mut [Line<f32>],
}

impl Task for Bitwise<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let tiles = self.tiles;
        let planes = self.gammas.len();
        let mut bases = vec![0; POSITIONS * planes];
        let mut sums = [Line([0.0; LANES]); POSITIONS];
        let mut masked = Vec::new();
        for class in self.classes {
            check(
                class,
                self.activations.len(),
                self.plane_stride * (planes - 1),
            );
            let mut constant = simd.f_splat(0.0);
            for chunk in 0..tiles.chunks() {
                for step in tiles.steps(chunk, self.block) {
                    let group = tiles.group(step);
                    let lines = lines(tiles, step, class, &mut masked);
                    let ones = ones(simd, lines, &class.taps[group]);
                    let sum = simd.agreement(class.counts[group], ones);
                    let alpha = simd.f_load(tiles.coordinates(step));
                    let alpha = simd.f_mul(alpha, simd.f_splat(self.reference));
                    constant = simd.f_fma(alpha, sum, constant);
                }
            }
            for positions in class.positions.chunks(POSITIONS) {
                for (p, &(base, _)) in positions.iter().enumerate() {
                    for j in 0..planes {
                        bases[p * planes + j] = base + (j * self.plane_stride) as isize;
                    }
                }
                let bases = &bases[..positions.len() * planes];
                for sum in &mut sums[..positions.len()] {
                    simd.f_store(constant, &mut sum.0);
                }
                for chunk in 0..tiles.chunks() {
                    for step in tiles.steps(chunk, self.block) {
                        let group = tiles.group(step);
                        if class.taps[group].is_empty() {
                            continue;
                        }
                        let lines = lines(tiles, step, class, &mut masked);
                        let alpha = simd.f_load(tiles.coordinates(step));
                        let mut scales = [alpha; 4];
                        for (scale, &gamma) in scales.iter_mut().zip(self.gammas) {
                            *scale = simd.f_mul(alpha, simd.f_splat(gamma));
                        }
                        let dot = Dot {
                            lines,
                            taps: &class.taps[group],
                            activations: self.activations,
                            count: class.counts[group],
                            scales: &scales[..planes],
                        };
                        let mut row = 0;
                        while bases.len() - row >= WIDE {
                            dot.add::<S, WIDE>(simd, row, &bases[row..], &mut sums);
                            row += WIDE;
                        }
                        while bases.len() - row >= 8 {
                            dot.add::<S, 8>(simd, row, &bases[row..], &mut sums);
                            row += 8;
                        }
                        while bases.len() - row >= 2 {
                            dot.add::<S, 2>(simd, row, &bases[row..], &mut sums);
                            row += 2;
                        }
                        if row < bases.len() {
                            dot.add::<S, 1>(simd, row, &bases[row..], &mut sums);
                        }
                    }
                }
                for (&(_, place), sum) in positions.iter().zip(&sums) {
                    self.output[place] = *sum;
                }
            }
        }
    }
}

/// All that a step needs but the positions.
struct Dot<'a, F> {
    lines: &'a [Line<u32>],
    taps: &'a [(usize, isize)],
    activations: &'a [u32],
    count: i32,
    /// `α·γⱼ`.
    scales: &'a [F],
}

impl<F: Copy> Dot<'_, F> {
    /// Adds the step to the sums of `R` rows from `row` on, a row being a position and a plane.
    #[inline(always)]
    fn add<S: Simd<F = F>, const R: usize>(
        &self,
        simd: S,
        row: usize,
        bases: &[isize],
        sums: &mut [Line<f32>],
    ) {
        let bases = bases.first_chunk::<R>().expect("the caller has as many");
        let mut totals = [simd.zero(); R];
        for &(line, offset) in self.taps {
            let line = simd.load(&self.lines[line]);
            for (total, base) in totals.iter_mut().zip(bases) {
                // SAFETY: `check` has seen that all positions of the class, with all its taps and
                // planes, lie inside.
                let word = unsafe { *self.activations.get_unchecked((base + offset) as usize) };
                *total = simd.add_differences(*total, line, simd.splat(word));
            }
        }
        // Through memory: what is indexed by a variable does not stay in registers.
        let mut counts = [Line([0; LANES]); R];
        for (count, &total) in counts.iter_mut().zip(&totals) {
            simd.store(total, count);
        }
        let planes = self.scales.len();
        for (r, count) in counts.iter().enumerate() {
            let (position, plane) = ((row + r) / planes, (row + r) % planes);
            let sum = &mut sums[position].0;
            let agreement = simd.agreement(self.count, simd.load(count));
            let new = simd.f_fma(self.scales[plane], agreement, simd.f_load(sum));
            simd.f_store(new, sum);
        }
    }
}

/// Panics if a position of a class lies outside of the activations.
fn check(class: &Class, words: usize, last_plane: usize) {
    let offsets = class.taps.iter().flatten().map(|tap| tap.1);
    let bases = class.positions.iter().map(|position| position.0);
    let lowest = offsets.clone().min().zip(bases.clone().min());
    let highest = offsets.max().zip(bases.max());
    if let (Some((low, first)), Some((high, last))) = (lowest, highest) {
        let inside = first + low >= 0 && last + high + (last_plane as isize) < words as isize;
        assert!(inside, "the taps lie outside of the activations");
    }
}

/// The lines of a step, without the bits that the class does not visit.
#[inline(always)]
fn lines<'a>(
    tiles: &'a Tiles,
    step: usize,
    class: &Class,
    masked: &'a mut Vec<Line<u32>>,
) -> &'a [Line<u32>] {
    let lines = tiles.lines(step);
    if class.masks.is_empty() {
        return lines;
    }
    masked.clear();
    masked.extend(lines);
    for (line, mask) in masked.iter_mut().zip(&class.masks[tiles.group(step)]) {
        for word in &mut line.0 {
            *word &= mask;
        }
    }
    masked
}

/// Bits set in the visited words.
#[inline(always)]
fn ones<S: Simd>(simd: S, lines: &[Line<u32>], taps: &[(usize, isize)]) -> S::U {
    let mut total = simd.zero();
    for &(line, _) in taps {
        total = simd.add_differences(total, simd.load(&lines[line]), simd.zero());
    }
    total
}
