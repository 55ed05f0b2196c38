//! The `2^I` values that a weight of one group can take.

use crate::MAX_BITS;

/// Codes of [`MAX_BITS`] bits.
pub(crate) const CODES: usize = 1 << MAX_BITS;

/// One group's levels by code.
#[derive(Debug, Clone)]
pub(crate) struct Codebook {
    values: [f32; CODES],
    mask: u8,
}

impl Codebook {
    /// The codebook of a group without bases: its only level is 0.
    pub(crate) fn new() -> Self {
        Self {
            values: [0.0; CODES],
            mask: 0,
        }
    }

    /// Takes a group's coordinates: `value(code) = Σᵢ ±αᵢ`, summed in f32 in ascending order of
    /// `i` from 0, with − where bit `i` is set.
    ///
    /// # Panics
    /// If there are more than [`MAX_BITS`] coordinates.
    pub(crate) fn build(&mut self, coordinates: &[f32]) {
        self.mask = code_mask(coordinates.len());
        self.values[0] = 0.0;
        for (i, &alpha) in coordinates.iter().enumerate() {
            let (positive, negative) = self.values.split_at_mut(1 << i);
            for (positive, negative) in positive.iter_mut().zip(negative) {
                *negative = *positive - alpha;
                *positive += alpha;
            }
        }
    }

    /// The level of a code; bits from the group's width on do not count.
    #[inline(always)]
    pub(crate) fn value(&self, code: u8) -> f32 {
        self.values[usize::from(code & self.mask)]
    }

    /// The levels of many codes.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub(crate) fn values(&self, codes: &[u8], out: &mut [f32]) {
        assert_eq!(codes.len(), out.len(), "`codes` and `out` differ in length");
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = self.value(code);
        }
    }
}

/// The bits that a code of a group of `width` bases can have.
pub(crate) fn code_mask(width: usize) -> u8 {
    assert!(
        width <= MAX_BITS,
        "a group has {width} bases, at most {MAX_BITS} fit a code"
    );
    ((1u16 << width) - 1) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_bit_subtracts_and_bits_beyond_the_width_do_not_count() {
        let mut codebook = Codebook::new();
        assert_eq!(codebook.value(0b101), 0.0);
        codebook.build(&[1.0, 4.0]);
        let mut values = [0.0; 5];
        codebook.values(&[0b00, 0b01, 0b10, 0b11, 0b111], &mut values);
        assert_eq!(values, [5.0, 3.0, -3.0, -5.0, -5.0]);
        codebook.build(&[f32::MAX, f32::MAX]);
        assert_eq!(codebook.value(0b00), f32::INFINITY, "beyond f32");
        assert_eq!(codebook.value(0b01), 0.0);
    }
}
