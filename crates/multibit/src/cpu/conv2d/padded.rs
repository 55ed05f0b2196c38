//! An image with its padding, sorted by the remainders of its places by the stride.

use crate::cpu::Conv2dOptions;
use crate::cpu::simd::LANES;

/// Lines of 64 bytes in one way of a small first cache.
pub(super) const SETS: usize = 64;

pub(super) struct Padded {
    /// Rows and columns of one remainder.
    pub rows: usize,
    pub columns: usize,
    stride: [usize; 2],
    /// The remainders that the kernel reaches, from 0 on.
    reached: [usize; 2],
    /// Words of a plane: all of its remainders, and some more, so that the same place of many
    /// planes does not fall into the same few sets of the cache.
    pub plane: usize,
}

impl Padded {
    /// Of inputs under a kernel of some size.
    pub(super) fn new(
        input_shape: [usize; 4],
        kernel: [usize; 2],
        options: &Conv2dOptions,
    ) -> Self {
        let Conv2dOptions {
            stride, padding, ..
        } = *options;
        let reach = |axis: usize| options.dilation[axis] * (kernel[axis] - 1) + 1;
        let reached = [0, 1].map(|axis| stride[axis].min(reach(axis)));
        let [.., height, width] = input_shape;
        let size = |axis: usize, size: usize| {
            let (before, after) = padding[axis];
            (size + before + after).div_ceil(stride[axis])
        };
        let (rows, columns) = (size(0, height), size(1, width));
        let used = reached[0] * reached[1] * rows * columns;
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
            reached,
            plane: (lines * LANES).max(used),
        }
    }

    /// Where a row and a column of the padded input lie in a plane, if the kernel reaches them.
    pub(super) fn place(&self, row: usize, column: usize) -> Option<usize> {
        let [down, across] = self.stride;
        let [row_over, column_over] = [row % down, column % across];
        let reached = row_over < self.reached[0] && column_over < self.reached[1];
        let remainder = row_over * self.reached[1] + column_over;
        reached.then(|| (remainder * self.rows + row / down) * self.columns + column / across)
    }

    /// Writes words that lie side by side in a row of the padded input, from a column on, with a
    /// stride above 1.
    pub(super) fn put_row(&self, row: usize, column: usize, words: &[u32], plane: &mut [u32]) {
        let across = self.stride[1];
        for (i, column) in (column..).take(across.min(words.len())).enumerate() {
            if let Some(place) = self.place(row, column) {
                // All words of one remainder lie next to each other.
                let words = words[i..].iter().step_by(across);
                for (to, &word) in plane[place..].iter_mut().zip(words) {
                    *to = word;
                }
            }
        }
    }

    /// Whether words that lie side by side in a row stay so.
    pub(super) fn keeps_rows(&self) -> bool {
        self.stride[1] == 1
    }
}
