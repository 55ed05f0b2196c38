//! Inputs of a convolution → the words of steps: one f32, or four bytes.

use alloc::vec::Vec;

use crate::cpu::simd::{LANES, Simd, Task, first_lanes};

/// A row of up to four channels, side by side.
pub(in crate::cpu) struct ToWords<'a> {
    /// The channels from their first value in the row on.
    pub values: &'a [f32],
    /// Distance of channels.
    pub channel: usize,
    /// Values of the row.
    pub width: usize,
    /// `1 / scale`, to round values to bytes.
    pub inverse: Option<f32>,
    /// Columns of padding before the row, and the distance of the four bytes of a word along the
    /// row; none if they are of four channels.
    pub window: Option<(usize, usize)>,
    /// Receives a word a column, those of the padding first if there is a window.
    pub words: &'a mut Vec<u32>,
}

impl Task for ToWords<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            values,
            channel,
            width,
            inverse,
            window,
            words,
        } = self;
        words.clear();
        let Some(inverse) = inverse else {
            words.extend(values[..width].iter().map(|x| x.to_bits()));
            return;
        };
        let inverse = simd.f_splat(inverse);
        let rows = values.chunks(channel);
        match window {
            None => {
                words.resize(width.next_multiple_of(LANES), 0);
                for (part, words) in words.chunks_exact_mut(LANES).enumerate() {
                    let mut bytes = [[0; LANES]; 4];
                    for (row, bytes) in rows.clone().zip(&mut bytes) {
                        *bytes = to_bytes(simd, &row[part * LANES..width], inverse);
                    }
                    let [a, b, c, d] = bytes;
                    for (i, word) in words.iter_mut().enumerate() {
                        *word = u32::from_le_bytes([a[i], b[i], c[i], d[i]]);
                    }
                }
                words.truncate(width);
            }
            Some((left, next)) => {
                let mut bytes = Vec::with_capacity(left + width + 3 * next + LANES);
                bytes.resize(left, 0);
                for part in (0..width).step_by(LANES) {
                    bytes.extend(to_bytes(simd, &values[part..width], inverse));
                }
                // Behind the row is padding.
                bytes.truncate(left + width);
                bytes.resize(left + width + 3 * next, 0);
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| &bytes[i * next..]);
                let four = a.iter().zip(b).zip(c.iter().zip(d));
                let four = four.map(|((&a, &b), (&c, &d))| u32::from_le_bytes([a, b, c, d]));
                words.extend(four);
            }
        }
    }
}

/// The first sixteen values as int8, in two's complement; 0 behind the end.
#[inline(always)]
pub(super) fn to_bytes<S: Simd>(simd: S, values: &[f32], inverse: S::F) -> [u8; LANES] {
    let x = simd.f_load(&first_lanes(values));
    simd.to_i8(simd.f_mul(x, inverse)).map(
        #[inline(always)]
        |x| x as u8,
    )
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
