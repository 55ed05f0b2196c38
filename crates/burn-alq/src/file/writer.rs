//! Packed files written an entry at a time.

use alloc::string::ToString;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use burn_core::tensor::TensorData;
use burn_pack::{AtomicFile, Error};
use multibit::PackedWeight;
use multibit::cpu::Arithmetic;
use multibit::file::{About, Entries};

use super::FileError;
use super::body::{invalid, numbers};
use super::parts::io;

/// Writes a plain file an entry at a time, whole or not at all.
///
/// The directory, which comes first, is known last: sections wait in scratch files beside the file.
pub(crate) struct ModelWriter {
    target: PathBuf,
    entries: Entries<'static>,
    weights: Scratch,
    tensors: Scratch,
}

impl ModelWriter {
    /// Nothing is written to the file itself before [`finish`](Self::finish).
    pub fn create(target: &Path) -> Result<Self, FileError> {
        let scratch = || Scratch::create(target).map_err(|error| container(target, error));
        Ok(Self {
            target: target.to_path_buf(),
            entries: Entries::default(),
            weights: scratch()?,
            tensors: scratch()?,
        })
    }

    pub fn weight(
        &mut self,
        path: &str,
        weight: &PackedWeight,
        arithmetic: Option<Arithmetic>,
    ) -> Result<(), FileError> {
        for section in self.entries.weight(path.to_string(), weight, arithmetic) {
            let written = self.weights.section(&section);
            written.map_err(|source| io(&self.target, source))?;
        }
        Ok(())
    }

    pub fn tensor(&mut self, path: &str, tensor: &TensorData) -> Result<(), FileError> {
        let (number_type, bytes) =
            numbers(path, tensor).map_err(|error| container(&self.target, error))?;
        let name = path.to_string();
        let entry = self
            .entries
            .tensor(name, tensor.shape(), number_type, &[&bytes]);
        entry.map_err(|error| container(&self.target, invalid(error)))?;
        let written = self.tensors.section(&bytes);
        written.map_err(|source| io(&self.target, source))
    }

    /// Whether no weight was written yet.
    #[cfg(feature = "store")]
    pub fn has_no_weights(&self) -> bool {
        self.entries.has_no_weights()
    }

    /// Puts the file together, and in the place of the one that was there.
    ///
    /// # Errors
    /// If paths are not unique, the chain names what is not there, or the file cannot be written; what was
    /// there before is kept.
    pub fn finish(
        self,
        config: &[(&str, &str)],
        tied: &[(&str, &str)],
        about: About<'_>,
    ) -> Result<(), FileError> {
        let Self {
            target,
            entries,
            weights,
            tensors,
        } = self;
        let head = entries.head(config, tied, about);
        let head = head.map_err(|error| container(&target, invalid(error)))?;
        let created = AtomicFile::create(&target);
        let (guard, mut file) = created.map_err(|error| container(&target, error))?;
        let written = file
            .write_all(&head)
            .and_then(|()| weights.append_to(&mut file))
            .and_then(|()| match tensors.is_empty {
                true => Ok(()),
                false => pad(&mut file),
            })
            .and_then(|()| tensors.append_to(&mut file))
            .and_then(|()| file.sync_all());
        written.map_err(|source| io(&target, source))?;
        drop(file);
        guard.commit().map_err(|error| container(&target, error))
    }
}

fn container(file: &Path, source: Error) -> FileError {
    FileError::Container {
        file: file.display().to_string(),
        source,
    }
}

/// Fills a file up to the next boundary of sections.
fn pad(file: &mut File) -> std::io::Result<()> {
    let len = file.stream_position()?;
    let rest = len.next_multiple_of(Entries::BOUNDARY as u64) - len;
    file.write_all(&[0; Entries::BOUNDARY][..rest as usize])
}

/// Sections, each on its boundary, in a file that is removed in the end.
struct Scratch {
    file: BufWriter<File>,
    len: u64,
    is_empty: bool,
    /// Removes it.
    _guard: AtomicFile,
}

impl Scratch {
    fn create(target: &Path) -> Result<Self, Error> {
        let (guard, file) = AtomicFile::create(target)?;
        Ok(Self {
            file: BufWriter::new(file),
            len: 0,
            is_empty: true,
            _guard: guard,
        })
    }

    fn section(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let start = self.len.next_multiple_of(Entries::BOUNDARY as u64);
        let skipped = (start - self.len) as usize;
        self.file.write_all(&[0; Entries::BOUNDARY][..skipped])?;
        self.file.write_all(bytes)?;
        self.len = start + bytes.len() as u64;
        self.is_empty = false;
        Ok(())
    }

    fn append_to(self, file: &mut File) -> std::io::Result<()> {
        let mut own = self.file.into_inner().map_err(|error| error.into_error())?;
        own.rewind()?;
        let copied = std::io::copy(&mut own, file)?;
        match copied == self.len {
            true => Ok(()),
            false => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
