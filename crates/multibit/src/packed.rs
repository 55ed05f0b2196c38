//! The packed form of a weight: words of sign bits, coordinates, and the width of each group.

mod coordinates;
mod error;
mod sections;

use alloc::vec;
use alloc::vec::Vec;
use core::{fmt, iter};

use crate::MAX_BITS;
use crate::bits::{Codebook, bit, plane, row_words};
use crate::grouping::{Grouping, GroupingError};
use crate::parts::{PART, each_part};

pub use coordinates::CoordinateType;
pub use error::{DecodeError, PackError};
pub use sections::EncodedBytes;
#[cfg(feature = "file")]
pub(crate) use sections::{check, padding_is_zero};

/// A multi-bit weight as bits.
///
/// `Σ widths` rows, group after group and basis after basis, each with one coordinate; row `r`
/// holds `len` signs, sign `j` in word `j / 32` at bit `j % 32`, padded with 0 to whole 64 bits.
/// Bit 0 is +1, bit 1 is −1. A group of width 0 is zero and has neither row nor coordinate.
///
/// Invariants: the grouping fits the shape; widths are at most [`MAX_BITS`]; coordinates are
/// positive, finite and values of the type that they are stored with; padding bits are 0.
#[derive(Clone, PartialEq)]
pub struct PackedWeight {
    shape: Vec<usize>,
    grouping: Grouping,
    widths: Vec<u8>,
    coordinates: Vec<f32>,
    coordinate_type: CoordinateType,
    words: Vec<u32>,
}

impl fmt::Debug for PackedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedWeight")
            .field("shape", &self.shape)
            .field("grouping", &self.grouping)
            .field("average_bits", &self.average_bits())
            .finish_non_exhaustive()
    }
}

impl PackedWeight {
    /// Packs a weight from its training form. Nothing is lost: [`unpack`](Self::unpack) gives
    /// [`fit::reconstruct`](crate::fit::reconstruct) bit for bit.
    ///
    /// # Shapes
    /// - `codes`: `[groups, len]`; bit `i` set where basis `i` is −1, bits from the group's width
    ///   on 0
    /// - `coordinates`: `[groups, max_bits]`; the first `width` of a group positive and finite, the
    ///   others 0
    /// - `widths`: `[groups]`
    ///
    /// # Errors
    /// If the grouping does not fit the shape, a slice has another length, or the state breaks one
    /// of the rules above.
    pub fn pack(
        shape: &[usize],
        grouping: Grouping,
        max_bits: usize,
        codes: &[u8],
        coordinates: &[f32],
        widths: &[u8],
    ) -> Result<Self, PackError> {
        grouping.check(shape).map_err(PackError::Grouping)?;
        if !(1..=MAX_BITS).contains(&max_bits) {
            return Err(PackError::MaxBits { max_bits });
        }
        let (groups, len) = (grouping.groups(shape), grouping.len());
        let expected = groups * len;
        if codes.len() != expected {
            let found = codes.len();
            return Err(PackError::CodeCount { expected, found });
        }
        let expected = groups.saturating_mul(max_bits);
        if coordinates.len() != expected {
            let found = coordinates.len();
            return Err(PackError::CoordinateCount { expected, found });
        }
        if widths.len() != groups {
            return Err(PackError::WidthCount {
                expected: groups,
                found: widths.len(),
            });
        }
        let rows: usize = widths.iter().map(|&width| usize::from(width)).sum();
        let mut packed = Self {
            shape: shape.to_vec(),
            grouping,
            widths: widths.to_vec(),
            coordinates: Vec::with_capacity(rows),
            coordinate_type: CoordinateType::F32,
            words: Vec::with_capacity(rows * row_words(len)),
        };
        let slots = coordinates.chunks_exact(max_bits);
        let groups = codes.chunks_exact(len).zip(slots).zip(widths);
        for (group, ((codes, slots), &width)) in groups.enumerate() {
            check_group(group, codes, slots, width)?;
            let width = usize::from(width);
            packed.coordinates.extend(&slots[..width]);
            for basis in 0..width {
                packed.push_row(codes, basis);
            }
        }
        Ok(packed)
    }

    /// Appends bit `basis` of all codes of a group.
    fn push_row(&mut self, codes: &[u8], basis: usize) {
        let first = self.words.len();
        self.words.resize(first + row_words(codes.len()), 0);
        for (word, codes) in self.words[first..].iter_mut().zip(codes.chunks(32)) {
            *word = plane(codes, basis);
        }
    }

    /// The shape of the weight.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How the weight is cut into groups.
    pub fn grouping(&self) -> &Grouping {
        &self.grouping
    }

    /// The bitwidth of each group, `[groups]`.
    pub fn widths(&self) -> &[u8] {
        &self.widths
    }

    /// The coordinates, `[Σ widths]`, group after group.
    pub fn coordinates(&self) -> &[f32] {
        &self.coordinates
    }

    /// How the coordinates are stored: as f32, if nothing else was asked for.
    pub fn coordinate_type(&self) -> CoordinateType {
        self.coordinate_type
    }

    /// The same weight with coordinates of another type when stored.
    ///
    /// # Errors
    /// If that type does not hold one of them as it is.
    pub fn with_coordinate_type(self, coordinate_type: CoordinateType) -> Result<Self, PackError> {
        let inexact = |&value: &f32| !coordinate_type.holds(value);
        if let Some(coordinate) = self.coordinates.iter().position(inexact) {
            return Err(PackError::Inexact {
                coordinate,
                value: self.coordinates[coordinate],
                coordinate_type,
            });
        }
        Ok(Self {
            coordinate_type,
            ..self
        })
    }

    /// The rows of sign bits, `[Σ widths, row_words]`.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Words of one row, a multiple of 2.
    pub fn row_words(&self) -> usize {
        row_words(self.grouping.len())
    }

    /// Row `row`: the signs of one basis of one group.
    ///
    /// # Panics
    /// If there are not as many rows.
    pub fn row(&self, row: usize) -> &[u32] {
        let words = self.row_words();
        &self.words[row * words..][..words]
    }

    /// The number of weights.
    pub fn weights(&self) -> usize {
        self.widths.len() * self.grouping.len()
    }

    /// Codes of one group whose first row is `first`.
    fn group_codes(&self, first: usize, width: u8, codes: &mut [u8]) {
        codes.fill(0);
        for basis in 0..usize::from(width) {
            let row = self.row(first + basis);
            for (j, code) in codes.iter_mut().enumerate() {
                *code |= (bit(row, j) as u8) << basis;
            }
        }
    }

    /// The dense weight, row-major in [`shape`](Self::shape).
    ///
    /// A value is `Σᵢ ±αᵢ` in f32, in ascending order of `i`, starting from 0.
    pub fn unpack(&self) -> Vec<f32> {
        let mut weight = vec![0.0; self.weights()];
        self.grouping
            .scatter(&self.shape, &self.unpack_grouped(), &mut weight);
        weight
    }

    /// The row of bits that each output starts at, in the order of the output axis, and at the end
    /// their number.
    pub fn first_rows(&self) -> Vec<usize> {
        let per_output = self.grouping.groups_per_output(&self.shape);
        self.group_rows().step_by(per_output).collect()
    }

    /// The row of bits that each group starts at, and at the end their number.
    pub(crate) fn group_rows(&self) -> impl Iterator<Item = usize> {
        let ends = self.widths.iter().scan(0, |row, &width| {
            *row += usize::from(width);
            Some(*row)
        });
        iter::once(0).chain(ends)
    }

    /// The dense weights of one output in the grouping's order, for example one row of an embedding.
    ///
    /// `first` is where [`first_rows`](Self::first_rows) says that the output starts.
    ///
    /// # Panics
    /// If there is no such output, or `out` does not hold its weights.
    pub fn unpack_output(&self, output: usize, first: usize, out: &mut [f32]) {
        let len = self.grouping.len();
        let per_output = self.grouping.groups_per_output(&self.shape);
        assert_eq!(
            out.len(),
            per_output * len,
            "`out` does not hold the weights of an output"
        );
        let widths = &self.widths[output * per_output..][..per_output];
        self.unpack_groups(widths, first, out);
    }

    /// The same bits as a weight of another shape, for example a 1-D convolution as one in 2-D.
    ///
    /// # Errors
    /// If the grouping does not fit the shape.
    ///
    /// # Panics
    /// If the groups are not as many, or not as long, as before.
    pub fn reshaped(&self, shape: &[usize], grouping: Grouping) -> Result<Self, GroupingError> {
        grouping.check(shape)?;
        assert_eq!(
            (grouping.groups(shape), grouping.len()),
            (self.widths.len(), self.grouping.len()),
            "another shape must cut into the same groups"
        );
        Ok(Self {
            shape: shape.to_vec(),
            grouping,
            ..self.clone()
        })
    }

    /// The dense weight as groups, `[groups, len]`.
    pub fn unpack_grouped(&self) -> Vec<f32> {
        let len = self.grouping.len();
        let groups = PART.div_ceil(len);
        let firsts: Vec<usize> = self.group_rows().step_by(groups).collect();
        let mut grouped = vec![0.0; self.weights()];
        each_part(
            &mut grouped,
            groups * len,
            self.weights(),
            |part, grouped| {
                let widths = &self.widths[part * groups..];
                self.unpack_groups(widths, firsts[part], grouped);
            },
        );
        grouped
    }

    /// Groups of the given widths, the first of which starts at row `first`.
    fn unpack_groups(&self, widths: &[u8], mut first: usize, grouped: &mut [f32]) {
        let len = self.grouping.len();
        let mut codes = vec![0; len];
        let mut codebook = Codebook::new();
        for (group, &width) in grouped.chunks_exact_mut(len).zip(widths) {
            self.group_codes(first, width, &mut codes);
            let next = first + usize::from(width);
            codebook.build(&self.coordinates[first..next]);
            codebook.values(&codes, group);
            first = next;
        }
    }

    /// The training form: `(codes [groups, len], coordinates [groups, max_bits], widths [groups])`.
    ///
    /// # Panics
    /// If a group is wider than `max_bits`, or `max_bits` is above [`MAX_BITS`].
    pub fn to_training_form(&self, max_bits: usize) -> (Vec<u8>, Vec<f32>, Vec<u8>) {
        assert!(
            max_bits <= MAX_BITS,
            "`max_bits` is {max_bits}, but at most {MAX_BITS} fit a code"
        );
        let widest = sections::widest(&self.widths);
        assert!(
            usize::from(widest) <= max_bits,
            "a group has {widest} bits, `max_bits` is {max_bits}"
        );
        let len = self.grouping.len();
        let mut codes = vec![0; self.weights()];
        let mut coordinates = vec![0.0; self.widths.len() * max_bits];
        let rows = self.group_rows().zip(&self.widths);
        for (group, (first, &width)) in rows.enumerate() {
            self.group_codes(first, width, &mut codes[group * len..][..len]);
            let live = usize::from(width);
            coordinates[group * max_bits..][..live]
                .copy_from_slice(&self.coordinates[first..][..live]);
        }
        (codes, coordinates, self.widths.clone())
    }
}

/// The rules for one group in training form.
fn check_group(group: usize, codes: &[u8], slots: &[f32], width: u8) -> Result<(), PackError> {
    let max_bits = slots.len();
    let bits = usize::from(width);
    if bits > max_bits {
        return Err(PackError::TooWide {
            group,
            width,
            max_bits,
        });
    }
    let stray = |code: u8| u32::from(code) >> bits != 0;
    if let Some(weight) = codes.iter().position(|&code| stray(code)) {
        let code = codes[weight];
        return Err(PackError::StrayBits {
            group,
            weight,
            code,
            width,
        });
    }
    for (slot, &value) in slots.iter().enumerate() {
        if slot >= bits {
            if value != 0.0 {
                return Err(PackError::NotAbsent { group, slot, value });
            }
        } else if !value.is_finite() {
            return Err(PackError::NotFinite { group, slot, value });
        } else if value <= 0.0 {
            return Err(PackError::NotPositive { group, slot, value });
        }
    }
    Ok(())
}
