//! Bit streams, least significant bit first, sign bits, and what codes of them stand for.

mod codebook;

use alloc::vec::Vec;

pub(crate) use codebook::{CODES, Codebook, code_mask};

/// The largest bitwidth of a group: a weight's signs on all bases of its group fit in one byte.
pub const MAX_BITS: usize = 8;

/// `x` where bit `j` of `row` is 0, `−x` where it is 1.
#[inline(always)]
pub(crate) fn signed(x: f32, negative: u32) -> f32 {
    f32::from_bits(x.to_bits() ^ (negative << 31))
}

/// Bit `j` of a row of words.
#[inline(always)]
pub(crate) fn bit(row: &[u32], j: usize) -> u32 {
    (row[j / 32] >> (j % 32)) & 1
}

/// Bit `place` of up to 32 codes, that of the first lowest.
pub(crate) fn plane(codes: &[u8], place: usize) -> u32 {
    const LOWEST: u64 = 0x0101_0101_0101_0101;
    // Moves bit `8 i` to bit `56 + i`; no two products meet.
    const TOGETHER: u64 = 0x0102_0408_1020_4080;
    let mut bits = 0;
    let (eights, rest) = codes.as_chunks();
    for (i, eight) in eights.iter().enumerate() {
        let lowest = u64::from_le_bytes(*eight) >> place & LOWEST;
        bits |= (lowest.wrapping_mul(TOGETHER) >> 56) << (8 * i);
    }
    for (i, code) in rest.iter().enumerate() {
        bits |= u64::from(code >> place & 1) << (8 * eights.len() + i);
    }
    bits as u32
}

/// Words of a row of `len` signs: whole 64 bits.
pub(crate) fn row_words(len: usize) -> usize {
    len.div_ceil(64) * 2
}

/// Collects bits into bytes; the last byte is padded with 0.
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    count: usize,
}

impl BitWriter {
    pub(crate) fn with_capacity(bits: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bits.div_ceil(8)),
            pending: 0,
            count: 0,
        }
    }

    /// Appends the lowest `count <= 32` bits of `value`, whose other bits are 0.
    pub(crate) fn push(&mut self, value: u32, count: usize) {
        self.pending |= u64::from(value) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Takes bits out of bytes. The caller has checked that they are there.
pub(crate) struct BitReader<'a> {
    bytes: core::slice::Iter<'a, u8>,
    pending: u64,
    count: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: bytes.iter(),
            pending: 0,
            count: 0,
        }
    }

    /// The next `count <= 32` bits; past the end, zeros.
    pub(crate) fn take(&mut self, count: usize) -> u32 {
        while self.count < count {
            let byte = self.bytes.next().copied().unwrap_or(0);
            self.pending |= u64::from(byte) << self.count;
            self.count += 8;
        }
        let value = self.pending & ((1 << count) - 1);
        self.pending >>= count;
        self.count -= count;
        value as u32
    }

    /// Whether all bits that were not taken are 0.
    pub(crate) fn rest_is_zero(mut self) -> bool {
        self.pending == 0 && self.bytes.all(|&byte| byte == 0)
    }
}

/// Up to 32 bits from bit `first` on; past the end, zeros.
#[cfg(feature = "file")]
#[inline]
pub(crate) fn bits_at(bytes: &[u8], first: usize, count: usize) -> u32 {
    let bytes = bytes.get(first / 8..).unwrap_or_default();
    let eight = match bytes.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => bytes
            .iter()
            .rev()
            .fold(0, |n, &byte| n << 8 | u64::from(byte)),
    };
    (eight >> (first % 8) & ((1 << count) - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_bits_of_codes() {
        let codes: Vec<u8> = (0..32).map(|i| (i * 37 + 11) as u8).collect();
        for count in 0..=32 {
            for place in 0..MAX_BITS {
                let expected = codes[..count].iter().rev();
                let expected =
                    expected.fold(0, |bits, code| bits << 1 | u32::from(code >> place & 1));
                assert_eq!(plane(&codes[..count], place), expected);
            }
        }
    }

    #[test]
    fn the_least_significant_bit_comes_first() {
        let mut writer = BitWriter::with_capacity(40);
        for (value, count) in [(0b1, 1), (0b10, 2), (0x1234_5678, 32), (0b11111, 5)] {
            writer.push(value, count);
        }
        let bytes = writer.finish();
        // 1, then 10, then the word from bit 3 on, then five ones in the last byte.
        assert_eq!(bytes, [0xC5, 0xB3, 0xA2, 0x91, 0xF8]);
        let mut reader = BitReader::new(&bytes);
        let taken = [1, 2, 32, 4].map(|count| reader.take(count));
        assert_eq!(taken, [0b1, 0b10, 0x1234_5678, 0b1111]);
        assert!(!reader.rest_is_zero(), "one bit is left");
    }
}
