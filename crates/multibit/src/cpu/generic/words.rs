//! Inputs of a convolution → the words of steps: one f32, or four bytes.

use alloc::vec::Vec;

use crate::cpu::simd::{LANES, Simd, Task, first_lanes};

/// A row of a channel, or of up to four side by side.
pub(in crate::cpu) struct ToWords<'a> {
    /// The channels from their first value in the row on.
    pub values: &'a [f32],
    /// Distance of channels.
    pub channel: usize,
    /// `1 / scale`, to round values to bytes.
    pub inverse: Option<f32>,
    /// Columns of padding before the row, and the distance of the four bytes of a word along the
    /// row; none if they are of four channels.
    pub window: Option<(usize, usize)>,
    /// Receives a word a column, those of the padding first if there is a window.
    pub words: &'a mut [u32],
}

impl Task for ToWords<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { values, words, .. } = self;
        let Some(inverse) = self.inverse else {
            for (word, x) in words.iter_mut().zip(values) {
                *word = x.to_bits();
            }
            return;
        };
        let Some((left, next)) = self.window else {
            let width = words.len();
            // A channel that is not there is the first, times 0.
            let mut rows = [(&values[..width], 0.0); 4];
            for (to, row) in rows.iter_mut().zip(values.chunks(self.channel)) {
                *to = (&row[..width], inverse);
            }
            return four_channels(rows, words);
        };
        let width = words.len() - left;
        let inverse = simd.f_splat(inverse);
        let mut bytes = Vec::with_capacity(words.len() + 3 * next + LANES);
        bytes.resize(left, 0);
        for part in (0..width).step_by(LANES) {
            bytes.extend(to_bytes(simd, &values[part..width], inverse));
        }
        // Behind the row is padding.
        bytes.truncate(left + width);
        bytes.resize(left + width + 3 * next, 0);
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| &bytes[i * next..]);
        let four = a.iter().zip(b).zip(c.iter().zip(d));
        for (word, ((&a, &b), (&c, &d))) in words.iter_mut().zip(four) {
            *word = u32::from_le_bytes([a, b, c, d]);
        }
    }
}

/// Each of four rows times a factor, in bytes side by side. The compiler makes vectors of this.
#[inline(always)]
fn four_channels(rows: [(&[f32], f32); 4], words: &mut [u32]) {
    // Where floats are as far apart as integers, a sum is rounded to one, ties to even; its lowest
    // byte is that of the integer.
    const WHOLE: f32 = (3 << 22) as f32;
    let [(a, ka), (b, kb), (c, kc), (d, kd)] = rows;
    let rows = a.iter().zip(b).zip(c.iter().zip(d));
    for (word, ((&a, &b), (&c, &d))) in words.iter_mut().zip(rows) {
        let low = (a * ka + WHOLE).to_bits() & 255 | ((b * kb + WHOLE).to_bits() & 255) << 8;
        let high = (c * kc + WHOLE).to_bits() & 255 | (d * kd + WHOLE).to_bits() << 8;
        *word = low | high << 16;
    }
}

/// The first sixteen values as int8, in two's complement; 0 behind the end.
#[inline(always)]
pub(super) fn to_bytes<S: Simd>(simd: S, values: &[f32], inverse: S::F) -> [u8; LANES] {
    let x = simd.f_load(&first_lanes(values));
    let mut bytes = [0; LANES];
    for (byte, x) in bytes.iter_mut().zip(simd.to_i8(simd.f_mul(x, inverse))) {
        *byte = x as u8;
    }
    bytes
}

/// The largest absolute value; NaN if one is not finite.
pub(in crate::cpu) struct Largest<'a> {
    pub values: &'a [f32],
    pub largest: &'a mut f32,
}

impl Task for Largest<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        *self.largest = largest(self.values);
    }
}

/// The largest absolute value; NaN if one is not finite.
#[inline(always)]
pub(super) fn largest(values: &[f32]) -> f32 {
    // The compiler makes vectors of this. The bits of a NaN are above those of infinity.
    let mut bits = 0;
    for x in values {
        bits = bits.max(x.to_bits() & (u32::MAX >> 1));
    }
    let largest = f32::from_bits(bits);
    if largest.is_finite() {
        largest
    } else {
        f32::NAN
    }
}
