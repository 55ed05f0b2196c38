//! Coordinates as multiples of a common step, so that a weight is one small integer.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::simd::{LANES, Line};
use super::tiles::Tiles;
use crate::packed::PackedWeight;

/// Coordinates that share a step. A wider group is the sum of several such weights.
pub(crate) const TOGETHER: usize = 4;

/// The largest sum of multiples: a weight and an offset of one more are 1 to 127, a byte with or
/// without a sign, and two products of it with an int8 fit 16 bits.
pub(crate) const LARGEST: u8 = 63;

/// `αᵢ ≈ step·kᵢ` for up to [`TOGETHER`] coordinates, with whole `kᵢ ≥ 0` and
/// `Σ kᵢ ≤` [`LARGEST`].
///
/// Of the steps `max α / k` with a whole `k`, the one with the least `ε = Σ |αᵢ − step·kᵢ|`: no
/// weight `Σ ±αᵢ` is wrong by more. One coordinate is exact. With more, the largest `k` whose sum
/// fits has a step below `Σα/57`, and of all but the largest coordinate rounding leaves at most half
/// a step, so that `ε ≤ Σα/114`, `Σα/57` and `Σα/38` for two, three and four; on average it is some
/// ten times less.
pub(crate) fn to_integers(coordinates: &[f32]) -> (f32, [u8; TOGETHER]) {
    let mut best = (0.0, [0; TOGETHER]);
    let mut least = f32::INFINITY;
    let largest = coordinates.iter().copied().fold(0.0, f32::max);
    for k in 1..=LARGEST {
        let k = f32::from(k);
        let step = largest / k;
        let mut multiples = [0; TOGETHER];
        let mut error = 0.0;
        for (multiple, &alpha) in multiples.iter_mut().zip(coordinates) {
            // The nearest, half-way the larger; at most `k`.
            *multiple = (alpha / largest * k + 0.5) as u8;
            error += (alpha - step * f32::from(*multiple)).abs();
        }
        if error < least && multiples.iter().sum::<u8>() <= LARGEST {
            (least, best) = (error, (step, multiples));
        }
        if least == 0.0 {
            break;
        }
    }
    best
}

/// The steps and multiples of all coordinates of a weight, beside them.
#[derive(Default)]
pub(super) struct Integers {
    /// The step of [`TOGETHER`] coordinates, at the first of them.
    pub steps: Vec<f32>,
    pub multiples: Vec<u8>,
}

impl Integers {
    fn zeros(len: usize) -> Self {
        Self {
            steps: vec![0.0; len],
            multiples: vec![0; len],
        }
    }

    /// Sets those of a group whose coordinates begin at `first`.
    fn set(&mut self, first: usize, coordinates: &[f32]) {
        for (i, coordinates) in coordinates.chunks(TOGETHER).enumerate() {
            let first = first + TOGETHER * i;
            let (step, multiples) = to_integers(coordinates);
            self.steps[first] = step;
            let len = coordinates.len();
            self.multiples[first..][..len].copy_from_slice(&multiples[..len]);
        }
    }

    /// Those of a packed weight, by row of bits.
    pub(super) fn of_rows(weight: &PackedWeight) -> Self {
        let mut integers = Self::zeros(weight.coordinates().len());
        for (first, &width) in weight.group_rows().zip(weight.widths()) {
            let coordinates = &weight.coordinates()[first..][..usize::from(width)];
            integers.set(first, coordinates);
        }
        integers
    }
}

/// Up to [`TOGETHER`] bases of a group, in the lanes of a block.
#[derive(Clone, Copy)]
pub(super) struct Component {
    pub steps: Line<f32>,
    /// A byte a basis.
    pub multiples: Line<u32>,
}

/// The components of tiles, by chunk, block and group.
#[derive(Default)]
pub(super) struct Components {
    pub all: Vec<Component>,
    /// The first of each block of each chunk.
    starts: Vec<usize>,
}

impl Components {
    pub(super) fn new(tiles: &Tiles) -> Self {
        let mut components = Self::default();
        for chunk in 0..tiles.chunks() {
            for block in 0..tiles.blocks() {
                components.starts.push(components.all.len());
                let mut steps = tiles.steps(chunk, block);
                while !steps.is_empty() {
                    let end = tiles.group_end(steps.clone(), tiles.group(steps.start));
                    for first in (steps.start..end).step_by(TOGETHER) {
                        components.push(tiles, first..end.min(first + TOGETHER));
                    }
                    steps.start = end;
                }
            }
        }
        components
    }

    fn push(&mut self, tiles: &Tiles, steps: Range<usize>) {
        let mut component = Component {
            steps: Line([0.0; LANES]),
            multiples: Line([0; LANES]),
        };
        for lane in 0..LANES {
            let coordinates = steps.clone().map(|step| tiles.coordinates(step)[lane]);
            // A narrower lane has coordinate 0 in what it lacks.
            let coordinates: Vec<f32> = coordinates.take_while(|&x| x > 0.0).collect();
            let (step, multiples) = to_integers(&coordinates);
            component.steps.0[lane] = step;
            component.multiples.0[lane] = u32::from_le_bytes(multiples);
        }
        self.all.push(component);
    }

    /// The first component of a block of a chunk; 0 if there are none.
    #[inline(always)]
    pub(super) fn first(&self, chunk: usize, block: usize, tiles: &Tiles) -> usize {
        let start = self.starts.get(chunk * tiles.blocks() + block);
        start.copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(coordinates: &[f32]) -> f32 {
        let (step, multiples) = to_integers(coordinates);
        let sum: u32 = multiples.iter().map(|&k| u32::from(k)).sum();
        assert!(sum <= u32::from(LARGEST), "{coordinates:?}: {multiples:?}");
        let rounded = multiples.iter().map(|&k| step * f32::from(k));
        let errors = coordinates.iter().zip(rounded).map(|(a, b)| (a - b).abs());
        errors.sum::<f32>() / coordinates.iter().sum::<f32>()
    }

    #[test]
    fn the_error_is_within_its_bound() {
        for size in [1e-30, 1.0, 1e30] {
            assert_eq!(error(&[size]), 0.0);
            let (mut total, mut count) = (0.0, 0);
            for i in 0..=100 {
                let two = [size, size * i as f32 / 100.0];
                assert!(error(&two) <= 1.0 / 114.0, "{two:?}");
                total += error(&two);
                count += 1;
                for j in (0..=i).step_by(7) {
                    let three = [two[0], two[1], size * j as f32 / 100.0];
                    assert!(error(&three) <= 1.0 / 57.0, "{three:?}");
                    for k in (0..=j).step_by(13) {
                        let four = [three[0], three[1], three[2], size * k as f32 / 100.0];
                        assert!(error(&four) <= 1.0 / 38.0, "{four:?}");
                    }
                }
            }
            assert!(total / count as f32 <= 1e-3, "two coordinates on average");
        }
    }

    #[test]
    fn whole_ratios_are_exact() {
        assert_eq!(to_integers(&[0.5, 0.25]), (0.25, [2, 1, 0, 0]));
        assert_eq!(to_integers(&[1.0, 2.0, 4.0, 8.0]), (1.0, [1, 2, 4, 8]));
        assert_eq!(to_integers(&[]), (0.0, [0; TOGETHER]));
    }

    /// Coordinates so small that a step has no inverse, or is rounded to nothing.
    #[test]
    fn the_smallest_coordinates() {
        let smallest = f32::from_bits(1);
        assert_eq!(to_integers(&[smallest]), (smallest, [1, 0, 0, 0]));
        let (step, multiples) = to_integers(&[2.0 * smallest, smallest]);
        let values = multiples.map(|k| step * f32::from(k));
        assert_eq!(values[..2], [2.0 * smallest, smallest]);
    }
}
