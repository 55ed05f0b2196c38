//! Packed ↔ burnpack file, versioned and checked. `FORMAT.md` describes the file byte by byte.

mod body;
pub(crate) mod container;
mod directory;
mod foreign;
mod model;
mod sections;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
#[cfg(feature = "std")]
use std::path::Path;

use burn_core::tensor::Bytes;
use multibit::{DecodeError, GroupingError};
use thiserror::Error;

pub use self::model::{PackModelError, PackedModel};

/// The newest version of the layout that this crate reads, and the one that it writes.
pub const FORMAT_VERSION: u32 = 1;

/// How a file holds a model. Both are the same model once read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Coding {
    /// As it is, each section on a boundary of 64 bytes, so that it can be used in place.
    #[default]
    Plain = 0,
    /// In the fewest bytes: nothing aligned, everything by DEFLATE (RFC 1951) where that is shorter,
    /// f32 tensors that lose nothing by it in two bytes a number.
    Deflate = 1,
}

/// Why a packed model could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file could not be read.
    #[cfg(feature = "std")]
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The container could not be written, or is damaged.
    #[error("{file}: {source}")]
    Container {
        /// The file.
        file: String,
        /// What the container says.
        source: burn_pack::Error,
    },
    /// Not a packed model.
    #[error("{file} is not a packed model: this is {found}; pack one with PackedModel::pack")]
    NotPacked {
        /// The file.
        file: String,
        /// What it seems to be.
        found: String,
    },
    /// Written by a newer layout.
    #[error(
        "{file} has format version {found}, but this program reads up to {FORMAT_VERSION}; \
         update burn-alq"
    )]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
    },
    /// The directory is damaged.
    #[error("{file}: damaged directory: {reason}")]
    Directory {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A weight or a tensor is not what the directory says, or not all there.
    #[error("{file}: {path}: {reason}")]
    Tensor {
        /// The file.
        file: String,
        /// Path of the tensor in the model.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor's bytes, or the directory's, do not have their checksum.
    #[error("{file}: {path}: wrong checksum, the file is damaged")]
    Checksum {
        /// The file.
        file: String,
        /// Path of the tensor in the model.
        path: String,
    },
    /// A weight's grouping does not fit its shape.
    #[error("{file}: {path}: {source}")]
    Grouping {
        /// The file.
        file: String,
        /// Path of the weight in the model.
        path: String,
        /// What does not fit.
        source: GroupingError,
    },
    /// A weight's sections do not decode.
    #[error("{file}: {path}: {source}")]
    Weight {
        /// The file.
        file: String,
        /// Path of the weight in the model.
        path: String,
        /// What is wrong with them.
        source: DecodeError,
    },
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
        Ok(body::writer(self, coding)?.into_bytes()?.to_vec())
    }

    /// Writes the model to a file, whole or not at all: to a scratch file beside it, then renamed.
    /// A process that is killed while it writes leaves the scratch file, `FILE.PID-N.tmp`, which
    /// nothing reads and anybody may remove.
    ///
    /// # Errors
    /// If the file cannot be written; what was there before is kept.
    #[cfg(feature = "std")]
    pub fn save(&self, file: impl AsRef<Path>) -> Result<(), FileError> {
        self.save_with(file, Coding::Plain)
    }

    /// Like [`save`](Self::save), with a coding.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    #[cfg(feature = "std")]
    pub fn save_with(&self, file: impl AsRef<Path>, coding: Coding) -> Result<(), FileError> {
        let file = file.as_ref();
        let writer = body::writer(self, coding);
        let written = writer.and_then(|writer| writer.auto_extension(false).write_to_file(file));
        written.map_err(|source| FileError::Container {
            file: file.display().to_string(),
            source,
        })
    }

    /// Reads a model from a file, without the float model and before any of it is used.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged or of a newer version, or any length, width or
    /// checksum is wrong.
    #[cfg(feature = "std")]
    pub fn load(file: impl AsRef<Path>) -> Result<Self, FileError> {
        let file = file.as_ref();
        let bytes = std::fs::read(file).map_err(|source| FileError::Io {
            file: file.display().to_string(),
            source,
        })?;
        Self::from_bytes(bytes, file.display())
    }

    /// Reads a model from a file's bytes. `file` names it in errors.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn from_bytes(bytes: Vec<u8>, file: impl fmt::Display) -> Result<Self, FileError> {
        Source {
            file: &file.to_string(),
        }
        .read(bytes)
    }
}

/// A file being read; it names itself in every error.
struct Source<'a> {
    file: &'a str,
}

impl Source<'_> {
    fn not_packed(&self, found: String) -> FileError {
        FileError::NotPacked {
            file: self.file.to_string(),
            found,
        }
    }

    fn container(&self, source: burn_pack::Error) -> FileError {
        FileError::Container {
            file: self.file.to_string(),
            source,
        }
    }

    fn directory(&self, reason: impl ToString) -> FileError {
        FileError::Directory {
            file: self.file.to_string(),
            reason: reason.to_string(),
        }
    }

    fn checksum(&self, path: &str) -> FileError {
        FileError::Checksum {
            file: self.file.to_string(),
            path: path.to_string(),
        }
    }

    fn tensor(&self, path: &str, reason: impl ToString) -> FileError {
        FileError::Tensor {
            file: self.file.to_string(),
            path: path.to_string(),
            reason: reason.to_string(),
        }
    }

    fn read(&self, bytes: Vec<u8>) -> Result<PackedModel, FileError> {
        let length = bytes.len();
        if let Some(found) = foreign::name(&bytes) {
            return Err(self.not_packed(found));
        }
        let reader =
            container::open(Bytes::from_bytes_vec(bytes)).map_err(|e| self.container(e))?;
        let names = reader.tensor_names();
        if names != [body::NAME] {
            let found = match names.contains(&container::POSITION) {
                true => "the checkpoint of a training".to_string(),
                false => format!(
                    "a burnpack file of {} tensors, as a record of Burn is",
                    names.len()
                ),
            };
            return Err(self.not_packed(found));
        }
        let tensors = reader.into_tensors().map_err(|e| self.container(e))?;
        let body = tensors.into_iter().next().expect("the one tensor");
        let body = body.into_bytes().map_err(|e| self.container(e))?;
        self.read_body(&body, sections::Budget::of_file(length))
    }
}
