//! The weights of one output in f32, for the convolutions that multiply floats.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::cpu::simd::{Simd, Task};
use crate::packed::PackedWeight;

/// Where the input of each weight begins, `[groups, len]`.
pub(in crate::cpu) struct Offsets {
    list: Vec<usize>,
    len: usize,
    highest: usize,
}

impl Offsets {
    pub fn new(list: Vec<usize>, len: usize) -> Self {
        let highest = list.iter().copied().max().unwrap_or(0);
        Self { list, len, highest }
    }

    /// The highest.
    #[inline(always)]
    pub fn highest(&self) -> usize {
        self.highest
    }

    /// Groups next to each other whose offsets lie within `reach`, or a single one.
    pub fn chunks(&self, reach: usize) -> impl Iterator<Item = Range<usize>> {
        let count = self.list.len() / self.len;
        let bounds = |group: usize| {
            let offsets = self.group(group).iter().copied();
            (
                offsets.clone().min().unwrap_or(0),
                offsets.max().unwrap_or(0),
            )
        };
        let mut first = 0;
        core::iter::from_fn(move || {
            let start = first;
            let (mut low, mut high) = (usize::MAX, 0);
            while first < count {
                let (lowest, highest) = bounds(first);
                (low, high) = (low.min(lowest), high.max(highest));
                if first > start && high - low > reach {
                    break;
                }
                first += 1;
            }
            (first > start).then_some(start..first)
        })
    }

    #[inline(always)]
    pub fn group(&self, group: usize) -> &[usize] {
        &self.list[group * self.len..][..self.len]
    }
}

/// Bits of a word.
const WORD: usize = 32;

/// The weights of one output, `[groups, len]`.
pub(in crate::cpu) struct Row {
    /// The weights, and room for a word behind them.
    values: Vec<f32>,
    len: usize,
    /// The groups that have a width above 0.
    pub groups: Vec<usize>,
}

impl Row {
    pub fn new(weight: &PackedWeight) -> Self {
        let len = weight.grouping().len();
        let groups = weight.grouping().groups_per_output(weight.shape());
        Self {
            values: vec![0.0; groups * len + WORD],
            len,
            groups: Vec::with_capacity(groups),
        }
    }

    #[inline(always)]
    pub fn group(&self, group: usize) -> &[f32] {
        &self.values[group * self.len..][..self.len]
    }
}

/// Fills a row with the weights of an output, whose rows of bits begin at `first`.
pub(in crate::cpu) struct Expand<'a> {
    pub weight: &'a PackedWeight,
    pub output: usize,
    pub first: usize,
    pub row: &'a mut Row,
}

impl Task for Expand<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let Row {
            values,
            len,
            groups,
        } = self.row;
        groups.clear();
        let count = (values.len() - WORD) / *len;
        let widths = &self.weight.widths()[self.output * count..][..count];
        let mut bits = self.first;
        for (group, &width) in widths.iter().enumerate() {
            // What a group writes behind its end, the next group overwrites.
            let values = &mut values[group * *len..];
            if width == 0 {
                values[..*len].fill(0.0);
                continue;
            }
            groups.push(group);
            for basis in 0..usize::from(width) {
                let alpha = self.weight.coordinates()[bits].to_bits();
                let words = &self.weight.row(bits)[..len.div_ceil(WORD)];
                for (&word, values) in words.iter().zip(values.chunks_mut(WORD)) {
                    let values: &mut [f32; WORD] =
                        values.try_into().expect("room for a word at the end");
                    // The compiler makes vectors of this.
                    for (j, value) in values.iter_mut().enumerate() {
                        let signed = f32::from_bits(alpha ^ (word >> j & 1) << 31);
                        *value = if basis == 0 { signed } else { *value + signed };
                    }
                }
                bits += 1;
            }
        }
        values[count * *len..].fill(0.0);
    }
}
