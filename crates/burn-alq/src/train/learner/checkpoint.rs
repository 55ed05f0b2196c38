//! What the record of an [`Alq`] holds beside the model: position and moments, as two tensors of
//! bytes, because records hold tensors only.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::sync::{Arc, Mutex, PoisonError};
use std::vec::Vec;

use burn_core::module::Module;
use burn_core::store::{ModuleRecord, RecordError};
use burn_core::tensor::{Bytes, DType};
use burn_optim::OptimizerRecord;
use burn_optim::lr_scheduler::LrSchedulerRecord;
use burn_pack::{Reader, Writer};
use serde::{Deserialize, Serialize};

use super::{Alq, MOVED_ON};
use crate::multibit::MultiBit;
use crate::optim::AlqOptimizer;
use crate::pack::check_record;

/// Names that no parameter has: fields of Rust have no colon. Records find tensors by name; the ids
/// are fixed because a record draws those that are missing, and equal states shall make equal bytes.
const POSITION: (&str, u64) = ("alq:position", 0);
const MOMENTS: (&str, u64) = ("alq:moments", 1);

#[derive(Serialize, Deserialize)]
struct Position {
    step: usize,
    fingerprint: String,
    /// CRC-32 of the tensors, the step and the fingerprint; records have none.
    crc32: u32,
}

impl Position {
    /// With the checksum of the record's other tensors.
    fn new(
        step: usize,
        fingerprint: String,
        tensors: &[burn_pack::Tensor],
    ) -> Result<Self, RecordError> {
        let mut tensors: Vec<&burn_pack::Tensor> = tensors.iter().collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(format!("{step} {fingerprint}").as_bytes());
        for tensor in tensors {
            let (dtype, shape, id) = (tensor.dtype, &tensor.shape[..], tensor.param_id);
            hasher.update(format!("{} {dtype:?} {shape:?} {id:?}", tensor.name).as_bytes());
            hasher.update(&tensor.to_bytes()?);
        }
        Ok(Self {
            step,
            fingerprint,
            crc32: hasher.finalize(),
        })
    }
}

/// Why a checkpoint cannot be continued from. The checkpoint itself is never changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The folder cannot be listed.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file cannot be read as a record.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the record says.
        source: RecordError,
    },
    /// In a file: one of the errors below.
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: Box<CheckpointError>,
    },
    /// It is of a float model: it has neither multi-bit weights nor a position in a schedule.
    Float,
    /// It is of a multi-bit model, but not of a training with [`Alq`].
    NoPosition,
    /// It is of another training.
    Run {
        /// What it was made with.
        found: String,
        /// What this training has.
        expected: String,
    },
    /// It is of another model, or damaged.
    Model {
        /// What does not fit.
        source: RecordError,
    },
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { folder, source } => write!(f, "{}: {source}", folder.display()),
            Self::Unreadable { file, source } => write!(f, "{}: {source}", file.display()),
            Self::File { file, source } => write!(f, "{}: {source}", file.display()),
            Self::Float => write!(
                f,
                "the checkpoint is of a float model, but multi-bit weights are expected; load it \
                 into the float model and quantize that"
            ),
            Self::NoPosition => write!(
                f,
                "the checkpoint holds a multi-bit model, but no position in a schedule; load it \
                 into the model before it is wrapped"
            ),
            Self::Run { found, expected } => write!(
                f,
                "the checkpoint belongs to another training: it was made with {found}, this one \
                 has {expected}"
            ),
            Self::Model { source } => write!(f, "the checkpoint is of another model: {source}"),
        }
    }
}

impl std::error::Error for CheckpointError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Folder { source, .. } => Some(source),
            Self::Unreadable { source, .. } | Self::Model { source } => Some(source),
            Self::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

fn other_model(source: impl Into<RecordError>) -> CheckpointError {
    let source = source.into();
    CheckpointError::Model { source }
}

impl<M: Module> Alq<M> {
    pub(super) fn to_checkpoint(&self) -> ModuleRecord {
        // Running statistics keep their last update aside, where records do not see it; validation
        // mode takes it in.
        let _ = self.model.valid();
        let moments = match self.step {
            0 => self.plan.optimizer.init().weights_to_bytes(),
            _ => {
                let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
                let optimizer = memory.as_ref().unwrap_or_else(|| panic!("{MOVED_ON}"));
                optimizer.weights_to_bytes()
            }
        };
        let extend = || -> Result<ModuleRecord, RecordError> {
            let model = self.model.clone().into_record().into_bytes()?;
            let mut tensors = Reader::from_bytes(model)?.into_tensors()?;
            tensors.push(bytes_tensor(MOMENTS, moments?));
            let position = Position::new(self.step, self.plan.fingerprint.clone(), &tensors)?;
            let position = serde_json::to_vec(&position).expect("the position is plain data");
            tensors.push(bytes_tensor(POSITION, Bytes::from_bytes_vec(position)));
            ModuleRecord::from_bytes(Writer::new(tensors).into_bytes()?)
        };
        // Records in memory fail for want of memory alone.
        extend().expect("a record in memory can be written and read")
    }

    /// Continues from a record, wherever it comes from; Burn's `load_record` panics where this
    /// returns an error.
    ///
    /// # Errors
    /// If it is not a record of this model in a training with the same schedule and seed. No clone
    /// of the model has changed then.
    pub fn load_checkpoint(mut self, record: ModuleRecord) -> Result<Self, CheckpointError> {
        let checkpoint = self.read(record)?;
        let model = self.model.try_load_record(checkpoint.model);
        self.model = model.map_err(other_model)?;
        self.step = checkpoint.step;
        self.memory = Arc::new(Mutex::new(Some(checkpoint.optimizer)));
        self.restart_monitor();
        Ok(self)
    }

    /// Everything in a record, checked against the model. Loading comes after: it writes running
    /// statistics into all clones of a module.
    fn read(&self, record: ModuleRecord) -> Result<Checkpoint, CheckpointError> {
        let mut kept = tensors(record).map_err(other_model)?;
        let mut take = |name: &str| {
            let place = kept.iter().position(|tensor| tensor.name == name)?;
            Some(kept.remove(place))
        };
        let position = take(POSITION.0);
        let moments = take(MOMENTS.0);
        let (Some(position), Some(moments)) = (position, moments) else {
            let of_state = |name: &str| name.split('.').any(|part| part == MULTI_BIT);
            return Err(match kept.iter().any(|tensor| of_state(&tensor.name)) {
                true => CheckpointError::NoPosition,
                false => CheckpointError::Float,
            });
        };
        let own = tensors(self.model.clone().into_record()).map_err(other_model)?;
        compare(&kept, &own).map_err(other_model)?;
        let invalid = |text: String| other_model(RecordError::Validation(text));
        let position = position.into_bytes().map_err(other_model)?;
        let position: Position = serde_json::from_slice(&position)
            .map_err(|error| invalid(format!("its position: {error}")))?;
        if position.fingerprint != self.plan.fingerprint {
            return Err(CheckpointError::Run {
                found: position.fingerprint,
                expected: self.plan.fingerprint.clone(),
            });
        }
        kept.push(moments);
        let expected = Position::new(position.step, position.fingerprint, &kept);
        if expected.map_err(other_model)?.crc32 != position.crc32 {
            return Err(invalid("damaged: wrong checksum".to_string()));
        }
        let moments = kept.pop().expect("pushed above");
        let moments = moments.into_bytes().map_err(other_model)?;
        let mut optimizer = self.plan.optimizer.init();
        if let Some(device) = self.model.devices().first() {
            // A copy, for its alignment.
            let moments = Bytes::from_bytes_vec(moments.to_vec());
            optimizer
                .weights_from_bytes(moments, device)
                .map_err(other_model)?;
        }
        optimizer.check(&self.model).map_err(other_model)?;
        let model = Writer::new(kept).into_bytes().map_err(other_model)?;
        let model = ModuleRecord::from_bytes(model).map_err(other_model)?;
        check_record(&self.model, &model).map_err(other_model)?;
        Ok(Checkpoint {
            model,
            step: position.step,
            optimizer,
        })
    }

    /// The status starts anew: with another model, or other weights.
    pub(super) fn restart_monitor(&mut self) {
        self.monitor.weigh(&self.model, &self.plan);
    }

    /// The last epoch that Burn's default checkpointers saved whole in the folder of a training, to
    /// be continued from with `SupervisedTraining::checkpoint`; none if there is none.
    ///
    /// Reads the files and changes nothing.
    ///
    /// # Errors
    /// If it is not a checkpoint of this model in a training with the same schedule and seed, or
    /// its files are damaged.
    pub fn last_checkpoint(
        &self,
        folder: impl AsRef<Path>,
    ) -> Result<Option<usize>, CheckpointError> {
        let folder = folder.as_ref().join("checkpoint");
        let Some(epoch) = last_epoch(&folder)? else {
            return Ok(None);
        };
        let file = |name: &str| folder.join(format!("{name}-{epoch}.bpk"));
        let unreadable = |file: PathBuf| |source| CheckpointError::Unreadable { file, source };
        let model = ModuleRecord::load(file("model")).map_err(unreadable(file("model")))?;
        self.read(model).map_err(|source| CheckpointError::File {
            file: file("model"),
            source: Box::new(source),
        })?;
        OptimizerRecord::load(file("optim")).map_err(unreadable(file("optim")))?;
        LrSchedulerRecord::load(file("scheduler")).map_err(unreadable(file("scheduler")))?;
        Ok(Some(epoch))
    }
}

/// A part of the path of a multi-bit weight's state.
const MULTI_BIT: &str = <MultiBit as burn_core::module::Reparameterization>::NAME;

/// What a record was found to hold.
struct Checkpoint {
    model: ModuleRecord,
    step: usize,
    optimizer: AlqOptimizer,
}

fn tensors(record: ModuleRecord) -> Result<Vec<burn_pack::Tensor>, RecordError> {
    Ok(Reader::from_bytes(record.into_bytes()?)?.into_tensors()?)
}

/// Whether the tensors of a record are those of a model, by name and shape.
fn compare(found: &[burn_pack::Tensor], own: &[burn_pack::Tensor]) -> Result<(), RecordError> {
    let shapes = |tensors: &[burn_pack::Tensor]| -> BTreeMap<String, Vec<usize>> {
        let shape = |tensor: &burn_pack::Tensor| (tensor.name.clone(), tensor.shape.to_vec());
        tensors.iter().map(shape).collect()
    };
    let (found, own) = (shapes(found), shapes(own));
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
    match faults.is_empty() {
        true => Ok(()),
        false => Err(RecordError::Validation(faults.join("; "))),
    }
}

fn bytes_tensor((name, id): (&str, u64), bytes: Bytes) -> burn_pack::Tensor {
    let shape = [bytes.len()];
    burn_pack::Tensor::new(name.to_string(), DType::U8, shape, Some(id), bytes)
}

/// The last epoch with all three files: a killed training may have written one or two.
fn last_epoch(folder: &Path) -> Result<Option<usize>, CheckpointError> {
    let files = match std::fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let folder = folder.to_path_buf();
            return Err(CheckpointError::Folder { folder, source });
        }
    };
    let epoch = |name: &str| -> Option<usize> {
        let number = name.strip_prefix("model-")?.strip_suffix(".bpk")?;
        number.parse().ok()
    };
    let whole = |epoch: &usize| {
        ["optim", "scheduler"]
            .iter()
            .all(|name| folder.join(format!("{name}-{epoch}.bpk")).exists())
    };
    Ok(files
        .flatten()
        .filter_map(|file| epoch(&file.file_name().to_string_lossy()))
        .filter(whole)
        .max())
}
