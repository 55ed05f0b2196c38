//! The packed weight: words, coordinates and the bitwidth of each group.

mod encode;
mod error;

use alloc::vec::Vec;

pub use encode::EncodedBytes;
pub use error::{DecodeError, PackError};

use crate::fit::value;
use crate::grouping::Grouping;

/// Bases of a group at most; a code has one bit for each.
pub const MAX_BITS: usize = 8;

/// Bits of a word.
const WORD: usize = u32::BITS as usize;

/// A multi-bit weight as bits; the layout is drawn at the [crate root](crate).
///
/// # Shapes
/// - widths: `[groups]`
/// - coordinates: `[rows]` with `rows = Σ widths`, group after group, positive and finite
/// - words: `[rows * words_per_row]`
#[derive(Debug, Clone, PartialEq)]
pub struct PackedWeight {
    shape: Vec<usize>,
    grouping: Grouping,
    widths: Vec<u8>,
    coordinates: Vec<f32>,
    words: Vec<u32>,
}

/// Words of a row of `len` signs: whole 64-bit multiples.
pub fn words_per_row(len: usize) -> usize {
    len.div_ceil(2 * WORD) * 2
}

impl PackedWeight {
    /// Packs a weight from its training form.
    ///
    /// # Arguments
    /// - `codes`: `[groups * len]`, bit `i` set where basis `i` is −1; bits from the width on are 0
    /// - `coordinates`: `[groups * max_bits]`, the live ones in the first `width` slots, the rest 0
    /// - `widths`: `[groups]`
    ///
    /// # Errors
    /// If a length does not fit, or a group breaks an invariant.
    pub fn pack(
        shape: &[usize],
        grouping: Grouping,
        max_bits: usize,
        codes: &[u8],
        coordinates: &[f32],
        widths: &[u8],
    ) -> Result<Self, PackError> {
        grouping.check(shape)?;
        if !(1..=MAX_BITS).contains(&max_bits) {
            return Err(PackError::MaxBits { max_bits });
        }
        let (groups, len) = (grouping.groups(shape), grouping.len());
        for (name, found, expected) in [
            ("codes", codes.len(), groups * len),
            ("coordinates", coordinates.len(), groups * max_bits),
            ("widths", widths.len(), groups),
        ] {
            if found != expected {
                return Err(PackError::Length {
                    name,
                    found,
                    expected,
                });
            }
        }
        let mut live = Vec::new();
        let mut words = Vec::new();
        for (group, &width) in widths.iter().enumerate() {
            let slots = usize::from(width);
            if slots > max_bits {
                return Err(PackError::TooWide {
                    group,
                    width,
                    max: max_bits,
                });
            }
            let (kept, absent) = coordinates[group * max_bits..][..max_bits].split_at(slots);
            let wrong = kept.iter().position(|&a| !(a.is_finite() && a > 0.0));
            let wrong = wrong.or(absent.iter().position(|&a| a != 0.0).map(|i| slots + i));
            if let Some(slot) = wrong {
                return Err(PackError::Coordinate {
                    group,
                    slot,
                    value: coordinates[group * max_bits + slot],
                });
            }
            let codes = &codes[group * len..][..len];
            if let Some(weight) = codes.iter().position(|code| u32::from(*code) >> slots != 0) {
                return Err(PackError::Code {
                    group,
                    weight,
                    code: codes[weight],
                    width,
                });
            }
            live.extend_from_slice(kept);
            for slot in 0..slots {
                pack_row(codes.iter().map(|code| code >> slot & 1), len, &mut words);
            }
        }
        Ok(Self {
            shape: shape.to_vec(),
            grouping,
            widths: widths.to_vec(),
            coordinates: live,
            words,
        })
    }

    /// Shape of the dense weight.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How it is cut into groups.
    pub fn grouping(&self) -> &Grouping {
        &self.grouping
    }

    /// Bitwidth of each group.
    pub fn widths(&self) -> &[u8] {
        &self.widths
    }

    /// One coordinate a row, group after group.
    pub fn coordinates(&self) -> &[f32] {
        &self.coordinates
    }

    /// The rows of signs, [`words_per_row`] each.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The row of signs with this index.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[u32] {
        let words = words_per_row(self.grouping.len());
        &self.words[row * words..][..words]
    }

    /// Codes `[groups * len]`, coordinates `[groups * max_bits]` and widths, the inverse of
    /// [`pack`](Self::pack).
    ///
    /// # Panics
    /// If a group is wider than `max_bits`.
    pub fn to_training_form(&self, max_bits: usize) -> (Vec<u8>, Vec<f32>, Vec<u8>) {
        let len = self.grouping.len();
        let mut codes = alloc::vec![0; self.widths.len() * len];
        let mut coordinates = alloc::vec![0.0; self.widths.len() * max_bits];
        let mut row = 0;
        for (group, &width) in self.widths.iter().enumerate() {
            let width = usize::from(width);
            assert!(
                width <= max_bits,
                "group {group} has {width} bases, not up to {max_bits}"
            );
            let codes = &mut codes[group * len..][..len];
            for slot in 0..width {
                let words = self.row(row);
                for (j, code) in codes.iter_mut().enumerate() {
                    *code |= ((words[j / WORD] >> (j % WORD) & 1) as u8) << slot;
                }
                coordinates[group * max_bits + slot] = self.coordinates[row];
                row += 1;
            }
        }
        (codes, coordinates, self.widths.clone())
    }

    /// The dense weight, row-major in its own shape: `Σ_i ±α_i` in ascending order of `i`, bit for
    /// bit what [`fit::reconstruct`](crate::fit::reconstruct) makes of the training form.
    pub fn unpack(&self) -> Vec<f32> {
        let len = self.grouping.len();
        let (codes, coordinates, widths) = self.to_training_form(MAX_BITS);
        let mut grouped = Vec::with_capacity(codes.len());
        for (group, &width) in widths.iter().enumerate() {
            let alpha = &coordinates[group * MAX_BITS..][..usize::from(width)];
            grouped.extend(
                codes[group * len..][..len]
                    .iter()
                    .map(|&code| value(alpha, code)),
            );
        }
        let mut weight = alloc::vec![0.0; grouped.len()];
        self.grouping.scatter(&self.shape, &grouped, &mut weight);
        weight
    }

    /// Average bitwidth `I_W = Σ n·I / Σ n`.
    pub fn average_bits(&self) -> f64 {
        self.coordinates.len() as f64 / self.widths.len() as f64
    }

    /// The paper's storage in bits, `Σ I·(n + 32)`.
    pub fn paper_bits_total(&self) -> usize {
        self.coordinates.len() * (self.grouping.len() + 32)
    }

    /// Bytes in memory, without the structure itself.
    pub fn memory_bytes(&self) -> usize {
        self.widths.len() + 4 * (self.coordinates.len() + self.words.len())
    }
}

/// Appends a row of signs, given as bits, padded with zeros.
fn pack_row(bits: impl Iterator<Item = u8>, len: usize, words: &mut Vec<u32>) {
    let start = words.len();
    words.resize(start + words_per_row(len), 0);
    for (j, bit) in bits.enumerate() {
        words[start + j / WORD] |= u32::from(bit) << (j % WORD);
    }
}
