//! Version 3: one tensor with everything in it, back to back, deflated where that is shorter. The
//! container of the other versions aligns each tensor to 256 bytes and names it once more.

use std::collections::{BTreeMap, BTreeSet};
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

use burn_core::tensor::{Bytes, DType, TensorData};
use burn_pack::{Tensor, Writer};
use multibit::CoordinateType;
use serde::{Deserialize, Serialize};

use super::sections::{self, Budget, Deflater};
use super::{FORMAT_VERSION, FileError, Source, WeightEntry, is_default};
use crate::pack::PackedModel;

/// The tensor's name, by which a file of this version is known.
pub(super) const BODY: &str = "burn-alq";

pub(super) const VERSION: u32 = 3;

/// CRC-32 of what follows, bytes of the directory as stored, its bytes as JSON.
const HEAD: usize = 12;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    version: u32,
    weights: Vec<WeightEntry>,
    tensors: Vec<TensorEntry>,
    #[serde(default, skip_serializing_if = "is_default")]
    config: BTreeMap<String, String>,
}

/// The version alone.
#[derive(Debug, Deserialize)]
struct Version {
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorEntry {
    path: String,
    shape: Vec<usize>,
    #[serde(default = "f32", skip_serializing_if = "is_f32")]
    dtype: DType,
    /// What a tensor of f32 is stored in.
    #[serde(default, skip_serializing_if = "is_default")]
    stored_type: CoordinateType,
    /// Bytes in the file, where the tensor is deflated.
    #[serde(default, skip_serializing_if = "is_default")]
    stored: Option<usize>,
}

fn f32() -> DType {
    DType::F32
}

fn is_f32(dtype: &DType) -> bool {
    *dtype == DType::F32
}

/// The container of a model.
///
/// # Errors
/// If a tensor is quantized by Burn, whose bytes only Burn understands.
pub(super) fn writer(model: &PackedModel) -> Result<Writer, burn_pack::Error> {
    let mut deflater = Deflater::new();
    let mut body = body(model, &mut deflater)?;
    if !deflater.fits(body.len()) {
        body = self::body(model, &mut Deflater::bounded())?;
    }
    let shape = [body.len()];
    let body = Bytes::from_bytes_vec(body);
    let tensor = Tensor::new(BODY.to_string(), DType::U8, shape, None, body);
    Ok(Writer::new(std::vec![tensor]))
}

fn body(model: &PackedModel, deflater: &mut Deflater) -> Result<Vec<u8>, burn_pack::Error> {
    let mut directory = Directory {
        version: VERSION,
        weights: Vec::new(),
        tensors: Vec::new(),
        config: model.config.clone(),
    };
    let mut data = Vec::new();
    for (path, weight) in &model.weights {
        let sections = sections::plain(weight);
        let plain = sections.each_ref().map(Vec::len);
        let sections = sections.map(|section| deflater.deflate(section));
        let stored = sections.each_ref().map(Vec::len);
        let stored = (stored != plain).then_some(stored);
        directory
            .weights
            .push(WeightEntry::new(path, weight, stored, None));
        data.extend(sections.concat());
    }
    for (path, tensor) in &model.tensors {
        if matches!(tensor.dtype(), DType::QFloat(_)) {
            return Err(burn_pack::Error::ValidationError(std::format!(
                "{path} is quantized by Burn; only Coding::Plain stores it"
            )));
        }
        let (stored_type, plain) = narrowed(tensor);
        let length = plain.len();
        let bytes = deflater.deflate(plain);
        directory.tensors.push(TensorEntry {
            path: path.clone(),
            shape: tensor.shape().to_vec(),
            dtype: tensor.dtype(),
            stored_type,
            stored: (bytes.len() < length).then_some(bytes.len()),
        });
        data.extend(bytes);
    }
    let plain = serde_json::to_vec(&directory).expect("the directory is plain data");
    let lengths = |length: usize| u32::try_from(length).map(u32::to_le_bytes);
    let json = lengths(plain.len());
    let directory = deflater.deflate(plain);
    let (Ok(json), Ok(stored)) = (json, lengths(directory.len())) else {
        let error = "the directory has more than 4 GiB".to_string();
        return Err(burn_pack::Error::ValidationError(error));
    };
    let rest = [&stored[..], &json, &directory, &data].concat();
    Ok([&crc32fast::hash(&rest).to_le_bytes()[..], &rest].concat())
}

/// A tensor's bytes, in two bytes a number where those hold all of an f32 tensor's.
fn narrowed(tensor: &TensorData) -> (CoordinateType, Vec<u8>) {
    if tensor.dtype() == DType::F32 {
        let values: Vec<f32> = tensor.iter::<f32>().collect();
        let narrow = [CoordinateType::F16, CoordinateType::Bf16]
            .into_iter()
            .find(|kind| values.iter().all(|&value| kind.holds(value)));
        if let Some(kind) = narrow {
            return (kind, kind.encode(&values));
        }
    }
    let (bytes, ..) = tensor.clone().into_parts();
    (CoordinateType::F32, bytes.to_vec())
}

impl Source<'_> {
    /// The model in a body.
    pub(super) fn read_compact(
        &self,
        body: &[u8],
        mut budget: Budget,
    ) -> Result<PackedModel, FileError> {
        let short = || self.directory("the file ends in it");
        let (head, rest) = body.split_first_chunk::<HEAD>().ok_or_else(short)?;
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if crc32fast::hash(&body[4..]) != number(0) {
            return Err(FileError::Checksum {
                file: self.file.to_path_buf(),
                path: BODY.to_string(),
            });
        }
        let [stored, plain] = [number(4), number(8)].map(|length| length as usize);
        let (directory, data) = rest.split_at_checked(stored).ok_or_else(short)?;
        let directory = sections::inflated(directory, plain, &mut budget);
        let directory = directory.map_err(|e| self.directory(e))?;
        let Version { version } =
            serde_json::from_slice(&directory).map_err(|e| self.directory(e))?;
        if version > FORMAT_VERSION {
            return Err(self.version(version));
        }
        if version != VERSION {
            return Err(self.laid_out_otherwise(version));
        }
        let directory: Directory =
            serde_json::from_slice(&directory).map_err(|e| self.directory(e))?;
        self.read_data(directory, data, &mut budget)
    }

    fn read_data(
        &self,
        directory: Directory,
        data: &[u8],
        budget: &mut Budget,
    ) -> Result<PackedModel, FileError> {
        let mut rest = data;
        let mut seen = BTreeSet::new();
        let mut take = |path: &String, length: Option<usize>| {
            if !seen.insert(path.clone()) {
                return Err(self.tensor(path, "twice in the directory"));
            }
            let parts = length.and_then(|length| rest.split_at_checked(length));
            let (bytes, after) = parts.ok_or_else(|| self.tensor(path, "the file ends in it"))?;
            rest = after;
            Ok(bytes)
        };
        let mut weights = Vec::new();
        for entry in directory.weights {
            let plain = self.lengths(&entry)?;
            let lengths = entry.stored.unwrap_or(plain);
            let length = lengths
                .iter()
                .try_fold(0, |sum: usize, &n| sum.checked_add(n));
            let bytes = take(&entry.path, length)?;
            let weight = self.read_weight(&entry, bytes, budget)?;
            weights.push((entry.path, Arc::new(weight)));
        }
        let mut tensors = Vec::new();
        for entry in directory.tensors {
            let plain = plain_length(&entry);
            let bytes = take(&entry.path, entry.stored.or(plain))?;
            let tensor = read_tensor(&entry, bytes, plain, budget);
            let tensor = tensor.map_err(|reason| self.tensor(&entry.path, reason))?;
            tensors.push((entry.path, tensor));
        }
        if !rest.is_empty() {
            let reason = std::format!("{} bytes are of no tensor", rest.len());
            return Err(self.directory(reason));
        }
        Ok(PackedModel {
            weights,
            tensors,
            config: directory.config,
        })
    }
}

/// Bytes of a tensor before it is deflated; none if there cannot be so many.
fn plain_length(entry: &TensorEntry) -> Option<usize> {
    let size = match entry.stored_type {
        CoordinateType::F32 => entry.dtype.size(),
        narrow => narrow.bytes(),
    };
    let mut sizes = entry.shape.iter();
    sizes.try_fold(size, |product: usize, &n| product.checked_mul(n))
}

fn read_tensor(
    entry: &TensorEntry,
    bytes: &[u8],
    plain: Option<usize>,
    budget: &mut Budget,
) -> Result<TensorData, String> {
    let plain = plain.ok_or("does not fit the address space")?;
    let narrow = entry.stored_type != CoordinateType::F32;
    if matches!(entry.dtype, DType::QFloat(_)) || (narrow && entry.dtype != DType::F32) {
        return Err(std::format!(
            "no tensor of {:?} is stored in {}",
            entry.dtype,
            entry.stored_type
        ));
    }
    let bytes = sections::inflated(bytes, plain, budget)?;
    let shape = entry.shape.clone();
    Ok(match narrow {
        true => TensorData::new(entry.stored_type.decode(&bytes), shape),
        false => {
            let bytes = Bytes::from_bytes_vec(bytes.into_owned());
            TensorData::from_bytes(bytes, shape, entry.dtype)
        }
    })
}
