//! An image with its padding, sorted by the remainders of its places by the stride.

use crate::cpu::Conv2dOptions;
use crate::cpu::simd::LANES;

/// Lines of 64 bytes in one way of a small first cache.
const SETS: usize = 64;

pub(super) struct Padded {
    /// Rows and columns of one remainder.
    pub rows: usize,
    pub columns: usize,
    stride: [usize; 2],
    /// Words of a plane: all of its remainders, and some more, so that the same place of many
    /// planes does not fall into the same few sets of the cache.
    pub plane: usize,
}

impl Padded {
    pub(super) fn new(input_shape: [usize; 4], options: &Conv2dOptions) -> Self {
        let Conv2dOptions {
            stride, padding, ..
        } = *options;
        let [.., height, width] = input_shape;
        let size = |axis: usize, size: usize| {
            let (before, after) = padding[axis];
            (size + before + after).div_ceil(stride[axis])
        };
        let (rows, columns) = (size(0, height), size(1, width));
        let used = stride[0] * stride[1] * rows * columns;
        let lines = used.div_ceil(LANES);
        // An odd number of four lines.
        let lines = match lines {
            0..SETS => lines,
            _ => lines.next_multiple_of(4) + if lines.div_ceil(4) % 2 == 0 { 4 } else { 0 },
        };
        Self {
            rows,
            columns,
            stride,
            plane: (lines * LANES).max(used),
        }
    }

    /// Where a row and a column of the padded input lie in a plane.
    pub(super) fn place(&self, row: usize, column: usize) -> usize {
        let [down, across] = self.stride;
        let remainder = row % down * across + column % across;
        (remainder * self.rows + row / down) * self.columns + column / across
    }

    /// Writes words that lie side by side in a row of the padded input, from a column on.
    pub(super) fn put_row(&self, row: usize, column: usize, words: &[u32], plane: &mut [u32]) {
        let across = self.stride[1];
        for (i, column) in (column..).take(across.min(words.len())).enumerate() {
            // All words of one remainder lie next to each other.
            let to = &mut plane[self.place(row, column)..];
            if across == 1 {
                to[..words.len()].copy_from_slice(words);
                return;
            }
            for (to, &word) in to.iter_mut().zip(words[i..].iter().step_by(across)) {
                *to = word;
            }
        }
    }
}
