//! Packed ↔ burnpack file, versioned and checked. `FORMAT.md` describes the file byte by byte.

mod body;
mod chain;
pub(crate) mod container;
mod model;
#[cfg(feature = "std")]
mod parts;
mod product;
mod storage;
#[cfg(feature = "std")]
mod writer;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
#[cfg(feature = "std")]
use std::path::Path;

use thiserror::Error;

pub use multibit::file::{
    Coding, EntryError, Input, Order, ReadError, SectionError, Step, describe,
};
pub use multibit::runtime::{PlanError, StepError};

pub use self::chain::{Chain, ChainLayer};
pub use self::model::{PackModelError, PackedModel};
#[cfg(feature = "std")]
pub use self::parts::ModelFile;
#[cfg(all(feature = "train", feature = "store"))]
pub(crate) use self::{
    body::texts,
    model::{Packable, pack},
    parts::Parts,
    product::stored_scale,
    writer::ModelWriter,
};

/// The newest version of the layout that this crate reads, and the one that it writes.
pub const FORMAT_VERSION: u32 = multibit::file::VERSION as u32;

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
    /// The file was changed by another program while it was read.
    #[error("{file} was changed while it was read; nothing of it is used")]
    Changed {
        /// The file.
        file: String,
    },
    /// No file of float tensors that can be read a tensor at a time.
    #[cfg(feature = "store")]
    #[error("{file}: {reason}")]
    Float {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
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
    /// Damaged, or written by a newer layout.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: ReadError,
    },
    /// A tensor of Burn's own quantization is not what the directory says.
    #[error("{file}: {path}: {reason}")]
    Quantized {
        /// The file.
        file: String,
        /// Path of the tensor in the model.
        path: String,
        /// What is wrong with it.
        reason: String,
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

    /// Writes the model to a file, whole or not at all: to scratch files beside it, an entry at a time, of
    /// which one is then renamed. A process that is killed while it writes leaves scratch files,
    /// `FILE.PID-N.tmp`, which nothing reads and anybody may remove.
    ///
    /// # Errors
    /// If the file cannot be written; what was there before is kept.
    #[cfg(feature = "std")]
    pub fn save(&self, file: impl AsRef<Path>) -> Result<(), FileError> {
        self.save_with(file, Coding::Plain)
    }

    /// Like [`save`](Self::save), with a coding. A deflated file is made in memory.
    ///
    /// # Errors
    /// As [`save`](Self::save).
    #[cfg(feature = "std")]
    pub fn save_with(&self, file: impl AsRef<Path>, coding: Coding) -> Result<(), FileError> {
        let file = file.as_ref();
        let container = |source| FileError::Container {
            file: file.display().to_string(),
            source,
        };
        if coding == Coding::Deflate {
            let writer = body::writer(self, coding).map_err(container)?;
            let written = writer.auto_extension(false).write_to_file(file);
            return written.map_err(container);
        }
        let about = body::about(self).map_err(container)?;
        let mut writer = writer::ModelWriter::create(file)?;
        for (path, weight) in &self.weights {
            writer.weight(path, weight, self.arithmetic.get(path).copied())?;
        }
        for (path, tensor) in &self.tensors {
            writer.tensor(path, tensor)?;
        }
        writer.finish(&body::texts(&self.config), &body::texts(&self.tied), about)
    }

    /// Reads a model from a file, without the float model and before any of it is used. [`ModelFile`] reads
    /// parts of one.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged or of a newer version, or any length, width or
    /// checksum is wrong.
    #[cfg(feature = "std")]
    pub fn load(file: impl AsRef<Path>) -> Result<Self, FileError> {
        let file = file.as_ref();
        match ModelFile::open(file) {
            Ok(model) => model.load(),
            // The one checksum of a deflated file is that of all.
            Err(FileError::Read {
                source: ReadError::Whole,
                ..
            }) => {
                let bytes = std::fs::read(file).map_err(|source| parts::io(file, source))?;
                Self::from_bytes(bytes, file.display())
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a model from a file's bytes. `file` names it in errors.
    ///
    /// # Errors
    /// See [`load`](Self::load).
    pub fn from_bytes(bytes: Vec<u8>, file: impl fmt::Display) -> Result<Self, FileError> {
        let file = &file.to_string();
        Source { file }.model(&bytes)
    }
}

/// A file being read; it names itself in every error.
struct Source<'a> {
    file: &'a str,
}

impl Source<'_> {
    fn quantization(&self, path: &str, reason: impl ToString) -> FileError {
        FileError::Quantized {
            file: self.file.to_string(),
            path: path.to_string(),
            reason: reason.to_string(),
        }
    }
}
