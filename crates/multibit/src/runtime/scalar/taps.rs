//! What places of a kernel see of the input: looked for once for a word of signs, as long as no other comes.

use core::ops::Range;

use super::conv2d::Call;

/// Weights of a word of signs.
pub(super) const WORD: usize = 32;

/// What a place of the kernel sees of the input.
#[derive(Clone, Copy)]
pub(super) struct Tap {
    /// The row of the kernel.
    y: usize,
    /// The first output of a row that sees the input there, and the first behind it that does not.
    seen: [usize; 2],
    /// The input's place of output 0 of row 0, seen or not, in the first channel of the group; wraps below 0.
    pub first: usize,
}

impl Tap {
    fn of(call: &Call<'_>, [channel, y, x]: [usize; 3]) -> Self {
        let [_, height, width] = call.conv.from;
        let options = &call.conv.options;
        let outputs = call.seen(1, x).outputs;
        let row = (y * options.dilation[0]).wrapping_sub(options.padding[0].0);
        let row = row.wrapping_add(channel * height).wrapping_mul(width);
        let place = row.wrapping_add(x * options.dilation[1]);
        Self {
            y,
            seen: [outputs.start, outputs.end],
            first: place.wrapping_sub(options.padding[1].0),
        }
    }

    /// The outputs of a row that see the input there.
    #[inline]
    pub(super) fn seen_from(&self, call: &Call<'_>, row: usize) -> [usize; 2] {
        match call.under(0, row, self.y) {
            Some(_) => self.seen,
            None => [0; 2],
        }
    }
}

impl Call<'_> {
    /// Calls `each(rows of a group's bases, the first of its weights, taps under them)` for each word of signs of
    /// an output, whose first row is given.
    #[inline(always)]
    pub(super) fn each_word(
        &self,
        output: usize,
        mut row: usize,
        taps: &mut Taps,
        mut each: impl FnMut(Range<usize>, usize, &[Tap]),
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
                each(bases.clone(), first, taps);
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
            y: 0,
            seen: [0; 2],
            first: 0,
        }; WORD],
    };

    /// Those of so many weights from a place of the grouping's order on.
    pub(super) fn under(&mut self, call: &Call<'_>, first: usize, count: usize) -> &[Tap] {
        let taps = &mut self.taps[..count];
        if self.first.replace(first) != Some(first) {
            for (i, tap) in taps.iter_mut().enumerate() {
                *tap = Tap::of(call, call.patch.place(first + i));
            }
        }
        taps
    }
}
