//! A plain file that is not in memory: its directory, and where the sections of its entries lie.

use alloc::vec::Vec;
use core::ops::Range;

use super::directory::{Directory, entry};
use super::{
    About, Coding, Data, EntryError, FileTensor, FileWeight, HEAD, Head, List, ReadError,
    SectionError, Step, container,
};

/// The directory of a plain file, read without what it is the directory of.
///
/// Entries are read one at a time, and checked like those of a [`PackedFile`](super::PackedFile) then. Bytes
/// come from a function of their place in the file and their number, so that a file may be far larger than
/// memory.
#[derive(Clone, Debug)]
pub struct Index {
    directory: Directory<'static>,
    /// Where the body starts in the file.
    body: u64,
    /// Where what each entry has starts and ends in the body: weights, then tensors.
    places: Vec<[usize; 2]>,
}

impl Index {
    /// Reads the directory of a file of `len` bytes.
    ///
    /// Takes bytes that are wrong in any way, and memory in proportion to those of the directory.
    ///
    /// # Errors
    /// What `read` fails with; if it is no packed file, deflated, of a newer version, or its directory is
    /// damaged or does not fit the file's length.
    pub fn read<E: From<ReadError>>(
        len: u64,
        mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
    ) -> Result<Self, E> {
        let mut up_to = |start: u64, count: usize| {
            let there = usize::try_from(len.saturating_sub(start)).unwrap_or(usize::MAX);
            read(start, count.min(there))
        };
        let metadata = container::metadata(&up_to(0, container::HEADER)?, len)?;
        let metadata = up_to(container::HEADER as u64, metadata)?;
        let body = container::data(&metadata, len)?;
        drop(metadata);
        let short = || ReadError::Sections(SectionError::Short);
        let start = up_to(body, HEAD)?;
        let head = Head::read(start.first_chunk().ok_or_else(short)?)?;
        if head.coding == Coding::Deflate {
            return Err(ReadError::Whole.into());
        }
        let size =
            usize::try_from(len - body).map_err(|_| ReadError::Sections(SectionError::TooLarge))?;
        let end = head.stored.checked_add(HEAD).filter(|&end| end <= size);
        let start = up_to(body, end.ok_or_else(short)?)?;
        let mut directory = Directory::default();
        let data = Data::open(&start, start.len(), &mut directory)?;
        let directory = directory.owned();
        let places = directory.places(data.end)?;
        let paths = directory.paths();
        let beyond = places.iter().zip(paths).find(|([_, end], _)| *end > size);
        if let Some((_, path)) = beyond {
            return Err(entry(path, SectionError::Short).into());
        }
        let end = places.last().map_or(data.end, |[_, end]| *end);
        if end < size {
            let bytes = size - end;
            return Err(ReadError::Sections(SectionError::Rest { bytes }).into());
        }
        Ok(Self {
            directory,
            body,
            places,
        })
    }

    /// Paths and shapes of the multi-bit weights, in the order of the module tree.
    pub fn weights(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        let weights = self.directory.weights.iter();
        weights.map(|weight| (weight.path(), weight.shape()))
    }

    /// Paths and shapes of all other tensors.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &[usize])> {
        let tensors = self.directory.tensors.iter();
        tensors.map(|tensor| (tensor.path(), tensor.shape()))
    }

    /// Free text of the program that wrote the file, in ascending order of keys.
    pub fn config(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.directory.config()
    }

    /// Each further path of a parameter that stands in several places, and the one of its entry.
    pub fn tied(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.directory.tied()
    }

    /// How the model is used.
    pub fn about(&self) -> &About<'static> {
        &self.directory.about
    }

    /// A step of the chain with the paths of its tensors.
    pub fn by_path(&self, step: &Step<usize>) -> Step<&str> {
        self.directory.by_path(step)
    }

    /// Where in the file an entry of a list has its bytes.
    ///
    /// # Panics
    /// If the list has no such entry.
    pub fn place(&self, list: List, index: usize) -> Range<u64> {
        let [start, end] = self.range(list, index);
        self.body + start as u64..self.body + end as u64
    }

    /// A weight, from the bytes of its [place](Self::place).
    ///
    /// # Errors
    /// If they are damaged.
    ///
    /// # Panics
    /// If there is no such weight.
    pub fn weight<'a>(&self, index: usize, bytes: &'a [u8]) -> Result<FileWeight<'a>, ReadError> {
        let mut weight: FileWeight<'a> = self.directory.weights[index].clone();
        let read = self.data(List::Weights, index, bytes);
        let read = read.and_then(|mut data| data.weight(&mut weight));
        read.map_err(|error| entry(&weight.path, error))?;
        Ok(weight)
    }

    /// A tensor, from the bytes of its [place](Self::place).
    ///
    /// # Errors
    /// If they are damaged.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn tensor<'a>(&self, index: usize, bytes: &'a [u8]) -> Result<FileTensor<'a>, ReadError> {
        let mut tensor: FileTensor<'a> = self.directory.tensors[index].clone();
        let read = self.data(List::Tensors, index, bytes);
        let read = read.and_then(|mut data| data.tensor(&mut tensor));
        read.map_err(|error| entry(&tensor.path, error))?;
        Ok(tensor)
    }

    fn range(&self, list: List, index: usize) -> [usize; 2] {
        let (weights, tensors) = self.places.split_at(self.directory.weights.len());
        match list {
            List::Weights => weights[index],
            List::Tensors => tensors[index],
        }
    }

    fn data<'a>(&self, list: List, index: usize, bytes: &'a [u8]) -> Result<Data<'a>, EntryError> {
        let [start, end] = self.range(list, index);
        match bytes.len() == end - start {
            true => Ok(Data::part(bytes, start)),
            false => Err(SectionError::Short.into()),
        }
    }
}
