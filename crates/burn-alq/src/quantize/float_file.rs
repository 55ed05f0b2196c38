//! Float models in files, read a tensor at a time.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use std::path::Path;

use burn_core::tensor::{BoolStore, Bytes, DType, TensorData};
use burn_store::burn_pack::{Error, Reader, Tensor};
use burn_store::{Applier, KeyRemapper, ModuleAdapter, bridge};
use multibit::file::foreign_name;
use serde::Deserialize;

use crate::file::{FileError, Parts, container};

/// Bytes of a safetensors header at most, as the format's own reader has it.
const MOST_OF_A_HEADER: u64 = 100_000_000;

/// The types of safetensors that a tensor can have.
const DTYPES: [(&str, DType); 12] = [
    ("F64", DType::F64),
    ("F32", DType::F32),
    ("F16", DType::F16),
    ("BF16", DType::BF16),
    ("I64", DType::I64),
    ("I32", DType::I32),
    ("I16", DType::I16),
    ("I8", DType::I8),
    ("U64", DType::U64),
    ("U32", DType::U32),
    ("U8", DType::U8),
    ("BOOL", DType::Bool(BoolStore::Native)),
];

/// A float model in a safetensors or burnpack file, of which one tensor at a time is in memory.
///
/// Tensors are read when a conversion comes to them ([`Quantizer::convert_file`](super::Quantizer::convert_file)),
/// by reads at their places: a file that is changed meanwhile is an error, which a mapped one would not
/// survive. Which parameters are tied is what the module says, not the file.
///
/// ```no_run
/// use burn_alq::AsBurnLayers;
/// use burn_alq::quantize::FloatFile;
/// use burn_store::PyTorchToBurnAdapter;
///
/// let float = FloatFile::open("model.safetensors")?
///     .with_adapter(AsBurnLayers(PyTorchToBurnAdapter));
/// # Ok::<(), burn_alq::file::FileError>(())
/// ```
pub struct FloatFile {
    pub(super) parts: Arc<Parts>,
    tensors: Vec<Tensor>,
    adapter: Option<Box<dyn ModuleAdapter>>,
    skips_variants: bool,
    /// Whether parameters may lack tensors, and tensors parameters.
    pub(super) is_partial: bool,
}

impl fmt::Debug for FloatFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("FloatFile");
        fields.field("file", &self.parts.path());
        fields.field("tensors", &self.tensors.len());
        fields.finish_non_exhaustive()
    }
}

impl FloatFile {
    /// Reads what tensors a file has.
    ///
    /// # Errors
    /// If it cannot be read, is neither safetensors nor burnpack, damaged or cut, or has a tensor of a type
    /// that Burn has not.
    pub fn open(file: impl AsRef<Path>) -> Result<Self, FileError> {
        let parts = Arc::new(Parts::open(file.as_ref())?);
        let start = parts.start()?;
        let tensors = match start.get(8) {
            _ if start.starts_with(b"NRUB") => burnpack(&parts)?,
            Some(b'{') => safetensors(&parts)?,
            _ => {
                let found = foreign_name(&start, parts.len()).unwrap_or_default();
                let reason = format!("neither a safetensors nor a burnpack file: this is {found}");
                return Err(wrong(&parts, reason));
            }
        };
        Ok(Self {
            parts,
            tensors,
            adapter: None,
            skips_variants: false,
            is_partial: false,
        })
    }

    /// Brings tensors to the module's layout, as `PyTorchToBurnAdapter` in
    /// [`AsBurnLayers`](crate::AsBurnLayers) does it for those of PyTorch.
    pub fn with_adapter(mut self, adapter: impl ModuleAdapter + 'static) -> Self {
        self.adapter = Some(Box::new(adapter));
        self
    }

    /// Gives tensors the module's names.
    pub fn with_names(mut self, names: &KeyRemapper) -> Self {
        (self.tensors, _) = names.remap(self.tensors);
        self
    }

    /// Leaves the names of enum variants out of the module's paths, as files of other frameworks do.
    pub fn skip_enum_variants(mut self) -> Self {
        self.skips_variants = true;
        self
    }

    /// Lets parameters without a tensor keep the values that the module gives them, and leaves tensors
    /// without a parameter out; otherwise either is an error.
    pub fn partial(mut self) -> Self {
        self.is_partial = true;
        self
    }

    pub(super) fn applier(self) -> Applier {
        let Self {
            tensors,
            adapter,
            skips_variants,
            ..
        } = self;
        Applier::new(tensors, None, adapter, skips_variants)
    }
}

fn wrong(parts: &Parts, reason: impl ToString) -> FileError {
    FileError::Float {
        file: parts.name(),
        reason: reason.to_string(),
    }
}

/// What the header of safetensors says of a tensor.
#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

/// The tensors of a safetensors file: the length of a header of JSON, the header, the data.
fn safetensors(parts: &Arc<Parts>) -> Result<Vec<Tensor>, FileError> {
    let wrong = |reason: String| wrong(parts, reason);
    let length = parts.read(0, 8)?;
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
    if length > MOST_OF_A_HEADER || length > parts.len() - 8 {
        return Err(wrong(format!(
            "a safetensors header of {length} bytes in a file of {}",
            parts.len()
        )));
    }
    let header = parts.read(8, length as usize)?;
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&header)
        .map_err(|error| wrong(format!("the safetensors header: {error}")))?;
    let (data, mut end) = (8 + length, 8 + length);
    let mut tensors = Vec::new();
    for (name, described) in header {
        if name == "__metadata__" {
            continue;
        }
        let described: Described = serde_json::from_value(described)
            .map_err(|error| wrong(format!("{name} in the safetensors header: {error}")))?;
        let Described {
            dtype,
            shape,
            data_offsets,
        } = described;
        let known = DTYPES.iter().find(|(known, _)| *known == dtype);
        let Some(&(_, dtype)) = known else {
            return Err(wrong(format!(
                "{name} is of type {dtype}, which Burn has not"
            )));
        };
        let mut sizes = shape.iter();
        let count = sizes.try_fold(dtype.size(), |bytes, &size| bytes.checked_mul(size));
        let [start, stop] = data_offsets.map(|offset| data.saturating_add(offset));
        let count = count.filter(|&count| stop.checked_sub(start) == Some(count as u64));
        let Some(count) = count.filter(|_| stop <= parts.len()) else {
            return Err(wrong(format!(
                "{name} of shape {shape:?} has bytes {start} to {stop} of {}",
                parts.len()
            )));
        };
        end = end.max(stop);
        let (parts, shape) = (parts.clone(), burn_core::tensor::Shape::from(shape));
        let declared = shape.clone();
        tensors.push(bridge::deferred(name, dtype, shape, None, move || {
            let bytes = Bytes::from_bytes_vec(parts.read(start, count).map_err(failed)?);
            Ok(TensorData::from_bytes(bytes, declared.clone(), dtype))
        }));
    }
    match end == parts.len() {
        true => Ok(tensors),
        false => Err(wrong(format!(
            "{} bytes, but its tensors end at {end}",
            parts.len()
        ))),
    }
}

/// The tensors of a burnpack file.
fn burnpack(parts: &Arc<Parts>) -> Result<Vec<Tensor>, FileError> {
    let broken = |source| FileError::Container {
        file: parts.name(),
        source,
    };
    let head = parts.read(0, parts.len().min(container::HEADER as u64) as usize)?;
    if let Some((_, length)) = head.split_last_chunk() {
        let length = u64::from(u32::from_le_bytes(*length));
        let directory = (container::HEADER as u64 + length).min(parts.len());
        container::check(&parts.read(0, directory as usize)?).map_err(broken)?;
    }
    let reader = Reader::from_file_exact(parts.path()).map_err(broken)?;
    let tensors = reader.into_tensors().map_err(broken)?;
    let tensors = tensors.into_iter().map(|tensor| {
        let (name, dtype, shape) = (tensor.name.clone(), tensor.dtype, tensor.shape.clone());
        let (parts, declared) = (parts.clone(), shape.clone());
        bridge::deferred(name, dtype, shape, None, move || {
            // The container's own reads find a cut file by a panic.
            parts.check().map_err(failed)?;
            let data = TensorData::from_bytes(tensor.to_bytes()?, declared.clone(), dtype);
            // They read when the bytes are first looked at: here, where it can fail.
            let _ = data.as_bytes();
            parts.check().map_err(failed)?;
            Ok(data)
        })
    });
    Ok(tensors.collect())
}

/// Why a tensor was not read, in the words of its container.
fn failed(error: FileError) -> Error {
    Error::IoError(error.to_string())
}
