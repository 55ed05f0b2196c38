//! The sections of a stored weight: no padding but the tail of the last byte.

use alloc::vec::Vec;

use super::{DecodeError, MAX_BITS, PackedWeight, WORD, words_per_row};
use crate::grouping::Grouping;

/// Bytes of the stored sections of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedBytes {
    /// Bases, one bit a sign.
    pub bases: usize,
    /// Coordinates, 32 bits each.
    pub coordinates: usize,
    /// Widths, as many bits each as the largest needs.
    pub widths: usize,
}

impl PackedWeight {
    /// Bits that a width is stored with: what the largest one needs, at least 1, so that the
    /// length of the section vouches for the number of groups.
    pub fn width_bits(&self) -> u8 {
        let largest = self.widths.iter().copied().max().unwrap_or(0);
        (u8::BITS - largest.leading_zeros()).max(1) as u8
    }

    /// Bytes of the stored sections.
    pub fn encoded_bytes(&self) -> EncodedBytes {
        EncodedBytes {
            bases: (self.coordinates.len() * self.grouping.len()).div_ceil(8),
            coordinates: 4 * self.coordinates.len(),
            widths: (self.widths.len() * usize::from(self.width_bits())).div_ceil(8),
        }
    }

    /// All rows of signs, bit after bit, the lowest bit of a byte first.
    pub fn encode_bases(&self) -> Vec<u8> {
        let len = self.grouping.len();
        let mut bits = BitWriter::default();
        for row in 0..self.coordinates.len() {
            let words = self.row(row);
            for start in (0..len).step_by(WORD) {
                let count = (len - start).min(WORD);
                bits.push(words[start / WORD], count);
            }
        }
        bits.finish()
    }

    /// All widths, [`width_bits`](Self::width_bits) each, the lowest bit first.
    pub fn encode_widths(&self) -> Vec<u8> {
        let count = usize::from(self.width_bits());
        let mut bits = BitWriter::default();
        for &width in &self.widths {
            bits.push(u32::from(width), count);
        }
        bits.finish()
    }

    /// A weight from its stored sections.
    ///
    /// # Errors
    /// If the grouping does not fit the shape, or any length, width, coordinate or padding bit is
    /// wrong. Nothing is allocated before the lengths are known to be true.
    pub fn decode(
        shape: &[usize],
        grouping: Grouping,
        width_bits: u8,
        widths: &[u8],
        coordinates: &[f32],
        bases: &[u8],
    ) -> Result<Self, DecodeError> {
        grouping.check(shape).map_err(DecodeError::Grouping)?;
        if !(1..=4).contains(&width_bits) {
            return Err(DecodeError::WidthBits { width_bits });
        }
        let (groups, len) = (grouping.groups(shape), grouping.len());
        check(
            "widths",
            widths.len(),
            bytes(groups, usize::from(width_bits)),
        )?;
        check("bases", bases.len(), bytes(coordinates.len(), len))?;
        let widths = decode_widths(widths, groups, width_bits)?;
        let rows = widths.iter().map(|&width| usize::from(width)).sum();
        check("coordinates", coordinates.len(), rows)?;
        let wrong = coordinates
            .iter()
            .position(|a| !(a.is_finite() && *a > 0.0));
        if let Some(row) = wrong {
            return Err(DecodeError::Coordinate {
                row,
                value: coordinates[row],
            });
        }
        let mut reader = BitReader::new(bases);
        let mut words = Vec::with_capacity(rows * words_per_row(len));
        for _ in 0..rows {
            let end = words.len() + words_per_row(len);
            for start in (0..len).step_by(WORD) {
                words.push(reader.take((len - start).min(WORD)));
            }
            words.resize(end, 0);
        }
        if !reader.rest_is_zero() {
            return Err(DecodeError::Tail { name: "bases" });
        }
        Ok(Self {
            shape: shape.to_vec(),
            grouping,
            widths,
            coordinates: coordinates.to_vec(),
            words,
        })
    }
}

/// Bytes of `count` fields of `bits` bits; more than any slice can hold if that overflows.
fn bytes(count: usize, bits: usize) -> usize {
    count
        .checked_mul(bits)
        .map_or(usize::MAX, |bits| bits.div_ceil(8))
}

fn check(name: &'static str, found: usize, expected: usize) -> Result<(), DecodeError> {
    if found == expected {
        return Ok(());
    }
    Err(DecodeError::Length {
        name,
        found,
        expected,
    })
}

fn decode_widths(bytes: &[u8], groups: usize, bits: u8) -> Result<Vec<u8>, DecodeError> {
    let mut reader = BitReader::new(bytes);
    let widths: Vec<u8> = (0..groups)
        .map(|_| reader.take(usize::from(bits)) as u8)
        .collect();
    if !reader.rest_is_zero() {
        return Err(DecodeError::Tail { name: "widths" });
    }
    match widths
        .iter()
        .position(|&width| usize::from(width) > MAX_BITS)
    {
        Some(group) => Err(DecodeError::TooWide {
            group,
            width: widths[group],
        }),
        None => Ok(widths),
    }
}

/// Bits into bytes, the lowest bit first.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    count: usize,
}

impl BitWriter {
    /// Appends the low `count` bits of `word`; the others must be 0.
    fn push(&mut self, word: u32, count: usize) {
        self.pending |= u64::from(word) << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// The inverse of [`BitWriter`].
struct BitReader<'a> {
    bytes: core::slice::Iter<'a, u8>,
    pending: u64,
    count: usize,
}

impl<'a> BitReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: bytes.iter(),
            pending: 0,
            count: 0,
        }
    }

    /// The next `count` bits, at most 32; 0 past the end.
    fn take(&mut self, count: usize) -> u32 {
        while self.count < count {
            let byte = self.bytes.next().copied().unwrap_or(0);
            self.pending |= u64::from(byte) << self.count;
            self.count += 8;
        }
        let bits = self.pending & ((1u64 << count) - 1);
        self.pending >>= count;
        self.count -= count;
        bits as u32
    }

    fn rest_is_zero(self) -> bool {
        self.pending == 0 && self.bytes.into_iter().all(|&byte| byte == 0)
    }
}
