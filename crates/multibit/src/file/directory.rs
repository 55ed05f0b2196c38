//! The directory: what a file holds, in the order of its sections.

use alloc::borrow::Cow;
use alloc::collections::BinaryHeap;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::cbor::{Reader, Writer};
use super::chain::List;
use super::{
    About, EntryError, FileTensor, FileWeight, Malformed, Op, ReadError, SectionError, Step,
};

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
    /// Takes bytes that are wrong in any way, and memory in proportion to them.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let mut unfit = None;
        let read = Self::read_keys(bytes, &mut unfit);
        if let Some((path, error)) = unfit {
            return Err(entry(&path, error));
        }
        let directory = read.map_err(ReadError::Directory)?;
        directory.check_paths()?;
        directory.check_chain()?;
        Ok(directory)
    }

    fn read_keys(
        bytes: &'a [u8],
        unfit: &mut Option<(Cow<'a, str>, EntryError)>,
    ) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut directory = Self::default();
        let mut keys = reader.keys()?;
        let (mut weights, mut tensors) = (None, None);
        while let Some(key) = reader.key(&mut keys)? {
            match key {
                0 => {
                    weights = Some(reader.any_items(|reader| {
                        let place = reader.clone();
                        FileWeight::read(reader)?.map_err(|error| {
                            unfit.get_or_insert(error);
                            place.wrong("a grouping that does not fit")
                        })
                    })?);
                }
                1 => tensors = Some(reader.any_items(FileTensor::read)?),
                2 => directory.config = texts(&mut reader)?,
                3 => directory.tied = texts(&mut reader)?,
                key => directory.about.read(key, &mut reader)?,
            }
        }
        reader.end()?;
        let lacks = |what| reader.wrong(what);
        directory.weights = weights.ok_or(lacks("no list of weights"))?;
        directory.tensors = tensors.ok_or(lacks("no list of tensors"))?;
        Ok(directory)
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
        let tied = || self.tied.iter().map(|(path, _)| &**path);
        let mut all = sorted(self.paths().collect());
        for (path, first) in &self.tied {
            if all.binary_search(&&**first).is_err() {
                let first = first.to_string();
                return Err(entry(path, EntryError::Untied { first }));
            }
        }
        all.extend(tied());
        all = sorted(all);
        match all.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(entry(pair[0], EntryError::Twice)),
            None => Ok(()),
        }
    }

    /// Steps name entries, and values that are there already.
    fn check_chain(&self) -> Result<(), ReadError> {
        let counts = [self.weights.len(), self.tensors.len()];
        for (index, step) in self.about.chain.iter().enumerate() {
            let wrong = |reason| ReadError::Chain {
                step: index + 1,
                reason,
            };
            step.rename(|list, &tensor| {
                let (count, reason) = match list {
                    List::Weights => (counts[0], "a weight that has no entry"),
                    List::Tensors => (counts[1], "a tensor that has no entry"),
                };
                (tensor < count).then_some(tensor).ok_or(wrong(reason))
            })?;
            let other = match step.op {
                Op::Add(other) => Some(other),
                _ => None,
            };
            if step
                .input
                .into_iter()
                .chain(other)
                .any(|value| value > index)
            {
                return Err(wrong("a value that is not there yet"));
            }
            if step.input == Some(index) {
                return Err(wrong("the value before, which is left out"));
            }
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
fn texts<'a>(reader: &mut Reader<'a>) -> Result<Vec<Pair<'a>>, Malformed> {
    let start = reader.clone();
    let mut pairs: Vec<Pair<'a>> = Vec::new();
    for _ in 0..reader.map()? {
        let place = reader.clone();
        let key = reader.text()?;
        if pairs.last().is_some_and(|(last, _)| **last >= *key) {
            return Err(place.wrong("a misplaced key"));
        }
        pairs.push((key.into(), reader.text()?.into()));
    }
    match pairs.is_empty() {
        true => Err(start.wrong("an empty map, which is left out")),
        false => Ok(pairs),
    }
}
