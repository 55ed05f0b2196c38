//! Bits × bits: XOR, popcount, then coordinates.
//!
//! `Σ ±1·±1 = n − 2·popcount(b ^ d)` over the `n` weights of a group, exact. An output is
//! ```text
//! y = Σ_steps α·( x_ref·(n − 2·popcount(b)) + Σ_planes γⱼ·(n − 2·popcount(b ^ dⱼ)) )
//! ```
//! The first term in the bracket does not depend on the input. Words of the activations that lie in
//! the padding of a convolution are not visited, and `n` counts what is visited: padding is 0, not
//! a level.

use alloc::vec::Vec;

use crate::cpu::levels::MAX_ACTIVATION_BITS;
use crate::cpu::simd::{Line, Simd, Task};
use crate::cpu::tiles::Tiles;

/// Positions of an output that see the same part of the kernel.
pub(in crate::cpu) struct Class {
    /// Where the activations of each position begin, in ascending order, and its place in the
    /// output.
    pub positions: Vec<(isize, usize)>,
    /// The taps of each group: line of a step, and distance from where the activations begin.
    pub taps: Vec<Vec<(usize, isize)>>,
    /// How many weights of each group are visited.
    pub counts: Vec<i32>,
    /// Which bits of the words of each group are visited; empty if all are.
    pub masks: Vec<Vec<u32>>,
}

impl Class {
    /// The lowest and the highest word of the first plane that is visited, if one is.
    fn reach(&self) -> Option<(isize, isize)> {
        let offsets = self.taps.iter().flatten().map(|tap| tap.1);
        let lowest = offsets.clone().min()? + self.positions.first()?.0;
        Some((lowest, offsets.max()? + self.positions.last()?.0))
    }
}

/// All classes of a layer, and what they reach.
pub(in crate::cpu) struct Classes {
    list: Vec<Class>,
    lowest: isize,
    highest: isize,
}

impl Classes {
    pub fn new(list: Vec<Class>) -> Self {
        let reach = || list.iter().filter_map(Class::reach);
        Self {
            lowest: reach().map(|reach| reach.0).min().unwrap_or(0),
            highest: reach().map(|reach| reach.1).max().unwrap_or(-1),
            list,
        }
    }
}

/// One block of outputs at all positions of one image.
pub(in crate::cpu) struct Bitwise<'a, O> {
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
    pub classes: &'a Classes,
    /// Which share of the positions: part `.0` of `.1`.
    pub part: (usize, usize),
    pub output: O,
}

/// Takes the sums of a block, one position after the other.
pub(in crate::cpu) trait Output {
    /// The most planes of the activations; each number is compiled on its own.
    const MOST_PLANES: usize = MAX_ACTIVATION_BITS;

    /// `place` of the position in the output.
    fn take<S: Simd>(&mut self, simd: S, place: usize, sum: S::F);
}

/// Keeps sums: `[positions, lanes]`.
impl Output for &mut [Line<f32>] {
    #[inline(always)]
    fn take<S: Simd>(&mut self, simd: S, place: usize, sum: S::F) {
        simd.f_store(sum, &mut self[place].0);
    }
}

impl<O: Output> Task for Bitwise<'_, O> {
    const BYTES: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let last_plane = (self.gammas.len() - 1) * self.plane_stride;
        let highest = self.classes.highest + last_plane as isize;
        assert!(
            self.classes.lowest >= 0 && highest < self.activations.len() as isize,
            "the taps lie outside of the activations"
        );
        // As many positions as counts and sums stay in 32 registers.
        match self.gammas.len() {
            1 => self.planes::<S, 1, 12>(simd),
            2 => self.planes::<S, 2, 8>(simd),
            3 if O::MOST_PLANES >= 3 => self.planes::<S, 3, 6>(simd),
            4 if O::MOST_PLANES >= 4 => self.planes::<S, 4, 5>(simd),
            planes => unreachable!("{planes} planes of an activation"),
        }
    }
}

/// A step in one class.
struct Step<'a, F, const P: usize> {
    lines: &'a [Line<u32>],
    taps: &'a [(usize, isize)],
    /// `−⌊n/2⌋`: where counts start, so that they end at half of the sum of signs, negated.
    start: u32,
    /// `−2αγⱼ`.
    scales: [F; P],
}

impl<O: Output> Bitwise<'_, O> {
    /// All of it, for `P` planes, `W` positions at once where there are many registers.
    #[inline(always)]
    fn planes<S: Simd, const P: usize, const W: usize>(mut self, simd: S) {
        let mut masked = Vec::new();
        for class in &self.classes.list {
            mask(self.tiles, self.block, class, &mut masked);
            let (steps, constant) = self.steps::<S, P>(simd, class, &masked);
            let (part, parts) = self.part;
            let mut first = class.positions.len() * part / parts;
            let count = class.positions.len() * (part + 1) / parts;
            if S::REGISTERS >= 32 {
                // No position is left alone: one costs as much as two.
                while count - first >= W && count - first != W + 1 {
                    self.tile::<S, P, W>(simd, class, &steps, constant, first);
                    first += W;
                }
                while matches!(count - first, 5 | 7 | 9) {
                    self.tile::<S, P, 5>(simd, class, &steps, constant, first);
                    first += 5;
                }
                while count - first >= 4 {
                    self.tile::<S, P, 4>(simd, class, &steps, constant, first);
                    first += 4;
                }
            }
            while count - first >= 2 {
                self.tile::<S, P, 2>(simd, class, &steps, constant, first);
                first += 2;
            }
            if first < count {
                self.tile::<S, P, 1>(simd, class, &steps, constant, first);
            }
        }
    }

    /// The steps that see something of the input, and the sums of what does not depend on it.
    #[inline(always)]
    fn steps<'s, S: Simd, const P: usize>(
        &self,
        simd: S,
        class: &'s Class,
        masked: &'s [Line<u32>],
    ) -> (Vec<Step<'s, S::F, P>>, S::F)
    where
        Self: 's,
    {
        let tiles = self.tiles;
        let gammas: [f32; P] = self.gammas.try_into().expect("one for each plane");
        let mut steps = Vec::new();
        let mut seen = 0;
        let mut constant = simd.f_splat(0.0);
        for chunk in 0..tiles.chunks() {
            for step in tiles.steps(chunk, self.block) {
                let group = tiles.group(step);
                let lines = if class.masks.is_empty() {
                    tiles.lines(step)
                } else {
                    &masked[seen * tiles.words..][..tiles.words]
                };
                seen += 1;
                let (taps, count) = (class.taps[group].as_slice(), class.counts[group]);
                if count == 0 {
                    continue;
                }
                let start = (-(count / 2)) as u32;
                // Half a count rounds down: this is what an odd one has lost.
                let odd = simd.f_splat((count % 2) as f32);
                let sum = if count as usize == tiles.len {
                    simd.f_load(tiles.signs(step))
                } else {
                    let mut total = simd.splat(start);
                    for &(line, _) in taps {
                        let line = simd.load(&lines[line]);
                        total = simd.add_differences(total, line, simd.zero());
                    }
                    simd.f_fma(simd.to_float(total), simd.f_splat(-2.0), odd)
                };
                let alpha = simd.f_load(tiles.coordinates(step));
                let scale = simd.f_mul(alpha, simd.f_splat(self.reference));
                constant = simd.f_fma(scale, sum, constant);
                let mut scales = [alpha; P];
                for (scale, &gamma) in scales.iter_mut().zip(&gammas) {
                    let product = simd.f_mul(alpha, simd.f_splat(gamma));
                    constant = simd.f_fma(product, odd, constant);
                    *scale = simd.f_mul(product, simd.f_splat(-2.0));
                }
                steps.push(Step {
                    lines,
                    taps,
                    start,
                    scales,
                });
            }
        }
        (steps, constant)
    }

    /// `W` positions from `first` on.
    #[inline(always)]
    fn tile<S: Simd, const P: usize, const W: usize>(
        &mut self,
        simd: S,
        class: &Class,
        steps: &[Step<'_, S::F, P>],
        constant: S::F,
        first: usize,
    ) {
        let positions: &[(isize, usize); W] =
            class.positions[first..].first_chunk().expect("as many");
        let start = positions[0].0;
        let mut side_by_side = true;
        for (w, position) in positions.iter().enumerate() {
            side_by_side &= position.0 == start + w as isize;
        }
        let mut sums = [constant; W];
        for step in steps {
            let mut totals = [[simd.splat(step.start); W]; P];
            if side_by_side {
                for &(line, offset) in step.taps {
                    let line = simd.load(&step.lines[line]);
                    for (plane, totals) in totals.iter_mut().enumerate() {
                        let at = start + offset + (plane * self.plane_stride) as isize;
                        for (w, total) in totals.iter_mut().enumerate() {
                            // SAFETY: `run` has seen that all positions of all classes lie inside,
                            // with all taps and planes.
                            let word = unsafe { *self.activations.get_unchecked(at as usize + w) };
                            *total = simd.add_differences(*total, line, simd.splat(word));
                        }
                    }
                }
            } else {
                for &(line, offset) in step.taps {
                    let line = simd.load(&step.lines[line]);
                    for (w, position) in positions.iter().enumerate() {
                        let at = (position.0 + offset) as usize;
                        for (plane, totals) in totals.iter_mut().enumerate() {
                            let at = at + plane * self.plane_stride;
                            // SAFETY: as above.
                            let word = unsafe { *self.activations.get_unchecked(at) };
                            totals[w] = simd.add_differences(totals[w], line, simd.splat(word));
                        }
                    }
                }
            }
            for (totals, &scale) in totals.iter().zip(&step.scales) {
                for (sum, &total) in sums.iter_mut().zip(totals) {
                    *sum = simd.f_fma(scale, simd.to_float(total), *sum);
                }
            }
        }
        for (position, &sum) in positions.iter().zip(&sums) {
            self.output.take(simd, position.1, sum);
        }
    }
}

/// The lines of all steps without the bits that the class does not visit, if there are such.
#[inline(always)]
fn mask(tiles: &Tiles, block: usize, class: &Class, masked: &mut Vec<Line<u32>>) {
    masked.clear();
    if class.masks.is_empty() {
        return;
    }
    for chunk in 0..tiles.chunks() {
        for step in tiles.steps(chunk, block) {
            let masks = &class.masks[tiles.group(step)];
            for (line, mask) in tiles.lines(step).iter().zip(masks) {
                masked.push(Line(line.0.map(|word| word & mask)));
            }
        }
    }
}
