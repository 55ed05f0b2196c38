//! Convolutions in int8: inputs and weights as small integers, added exactly, then coordinates.

use core::ops::Range;

use super::conv2d::Call;
use crate::cpu::{TOGETHER, to_integers};

/// Inputs of a quad, which the kernels take at once.
const QUAD: usize = 4;

/// Quads whose products the kernels add before they become f32.
const PIECE: usize = 64;

/// Pieces are cut at whole multiples of so many quads.
const CUT: usize = 16;

/// The largest absolute value; NaN if one is not finite.
pub(super) fn largest(values: &[u32]) -> f32 {
    // The bits of a NaN are above those of infinity.
    let bits = values
        .iter()
        .map(|bits| bits & (u32::MAX >> 1))
        .max()
        .unwrap_or(0);
    let largest = f32::from_bits(bits);
    if largest.is_finite() {
        largest
    } else {
        f32::NAN
    }
}

/// Values as whole multiples of a scale, four a word.
pub(super) fn round(values: &[u32], inverse: f32, bytes: &mut [u32]) {
    // Where floats are as far apart as integers, a sum is rounded to one, ties to even; its lowest
    // byte is that of the integer.
    const WHOLE: f32 = (3 << 22) as f32;
    for (values, word) in values.chunks(4).zip(bytes) {
        let rounded = values
            .iter()
            .rev()
            .map(|&x| f32::from_bits(x) * inverse + WHOLE);
        *word = rounded.fold(0, |word, x| word << 8 | x.to_bits() & 255);
    }
}

/// One of the values.
#[inline(always)]
pub(super) fn byte(bytes: &[u32], place: usize) -> i8 {
    (bytes[place / 4] >> (8 * (place % 4))) as i8
}

/// Words of whole numbers that [`sums`] adds in: some rows of the output.
pub(super) fn room(len: usize, [height, width]: [usize; 2]) -> Option<usize> {
    // Where a group is several pieces, looking for their weights costs more than adding them.
    match len > PIECE {
        true => height.checked_mul(width),
        false => Some(width),
    }
}

/// How a group of weights is cut into pieces whose products are added before they become f32.
pub(super) struct Pieces {
    /// Whether a quad lies along the channels, or along a row of the kernel.
    along_channels: bool,
}

impl Pieces {
    /// The one of the two ways that has fewer quads.
    pub(super) fn new(call: &Call<'_>) -> Self {
        let [channels, rows] = [true, false].map(|along_channels| {
            let pieces = Self { along_channels };
            let groups = 0..if call.len > PIECE { call.groups } else { 0 };
            groups.map(|group| pieces.count(call, group)).sum::<usize>()
        });
        let along_channels = channels <= rows;
        Self { along_channels }
    }

    /// Calls `quad(number, its weights)` for each quad of a group, in the kernels' order.
    fn each(
        &self,
        call: &Call<'_>,
        group: usize,
        mut quad: impl FnMut(usize, [Option<usize>; QUAD]),
    ) {
        let [_, channels, height, width] = super::conv2d::shape(call.weight);
        let [down, across] = match self.along_channels {
            true => [QUAD, 1],
            false => [1, QUAD],
        };
        let weights = group * call.len..(group + 1) * call.len;
        let mut number = 0;
        for channel in (0..channels).step_by(down) {
            for y in 0..height {
                for x in (0..width).step_by(across) {
                    let member = |i: usize| {
                        let [c, x] = match self.along_channels {
                            true => [channel + i, x],
                            false => [channel, x + i],
                        };
                        let index = call.patch.index([c, y, x]);
                        let inside = c < channels && x < width && weights.contains(&index);
                        inside.then_some(index)
                    };
                    let members = [0, 1, 2, 3].map(member);
                    if members.iter().any(Option::is_some) {
                        quad(number, members);
                        number += 1;
                    }
                }
            }
        }
    }

    fn count(&self, call: &Call<'_>, group: usize) -> usize {
        let mut count = 0;
        self.each(call, group, |_, _| count += 1);
        count
    }
}

/// The sums of an output whose rows of bits begin at `row`.
pub(super) fn sums(
    call: &Call<'_>,
    pieces: &Pieces,
    output: usize,
    mut row: usize,
    bytes: &[u32],
    sums: &mut [u32],
    room: &mut [u32],
) {
    for group in 0..call.groups {
        let width = call.weight.width(output * call.groups + group);
        if width == 0 {
            continue;
        }
        let quads = match call.len > PIECE {
            true => pieces.count(call, group),
            false => 1,
        };
        let part = quads.div_ceil(quads.div_ceil(PIECE)).next_multiple_of(CUT);
        for first in (0..quads).step_by(part) {
            for basis in (0..width).step_by(TOGETHER) {
                let product = Product {
                    call,
                    channel: call.first_channel(output),
                    rows: row + basis..row + width.min(basis + TOGETHER),
                };
                let each = |add: &mut dyn FnMut(usize)| match quads <= PIECE {
                    true => (group * call.len..(group + 1) * call.len).for_each(add),
                    false => pieces.each(call, group, |number, members| {
                        if (first..first + part).contains(&number) {
                            members.into_iter().flatten().for_each(&mut *add);
                        }
                    }),
                };
                product.add(&each, bytes, sums, room);
            }
        }
        row += width;
    }
}

/// Calls what it is given with each of some weights.
type Each<'e> = &'e dyn Fn(&mut dyn FnMut(usize));

/// Some bases of a group over all places.
struct Product<'c> {
    call: &'c Call<'c>,
    /// The first input channel.
    channel: usize,
    /// The bases' rows of bits.
    rows: Range<usize>,
}

impl Product<'_> {
    /// Adds the products of the weights that `each` names.
    fn add(&self, each: Each<'_>, bytes: &[u32], sums: &mut [u32], room: &mut [u32]) {
        let Self {
            call,
            channel,
            rows,
        } = self;
        let mut alphas = [0.0; TOGETHER];
        for (alpha, row) in alphas.iter_mut().zip(rows.clone()) {
            *alpha = call.weight.coordinate(row);
        }
        let (step, multiples) = to_integers(&alphas[..rows.len()]);
        let [_, height, width] = call.conv.from;
        let out_width = call.conv.to[2];
        let strip = (room.len() / out_width.max(1)).max(1);
        for (part, sums) in sums.chunks_mut(strip * out_width.max(1)).enumerate() {
            let strip = call.rows.start + part * strip;
            let strip = strip..strip + sums.len() / out_width.max(1);
            let room = &mut room[..sums.len()];
            room.fill(0);
            each(&mut |j| {
                let signs = rows.clone().zip(multiples);
                let weight: i32 = signs
                    .map(|(row, k)| {
                        (1 - 2 * call.weight.bit(row, j % call.len) as i32) * i32::from(k)
                    })
                    .sum();
                let [c, y, x] = call.patch.place(j);
                let (down, across) = (call.seen(0, y), call.seen(1, x));
                let plane = (channel + c) * height * width;
                let first = down.outputs.start.max(strip.start);
                for out_row in first..down.outputs.end.min(strip.end) {
                    let row = down.first + (out_row - down.outputs.start) * down.stride;
                    let mut from = plane + row * width + across.first;
                    let to = &mut room[(out_row - strip.start) * out_width..];
                    for to in &mut to[across.outputs.clone()] {
                        let product = weight * i32::from(byte(bytes, from));
                        *to = to.wrapping_add(product as u32);
                        from += across.stride;
                    }
                }
            });
            for (sum, &whole) in sums.iter_mut().zip(&*room) {
                *sum = (whole as i32 as f32 * step + f32::from_bits(*sum)).to_bits();
            }
        }
    }
}
