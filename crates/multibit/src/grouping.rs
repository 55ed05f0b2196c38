//! How a weight is cut into groups that share coordinates.

mod error;
mod permute;
mod rule;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;

use permute::{merged, permute, strides};

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
        let mut seen = alloc::vec![false; axes.len()];
        let each_once = axes.iter().all(|&axis| {
            let seen = seen.get_mut(axis);
            seen.is_some_and(|seen| !core::mem::replace(seen, true))
        });
        if axes.is_empty() || !each_once {
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
    pub fn gather<T: Copy + Send + Sync>(&self, shape: &[usize], weight: &[T], grouped: &mut [T]) {
        self.must_hold(shape, weight.len(), grouped.len());
        if self.is_identity() {
            grouped.copy_from_slice(weight);
        } else {
            permute(&self.merged_axes(shape), weight, grouped);
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
    pub fn scatter<T: Copy + Send + Sync>(&self, shape: &[usize], grouped: &[T], weight: &mut [T]) {
        self.must_hold(shape, weight.len(), grouped.len());
        if self.is_identity() {
            weight.copy_from_slice(grouped);
        } else {
            let sizes: Vec<usize> = self.axes.iter().map(|&axis| shape[axis]).collect();
            let mut places = alloc::vec![0; shape.len()];
            for (&axis, stride) in self.axes.iter().zip(strides(&sizes)) {
                places[axis] = stride;
            }
            let axes = merged(shape.iter().copied().zip(places));
            permute(&axes, grouped, weight);
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

    /// Size and stride in the weight of each permuted axis; neighbours that are one run in the
    /// weight as well become one axis.
    pub(crate) fn merged_axes(&self, shape: &[usize]) -> Vec<(usize, usize)> {
        let strides = strides(shape);
        merged(self.axes.iter().map(|&axis| (shape[axis], strides[axis])))
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
    // A search takes as long as the root of the number, which may be a claim of a file.
    if size > 0 && number.is_multiple_of(size) {
        return Some(size);
    }
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
