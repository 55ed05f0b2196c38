//! Weights and tensors as they lie in a file.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::cbor::{KeyWriter, Reader, Result, Writer};
use super::step::{self, code};
use super::{EntryError, Flaw, SectionError};
use crate::bits::bits_at;
use crate::cpu::Arithmetic;
use crate::packed::{check, padding_is_zero};
use crate::{CoordinateType, DecodeError, EncodedBytes, Grouping, PackedWeight};

/// Codes of the types that coordinates, or numbers of f32, are stored in.
const STORED_TYPES: [CoordinateType; 3] = [
    CoordinateType::F32,
    CoordinateType::F16,
    CoordinateType::Bf16,
];

/// The type of a tensor's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "their names say it")]
pub enum NumberType {
    F32,
    F64,
    /// Burn's flex32, an f32.
    Flex32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    /// 0 or 1 in a byte.
    Bool,
    /// 0 or 1 in a u8.
    BoolU8,
    /// 0 or 1 in a u32.
    BoolU32,
    /// Burn's own quantization: the bytes are a container of Burn's.
    Burns,
}

impl NumberType {
    /// All of them, by their codes.
    pub const ALL: [Self; 17] = [
        Self::F32,
        Self::F64,
        Self::Flex32,
        Self::F16,
        Self::Bf16,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U64,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::Bool,
        Self::BoolU8,
        Self::BoolU32,
        Self::Burns,
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Flex32 => "flex32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::U16 => "u16",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::BoolU8 => "bool in u8",
            Self::BoolU32 => "bool in u32",
            Self::Burns => "Burn's quantization",
        }
    }

    /// Bytes of a number; 0 where only Burn knows.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::Flex32 | Self::I32 | Self::U32 | Self::BoolU32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool | Self::BoolU8 => 1,
            Self::Burns => 0,
        }
    }
}

/// A multi-bit weight in a file: its sections where they lie, or inflated.
#[derive(Clone, Debug)]
pub struct FileWeight<'a> {
    pub(super) path: Cow<'a, str>,
    pub(super) shape: Vec<usize>,
    pub(super) crc32: Option<u32>,
    pub(super) grouping: Grouping,
    /// Rows of bits, each with a coordinate.
    pub(super) rows: usize,
    pub(super) width_bits: u8,
    pub(super) coordinate_type: CoordinateType,
    /// Bytes in the file, where a section is deflated.
    pub(super) stored: Option<[usize; 3]>,
    pub(super) arithmetic: Option<Arithmetic>,
    /// Coordinates, bases, widths.
    pub(super) sections: [Cow<'a, [u8]>; 3],
}

/// What an entry's keys say, if they are all there.
#[derive(Default)]
struct Fields<'a> {
    path: Option<&'a str>,
    shape: Option<Vec<usize>>,
    crc32: Option<u32>,
    axes: Option<Vec<usize>>,
    /// Run, rows and bits of a width.
    counts: [Option<usize>; 3],
    numbers: Option<NumberType>,
    stored_type: CoordinateType,
    stored: Option<[usize; 3]>,
    arithmetic: Option<Arithmetic>,
}

impl<'a> Fields<'a> {
    /// The keys of a weight, or of another tensor.
    fn read(reader: &mut Reader<'a>, is_weight: bool) -> Result<Self> {
        let mut fields = Self::default();
        let mut keys = reader.keys()?;
        while let Some(key) = reader.key(&mut keys)? {
            let place = reader.at();
            match key {
                0 => fields.path = Some(reader.text()?),
                1 => fields.shape = Some(reader.sizes()?),
                2 => fields.crc32 = Some(reader.at_most(u32::MAX as usize)? as u32),
                3 if is_weight => fields.axes = Some(reader.sizes()?),
                4..=6 if is_weight => fields.counts[key - 4] = Some(reader.size()?),
                7 if !is_weight => match NumberType::ALL.get(reader.size()?) {
                    Some(NumberType::F32) => return Err(reader.wrong(place, Flaw::LeftOut)),
                    Some(&numbers) => fields.numbers = Some(numbers),
                    None => return Err(reader.wrong(place, Flaw::Code)),
                },
                8 => match STORED_TYPES.get(reader.size()?) {
                    Some(CoordinateType::F32) => return Err(reader.wrong(place, Flaw::LeftOut)),
                    Some(&kind) => fields.stored_type = kind,
                    None => return Err(reader.wrong(place, Flaw::Code)),
                },
                9 => {
                    let mut stored = [0; 3];
                    match is_weight {
                        true => reader.exactly(&mut stored)?,
                        false => stored[0] = reader.size()?,
                    }
                    fields.stored = Some(stored);
                }
                10 if is_weight => fields.arithmetic = Some(step::arithmetic(reader)?),
                _ if is_weight => return Err(reader.wrong(place, Flaw::WeightKey)),
                _ => return Err(reader.wrong(place, Flaw::TensorKey)),
            }
        }
        Ok(fields)
    }
}

impl<'a> FileWeight<'a> {
    /// The entry; a grouping that does not fit is an error of its own, with the path.
    // Apart from the directory, as other entries too: their stack is taken once.
    #[inline(never)]
    pub(super) fn read(
        reader: &mut Reader<'a>,
        unfit: &mut Option<(&'a str, EntryError)>,
    ) -> Result<Self> {
        let start = reader.at();
        let fields = Fields::read(reader, true)?;
        let (Some(path), Some(shape), Some(axes)) = (fields.path, fields.shape, fields.axes) else {
            return Err(reader.wrong(start, Flaw::Weight));
        };
        let [Some(len), Some(rows), Some(width_bits)] = fields.counts else {
            return Err(reader.wrong(start, Flaw::Weight));
        };
        let Ok(width_bits) = u8::try_from(width_bits) else {
            return Err(reader.wrong(start, Flaw::Large));
        };
        let grouping = Grouping::new(axes, len);
        let grouping = grouping.and_then(|grouping| grouping.check(&shape).map(|()| grouping));
        let grouping = grouping.map_err(|error| {
            *unfit = Some((path, error.into()));
            reader.wrong(start, Flaw::Weight)
        })?;
        Ok(Self {
            path: Cow::Borrowed(path),
            shape,
            crc32: fields.crc32,
            grouping,
            rows,
            width_bits,
            coordinate_type: fields.stored_type,
            stored: fields.stored,
            arithmetic: fields.arithmetic,
            sections: Default::default(),
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.keys(|keys| {
            write_head(keys, &self.path, &self.shape, self.crc32);
            keys.at(3).sizes(self.grouping.axes());
            keys.at(4).uint(self.grouping.len() as u64);
            keys.at(5).uint(self.rows as u64);
            keys.at(6).uint(self.width_bits);
            keys.unless(
                0,
                8,
                code(&STORED_TYPES, &self.coordinate_type),
                Writer::uint,
            );
            keys.maybe(9, self.stored, |writer, stored| writer.sizes(&stored));
            let arithmetic = self.arithmetic.map(|kind| code(&step::ARITHMETICS, &kind));
            keys.maybe(10, arithmetic, Writer::uint);
        });
    }

    /// The same entry, without the directory's bytes; it has no sections yet.
    #[cfg(feature = "deflate")]
    pub(super) fn owned<'b>(self) -> FileWeight<'b> {
        FileWeight {
            path: Cow::Owned(self.path.into_owned()),
            shape: self.shape,
            crc32: self.crc32,
            grouping: self.grouping,
            rows: self.rows,
            width_bits: self.width_bits,
            coordinate_type: self.coordinate_type,
            stored: self.stored,
            arithmetic: self.arithmetic,
            sections: Default::default(),
        }
    }

    /// Bytes of the sections when plain; none if they do not fit the address space.
    pub(super) fn plain(&self) -> Option<[usize; 3]> {
        let groups = self.grouping.groups(&self.shape);
        let bytes = EncodedBytes::new(
            groups,
            self.grouping.len(),
            self.rows,
            self.width_bits,
            self.coordinate_type,
        )?;
        Some([bytes.coordinates, bytes.bases, bytes.widths])
    }

    /// Whether the sections are a weight's.
    pub(super) fn check(&self) -> core::result::Result<(), DecodeError> {
        let [_, bases, widths] = &self.sections;
        let counts = [self.rows, bases.len()];
        let (shape, grouping) = (&self.shape, &self.grouping);
        let coordinate = |row| self.coordinate(row);
        let rows = check(shape, grouping, self.width_bits, widths, counts, coordinate)?;
        match padding_is_zero(bases, rows * grouping.len()) {
            true => Ok(()),
            false => Err(DecodeError::BasePadding),
        }
    }

    /// The path of the parameter.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The shape of the dense weight.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How it is cut into groups.
    pub fn grouping(&self) -> &Grouping {
        &self.grouping
    }

    /// The arithmetic of its layer, if the file says it.
    pub fn arithmetic(&self) -> Option<Arithmetic> {
        self.arithmetic
    }

    /// How coordinates are stored.
    pub fn coordinate_type(&self) -> CoordinateType {
        self.coordinate_type
    }

    /// Rows of bits, each with a coordinate: the sum of the widths.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the three sections in the file.
    pub fn stored_bytes(&self) -> usize {
        let stored = self.stored.or_else(|| self.plain());
        stored.map_or(0, |stored| stored.iter().sum())
    }

    /// The width of a group.
    #[inline]
    pub fn width(&self, group: usize) -> usize {
        let bits = usize::from(self.width_bits);
        bits_at(&self.sections[2], group * bits, bits) as usize
    }

    /// The coordinate of a row.
    #[inline]
    pub fn coordinate(&self, row: usize) -> f32 {
        self.coordinate_type.at(&self.sections[0], row)
    }

    /// Signs `32·word` to `32·word + 31` of a row, in the grouping's order; 0 behind the last.
    #[inline]
    pub fn word(&self, row: usize, word: usize) -> u32 {
        let len = self.grouping.len();
        let first = 32 * word;
        let count = len.saturating_sub(first).min(32);
        bits_at(&self.sections[1], row * len + first, count)
    }

    /// The sign of a weight of a row: 1 is −1.
    #[inline]
    pub fn bit(&self, row: usize, place: usize) -> u32 {
        let bit = row * self.grouping.len() + place;
        let byte = self.sections[1].get(bit / 8).copied().unwrap_or(0);
        u32::from(byte >> (bit % 8)) & 1
    }

    /// The weight, in memory of its own.
    pub fn decode(&self) -> PackedWeight {
        let [coordinates, bases, widths] = &self.sections;
        let decoded = PackedWeight::decode(
            &self.shape,
            self.grouping.clone(),
            self.width_bits,
            widths,
            &self.coordinate_type.decode(coordinates),
            bases,
        );
        let typed = decoded.map(|weight| weight.with_coordinate_type(self.coordinate_type));
        match typed {
            Ok(Ok(weight)) => weight,
            _ => unreachable!("checked when the file was read"),
        }
    }
}

/// Any other tensor in a file.
#[derive(Clone, Debug)]
pub struct FileTensor<'a> {
    pub(super) path: Cow<'a, str>,
    pub(super) shape: Vec<usize>,
    pub(super) crc32: Option<u32>,
    pub(super) numbers: NumberType,
    /// What a tensor of f32 is stored in.
    pub(super) stored_type: CoordinateType,
    /// Bytes in the file, where it is deflated or quantized by Burn.
    pub(super) stored: Option<usize>,
    pub(super) bytes: Cow<'a, [u8]>,
}

impl<'a> FileTensor<'a> {
    #[inline(never)]
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let start = reader.at();
        let fields = Fields::read(reader, false)?;
        let (Some(path), Some(shape)) = (fields.path, fields.shape) else {
            return Err(reader.wrong(start, Flaw::Tensor));
        };
        Ok(Self {
            path: Cow::Borrowed(path),
            shape,
            crc32: fields.crc32,
            numbers: fields.numbers.unwrap_or(NumberType::F32),
            stored_type: fields.stored_type,
            stored: fields.stored.map(|[stored, ..]| stored),
            bytes: Cow::default(),
        })
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.keys(|keys| {
            write_head(keys, &self.path, &self.shape, self.crc32);
            keys.unless(0, 7, self.numbers as u8, Writer::uint);
            keys.unless(0, 8, code(&STORED_TYPES, &self.stored_type), Writer::uint);
            let stored = self.stored.map(|stored| stored as u64);
            keys.maybe(9, stored, Writer::uint);
        });
    }

    /// The same entry, without the directory's bytes; it has no section yet.
    #[cfg(feature = "deflate")]
    pub(super) fn owned<'b>(self) -> FileTensor<'b> {
        FileTensor {
            path: Cow::Owned(self.path.into_owned()),
            shape: self.shape,
            crc32: self.crc32,
            numbers: self.numbers,
            stored_type: self.stored_type,
            stored: self.stored,
            bytes: Cow::default(),
        }
    }

    /// Bytes of the section when plain.
    ///
    /// # Errors
    /// If a coding does not store such a tensor, or they do not fit the address space.
    pub(super) fn plain(&self, deflated: bool) -> core::result::Result<usize, EntryError> {
        let narrow = self.stored_type != CoordinateType::F32;
        if self.numbers == NumberType::Burns {
            return match deflated || narrow {
                true => Err(EntryError::Burns),
                false => Ok(self.stored.unwrap_or_default()),
            };
        }
        if narrow && (self.numbers != NumberType::F32 || !deflated) {
            return Err(EntryError::Stored {
                numbers: self.numbers,
                stored: self.stored_type,
            });
        }
        let size = match narrow {
            true => self.stored_type.bytes(),
            false => self.numbers.bytes(),
        };
        let mut sizes = self.shape.iter();
        let bytes = sizes.try_fold(size, |bytes: usize, &size| bytes.checked_mul(size));
        bytes.ok_or(SectionError::TooLarge.into())
    }

    /// The path of the parameter.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of the numbers.
    pub fn number_type(&self) -> NumberType {
        self.numbers
    }

    /// What f32 are kept in, in [`bytes`](Self::bytes).
    pub fn stored_type(&self) -> CoordinateType {
        self.stored_type
    }

    /// The numbers, little-endian; of f32, of the [stored type](Self::stored_type).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of the section in the file.
    pub fn stored_bytes(&self) -> usize {
        self.stored.unwrap_or(self.bytes.len())
    }

    /// How floats are kept that a kernel computes with in f32; none for other numbers.
    pub fn float_type(&self) -> Option<CoordinateType> {
        match self.numbers {
            NumberType::F32 | NumberType::Flex32 => Some(self.stored_type),
            NumberType::F16 => Some(CoordinateType::F16),
            NumberType::Bf16 => Some(CoordinateType::Bf16),
            _ => None,
        }
    }

    /// A number of a tensor of floats; 0 if there is none.
    #[cfg(feature = "chain")]
    #[inline]
    pub(crate) fn float(&self, index: usize) -> f32 {
        let kind = self.float_type().unwrap_or_default();
        kind.at(&self.bytes, index)
    }
}

/// The keys that both kinds of entries begin with.
fn write_head(keys: &mut KeyWriter<'_>, path: &str, shape: &[usize], crc32: Option<u32>) {
    keys.at(0).text(path);
    keys.at(1).sizes(shape);
    keys.maybe(2, crc32, Writer::uint);
}
