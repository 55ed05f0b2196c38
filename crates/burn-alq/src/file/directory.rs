//! The directory: what a file holds, as CBOR (RFC 8949), in the order of the data.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use burn_core::tensor::{BoolStore, DType};
use minicbor::decode::Error;
use minicbor::{Decode, Encode};
use multibit::CoordinateType;

use super::sections::Lengths;

/// Codes of the types of a tensor's numbers.
pub(super) const DTYPES: [DType; 16] = [
    DType::F32,
    DType::F64,
    DType::Flex32,
    DType::F16,
    DType::BF16,
    DType::I64,
    DType::I32,
    DType::I16,
    DType::I8,
    DType::U64,
    DType::U32,
    DType::U16,
    DType::U8,
    DType::Bool(BoolStore::Native),
    DType::Bool(BoolStore::U8),
    DType::Bool(BoolStore::U32),
];

/// Code of a type of Burn's own quantization: the tensor is stored in a container of Burn's, which
/// says more.
pub(super) const BURN: u8 = DTYPES.len() as u8;

/// Codes of the types that coordinates, or numbers of f32, are stored in.
pub(super) const STORED_TYPES: [CoordinateType; 3] = [
    CoordinateType::F32,
    CoordinateType::F16,
    CoordinateType::Bf16,
];

/// The place of a value among the codes.
pub(super) fn code<T: PartialEq>(codes: &[T], value: T) -> Option<u8> {
    let place = codes.iter().position(|known| *known == value)?;
    u8::try_from(place).ok()
}

/// The value of a code.
///
/// # Errors
/// If there is none, says so.
pub(super) fn value<T: Copy>(codes: &[T], code: impl Into<usize>) -> Result<T, String> {
    let code = code.into();
    let value = codes.get(code).copied();
    value.ok_or_else(|| format!("code {code} stands for nothing"))
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct Directory {
    #[n(0)]
    pub(super) weights: Vec<WeightEntry>,
    #[n(1)]
    pub(super) tensors: Vec<TensorEntry>,
    #[n(2)]
    #[cbor(skip_if = "BTreeMap::is_empty")]
    pub(super) config: BTreeMap<String, String>,
    #[n(3)]
    #[cbor(skip_if = "BTreeMap::is_empty")]
    pub(super) tied: BTreeMap<String, String>,
}

/// A key that both kinds of entries have means the same in both.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct WeightEntry {
    #[n(0)]
    pub(super) path: String,
    #[n(1)]
    pub(super) shape: Vec<usize>,
    /// The checksum of the sections, in a plain file.
    #[n(2)]
    pub(super) crc32: Option<u32>,
    #[n(3)]
    pub(super) axes: Vec<usize>,
    #[n(4)]
    pub(super) len: usize,
    #[n(5)]
    pub(super) coordinates: usize,
    #[n(6)]
    pub(super) width_bits: u8,
    #[n(8)]
    #[cbor(skip_if = "is_default")]
    pub(super) stored_type: u8,
    /// Bytes in the file, where a section is deflated.
    #[n(9)]
    pub(super) stored: Option<Lengths>,
    /// Place in [`ARITHMETICS`](crate::weight::ARITHMETICS), where a rule says it.
    #[n(10)]
    pub(super) arithmetic: Option<u8>,
}

#[derive(Debug, Encode, Decode)]
#[cbor(map)]
pub(super) struct TensorEntry {
    #[n(0)]
    pub(super) path: String,
    #[n(1)]
    pub(super) shape: Vec<usize>,
    /// The checksum of the bytes, in a plain file.
    #[n(2)]
    pub(super) crc32: Option<u32>,
    /// Place in [`DTYPES`], or [`BURN`].
    #[n(7)]
    #[cbor(skip_if = "is_default")]
    pub(super) dtype: u8,
    /// What a tensor of f32 is stored in.
    #[n(8)]
    #[cbor(skip_if = "is_default")]
    pub(super) stored_type: u8,
    /// Bytes in the file, where the tensor is deflated or quantized by Burn.
    #[n(9)]
    pub(super) stored: Option<usize>,
}

impl Directory {
    pub(super) fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("memory takes every byte")
    }

    /// Takes bytes that are wrong in any way, and memory in proportion to them.
    ///
    /// # Errors
    /// If the bytes are not exactly what [`encode`](Self::encode) makes of a directory.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let directory: Self = minicbor::decode(bytes)?;
        // Fields that are unknown, doubled or out of order, indefinite lengths, bytes behind the end:
        // all of them are skipped by the decoder, and none is written again.
        let again = directory.encode();
        if again != bytes {
            let same = again.iter().zip(bytes).take_while(|(a, b)| a == b);
            let error =
                Error::message("an unknown or misplaced field, or another form of its value");
            return Err(error.at(same.count()));
        }
        Ok(directory)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
