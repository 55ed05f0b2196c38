//! A packed file by its path.

use std::io;
use std::path::Path;

use multibit::file::{PackedFile, ReadError};
use multibit::report::ModelReport;
use multibit::runtime::{PlanError, RunError};
use thiserror::Error;

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Not a packed file.
    #[error("{file} is not a packed model: this is {found}")]
    NotPacked {
        /// The file.
        file: String,
        /// What it seems to be.
        found: String,
    },
    /// Damaged, or of a newer version.
    #[error("{file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: ReadError,
    },
    /// The file has no chain, or one that does not fit.
    #[error("{file} does not run: {source}")]
    Plan {
        /// The file.
        file: String,
        /// Why not.
        source: PlanError,
    },
    /// A run that was not given what it takes.
    #[error("{file}: {source}")]
    Run {
        /// The file.
        file: String,
        /// What it takes.
        source: RunError,
    },
    /// More memory than there is.
    #[error("{file}: {what} takes {bytes} bytes, more memory than there is")]
    Memory {
        /// The file.
        file: String,
        /// What takes it.
        what: String,
        /// How much.
        bytes: usize,
    },
    /// Inputs that are not whole, or none.
    #[error(
        "{input} holds {found} bytes, which is no whole number of inputs; {file} takes {shape:?}, as \
         --format {format} {expected} bytes each"
    )]
    Input {
        /// The file of inputs.
        input: String,
        /// Its bytes.
        found: usize,
        /// The model's file.
        file: String,
        /// The shape of a sample.
        shape: Vec<usize>,
        /// The format of values.
        format: &'static str,
        /// Bytes of an input.
        expected: usize,
    },
    /// An input that is no number.
    #[error("{input}: value {index} is {value}; inputs must be finite")]
    NotFinite {
        /// The file of inputs.
        input: String,
        /// Its place among all values of the file.
        index: usize,
        /// The value.
        value: f32,
    },
}

/// The bytes of a file that should be a packed one.
#[derive(Debug)]
pub struct File {
    name: String,
    bytes: Vec<u8>,
}

impl File {
    /// Some bytes, and what to call them.
    pub fn new(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        let name = name.into();
        Self { name, bytes }
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        match std::fs::read(path) {
            Ok(bytes) => Ok(Self { name, bytes }),
            Err(source) => Err(Error::Io { file: name, source }),
        }
    }

    /// The path, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The packed file in it, checked.
    ///
    /// # Errors
    /// If it is none, damaged or of a newer version.
    pub fn packed(&self) -> Result<PackedFile<'_>, Error> {
        PackedFile::read(&self.bytes).map_err(|source| self.unread(source))
    }

    /// Why it was not read.
    pub(crate) fn unread(&self, source: ReadError) -> Error {
        let file = self.name.clone();
        match source.foreign(&self.bytes, self.bytes.len() as u64) {
            Some(found) => Error::NotPacked { file, found },
            None => Error::Read { file, source },
        }
    }
}

/// What the weights of a file take, layer by layer.
pub(crate) fn sizes(file: &PackedFile<'_>) -> ModelReport {
    let tensors: Vec<(&str, usize)> = file
        .tensors()
        .iter()
        .map(|tensor| {
            // In memory, whatever the file stores them in.
            let numbers: usize = tensor.shape().iter().product();
            let bytes = match tensor.number_type().bytes() {
                0 => tensor.bytes().len(),
                bytes => numbers * bytes,
            };
            (tensor.path(), bytes)
        })
        .collect();
    let weights = file.weights().iter();
    let weights = weights.map(|weight| (weight.path(), weight.decode()));
    ModelReport::new(weights, &tensors, |_, _| None)
}

/// Room for so many values, if there is.
pub(crate) fn room<T>(len: usize, file: &str, what: &str) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    let room = values.try_reserve_exact(len);
    room.map_err(|_| Error::Memory {
        file: file.to_string(),
        what: what.to_string(),
        bytes: len.saturating_mul(size_of::<T>()),
    })?;
    Ok(values)
}
