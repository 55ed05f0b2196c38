//! The directory: what a file holds, in the order of its sections.

use alloc::borrow::Cow;
use alloc::collections::BinaryHeap;
use alloc::string::ToString;
use alloc::vec::Vec;

#[cfg(feature = "deflate")]
use super::SectionError;
use super::cbor::{self, FEW, Reader, Writer};
use super::chain::List;
use super::{About, ChainError, EntryError, FileTensor, FileWeight, Flaw, Op, ReadError, Step};

/// A text and what it stands for.
pub(super) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

#[derive(Clone, Debug, Default)]
pub(super) struct Directory<'a> {
    pub weights: Vec<FileWeight<'a>>,
    pub tensors: Vec<FileTensor<'a>>,
    pub config: Vec<Pair<'a>>,
    pub tied: Vec<Pair<'a>>,
    pub about: About<'a>,
}

/// In ascending order, by a heap: the code of a sort by parts takes ten times its bytes.
fn sorted(texts: Vec<&str>) -> Vec<&str> {
    BinaryHeap::from(texts).into_sorted_vec()
}

/// The error of an entry.
pub(super) fn entry(path: &str, source: impl Into<EntryError>) -> ReadError {
    ReadError::Entry {
        path: path.to_string(),
        source: source.into(),
    }
}

impl<'a> Directory<'a> {
    /// Fills an empty one; takes bytes that are wrong in any way, and memory in proportion to them.
    // Apart from what follows, so that its stack is free again then.
    #[inline(never)]
    pub(super) fn fill(&mut self, bytes: &'a [u8]) -> Result<(), ReadError> {
        let mut reader = Reader::new(bytes);
        let mut unfit = None;
        if self.read_keys(&mut reader, &mut unfit).is_err() {
            return Err(match unfit {
                Some((path, error)) => entry(path, error),
                None => ReadError::Directory(reader.malformed()),
            });
        }
        self.check_paths()?;
        self.check_chain()
    }

    fn read_keys(
        &mut self,
        reader: &mut Reader<'a>,
        unfit: &mut Option<(&'a str, EntryError)>,
    ) -> cbor::Result<()> {
        let mut keys = reader.keys()?;
        let mut lists = [false; 2];
        while let Some(key) = reader.key(&mut keys)? {
            match key {
                0 => {
                    let weight = |reader: &mut Reader<'a>| FileWeight::read(reader, unfit);
                    self.weights = reader.any_items(weight)?;
                }
                1 => self.tensors = reader.any_items(FileTensor::read)?,
                2 => self.config = texts(reader)?,
                3 => self.tied = texts(reader)?,
                key => self.about.read(key, reader)?,
            }
            if let Some(list) = lists.get_mut(key) {
                *list = true;
            }
        }
        reader.end()?;
        match lists {
            [true, true] => Ok(()),
            [false, _] => Err(reader.wrong(reader.at(), Flaw::NoWeights)),
            [_, false] => Err(reader.wrong(reader.at(), Flaw::NoTensors)),
        }
    }

    pub(super) fn config(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.config.iter().map(|(key, value)| (&**key, &**value))
    }

    pub(super) fn tied(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.tied.iter().map(|(path, first)| (&**path, &**first))
    }

    /// A step of the chain with the paths of its tensors.
    pub(super) fn by_path(&self, step: &Step<usize>) -> Step<&str> {
        let path = |list, &index: &usize| {
            Ok::<_, core::convert::Infallible>(match list {
                List::Weights => self.weights[index].path(),
                List::Tensors => self.tensors[index].path(),
            })
        };
        let Ok(step) = step.rename(path);
        step
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        let weights = self.weights.iter().map(FileWeight::path);
        weights.chain(self.tensors.iter().map(FileTensor::path))
    }

    /// Paths are unique, and those that are tied have an entry.
    fn check_paths(&self) -> Result<(), ReadError> {
        let all = sorted(self.paths().collect());
        let has = |path: &str| all.binary_search(&path).is_ok();
        let twice = all.windows(2).find(|pair| pair[0] == pair[1]);
        let mut twice = twice.map(|pair| pair[0]);
        // Those that are tied ascend, so that none is there twice.
        for (path, first) in &self.tied {
            if !has(first) {
                let first = first.to_string();
                return Err(entry(path, EntryError::Untied { first }));
            }
            if has(path) {
                twice = Some(path);
            }
        }
        match twice {
            Some(path) => Err(entry(path, EntryError::Twice)),
            None => Ok(()),
        }
    }

    /// Steps name entries, and values that are there already.
    fn check_chain(&self) -> Result<(), ReadError> {
        for (index, step) in self.about.chain.iter().enumerate() {
            let (mut weight, mut tensors, mut other) = (None, [None; 5], None);
            match &step.op {
                Op::Linear(layer) | Op::Conv2d(layer, _) => {
                    weight = Some(layer.weight);
                    tensors[0] = layer.bias;
                    if let Some(norm) = &layer.norm {
                        let norm = [norm.gamma, norm.beta, norm.mean, norm.variance];
                        tensors[1..].copy_from_slice(&norm.map(Some));
                    }
                }
                Op::Levels(state) => tensors[0] = Some(*state),
                Op::Add(value) => other = Some(*value),
                _ => {}
            }
            let source = if weight >= Some(self.weights.len()) {
                ChainError::NoWeight
            } else if tensors.into_iter().max() >= Some(Some(self.tensors.len())) {
                ChainError::NoTensor
            } else if step.input.max(other) > Some(index) {
                ChainError::Later
            } else if step.input == Some(index) {
                ChainError::Before
            } else {
                continue;
            };
            let step = index + 1;
            return Err(ReadError::Chain { step, source });
        }
        Ok(())
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        let pairs = |writer: &mut Writer, pairs: &[Pair<'_>]| {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(key, value)| (&**key, &**value))
                .collect();
            writer.texts(&pairs);
        };
        writer.keys(|keys| {
            keys.at(0)
                .array(&self.weights, |writer, weight| weight.write(writer));
            keys.at(1)
                .array(&self.tensors, |writer, tensor| tensor.write(writer));
            for (key, texts) in [(2, &self.config), (3, &self.tied)] {
                if !texts.is_empty() {
                    pairs(keys.at(key), texts);
                }
            }
            self.about.write(keys);
        });
        writer.0
    }

    /// Where what each entry of a plain file has starts and ends, with the bytes that are skipped before it:
    /// weights, then tensors, behind a directory that ends at `end`.
    #[cfg(feature = "deflate")]
    pub(super) fn places(&self, mut end: usize) -> Result<Vec<[usize; 2]>, ReadError> {
        let mut places = Vec::new();
        let mut push = |path: &str, sections: Result<&[usize], EntryError>| {
            let start = end;
            for &length in sections.map_err(|error| entry(path, error))? {
                let place = super::place(end, length, super::Coding::Plain);
                [_, end] = place.ok_or_else(|| entry(path, SectionError::TooLarge))?;
            }
            places.push([start, end]);
            Ok::<_, ReadError>(())
        };
        for weight in &self.weights {
            let plain = weight.plain();
            let sections = plain.as_ref().ok_or(SectionError::TooLarge.into());
            push(weight.path(), sections.map(|plain| &plain[..]))?;
        }
        for tensor in &self.tensors {
            push(
                tensor.path(),
                tensor
                    .plain(false)
                    .as_ref()
                    .map(core::slice::from_ref)
                    .map_err(Clone::clone),
            )?;
        }
        Ok(places)
    }

    /// The same, without the bytes that it was read from.
    #[cfg(feature = "deflate")]
    pub(super) fn owned<'b>(self) -> Directory<'b> {
        let texts = |pairs: Vec<Pair<'_>>| -> Vec<Pair<'b>> {
            let pairs = pairs.into_iter();
            let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
            pairs
                .map(|(key, value)| (owned(key), owned(value)))
                .collect()
        };
        Directory {
            weights: self.weights.into_iter().map(FileWeight::owned).collect(),
            tensors: self.tensors.into_iter().map(FileTensor::owned).collect(),
            config: texts(self.config),
            tied: texts(self.tied),
            about: self.about.into_owned(),
        }
    }
}

/// A map of texts that is not empty, in ascending order of bytes.
fn texts<'a>(reader: &mut Reader<'a>) -> cbor::Result<Vec<Pair<'a>>> {
    let start = reader.at();
    let count = reader.map()?;
    let mut pairs: Vec<Pair<'a>> = Vec::with_capacity(count.min(FEW));
    for _ in 0..count {
        let place = reader.at();
        let key = reader.text()?;
        if pairs.last().is_some_and(|(last, _)| **last >= *key) {
            return Err(reader.wrong(place, Flaw::Misplaced));
        }
        pairs.push((key.into(), reader.text()?.into()));
    }
    match pairs.is_empty() {
        true => Err(reader.wrong(start, Flaw::EmptyMap)),
        false => Ok(pairs),
    }
}
