//! Files of which parts are read.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use burn_core::module::Module;
use multibit::file::{Index, List, ReadError};

use super::body::described;
use super::{FileError, PackedModel, Source};
use crate::weight::{Product, walk};

/// Bytes that tell what a file is.
const SEEN: u64 = 512;

/// A file that must stay as it is while parts of it are read.
#[derive(Debug)]
pub(crate) struct Parts {
    path: PathBuf,
    file: Mutex<File>,
    state: (u64, Option<SystemTime>),
}

/// What a change of a file shows in.
fn state(metadata: &Metadata) -> (u64, Option<SystemTime>) {
    // Not every file system has times.
    (metadata.len(), metadata.modified().ok())
}

impl Parts {
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let opened = File::open(path).and_then(|file| Ok((state(&file.metadata()?), file)));
        let (state, file) = opened.map_err(|source| io(path, source))?;
        Ok(Self {
            path: path.to_path_buf(),
            file: Mutex::new(file),
            state,
        })
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.state.0
    }

    #[cfg(all(feature = "train", feature = "store"))]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How errors name the file.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// What the file starts with, enough to tell what it is.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn start(&self) -> Result<Vec<u8>, FileError> {
        self.read(0, self.len().min(SEEN) as usize)
    }

    /// So many bytes from a place on, which is within the file.
    ///
    /// # Errors
    /// If they cannot be read, or the file has changed since it was opened.
    pub fn read(&self, at: u64, count: usize) -> Result<Vec<u8>, FileError> {
        let mut bytes = alloc::vec![0; count];
        // A lock that a panic has left holds a file as good as before: each read starts with a seek.
        let mut file = self.file.lock().unwrap_or_else(|error| error.into_inner());
        let read = file.seek(SeekFrom::Start(at));
        let read = read.and_then(|_| file.read_exact(&mut bytes));
        drop(file);
        // A file that was cut is told as such, not by the end that was met.
        self.check()?;
        read.map_err(|source| io(&self.path, source))?;
        Ok(bytes)
    }

    /// Whether the file is what it was when it was opened.
    pub fn check(&self) -> Result<(), FileError> {
        let now = std::fs::metadata(&self.path).map_err(|source| io(&self.path, source))?;
        match state(&now) == self.state {
            true => Ok(()),
            false => Err(FileError::Changed { file: self.name() }),
        }
    }
}

pub(super) fn io(file: &Path, source: std::io::Error) -> FileError {
    FileError::Io {
        file: file.display().to_string(),
        source,
    }
}

/// A packed file of which only what is asked for is read: the directory when it is opened, a weight or a
/// tensor when it is loaded, checked by its checksum then.
///
/// What is not asked for takes neither memory nor time, so a part of a model may come from a file that is
/// larger than memory. It is for files of [`Coding::Plain`](super::Coding::Plain); a deflated one is read as
/// a whole ([`PackedModel::load`]). The file must stay as it is meanwhile.
///
/// ```no_run
/// use burn_alq::file::ModelFile;
///
/// let file = ModelFile::open("model.bpk")?;
/// let encoder = file.load_where(|path| path.starts_with("encoder."))?;
/// # Ok::<(), burn_alq::file::FileError>(())
/// ```
#[derive(Debug)]
pub struct ModelFile {
    parts: Parts,
    index: Index,
}

/// Why a directory was not read.
enum Unread {
    File(FileError),
    Read(ReadError),
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl ModelFile {
    /// Reads the directory of a file.
    ///
    /// # Errors
    /// If the file cannot be read, is no packed model, deflated, or of a newer version, or its directory is
    /// damaged.
    pub fn open(file: impl AsRef<Path>) -> Result<Self, FileError> {
        let parts = Parts::open(file.as_ref())?;
        let len = parts.len();
        let read = |at, count| parts.read(at, count).map_err(Unread::File);
        match Index::read(len, read) {
            Ok(index) => Ok(Self { parts, index }),
            Err(Unread::File(error)) => Err(error),
            Err(Unread::Read(error)) => {
                let start = parts.start()?;
                let file = &parts.name();
                Err(Source { file }.unread(error, &start, len))
            }
        }
    }

    /// Paths and shapes of the multi-bit weights, in the order of the module tree. Those of a
    /// [`Product`](crate::Product) are its two factors.
    pub fn weights(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        self.index.weights()
    }

    /// Paths and shapes of all other tensors.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        self.index.tensors()
    }

    /// Reads the whole model, an entry at a time.
    ///
    /// # Errors
    /// If a part cannot be read or is damaged, or the file has changed since it was opened.
    pub fn load(&self) -> Result<PackedModel, FileError> {
        self.load_where(|_| true)
    }

    /// Reads the part of the model that a module has, which may be fresh: nothing of it is initialized.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for<M: Module>(&self, module: &M) -> Result<PackedModel, FileError> {
        let paths: BTreeSet<String> = walk(module).into_iter().map(|found| found.path).collect();
        self.load_where(|path| paths.contains(path))
    }

    /// Reads the parameters of some paths. A product comes with its path; of a tied parameter, the chosen
    /// places. What a part of a model has no use for is left out: description of inputs, labels and chain.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_where(&self, chosen: impl Fn(&str) -> bool) -> Result<PackedModel, FileError> {
        let chosen = |path: &str| {
            let weight = Product::part(path).map(|(weight, _)| weight);
            chosen(path) || weight.is_some_and(&chosen)
        };
        let index = &self.index;
        let mut further: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (path, first) in index.tied() {
            further.entry(first).or_default().push(path);
        }
        let mut model = described(index.about(), index.config(), |step| index.by_path(step));
        let mut is_whole = true;
        // The place of an entry that is its own, if any was chosen; the others are tied to it.
        let mut place = |path: &str| {
            let places = [path]
                .into_iter()
                .chain(further.remove(path).into_iter().flatten());
            let all = places.clone().count();
            let mut places = places.filter(|path| chosen(path));
            let Some(first) = places.next().map(ToString::to_string) else {
                is_whole = false;
                return None;
            };
            let tied = places.map(|path| (path.to_string(), first.clone()));
            let before = model.tied.len();
            model.tied.extend(tied);
            is_whole &= model.tied.len() - before + 1 == all;
            Some(first)
        };
        let file = &self.parts.name();
        let source = Source { file };
        let unread = |error| FileError::Read {
            file: file.clone(),
            source: error,
        };
        for (entry, (path, _)) in index.weights().enumerate() {
            let Some(path) = place(path) else {
                continue;
            };
            let bytes = self.bytes(List::Weights, entry)?;
            let weight = index.weight(entry, &bytes).map_err(unread)?;
            let arithmetic = weight.arithmetic();
            model
                .arithmetic
                .extend(arithmetic.map(|said| (path.clone(), said)));
            model.weights.push((path, Arc::new(weight.decode())));
        }
        for (entry, (path, _)) in index.tensors().enumerate() {
            let Some(path) = place(path) else {
                continue;
            };
            let bytes = self.bytes(List::Tensors, entry)?;
            let tensor = index.tensor(entry, &bytes).map_err(unread)?;
            model.tensors.push((path, source.tensor(&tensor)?));
        }
        if !is_whole {
            model.input = None;
            model.labels.clear();
            model.chain.clear();
        }
        Ok(model)
    }

    fn bytes(&self, list: List, entry: usize) -> Result<Vec<u8>, FileError> {
        let place = self.index.place(list, entry);
        // The directory was checked against the address space.
        let count = (place.end - place.start) as usize;
        self.parts.read(place.start, count)
    }
}
