//! Sizes of a packed weight, and its serialized sections: no row padding, no alignment.

use alloc::vec::Vec;

use super::{CoordinateType, DecodeError, PackedWeight};
use crate::bits::{BitReader, BitWriter, row_words};
use crate::{Grouping, MAX_BITS};

/// The bytes of a weight's serialized sections.
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
        let base_bits = self.coordinates.len() * self.grouping.len();
        let width_bits = self.widths.len() * usize::from(self.width_bits());
        EncodedBytes {
            bases: base_bits.div_ceil(8),
            coordinates: self.coordinates.len() * self.coordinate_type.bytes(),
            widths: width_bits.div_ceil(8),
        }
    }

    /// Bytes of widths, coordinates and words in memory, row padding included.
    pub fn memory_bytes(&self) -> usize {
        self.widths.len()
            + size_of_val(self.coordinates.as_slice())
            + size_of_val(self.words.as_slice())
    }

    /// Bits of one serialized width: as many as the largest needs, at least 1, so that the length of
    /// the section vouches for the number of groups.
    pub fn width_bits(&self) -> u8 {
        width_bits_of(self.widths.iter().max().copied().unwrap_or(0))
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
        grouping.check(shape).map_err(DecodeError::Grouping)?;
        let (groups, len) = (grouping.groups(shape), grouping.len());
        let bytes = |count: usize, bits: usize| {
            let bits = count.checked_mul(bits);
            bits.map(|bits| bits.div_ceil(8))
                .ok_or(DecodeError::TooLarge { groups, len })
        };
        // So many weights can be made dense: the bits of their f32 are a number too.
        bytes(groups, len)?;
        bytes(groups * len, 8 * size_of::<f32>())?;
        let widths = decode_widths(groups, width_bits, widths, bytes)?;
        let rows = widths.iter().map(|&width| usize::from(width)).sum();
        if coordinates.len() != rows {
            return Err(DecodeError::CoordinateCount {
                expected: rows,
                found: coordinates.len(),
            });
        }
        for (coordinate, &value) in coordinates.iter().enumerate() {
            if !value.is_finite() {
                return Err(DecodeError::NotFinite { coordinate, value });
            }
            if value <= 0.0 {
                return Err(DecodeError::NotPositive { coordinate, value });
            }
        }
        let expected = bytes(rows, len)?;
        if bases.len() != expected {
            return Err(DecodeError::BaseBytes {
                expected,
                found: bases.len(),
            });
        }
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

/// Bits that a width up to `widest` is stored with.
fn width_bits_of(widest: u8) -> u8 {
    (u8::BITS - widest.leading_zeros()).max(1) as u8
}

/// Bits in use of each word of a row that has any.
fn word_bits(len: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by(32).map(move |first| (len - first).min(32))
}

fn decode_widths(
    groups: usize,
    width_bits: u8,
    encoded: &[u8],
    bytes: impl Fn(usize, usize) -> Result<usize, DecodeError>,
) -> Result<Vec<u8>, DecodeError> {
    const MOST: u8 = (usize::BITS - MAX_BITS.leading_zeros()) as u8;
    if !(1..=MOST).contains(&width_bits) {
        return Err(DecodeError::WidthBits {
            expected: width_bits.clamp(1, MOST),
            found: width_bits,
        });
    }
    let bits = usize::from(width_bits);
    let expected = bytes(groups, bits)?;
    if encoded.len() != expected {
        return Err(DecodeError::WidthBytes {
            expected,
            found: encoded.len(),
        });
    }
    let mut reader = BitReader::new(encoded);
    let widths: Vec<u8> = (0..groups).map(|_| reader.take(bits) as u8).collect();
    let too_wide = widths
        .iter()
        .position(|&width| usize::from(width) > MAX_BITS);
    if let Some(group) = too_wide {
        let width = widths[group];
        return Err(DecodeError::TooWide { group, width });
    }
    if !reader.rest_is_zero() {
        return Err(DecodeError::WidthPadding);
    }
    let widest = widths.iter().max().copied().unwrap_or(0);
    let needed = width_bits_of(widest);
    if needed != width_bits {
        return Err(DecodeError::WidthBits {
            expected: needed,
            found: width_bits,
        });
    }
    Ok(widths)
}
