//! The checkpoint of a training, in a loop of ours and in Burn's Learner: the record of its model, and
//! tensors of bytes beside the model's own, because records hold tensors only.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;

use burn_core::module::{Module, Reparameterization};
use burn_core::store::{ModuleRecord, RecordError};
use burn_core::tensor::{Bytes, DType, Device};
use burn_pack::{Reader, Tensor, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::file::{PackModelError, PackedModel, container};
use crate::optim::AlqOptimizer;
use crate::weight::{MultiBit, load_record};

/// Names that no parameter has: fields of Rust have no colon. Records find tensors by name; the ids
/// are fixed because a record draws those that are missing, and equal states shall make equal bytes.
///
/// The position is a CRC-32 of everything else, then JSON: the fingerprint of the training, and where
/// its loop is.
const POSITION: (&str, u64) = (container::POSITION, 0);
/// The state of the multi-bit weights in the optimizer.
const MOMENTS: (&str, u64) = ("alq:moments", 1);
/// Burn's optimizer of the other parameters, where nothing else keeps it.
const REST: (&str, u64) = ("alq:rest", 2);

/// A part of the path of a multi-bit weight's state.
const MULTI_BIT: &str = <MultiBit as Reparameterization>::NAME;

/// Why a checkpoint cannot be written, or continued from. A checkpoint that is refused is not changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// One of the errors below, in a file or a folder.
    #[error("{}: {source}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: Box<CheckpointError>,
    },
    /// The system cannot read it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The container cannot be read or written.
    #[error(transparent)]
    Container(#[from] burn_pack::Error),
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It has neither multi-bit weights nor a position in a schedule.
    #[error(
        "this is not a checkpoint of a training, as it has neither multi-bit weights nor a position \
         in a schedule; load a record of a float model into that model and quantize it"
    )]
    Float,
    /// It is of a multi-bit model, but not of its training.
    #[error(
        "this is not a checkpoint of a training: it holds a multi-bit model, but no position in a \
         schedule; load it into the model before the training begins"
    )]
    NoPosition,
    /// Its bytes are not those that were written.
    #[error("the checkpoint is damaged: {reason}")]
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
    /// It is of another training.
    #[error(
        "the checkpoint belongs to another run: it was made with {found}, this run has {expected}"
    )]
    Run {
        /// What it was made with.
        found: String,
        /// What this training has.
        expected: String,
    },
    /// It is of another model, or of broken weights.
    #[error("the checkpoint is of another model: {source}")]
    Model {
        /// What does not fit.
        source: RecordError,
    },
}

pub(crate) fn in_file<E: Into<CheckpointError>>(file: &Path) -> impl FnOnce(E) -> CheckpointError {
    move |source| CheckpointError::File {
        file: file.to_path_buf(),
        source: Box::new(source.into()),
    }
}

pub(crate) fn other_model(source: impl Into<RecordError>) -> CheckpointError {
    let source = source.into();
    CheckpointError::Model { source }
}

/// The container of a checkpoint. `rest` is the optimizer of the parameters that are not quantized,
/// unless something else keeps it; `at` is where the loop is.
pub(crate) fn encode<M: Module>(
    model: &M,
    moments: Bytes,
    rest: Option<Bytes>,
    fingerprint: &str,
    at: &impl Serialize,
) -> Result<Writer, RecordError> {
    // Running statistics keep their last update aside, where records do not see it; validation
    // mode takes it in.
    let _ = model.valid();
    let mut tensors = tensors(model)?;
    tensors.push(bytes_tensor(MOMENTS, moments));
    tensors.extend(rest.map(|rest| bytes_tensor(REST, rest)));
    let text = serde_json::to_vec(&(fingerprint, at)).expect("the position is plain data");
    let checksum = checksum(&tensors, &text)?.to_le_bytes();
    let position = [&checksum[..], &text].concat();
    tensors.push(bytes_tensor(POSITION, Bytes::from_bytes_vec(position)));
    Ok(Writer::new(tensors))
}

/// A checkpoint with the right checksum. What is in it may still be of another training.
pub(crate) struct Checkpoint<P> {
    /// The model's own.
    tensors: Vec<Tensor>,
    moments: Bytes,
    rest: Option<Bytes>,
    fingerprint: String,
    at: P,
}

impl<P: DeserializeOwned> Checkpoint<P> {
    /// Reads a container, with an optimizer of the other parameters in it or without. Takes no more
    /// memory than the container.
    pub fn open(bytes: Bytes, has_rest: bool) -> Result<Self, CheckpointError> {
        let mut tensors = container::open(bytes)?.into_tensors()?;
        let position = take(&mut tensors, POSITION)?;
        let damaged = |reason: String| CheckpointError::Damaged { reason };
        let (recorded, text) = position
            .split_first_chunk()
            .ok_or_else(|| damaged("its position is cut short".to_string()))?;
        if u32::from_le_bytes(*recorded) != checksum(&tensors, text)? {
            return Err(damaged("wrong checksum".to_string()));
        }
        let (fingerprint, at) =
            serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
        let moments = take(&mut tensors, MOMENTS)?;
        let rest = if has_rest {
            Some(take(&mut tensors, REST)?)
        } else {
            None
        };
        Ok(Self {
            tensors,
            moments,
            rest,
            fingerprint,
            at,
        })
    }

    /// Where its loop is.
    pub fn at(&self) -> &P {
        &self.at
    }

    /// Whether it is of the training that has this fingerprint.
    pub fn check_run(&self, fingerprint: &str) -> Result<(), CheckpointError> {
        if self.fingerprint == fingerprint {
            return Ok(());
        }
        Err(CheckpointError::Run {
            found: self.fingerprint.clone(),
            expected: fingerprint.to_string(),
        })
    }

    /// Whether its tensors are those of the model, by name and shape.
    pub fn check_model<M: Module>(&self, model: &M) -> Result<(), CheckpointError> {
        let shapes = |tensors: &[Tensor]| -> BTreeMap<String, Vec<usize>> {
            let shape = |tensor: &Tensor| (tensor.name.clone(), tensor.shape.to_vec());
            tensors.iter().map(shape).collect()
        };
        let (found, own) = (shapes(&self.tensors), shapes(&tensors(model)?));
        let mut faults = Vec::new();
        for (name, shape) in &own {
            match found.get(name) {
                None => faults.push(format!("{name} is missing")),
                Some(found) if found != shape => {
                    faults.push(format!("{name} has the shape {found:?}, not {shape:?}"));
                }
                Some(_) => {}
            }
        }
        let unknown = found.keys().filter(|name| !own.contains_key(*name));
        faults.extend(unknown.map(|name| format!("{name} is not in the model")));
        if faults.is_empty() {
            return Ok(());
        }
        Err(other_model(RecordError::Validation(faults.join("; "))))
    }

    /// The record of the model, the optimizer with the recorded state, and where the loop is. All of it
    /// fits the model, of which nothing has changed: what loads the record writes running statistics
    /// into all clones of a module.
    pub fn restore<M: Module>(
        self,
        model: &M,
        mut optimizer: AlqOptimizer,
        device: &Device,
    ) -> Result<(ModuleRecord, AlqOptimizer, P), CheckpointError> {
        let restored = || -> Result<_, RecordError> {
            let record = ModuleRecord::from_bytes(Writer::new(self.tensors).into_bytes()?)?;
            let loaded = check_record(model, &record)?;
            match self.rest {
                Some(rest) => optimizer = optimizer.from_bytes([self.moments, rest], device)?,
                None => optimizer.weights_from_bytes(self.moments, device)?,
            }
            // The record brings the ids that the moments are kept by.
            optimizer.check(&loaded)?;
            Ok((record, optimizer, self.at))
        };
        restored().map_err(other_model)
    }
}

/// The module with a record that fits it, and whole multi-bit weights, in validation mode; no clone of the
/// module changes.
fn check_record<M: Module>(module: &M, record: &ModuleRecord) -> Result<M, RecordError> {
    // A training module shares its running statistics with its clones, and loading writes into them.
    let loaded = load_record(module.valid(), record.clone())?;
    match PackedModel::pack(&loaded) {
        Ok(_) | Err(PackModelError::NoWeights) => Ok(loaded),
        Err(error) => Err(RecordError::Validation(error.to_string())),
    }
}

/// The tensors of a model's record.
fn tensors<M: Module>(model: &M) -> Result<Vec<Tensor>, RecordError> {
    let bytes = model.clone().into_record().into_bytes()?;
    Ok(Reader::from_bytes(bytes)?.into_tensors()?)
}

/// Takes the bytes of a tensor out. They are copied, so that they are aligned and keep nothing else.
fn take(tensors: &mut Vec<Tensor>, (name, _): (&str, u64)) -> Result<Bytes, CheckpointError> {
    let Some(place) = tensors.iter().position(|tensor| tensor.name == name) else {
        let of_state = |tensor: &Tensor| tensor.name.split('.').any(|part| part == MULTI_BIT);
        return Err(if tensors.iter().any(of_state) {
            CheckpointError::NoPosition
        } else {
            CheckpointError::Float
        });
    };
    let bytes = tensors.remove(place).into_bytes()?;
    Ok(Bytes::from_bytes_vec(bytes.to_vec()))
}

fn bytes_tensor((name, id): (&str, u64), bytes: Bytes) -> Tensor {
    let shape = [bytes.len()];
    Tensor::new(name.to_string(), DType::U8, shape, Some(id), bytes.shared())
}

/// CRC-32 of tensors, in the order of their names, and of the position's text.
fn checksum(tensors: &[Tensor], text: &[u8]) -> Result<u32, RecordError> {
    let mut tensors: Vec<&Tensor> = tensors.iter().collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hasher = crc32fast::Hasher::new();
    for tensor in tensors {
        let (dtype, shape, id) = (tensor.dtype, &tensor.shape[..], tensor.param_id);
        hasher.update(format!("{} {dtype:?} {shape:?} {id:?}", tensor.name).as_bytes());
        hasher.update(&tensor.to_bytes()?);
    }
    hasher.update(text);
    Ok(hasher.finalize())
}
