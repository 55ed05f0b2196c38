//! Sizes of a packed weight, and its serialized sections: no row padding, no alignment.

use alloc::vec::Vec;

use super::{CoordinateType, DecodeError, PackedWeight};
use crate::MAX_BITS;
use crate::bits::{BitReader, BitWriter, row_words};
use crate::grouping::Grouping;

/// The bytes of a weight's serialized sections: the only place where they are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodedBytes {
    /// Sign bits.
    pub bases: usize,
    /// Coordinates, of the bytes that their type has.
    pub coordinates: usize,
    /// Widths of the groups.
    pub widths: usize,
}

impl EncodedBytes {
    /// The sections of a weight of `groups` groups of `len` with so many `coordinates` in all, whose
    /// widths take `width_bits` bits each. None if a section's bits are too many for the address
    /// space.
    pub fn new(
        groups: usize,
        len: usize,
        coordinates: usize,
        width_bits: u8,
        coordinate_type: CoordinateType,
    ) -> Option<Self> {
        Some(Self {
            bases: bytes(coordinates, len)?,
            coordinates: bytes(coordinates, 8 * coordinate_type.bytes())?,
            widths: bytes(groups, width_bits.into())?,
        })
    }

    /// Bits of one serialized width: as many as the largest needs, at least 1, so that the length of
    /// the section vouches for the number of groups.
    pub fn width_bits(widest: u8) -> u8 {
        (u8::BITS - widest.leading_zeros()).max(1) as u8
    }

    /// All sections together.
    pub fn total(&self) -> usize {
        self.bases + self.coordinates + self.widths
    }
}

impl PackedWeight {
    /// The average bitwidth `I_W = Σ n·I / Σ n`; goes below 1.
    pub fn average_bits(&self) -> f64 {
        self.coordinates.len() as f64 / self.widths.len() as f64
    }

    /// Storage by the paper's formula `Σ I·(n + 32)`, in bits: bases and 32-bit coordinates, but
    /// not the widths (Qu et al., CVPR 2020).
    pub fn paper_bits_total(&self) -> u64 {
        self.coordinates.len() as u64 * (self.grouping.len() as u64 + 32)
    }

    /// Bytes of each serialized section.
    pub fn encoded_bytes(&self) -> EncodedBytes {
        let bytes = EncodedBytes::new(
            self.widths.len(),
            self.grouping.len(),
            self.coordinates.len(),
            self.width_bits(),
            self.coordinate_type,
        );
        bytes.expect("what is in memory fits the address space")
    }

    /// Bytes of widths, coordinates and words in memory, row padding included.
    pub fn memory_bytes(&self) -> usize {
        self.widths.len()
            + size_of_val(self.coordinates.as_slice())
            + size_of_val(self.words.as_slice())
    }

    /// Bits of one serialized width, see [`EncodedBytes::width_bits`].
    pub fn width_bits(&self) -> u8 {
        EncodedBytes::width_bits(widest(&self.widths))
    }

    /// The coordinates as their type stores them, little-endian.
    pub fn encode_coordinates(&self) -> Vec<u8> {
        self.coordinate_type.encode(&self.coordinates)
    }

    /// The rows, bit after bit without padding between them; the last byte is padded with 0.
    pub fn encode_bases(&self) -> Vec<u8> {
        let len = self.grouping.len();
        let mut writer = BitWriter::with_capacity(self.coordinates.len() * len);
        for row in self.words.chunks_exact(self.row_words()) {
            for (word, bits) in row.iter().zip(word_bits(len)) {
                writer.push(*word, bits);
            }
        }
        writer.finish()
    }

    /// The widths, [`width_bits`](Self::width_bits) bits each; the last byte is padded with 0.
    pub fn encode_widths(&self) -> Vec<u8> {
        let bits = usize::from(self.width_bits());
        let mut writer = BitWriter::with_capacity(self.widths.len() * bits);
        for &width in &self.widths {
            writer.push(width.into(), bits);
        }
        writer.finish()
    }

    /// A weight from its sections, as [`encode_bases`](Self::encode_bases),
    /// [`encode_widths`](Self::encode_widths) and [`coordinates`](Self::coordinates) give them. Its
    /// coordinates are stored as f32 ([`with_coordinate_type`](Self::with_coordinate_type)).
    ///
    /// Takes input that is wrong in any way: every length is checked before it is used, and memory
    /// is taken in proportion to the sections' lengths, at most 8 bytes for each of theirs (a width
    /// of one bit becomes a byte), whatever the shape claims. Groups of width 0 have no bits, so a
    /// few bytes may be a weight of any shape: compare [`shape`](Self::shape) with what is expected
    /// before [`unpack`](Self::unpack) makes it dense.
    ///
    /// # Errors
    /// If the sections are not exactly those of a weight of this shape and grouping.
    pub fn decode(
        shape: &[usize],
        grouping: Grouping,
        width_bits: u8,
        widths: &[u8],
        coordinates: &[f32],
        bases: &[u8],
    ) -> Result<Self, DecodeError> {
        let rows = check(
            shape,
            &grouping,
            width_bits,
            widths,
            [coordinates.len(), bases.len()],
            |i| coordinates[i],
        )?;
        let len = grouping.len();
        let mut reader = BitReader::new(widths);
        let widths = (0..grouping.groups(shape)).map(|_| reader.take(width_bits.into()) as u8);
        let widths = widths.collect();
        let row_words = row_words(len);
        let mut words = Vec::with_capacity(rows * row_words);
        let mut reader = BitReader::new(bases);
        for row in 1..=rows {
            words.extend(word_bits(len).map(|bits| reader.take(bits)));
            words.resize(row * row_words, 0);
        }
        if !reader.rest_is_zero() {
            return Err(DecodeError::BasePadding);
        }
        Ok(Self {
            shape: shape.to_vec(),
            grouping,
            widths,
            coordinates: coordinates.to_vec(),
            coordinate_type: CoordinateType::F32,
            words,
        })
    }
}

/// Bytes of a section with so many bits for each of `count` values.
fn bytes(count: usize, bits: usize) -> Option<usize> {
    Some(count.checked_mul(bits)?.div_ceil(8))
}

/// The largest width, 0 of none.
pub(super) fn widest(widths: &[u8]) -> u8 {
    widths.iter().max().copied().unwrap_or(0)
}

/// Bits in use of each word of a row that has any.
fn word_bits(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(32).map(move |first| (len - first).min(32))
}

/// Whether sections are those of a weight, but for the padding behind its bases; the number of its
/// rows. Takes no memory.
pub(crate) fn check(
    shape: &[usize],
    grouping: &Grouping,
    width_bits: u8,
    widths: &[u8],
    [coordinates, base_bytes]: [usize; 2],
    coordinate: impl Fn(usize) -> f32,
) -> Result<usize, DecodeError> {
    grouping.check(shape).map_err(DecodeError::Grouping)?;
    let (groups, len) = (grouping.groups(shape), grouping.len());
    let too_large = || DecodeError::TooLarge { groups, len };
    // So many weights can be made dense: the bits of their f32 are a number too.
    let weights = groups.checked_mul(len).ok_or_else(too_large)?;
    bytes(weights, 8 * size_of::<f32>()).ok_or_else(too_large)?;
    let rows = check_widths(groups, width_bits, widths, too_large)?;
    if coordinates != rows {
        return Err(DecodeError::CoordinateCount {
            expected: rows,
            found: coordinates,
        });
    }
    for (coordinate, value) in (0..rows).map(&coordinate).enumerate() {
        if !value.is_finite() {
            return Err(DecodeError::NotFinite { coordinate, value });
        }
        if value <= 0.0 {
            return Err(DecodeError::NotPositive { coordinate, value });
        }
    }
    let expected = EncodedBytes::new(groups, len, rows, width_bits, CoordinateType::F32);
    let expected = expected.ok_or_else(too_large)?.bases;
    if base_bytes != expected {
        return Err(DecodeError::BaseBytes {
            expected,
            found: base_bytes,
        });
    }
    Ok(rows)
}

/// The sum of the widths.
fn check_widths(
    groups: usize,
    width_bits: u8,
    encoded: &[u8],
    too_large: impl Fn() -> DecodeError,
) -> Result<usize, DecodeError> {
    const MOST: u8 = (usize::BITS - MAX_BITS.leading_zeros()) as u8;
    if !(1..=MOST).contains(&width_bits) {
        return Err(DecodeError::WidthBits {
            expected: width_bits.clamp(1, MOST),
            found: width_bits,
        });
    }
    let bits = usize::from(width_bits);
    let expected = bytes(groups, bits).ok_or_else(too_large)?;
    if encoded.len() != expected {
        return Err(DecodeError::WidthBytes {
            expected,
            found: encoded.len(),
        });
    }
    let mut reader = BitReader::new(encoded);
    let (mut rows, mut widest) = (0, 0);
    for group in 0..groups {
        let width = reader.take(bits) as u8;
        if usize::from(width) > MAX_BITS {
            return Err(DecodeError::TooWide { group, width });
        }
        rows += usize::from(width);
        widest = widest.max(width);
    }
    if !reader.rest_is_zero() {
        return Err(DecodeError::WidthPadding);
    }
    let needed = EncodedBytes::width_bits(widest);
    if needed != width_bits {
        return Err(DecodeError::WidthBits {
            expected: needed,
            found: width_bits,
        });
    }
    Ok(rows)
}

/// Whether the bits behind the last of `bits` are 0.
#[cfg(feature = "file")]
pub(crate) fn padding_is_zero(bytes: &[u8], bits: usize) -> bool {
    let rest = bytes.get(bits / 8..).unwrap_or_default();
    let mut rest = rest.iter();
    let first = rest.next().is_none_or(|byte| byte >> (bits % 8) == 0);
    first && rest.all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_whole_or_there_are_none() {
        let bytes = |groups, len, coordinates| {
            EncodedBytes::new(groups, len, coordinates, 3, CoordinateType::F16)
        };
        let found = bytes(9, 5, 7).unwrap();
        assert_eq!((found.bases, found.coordinates, found.widths), (5, 14, 4));
        assert_eq!(found.total(), 23);
        assert_eq!(bytes(0, 5, 0).unwrap().total(), 0);
        for (groups, len, coordinates) in [
            (usize::MAX / 2, 1, 1),
            (1, usize::MAX / 2, 3),
            (1, 1, usize::MAX / 15),
        ] {
            assert_eq!(bytes(groups, len, coordinates), None);
        }
    }

    #[test]
    fn a_width_takes_the_bits_of_the_largest() {
        let bits = [0, 1, 2, 3, 4, 7, 8].map(EncodedBytes::width_bits);
        assert_eq!(bits, [1, 1, 2, 2, 3, 3, 4]);
    }
}
