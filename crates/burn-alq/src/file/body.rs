//! Packed models as files hold them: what is Burn's in it.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_core::tensor::{BoolStore, Bytes, DType, Shape, TensorData};
use burn_pack::{Error, Tensor, Writer};
use multibit::CoordinateType;
use multibit::file::{
    About, Coding, Contents, FileTensor, List, NumberType, Numbers, PackedFile, ReadError, Step,
    TENSOR,
};

use super::{FileError, PackedModel, Source, container};

/// Types of numbers that both sides know.
const DTYPES: [(DType, NumberType); 16] = [
    (DType::F32, NumberType::F32),
    (DType::F64, NumberType::F64),
    (DType::Flex32, NumberType::Flex32),
    (DType::F16, NumberType::F16),
    (DType::BF16, NumberType::Bf16),
    (DType::I64, NumberType::I64),
    (DType::I32, NumberType::I32),
    (DType::I16, NumberType::I16),
    (DType::I8, NumberType::I8),
    (DType::U64, NumberType::U64),
    (DType::U32, NumberType::U32),
    (DType::U16, NumberType::U16),
    (DType::U8, NumberType::U8),
    (DType::Bool(BoolStore::Native), NumberType::Bool),
    (DType::Bool(BoolStore::U8), NumberType::BoolU8),
    (DType::Bool(BoolStore::U32), NumberType::BoolU32),
];

/// Why a tensor of Burn's own quantization is not read or written where its bytes are in another order.
const BURNS_ENDIAN: &str =
    "is quantized by Burn: its bytes are not known on a big-endian machine; dequantize it";

/// The container of a model.
///
/// # Errors
/// If a tensor is quantized by Burn, whose bytes only Burn understands, and is to be deflated; if paths are
/// not unique, or the chain names a tensor that the model does not have.
pub(super) fn writer(model: &PackedModel, coding: Coding) -> Result<Writer, Error> {
    let body = body(model, coding)?;
    let shape = [body.len()].into();
    Ok(container_of(DType::U8, shape, Bytes::from_bytes_vec(body)))
}

fn container_of(dtype: DType, shape: Shape, bytes: Bytes) -> Writer {
    let tensor = Tensor::new(TENSOR.to_string(), dtype, shape, None, bytes);
    Writer::new(alloc::vec![tensor])
}

pub(super) fn body(model: &PackedModel, coding: Coding) -> Result<Vec<u8>, Error> {
    let shapes: Vec<Vec<usize>> = model
        .tensors
        .iter()
        .map(|(_, tensor)| tensor.shape().to_vec())
        .collect();
    let tensors = model.tensors.iter().zip(&shapes);
    let tensors = tensors.map(|((path, tensor), shape)| {
        let (number_type, bytes) = numbers(path, tensor)?;
        Ok(Numbers {
            path,
            shape,
            number_type,
            bytes,
        })
    });
    let contents = Contents {
        weights: model
            .weights
            .iter()
            .map(|(path, weight)| {
                let arithmetic = model.arithmetic.get(path).copied();
                (path.as_str(), &**weight, arithmetic)
            })
            .collect(),
        tensors: tensors.collect::<Result<_, Error>>()?,
        config: texts(&model.config),
        tied: texts(&model.tied),
        about: about(model)?,
    };
    contents.body(coding).map_err(invalid)
}

/// Why a model makes no file.
pub(super) fn invalid(error: impl ToString) -> Error {
    Error::ValidationError(error.to_string())
}

/// Texts as files hold them.
pub(crate) fn texts(pairs: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// How a model is used, as files hold it.
///
/// # Errors
/// If the chain names a tensor that the model does not have.
pub(super) fn about(model: &PackedModel) -> Result<About<'_>, Error> {
    let chain: Result<Vec<_>, _> = model
        .chain
        .iter()
        .map(|step| step.rename(|list, path| model.index(list, path)))
        .collect();
    Ok(About {
        name: model.name.as_str().into(),
        input: model.input.clone(),
        labels: model
            .labels
            .iter()
            .map(|label| label.as_str().into())
            .collect(),
        chain: chain
            .map_err(|path| invalid(format!("the chain names {path}, which the model has not")))?,
    })
}

/// A tensor's numbers as files hold them.
pub(super) fn numbers<'a>(
    path: &str,
    tensor: &'a TensorData,
) -> Result<(NumberType, Cow<'a, [u8]>), Error> {
    let known = DTYPES.iter().find(|(dtype, _)| *dtype == tensor.dtype());
    let big = cfg!(target_endian = "big");
    Ok(match known {
        Some(&(_, number_type)) if big => {
            let bytes = little_endian(tensor.dtype(), tensor.as_bytes().to_vec());
            (number_type, bytes.into())
        }
        Some(&(_, number_type)) => (number_type, tensor.as_bytes().into()),
        None if big => return Err(invalid(format!("{path} {BURNS_ENDIAN}"))),
        None => {
            let (bytes, shape, dtype) = tensor.clone().into_parts();
            let bytes = container_of(dtype, shape, bytes).into_bytes()?;
            (NumberType::Burns, bytes.to_vec().into())
        }
    })
}

/// A tensor's numbers from this machine's order of bytes to the file's, or back.
fn little_endian(dtype: DType, mut bytes: Vec<u8>) -> Vec<u8> {
    if cfg!(target_endian = "big") {
        let numbers = bytes.chunks_exact_mut(dtype.size().max(1));
        numbers.for_each(<[u8]>::reverse);
    }
    bytes
}

impl Source<'_> {
    /// The model in a file.
    pub(super) fn model(&self, bytes: &[u8]) -> Result<PackedModel, FileError> {
        let read = PackedFile::read(bytes);
        let file = read.map_err(|error| self.unread(error, bytes, bytes.len() as u64))?;
        let weights = file.weights().iter();
        let arithmetic = weights
            .clone()
            .filter_map(|weight| Some((weight.path().to_string(), weight.arithmetic()?)));
        let arithmetic = arithmetic.collect();
        let weights = weights.map(|weight| (weight.path().to_string(), Arc::new(weight.decode())));
        let tensors = file.tensors().iter();
        let tensors = tensors.map(|tensor| Ok((tensor.path().to_string(), self.tensor(tensor)?)));
        let config = file.config();
        Ok(PackedModel {
            weights: weights.collect(),
            tensors: tensors.collect::<Result<_, FileError>>()?,
            arithmetic,
            tied: file.tied().map(text).collect(),
            ..described(file.about(), config, |step| file.by_path(step))
        })
    }

    pub(super) fn tensor(&self, tensor: &FileTensor<'_>) -> Result<TensorData, FileError> {
        let shape = tensor.shape();
        let known = DTYPES
            .iter()
            .find(|(_, number_type)| *number_type == tensor.number_type());
        let Some(&(dtype, _)) = known else {
            return self.quantized(tensor);
        };
        let kind = tensor.stored_type();
        if kind != CoordinateType::F32 {
            return Ok(TensorData::new(kind.decode(tensor.bytes()), shape));
        }
        let bytes = Bytes::from_bytes_vec(little_endian(dtype, tensor.bytes().to_vec()));
        Ok(TensorData::from_bytes(bytes, shape, dtype))
    }

    /// A tensor of Burn's own quantization, from a container of one tensor.
    fn quantized(&self, entry: &FileTensor<'_>) -> Result<TensorData, FileError> {
        let path = entry.path();
        if cfg!(target_endian = "big") {
            return Err(self.quantization(path, BURNS_ENDIAN));
        }
        let tensors = container::open(Bytes::from_bytes_vec(entry.bytes().to_vec()))
            .and_then(|reader| reader.into_tensors());
        let mut tensors = tensors.map_err(|error| self.quantization(path, error))?;
        let tensor = tensors.pop().filter(|tensor| {
            let quantized = matches!(tensor.dtype, DType::QFloat(_));
            tensors.is_empty() && quantized && tensor.shape[..] == entry.shape()[..]
        });
        let tensor = tensor.ok_or_else(|| {
            self.quantization(path, "another type or shape than in the directory")
        })?;
        let parts = tensor.into_parts();
        let (_, dtype, shape, _, bytes) = parts.map_err(|error| self.quantization(path, error))?;
        Ok(TensorData::from_bytes(bytes, shape, dtype))
    }

    /// Why a file of `len` bytes was not read, which starts with some.
    pub(super) fn unread(&self, error: ReadError, start: &[u8], len: u64) -> FileError {
        match error.foreign(start, len) {
            Some(found) => FileError::NotPacked {
                file: self.file.to_string(),
                found,
            },
            None => FileError::Read {
                file: self.file.to_string(),
                source: error,
            },
        }
    }
}

pub(super) fn text((key, value): (&str, &str)) -> (String, String) {
    (key.to_string(), value.to_string())
}

/// A model without tensors yet, of what a file says beside them.
pub(super) fn described<'a>(
    about: &About<'_>,
    config: impl Iterator<Item = (&'a str, &'a str)>,
    by_path: impl Fn(&Step<usize>) -> Step<&'a str>,
) -> PackedModel {
    PackedModel {
        weights: Vec::new(),
        tensors: Vec::new(),
        tied: BTreeMap::new(),
        arithmetic: BTreeMap::new(),
        config: config.map(text).collect(),
        name: about.name.to_string(),
        input: about.input.clone(),
        labels: about.labels.iter().map(|label| label.to_string()).collect(),
        chain: about
            .chain
            .iter()
            .map(|step| owned(&by_path(step)))
            .collect(),
    }
}

/// A step with paths of its own.
fn owned(step: &Step<&str>) -> Step<String> {
    let path = |_, path: &&str| Ok::<_, core::convert::Infallible>(path.to_string());
    let Ok(step) = step.rename(path);
    step
}

impl PackedModel {
    /// The index of a tensor in a list of the file, by one of its paths.
    ///
    /// # Errors
    /// The path, if the list does not have it.
    pub(super) fn index(&self, list: List, path: &str) -> Result<usize, String> {
        let first = self.tied.get(path).map_or(path, String::as_str);
        let place = match list {
            List::Weights => self.weights.iter().position(|(path, _)| path == first),
            List::Tensors => self.tensors.iter().position(|(path, _)| path == first),
        };
        place.ok_or_else(|| path.to_string())
    }
}
