//! What places of a kernel see of the input: looked for once for a word of signs, as long as no other comes.

use core::ops::Range;

use super::conv2d::Call;

/// Weights of a word of signs.
pub(super) const WORD: usize = 32;

/// A place of the kernel.
#[derive(Clone, Copy)]
pub(super) struct Tap {
    /// Its row and its column.
    pub place: [usize; 2],
    /// The input's place of output 0 of row 0, seen or not, in the first channel of the group; wraps below 0.
    pub first: usize,
    /// The weight there, for who computes in f32.
    pub value: f32,
}

impl Tap {
    fn of(call: &Call<'_>, [channel, y, x]: [usize; 3]) -> Self {
        let [_, height, width] = call.conv.from;
        let options = &call.conv.options;
        let row = (y * options.dilation[0]).wrapping_sub(options.padding[0].0);
        let row = row.wrapping_add(channel * height).wrapping_mul(width);
        let first = row.wrapping_add(x * options.dilation[1]);
        Self {
            place: [y, x],
            first: first.wrapping_sub(options.padding[1].0),
            value: 0.0,
        }
    }

    /// Whether it sees the input at a place of the output, not its padding.
    #[inline]
    pub(super) fn sees(&self, call: &Call<'_>, [row, column]: [usize; 2]) -> bool {
        let [y, x] = self.place;
        call.under(0, row, y).is_some() && call.under(1, column, x).is_some()
    }
}

impl Call<'_> {
    /// Calls `each(rows of a group's bases, the number of the word, taps under it)` for each word of signs of
    /// an output, whose first row is given.
    #[inline(always)]
    pub(super) fn each_word(
        &self,
        output: usize,
        mut row: usize,
        taps: &mut Taps,
        mut each: impl FnMut(Range<usize>, usize, &mut [Tap]),
    ) {
        for group in 0..self.groups {
            let bases = row..row + self.weight.width(output * self.groups + group);
            row = bases.end;
            if bases.is_empty() {
                continue;
            }
            for first in (0..self.len).step_by(WORD) {
                let count = WORD.min(self.len - first);
                let taps = taps.under(self, group * self.len + first, count);
                each(bases.clone(), first / WORD, taps);
            }
        }
    }
}

/// What the places of the kernel under a word of signs see; the same for all outputs and rows.
pub(super) struct Taps {
    /// The first of the weights, if there are any.
    first: Option<usize>,
    taps: [Tap; WORD],
}

impl Taps {
    /// None yet; a constant, so that its room is not taken twice.
    pub(super) const NONE: Self = Self {
        first: None,
        taps: [Tap {
            place: [0; 2],
            first: 0,
            value: 0.0,
        }; WORD],
    };

    /// Those of so many weights from a place of the grouping's order on.
    pub(super) fn under(&mut self, call: &Call<'_>, first: usize, count: usize) -> &mut [Tap] {
        let taps = &mut self.taps[..count];
        if self.first.replace(first) != Some(first) {
            for (i, tap) in taps.iter_mut().enumerate() {
                *tap = Tap::of(call, call.patch.place(first + i));
            }
        }
        taps
    }
}
