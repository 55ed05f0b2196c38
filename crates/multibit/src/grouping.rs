//! How a weight is cut into groups that share coordinates.

mod error;
mod rule;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;

pub use error::GroupingError;
pub use rule::{GroupingRule, Layout};

/// How one weight is cut into groups: permute its axes, then cut the result into runs of `len`.
///
/// `axes[0]` is the output axis, so the groups of one output lie together; and one output holds a
/// whole number of groups. Nothing downstream asks for more, so it serves the four structures of
/// the paper (structured sketching, Qu et al., CVPR 2020) and others alike.
///
/// | name | weight | axes | run |
/// |---|---|---|---|
/// | [channelwise](Self::channelwise) | `[out, in, k…]` | as they are | `in · Πk` |
/// | [kernelwise](Self::kernelwise) | `[out, in, k…]` | as they are | `Πk` |
/// | [pixelwise](Self::pixelwise) | `[out, in, k…]` | `out, k…, in` | `in` |
/// | [subchannelwise](Self::subchannelwise) | `[d_in, d_out]` | `d_out, d_in` | `d_in / s` |
/// | | `[out, in, k…]` | as they are | `in / s · Πk` |
/// | [groupwise](Self::groupwise) | `[d_in, d_out]` | `d_out, d_in` | nearest to a size |
/// | | `[out, in, k…]` | `out, k…, in` | nearest to a size |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grouping {
    axes: Vec<usize>,
    len: usize,
}

impl Grouping {
    /// Runs of `len` along the permuted axes; `axes[0]` is the output axis.
    ///
    /// # Errors
    /// If `axes` is not a permutation of `0..axes.len()` or empty, or `len` is 0.
    pub fn new(axes: Vec<usize>, len: usize) -> Result<Self, GroupingError> {
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        let complete = sorted.into_iter().eq(0..axes.len());
        if axes.is_empty() || !complete {
            return Err(GroupingError::NotAPermutation { axes });
        }
        if len == 0 {
            return Err(GroupingError::EmptyRun);
        }
        Ok(Self { axes, len })
    }

    /// One group per output of a convolution weight `[out, in, k…]`.
    ///
    /// # Errors
    /// If the rank is below 3 or an axis is empty.
    pub fn channelwise(shape: &[usize]) -> Result<Self, GroupingError> {
        convolution(shape)?;
        Self::fitting((0..shape.len()).collect(), product(&shape[1..])?, shape)
    }

    /// One group per kernel of a convolution weight `[out, in, k…]`.
    ///
    /// # Errors
    /// If the rank is below 3 or an axis is empty.
    pub fn kernelwise(shape: &[usize]) -> Result<Self, GroupingError> {
        convolution(shape)?;
        Self::fitting((0..shape.len()).collect(), product(&shape[2..])?, shape)
    }

    /// One group per kernel position of each output of a convolution weight `[out, in, k…]`,
    /// across the input channels.
    ///
    /// # Errors
    /// If the rank is below 3 or an axis is empty.
    pub fn pixelwise(shape: &[usize]) -> Result<Self, GroupingError> {
        convolution(shape)?;
        let axes = [0].into_iter().chain(2..shape.len()).chain([1]);
        Self::fitting(axes.collect(), shape[1], shape)
    }

    /// `s` groups per output of a linear weight as Burn stores it, `[d_in, d_out]`, or of a convolution
    /// `[out, in, k…]`: each of `d_in / s` inputs, or all kernel positions of `in / s` input channels.
    ///
    /// With `s = 1` this is channelwise grouping.
    ///
    /// # Errors
    /// If the rank is below 2, an axis is empty or `s` does not divide the inputs.
    pub fn subchannelwise(shape: &[usize], s: usize) -> Result<Self, GroupingError> {
        let inputs = match *shape {
            [] | [_] => return Err(GroupingError::Low { rank: shape.len() }),
            [d_in, _] => d_in,
            [_, input, ..] => input,
        };
        not_empty(shape)?;
        if s == 0 || inputs % s != 0 {
            return Err(GroupingError::Subchannels { inputs, s });
        }
        let axes = match shape.len() {
            2 => Vec::from([1, 0]),
            rank => (0..rank).collect(),
        };
        let kernel = product(shape.get(2..).unwrap_or_default())?;
        Self::fitting(axes, inputs / s * kernel, shape)
    }

    /// Groups of about `size` weights of an output of a linear weight `[d_in, d_out]` or a convolution
    /// `[out, in, k…]`, there along the input channels of a kernel position first: of all lengths that
    /// divide an output, the one that is the fewest times longer or shorter.
    ///
    /// # Errors
    /// If the rank is below 2, an axis is empty or `size` is 0.
    pub fn groupwise(shape: &[usize], size: usize) -> Result<Self, GroupingError> {
        if shape.len() < 2 {
            return Err(GroupingError::Low { rank: shape.len() });
        }
        not_empty(shape)?;
        let outputs = if shape.len() == 2 { shape[1] } else { shape[0] };
        let inputs = product(shape)? / outputs;
        let len = nearest_divisor(inputs, size).ok_or(GroupingError::EmptyRun)?;
        if shape.len() > 2 && len == inputs {
            return Self::channelwise(shape);
        }
        let axes = match shape.len() {
            2 => Vec::from([1, 0]),
            rank => [0].into_iter().chain(2..rank).chain([1]).collect(),
        };
        Self::fitting(axes, len, shape)
    }

    /// The same structure for a weight whose first two axes are swapped: a transposed convolution
    /// `[in, out, k…]`, or an embedding `[n, d]`, whose outputs are its rows.
    ///
    /// `Grouping::kernelwise(&[out, in, k…])?.transposed()` fits `[in, out, k…]`. A grouping of
    /// one axis stays as it is.
    #[must_use]
    pub fn transposed(mut self) -> Self {
        if self.axes.len() > 1 {
            for axis in &mut self.axes {
                *axis = match *axis {
                    0 => 1,
                    1 => 0,
                    axis => axis,
                };
            }
        }
        self
    }

    fn fitting(axes: Vec<usize>, len: usize, shape: &[usize]) -> Result<Self, GroupingError> {
        let grouping = Self::new(axes, len)?;
        grouping.check(shape)?;
        Ok(grouping)
    }

    /// The permuted axes; the first is the output axis.
    pub fn axes(&self) -> &[usize] {
        &self.axes
    }

    /// Weights of one group.
    #[expect(clippy::len_without_is_empty, reason = "a run is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the grouping fits a weight.
    ///
    /// # Errors
    /// If the rank differs, an axis is empty, the number of weights overflows, or one output does
    /// not hold a whole number of groups.
    pub fn check(&self, shape: &[usize]) -> Result<(), GroupingError> {
        if shape.len() != self.axes.len() {
            return Err(GroupingError::Rank {
                expected: self.axes.len(),
                found: shape.len(),
            });
        }
        not_empty(shape)?;
        let weights = product(shape)? / shape[self.axes[0]];
        if !weights.is_multiple_of(self.len) {
            return Err(GroupingError::Indivisible {
                weights,
                len: self.len,
            });
        }
        Ok(())
    }

    /// The number of groups of a weight.
    ///
    /// # Panics
    /// If the grouping does not fit the shape.
    pub fn groups(&self, shape: &[usize]) -> usize {
        self.must_fit(shape);
        shape.iter().product::<usize>() / self.len
    }

    /// The number of groups of one output.
    ///
    /// # Panics
    /// If the grouping does not fit the shape.
    pub fn groups_per_output(&self, shape: &[usize]) -> usize {
        self.groups(shape) / shape[self.axes[0]]
    }

    /// The grouping's name for a weight of the given shape, for reports.
    ///
    /// Structures that coincide, like kernelwise and channelwise at one input channel, have one
    /// name.
    pub fn describe(&self, shape: &[usize]) -> String {
        match GroupingRule::of(self, shape) {
            Some((rule, Layout::Direct)) => rule.to_string(),
            Some((rule, Layout::Transposed)) => format!("{rule}, transposed"),
            None => format!("axes {:?} runs of {}", self.axes, self.len),
        }
    }

    /// Cuts a weight into groups.
    ///
    /// # Shapes
    /// - `weight`: `shape`, row-major
    /// - `grouped`: `[groups, len]`, written whole
    ///
    /// # Panics
    /// If the grouping does not fit `shape`, or a slice does not have as many values.
    pub fn gather<T: Copy>(&self, shape: &[usize], weight: &[T], grouped: &mut [T]) {
        self.must_hold(shape, weight.len(), grouped.len());
        if self.is_identity() {
            grouped.copy_from_slice(weight);
        } else {
            self.walk(shape, |group, place| grouped[group] = weight[place]);
        }
    }

    /// Puts groups back into a weight: the inverse of [`gather`](Self::gather).
    ///
    /// # Shapes
    /// - `grouped`: `[groups, len]`
    /// - `weight`: `shape`, row-major, written whole
    ///
    /// # Panics
    /// If the grouping does not fit `shape`, or a slice does not have as many values.
    pub fn scatter<T: Copy>(&self, shape: &[usize], grouped: &[T], weight: &mut [T]) {
        self.must_hold(shape, weight.len(), grouped.len());
        if self.is_identity() {
            weight.copy_from_slice(grouped);
        } else {
            self.walk(shape, |group, place| weight[place] = grouped[group]);
        }
    }

    /// Groupings that fit a shape, for tests of laws that must hold for all of them.
    #[doc(hidden)]
    pub fn examples(shape: &[usize]) -> Vec<Self> {
        let rank = shape.len();
        let mut examples = Vec::new();
        if let &[d_in, _] = shape {
            examples.extend((1..=d_in).filter_map(|s| Self::subchannelwise(shape, s).ok()));
        }
        examples.extend(Self::channelwise(shape));
        examples.extend(Self::kernelwise(shape));
        examples.extend(Self::pixelwise(shape));
        if rank > 2 {
            // One has no name: all inputs in reverse order, in runs that cross two axes.
            let axes: Vec<usize> = [0].into_iter().chain((1..rank).rev()).collect();
            let len = shape[axes[rank - 1]] * shape[axes[rank - 2]];
            examples.extend(Self::fitting(axes, len, shape));
        }
        examples
    }

    fn must_fit(&self, shape: &[usize]) {
        if let Err(error) = self.check(shape) {
            panic!("the grouping does not fit shape {shape:?}: {error}");
        }
    }

    fn must_hold(&self, shape: &[usize], weight: usize, grouped: usize) {
        self.must_fit(shape);
        let expected: usize = shape.iter().product();
        assert_eq!(
            weight, expected,
            "`weight` holds {weight} values, but shape {shape:?} needs {expected}"
        );
        assert_eq!(
            grouped, expected,
            "`grouped` holds {grouped} values, but shape {shape:?} needs {expected}"
        );
    }

    fn is_identity(&self) -> bool {
        self.axes.is_sorted()
    }

    /// Calls `visit(place in the groups, place in the weight)` once for every weight.
    ///
    /// The innermost two axes are walked in square tiles, since one side of a transposition always
    /// jumps.
    fn walk(&self, shape: &[usize], mut visit: impl FnMut(usize, usize)) {
        const TILE: usize = 32;
        let mut axes = self.merged_axes(shape);
        let (columns, column_stride) = axes.pop().unwrap_or((1, 1));
        let (rows, row_stride) = axes.pop().unwrap_or((1, 0));
        let blocks: usize = axes.iter().map(|&(size, _)| size).product();
        let mut place = alloc::vec![0; axes.len()];
        let mut origin = 0;
        for block in 0..blocks {
            let first = block * rows * columns;
            for row_tile in (0..rows).step_by(TILE) {
                for column_tile in (0..columns).step_by(TILE) {
                    for row in row_tile..rows.min(row_tile + TILE) {
                        for column in column_tile..columns.min(column_tile + TILE) {
                            visit(
                                first + row * columns + column,
                                origin + row * row_stride + column * column_stride,
                            );
                        }
                    }
                }
            }
            for (place, &(size, stride)) in place.iter_mut().zip(&axes).rev() {
                *place += 1;
                origin += stride;
                if *place < size {
                    break;
                }
                origin -= size * stride;
                *place = 0;
            }
        }
    }

    /// Size and stride in the weight of each permuted axis; neighbours that are one run in the
    /// weight as well become one axis.
    pub(crate) fn merged_axes(&self, shape: &[usize]) -> Vec<(usize, usize)> {
        let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
        let mut merged: Vec<(usize, usize)> = Vec::with_capacity(shape.len());
        for &axis in self.axes.iter().filter(|&&axis| shape[axis] > 1) {
            let (size, stride) = (shape[axis], stride(axis));
            match merged.last_mut() {
                Some(last) if last.1 == size * stride => *last = (last.0 * size, stride),
                _ => merged.push((size, stride)),
            }
        }
        merged
    }
}

fn convolution(shape: &[usize]) -> Result<(), GroupingError> {
    match shape.len() {
        rank @ 0..3 => Err(GroupingError::NotAConvolution { rank }),
        _ => not_empty(shape),
    }
}

fn not_empty(shape: &[usize]) -> Result<(), GroupingError> {
    match shape.iter().position(|&size| size == 0) {
        Some(axis) => Err(GroupingError::EmptyAxis { axis }),
        None => Ok(()),
    }
}

/// The divisor of `number` that is the fewest times larger or smaller than `size`; of two, the larger.
fn nearest_divisor(number: usize, size: usize) -> Option<usize> {
    let divisors = (1..=number).take_while(|low| low <= &(number / low));
    let divisors = divisors
        .filter(|low| number.is_multiple_of(*low))
        .flat_map(|low| [low, number / low]);
    // How many times larger or smaller, as a fraction: `larger / smaller`.
    let times = |divisor: usize| (divisor.max(size) as u128, divisor.min(size) as u128);
    divisors.filter(|_| size > 0).reduce(|best, other| {
        let ((a, b), (c, d)) = (times(best), times(other));
        match (c * b).cmp(&(a * d)) {
            Ordering::Less => other,
            Ordering::Equal => best.max(other),
            Ordering::Greater => best,
        }
    })
}

fn product(shape: &[usize]) -> Result<usize, GroupingError> {
    let product = shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size));
    product.ok_or_else(|| GroupingError::TooLarge {
        shape: shape.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const CONV: [usize; 4] = [3, 4, 2, 5];

    #[test]
    fn the_structures_of_the_paper() {
        let cases = [
            (
                Grouping::channelwise(&CONV),
                vec![0, 1, 2, 3],
                40,
                3,
                "channelwise",
            ),
            (
                Grouping::kernelwise(&CONV),
                vec![0, 1, 2, 3],
                10,
                12,
                "kernelwise",
            ),
            (
                Grouping::pixelwise(&CONV),
                vec![0, 2, 3, 1],
                4,
                30,
                "pixelwise",
            ),
        ];
        for (grouping, axes, len, groups, name) in cases {
            let grouping = grouping.unwrap();
            assert_eq!(grouping.axes(), axes, "{name}");
            assert_eq!(grouping.len(), len, "{name}");
            assert_eq!(grouping.groups(&CONV), groups, "{name}");
            assert_eq!(grouping.groups_per_output(&CONV), groups / 3, "{name}");
            assert_eq!(grouping.describe(&CONV), name);
        }
        let linear = Grouping::subchannelwise(&[12, 5], 3).unwrap();
        assert_eq!((linear.axes(), linear.len()), ([1, 0].as_slice(), 4));
        assert_eq!(linear.groups(&[12, 5]), 15);
        assert_eq!(linear.describe(&[12, 5]), "subchannelwise(3)");
        let rows = Grouping::subchannelwise(&[12, 5], 3).unwrap().transposed();
        assert_eq!((rows.axes(), rows.len()), ([0, 1].as_slice(), 4));
        assert_eq!(rows.describe(&[5, 12]), "subchannelwise(3), transposed");
        let kernels = Grouping::pixelwise(&CONV).unwrap().transposed();
        assert_eq!(
            (kernels.axes(), kernels.len()),
            ([1, 2, 3, 0].as_slice(), 4)
        );
        assert_eq!(kernels.describe(&[4, 3, 2, 5]), "pixelwise, transposed");
        assert_eq!(kernels.check(&[4, 3, 2, 5]), Ok(()));
        let other = Grouping::new(vec![0, 3, 1, 2], 20).unwrap();
        assert_eq!(other.describe(&CONV), "axes [0, 3, 1, 2] runs of 20");
        let runs = Grouping::new(vec![0], 3).unwrap();
        assert_eq!(runs.clone().transposed(), runs);
        assert_eq!(runs.describe(&[6]), "axes [0] runs of 3");
    }

    #[test]
    fn a_size_is_the_nearest_that_divides_an_output() {
        for (number, size, expected) in [
            (384, 64, 64),
            (12, 5, 6),
            // 4 is as many times smaller than 6 as 9 is larger.
            (36, 6, 6),
            (8, 3, 4),
            (383, 64, 383),
            (1, 64, 1),
            (100, 1, 1),
            (100, usize::MAX, 100),
        ] {
            assert_eq!(
                nearest_divisor(number, size),
                Some(expected),
                "{number}, {size}"
            );
        }
        assert_eq!(nearest_divisor(8, 0), None);
        let cut = |shape: &[usize], size| {
            let grouping = Grouping::groupwise(shape, size).unwrap();
            (grouping.axes().to_vec(), grouping.len())
        };
        assert_eq!(cut(&[384, 10], 64), (vec![1, 0], 64));
        assert_eq!(cut(&[7, 10], 64), (vec![1, 0], 7));
        assert_eq!(cut(&[8, 64, 3, 3], 64), (vec![0, 2, 3, 1], 64));
        assert_eq!(cut(&[8, 64, 1, 1], 16), (vec![0, 2, 3, 1], 16));
        assert_eq!(cut(&[8, 1, 3, 3], 64), (vec![0, 1, 2, 3], 9));
        assert_eq!(
            Grouping::groupwise(&[8], 4),
            Err(GroupingError::Low { rank: 1 })
        );
        assert_eq!(
            Grouping::groupwise(&[8, 2], 0),
            Err(GroupingError::EmptyRun)
        );
        // All kernel positions of half the channels.
        let half = Grouping::subchannelwise(&[8, 6, 3, 3], 2).unwrap();
        assert_eq!((half.axes(), half.len()), ([0, 1, 2, 3].as_slice(), 27));
    }

    #[test]
    fn axes_that_are_one_run_become_one() {
        let merged = |axes: &[usize]| {
            let grouping = Grouping::new(axes.to_vec(), 1).unwrap();
            grouping.merged_axes(&[3, 4, 1, 5])
        };
        assert_eq!(merged(&[0, 1, 2, 3]), [(60, 1)]);
        assert_eq!(merged(&[0, 2, 3, 1]), [(3, 20), (5, 1), (4, 5)]);
        assert_eq!(merged(&[1, 3, 0, 2]), [(20, 1), (3, 20)]);
    }

    #[test]
    fn examples_are_all_structures_and_one_without_a_name() {
        let names = |shape: &[usize]| -> Vec<String> {
            let examples = Grouping::examples(shape);
            examples
                .iter()
                .map(|grouping| grouping.describe(shape))
                .collect()
        };
        assert_eq!(
            names(&[4, 5]),
            [
                "subchannelwise(1)",
                "subchannelwise(2)",
                "subchannelwise(4)"
            ]
        );
        assert_eq!(
            names(&CONV),
            [
                "channelwise",
                "kernelwise",
                "pixelwise",
                "axes [0, 3, 2, 1] runs of 8"
            ]
        );
    }

    #[test]
    fn pixelwise_takes_one_position_across_the_channels() {
        let shape = [2, 3, 2];
        let weight: Vec<u32> = (0..12).collect();
        let mut grouped = vec![0; 12];
        let grouping = Grouping::pixelwise(&shape).unwrap();
        grouping.gather(&shape, &weight, &mut grouped);
        assert_eq!(grouped, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn every_permutation_gathers_by_its_definition_and_scatters_back() {
        let shapes: [&[usize]; 6] = [
            &[40, 70],
            &[70, 33],
            &[1, 6],
            &[3, 4, 2, 5],
            &[5, 40, 3, 3],
            &[2, 3, 1, 4, 2],
        ];
        for shape in shapes {
            for axes in permutations(shape.len()) {
                let weights: usize = shape.iter().product();
                let weight: Vec<usize> = (0..weights).collect();
                let grouping = Grouping::new(axes.clone(), 1).unwrap();
                let mut grouped = vec![0; weights];
                grouping.gather(shape, &weight, &mut grouped);
                for (i, &value) in grouped.iter().enumerate() {
                    // The definition: split i along the permuted axes, one division an axis.
                    let (mut rest, mut place) = (i, 0);
                    for &axis in axes.iter().rev() {
                        let stride: usize = shape[axis + 1..].iter().product();
                        place += rest % shape[axis] * stride;
                        rest /= shape[axis];
                    }
                    assert_eq!(value, place, "{shape:?} by {axes:?} at {i}");
                }
                let mut back = vec![0; weights];
                grouping.scatter(shape, &grouped, &mut back);
                assert_eq!(back, weight, "{shape:?} by {axes:?}");
            }
        }
    }

    fn permutations(n: usize) -> Vec<Vec<usize>> {
        if n == 0 {
            return vec![vec![]];
        }
        let mut all = Vec::new();
        for shorter in permutations(n - 1) {
            for place in 0..n {
                let mut longer = shorter.clone();
                longer.insert(place, n - 1);
                all.push(longer);
            }
        }
        all
    }

    #[test]
    fn every_error() {
        use GroupingError as E;
        let new = |axes: &[usize], len| Grouping::new(axes.to_vec(), len).unwrap_err();
        assert_eq!(new(&[0, 2], 1), E::NotAPermutation { axes: vec![0, 2] });
        assert_eq!(new(&[0, 0], 1), E::NotAPermutation { axes: vec![0, 0] });
        assert_eq!(new(&[], 1), E::NotAPermutation { axes: vec![] });
        assert_eq!(new(&[1, 0], 0), E::EmptyRun);
        for structure in [
            Grouping::channelwise,
            Grouping::kernelwise,
            Grouping::pixelwise,
        ] {
            assert_eq!(structure(&[4, 5]), Err(E::NotAConvolution { rank: 2 }));
            assert_eq!(structure(&[4, 5, 0]), Err(E::EmptyAxis { axis: 2 }));
            let shape = [usize::MAX, 2, 2];
            let too_large = E::TooLarge {
                shape: shape.to_vec(),
            };
            assert_eq!(structure(&shape), Err(too_large));
        }
        let sub = Grouping::subchannelwise;
        assert_eq!(sub(&[4], 2), Err(E::Low { rank: 1 }));
        assert_eq!(sub(&[10, 5], 3), Err(E::Subchannels { inputs: 10, s: 3 }));
        assert_eq!(sub(&[10, 5], 0), Err(E::Subchannels { inputs: 10, s: 0 }));
        assert_eq!(sub(&[10, 0], 2), Err(E::EmptyAxis { axis: 1 }));
        let grouping = Grouping::new(vec![1, 0], 4).unwrap();
        let rank = E::Rank {
            expected: 2,
            found: 3,
        };
        assert_eq!(grouping.check(&[2, 2, 2]), Err(rank));
        let indivisible = E::Indivisible {
            weights: 10,
            len: 4,
        };
        assert_eq!(grouping.check(&[10, 4]), Err(indivisible));
    }

    #[test]
    #[should_panic(expected = "does not fit shape [2, 3]: 2 weights of one output")]
    fn a_shape_that_does_not_fit_is_named() {
        let grouping = Grouping::new(vec![1, 0], 3).unwrap();
        grouping.gather(&[2, 3], &[0.0; 6], &mut [0.0; 6]);
    }

    #[test]
    #[should_panic(expected = "`grouped` holds 5 values, but shape [2, 3] needs 6")]
    fn a_short_slice_is_named() {
        let grouping = Grouping::subchannelwise(&[2, 3], 1).unwrap();
        grouping.gather(&[2, 3], &[0.0; 6], &mut [0.0; 5]);
    }
}
