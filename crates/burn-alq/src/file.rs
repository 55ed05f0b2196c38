//! Packed ↔ burnpack file, versioned and checked. `FORMAT.md` describes the file byte by byte.

mod compact;
mod sections;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::sync::Arc;
use std::vec::Vec;

use burn_core::tensor::{Bytes, DType, TensorData};
use burn_pack::{Reader, Scalar, Tensor, Writer};
use multibit::{CoordinateType, DecodeError, Grouping, GroupingError, PackedWeight};
use serde::{Deserialize, Serialize};

use crate::container;
use crate::pack::PackedModel;
use sections::{Budget, Lengths};

pub use sections::Coding;

/// The newest version of the layout that this crate reads. It reads all before it too, and writes
/// version 4 for [`Coding::Plain`], 3 for [`Coding::Deflate`].
pub const FORMAT_VERSION: u32 = 4;

/// The version with a tensor of the container for each of the model that is written; 1 and 2, which
/// do not vouch for types and shapes, are read.
const ALIGNED: u32 = 4;

const MAGIC: &str = "burn-alq";
const DIRECTORY: &str = "burn-alq.directory";
const CHECKSUM: &str = "burn-alq.directory.crc32";

/// What the file holds, as JSON in the container's metadata.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Directory {
    format: String,
    version: u32,
    weights: Vec<WeightEntry>,
    tensors: Vec<TensorEntry>,
    config: BTreeMap<String, String>,
}

/// The version alone, so that a file of a newer layout is refused for its version.
#[derive(Debug, Deserialize)]
struct Header {
    format: String,
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightEntry {
    path: String,
    shape: Vec<usize>,
    axes: Vec<usize>,
    len: usize,
    coordinates: usize,
    width_bits: u8,
    /// Not in version 1.
    #[serde(default, skip_serializing_if = "is_default")]
    coordinate_type: CoordinateType,
    /// Where a section is deflated; not in version 1.
    #[serde(default, skip_serializing_if = "is_default")]
    stored: Option<Lengths>,
    /// In version 3 one checksum is for everything.
    #[serde(default, skip_serializing_if = "is_default")]
    crc32: Option<u32>,
}

impl WeightEntry {
    fn new(path: &str, weight: &PackedWeight, stored: Option<Lengths>, crc32: Option<u32>) -> Self {
        Self {
            path: path.to_string(),
            shape: weight.shape().to_vec(),
            axes: weight.grouping().axes().to_vec(),
            len: weight.grouping().len(),
            coordinates: weight.coordinates().len(),
            width_bits: weight.width_bits(),
            coordinate_type: weight.coordinate_type(),
            stored,
            crc32,
        }
    }

    /// Whether it has nothing that came after version 1.
    fn is_first(&self) -> bool {
        is_default(&self.coordinate_type) && is_default(&self.stored)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorEntry {
    path: String,
    /// This and the type from version 4 on: the container has both, but no checksum of them.
    #[serde(default, skip_serializing_if = "is_default")]
    shape: Option<Vec<usize>>,
    #[serde(default, skip_serializing_if = "is_default")]
    dtype: Option<DType>,
    crc32: u32,
}

/// Why a packed model could not be written or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileError {
    /// The file could not be read.
    Io {
        /// The file.
        file: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The container could not be written, or is damaged.
    Container {
        /// The file.
        file: PathBuf,
        /// What the container says.
        source: burn_pack::Error,
    },
    /// A burnpack file, but not a packed model.
    NotPacked {
        /// The file.
        file: PathBuf,
    },
    /// Written by a newer layout.
    Version {
        /// The file.
        file: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The directory is damaged.
    Directory {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor of the directory is missing, or one is there that the directory lacks.
    Tensor {
        /// The file.
        file: PathBuf,
        /// Path of the tensor in the model.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor's bytes do not have the checksum of the directory.
    Checksum {
        /// The file.
        file: PathBuf,
        /// Path of the tensor in the model.
        path: String,
    },
    /// A weight's grouping does not fit its shape.
    Grouping {
        /// The file.
        file: PathBuf,
        /// Path of the weight in the model.
        path: String,
        /// What does not fit.
        source: GroupingError,
    },
    /// A weight's sections do not decode.
    Weight {
        /// The file.
        file: PathBuf,
        /// Path of the weight in the model.
        path: String,
        /// What is wrong with them.
        source: DecodeError,
    },
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { file, source } => write!(f, "{}: {source}", file.display()),
            Self::Container { file, source } => write!(f, "{}: {source}", file.display()),
            Self::NotPacked { file } => write!(
                f,
                "{} is not a packed model; pack one with PackedModel::pack",
                file.display()
            ),
            Self::Version { file, found } => write!(
                f,
                "{} has format version {found}, but this program reads up to {FORMAT_VERSION}; \
                 update burn-alq",
                file.display()
            ),
            Self::Directory { file, reason } => {
                write!(f, "{}: damaged directory: {reason}", file.display())
            }
            Self::Tensor { file, path, reason } => {
                write!(f, "{}: {path}: {reason}", file.display())
            }
            Self::Checksum { file, path } => write!(
                f,
                "{}: {path}: wrong checksum, the file is damaged",
                file.display()
            ),
            Self::Grouping { file, path, source } => {
                write!(f, "{}: {path}: {source}", file.display())
            }
            Self::Weight { file, path, source } => {
                write!(f, "{}: {path}: {source}", file.display())
            }
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Container { source, .. } => Some(source),
            Self::Grouping { source, .. } => Some(source),
            Self::Weight { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl PackedModel {
    /// The file's bytes.
    ///
    /// # Errors
    /// If the container cannot hold the model.
    pub fn to_bytes(&self) -> Result<Vec<u8>, burn_pack::Error> {
        self.to_bytes_with(Coding::Plain)
    }

    /// The bytes of a file with this coding.
    ///
    /// # Errors
    /// If the container cannot hold the model.
    pub fn to_bytes_with(&self, coding: Coding) -> Result<Vec<u8>, burn_pack::Error> {
        Ok(self.writer(coding)?.into_bytes()?.to_vec())
    }

    /// Writes the model to a file, whole or not at all: to a scratch file beside it, then renamed.
    /// A process that is killed while it writes leaves the scratch file, `FILE.PID-N.tmp`, which
    /// nothing reads and anybody may remove.
    ///
    /// # Errors
    /// If the file cannot be written; what was there before is kept.
    pub fn save(&self, file: impl AsRef<Path>) -> Result<(), FileError> {
        self.save_with(file, Coding::Plain)
    }

    /// Like [`save`](Self::save), with a coding.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_with(&self, file: impl AsRef<Path>, coding: Coding) -> Result<(), FileError> {
        let file = file.as_ref();
        let writer = self.writer(coding);
        let written = writer.and_then(|writer| writer.auto_extension(false).write_to_file(file));
        written.map_err(|source| FileError::Container {
            file: file.to_path_buf(),
            source,
        })
    }

    fn writer(&self, coding: Coding) -> Result<Writer, burn_pack::Error> {
        match coding {
            Coding::Plain => Ok(self.aligned_writer()),
            Coding::Deflate => compact::writer(self),
        }
    }

    fn aligned_writer(&self) -> Writer {
        let mut directory = Directory {
            format: MAGIC.to_string(),
            version: ALIGNED,
            weights: Vec::new(),
            tensors: Vec::new(),
            config: self.config.clone(),
        };
        let mut tensors = Vec::new();
        for (path, weight) in &self.weights {
            let bytes = sections::plain(weight).concat();
            let checksum = Some(crc32fast::hash(&bytes));
            let entry = WeightEntry::new(path, weight, None, checksum);
            directory.weights.push(entry);
            tensors.push(Tensor::new(
                path.clone(),
                DType::U8,
                [bytes.len()],
                None,
                Bytes::from_bytes_vec(bytes),
            ));
        }
        for (path, data) in &self.tensors {
            let (bytes, shape, dtype) = data.clone().into_parts();
            directory.tensors.push(TensorEntry {
                path: path.clone(),
                shape: Some(shape.to_vec()),
                dtype: Some(dtype),
                crc32: crc32fast::hash(&bytes),
            });
            tensors.push(Tensor::new(path.clone(), dtype, shape, None, bytes));
        }
        let directory = serde_json::to_string(&directory).expect("the directory is plain data");
        Writer::new(tensors)
            .with_scalar(
                CHECKSUM,
                Scalar::from(crc32fast::hash(directory.as_bytes())),
            )
            .with_metadata(DIRECTORY, &directory)
    }

    /// Reads a model from a file, without the float model and before any of it is used.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged or of a newer version, or any length, width or
    /// checksum is wrong.
    pub fn load(file: impl AsRef<Path>) -> Result<Self, FileError> {
        let file = file.as_ref();
        let bytes = std::fs::read(file).map_err(|source| FileError::Io {
            file: file.to_path_buf(),
            source,
        })?;
        Self::from_bytes(bytes, file)
    }

    /// Reads a model from a file's bytes. `file` names it in errors.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn from_bytes(bytes: Vec<u8>, file: impl AsRef<Path>) -> Result<Self, FileError> {
        Source {
            file: file.as_ref(),
        }
        .read(bytes)
    }
}

/// A file being read; it names itself in every error.
struct Source<'a> {
    file: &'a Path,
}

impl Source<'_> {
    fn container(&self, source: burn_pack::Error) -> FileError {
        FileError::Container {
            file: self.file.to_path_buf(),
            source,
        }
    }

    fn directory(&self, reason: impl ToString) -> FileError {
        FileError::Directory {
            file: self.file.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    fn version(&self, found: u32) -> FileError {
        FileError::Version {
            file: self.file.to_path_buf(),
            found,
        }
    }

    fn laid_out_otherwise(&self, version: u32) -> FileError {
        self.directory(format!("version {version} is laid out otherwise"))
    }

    fn tensor(&self, path: &str, reason: impl ToString) -> FileError {
        FileError::Tensor {
            file: self.file.to_path_buf(),
            path: path.to_string(),
            reason: reason.to_string(),
        }
    }

    fn read(&self, bytes: Vec<u8>) -> Result<PackedModel, FileError> {
        let mut budget = Budget::of_file(bytes.len());
        let reader =
            container::open(Bytes::from_bytes_vec(bytes)).map_err(|e| self.container(e))?;
        if !reader.metadata().contains_key(DIRECTORY) && reader.tensor_names() == [compact::BODY] {
            let body = reader.tensor_data(compact::BODY);
            return self.read_compact(&body.map_err(|e| self.container(e))?, budget);
        }
        let directory = self.read_directory(&reader)?;
        let mut tensors = BTreeMap::new();
        for tensor in reader.into_tensors().map_err(|e| self.container(e))? {
            tensors.insert(tensor.name.clone(), tensor);
        }
        let mut take = |path: &str, crc32: Option<u32>| {
            let tensor = tensors
                .remove(path)
                .ok_or_else(|| self.tensor(path, "missing"))?;
            let parts = tensor.into_parts().map_err(|e| self.container(e))?;
            if Some(crc32fast::hash(&parts.4)) != crc32 {
                return Err(FileError::Checksum {
                    file: self.file.to_path_buf(),
                    path: path.to_string(),
                });
            }
            Ok(parts)
        };
        let mut weights = Vec::with_capacity(directory.weights.len());
        for entry in directory.weights {
            let (_, dtype, _, _, bytes) = take(&entry.path, entry.crc32)?;
            if dtype != DType::U8 {
                return Err(self.tensor(&entry.path, "a packed weight is stored as bytes"));
            }
            let weight = self.read_weight(&entry, &bytes, &mut budget)?;
            weights.push((entry.path, Arc::new(weight)));
        }
        let mut rest = Vec::with_capacity(directory.tensors.len());
        for entry in directory.tensors {
            let (_, dtype, shape, _, bytes) = take(&entry.path, Some(entry.crc32))?;
            if directory.version == ALIGNED
                && (entry.dtype != Some(dtype) || entry.shape.as_deref() != Some(&shape[..]))
            {
                return Err(self.tensor(&entry.path, "another type or shape than in the directory"));
            }
            rest.push((entry.path, TensorData::from_bytes(bytes, shape, dtype)));
        }
        if let Some(path) = tensors.into_keys().next() {
            return Err(self.tensor(&path, "not in the directory"));
        }
        Ok(PackedModel {
            weights,
            tensors: rest,
            config: directory.config,
        })
    }

    fn read_directory(&self, reader: &Reader) -> Result<Directory, FileError> {
        let not_packed = || FileError::NotPacked {
            file: self.file.to_path_buf(),
        };
        let text = reader.metadata().get(DIRECTORY).ok_or_else(not_packed)?;
        let checksum = reader.scalars().get(CHECKSUM).copied();
        let checksum = checksum.and_then(|value| u32::try_from(value).ok());
        if checksum != Some(crc32fast::hash(text.as_bytes())) {
            return Err(self.directory("wrong checksum"));
        }
        let header: Header = serde_json::from_str(text).map_err(|e| self.directory(e))?;
        if header.format != MAGIC {
            return Err(not_packed());
        }
        match header.version {
            1 | 2 | ALIGNED => {}
            compact::VERSION => return Err(self.laid_out_otherwise(header.version)),
            version => return Err(self.version(version)),
        }
        let directory: Directory = serde_json::from_str(text).map_err(|e| self.directory(e))?;
        let newer = |entry: &&WeightEntry| header.version == 1 && !entry.is_first();
        match directory.weights.iter().find(newer) {
            Some(entry) => Err(self.directory(format!(
                "{} has what version {} does not",
                entry.path, header.version
            ))),
            None => Ok(directory),
        }
    }

    fn grouping(&self, entry: &WeightEntry) -> Result<Grouping, FileError> {
        let grouping = Grouping::new(entry.axes.clone(), entry.len);
        let fits = grouping.and_then(|grouping| grouping.check(&entry.shape).map(|()| grouping));
        fits.map_err(|source| FileError::Grouping {
            file: self.file.to_path_buf(),
            path: entry.path.clone(),
            source,
        })
    }

    /// Of a weight's sections before they are deflated. None of these products may overflow.
    fn lengths(&self, entry: &WeightEntry) -> Result<Lengths, FileError> {
        let groups = self.grouping(entry)?.groups(&entry.shape);
        let section = |count: usize, bits: usize| count.checked_mul(bits).map(|n| n.div_ceil(8));
        let lengths = section(entry.coordinates, 8 * entry.coordinate_type.bytes())
            .zip(section(entry.coordinates, entry.len))
            .zip(section(groups, usize::from(entry.width_bits)));
        let Some(((coordinates, bases), widths)) = lengths else {
            return Err(self.tensor(&entry.path, "its sections do not fit the address space"));
        };
        Ok([coordinates, bases, widths])
    }

    fn read_weight(
        &self,
        entry: &WeightEntry,
        bytes: &[u8],
        budget: &mut Budget,
    ) -> Result<PackedWeight, FileError> {
        let grouping = self.grouping(entry)?;
        // Lengths first: none may exceed what is there.
        let sections = sections::decode(bytes, self.lengths(entry)?, entry.stored, budget);
        let [coordinates, bases, widths] =
            sections.map_err(|reason| self.tensor(&entry.path, reason))?;
        let coordinates = entry.coordinate_type.decode(&coordinates);
        let weight = PackedWeight::decode(
            &entry.shape,
            grouping,
            entry.width_bits,
            &widths,
            &coordinates,
            &bases,
        )
        .map_err(|source| FileError::Weight {
            file: self.file.to_path_buf(),
            path: entry.path.clone(),
            source,
        })?;
        weight
            .with_coordinate_type(entry.coordinate_type)
            .map_err(|e| self.tensor(&entry.path, e))
    }
}
