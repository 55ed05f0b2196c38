//! Why bytes are not a packed file.

use alloc::string::{String, ToString};

use thiserror::Error;

use super::{InputError, NumberType, VERSION, foreign_name};
use crate::{CoordinateType, DecodeError, GroupingError};

/// What is wrong with an item of CBOR, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{flaw}, at byte {at}")]
pub struct Malformed {
    /// The byte, counted from the first of the directory.
    pub at: usize,
    /// What is wrong.
    pub flaw: Flaw,
}

/// What can be wrong with an item of CBOR. A code, so that a program without messages holds none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "their messages say it")]
pub enum Flaw {
    #[error("it ends here")]
    End,
    #[error("bytes behind the end")]
    Behind,
    #[error("an item without a definite length")]
    Indefinite,
    #[error("a length beyond the end")]
    Length,
    #[error("nested too deep")]
    Deep,
    #[error("not an unsigned integer")]
    NoNumber,
    #[error("a number that is longer than it must be")]
    Longer,
    #[error("a number that is too large")]
    Large,
    #[error("a code that stands for nothing")]
    Code,
    #[error("not a float of 32 bits")]
    NoFloat,
    #[error("not a text")]
    NoText,
    #[error("text that is not UTF-8")]
    Utf8,
    #[error("not an array")]
    NoArray,
    #[error("an array of another length")]
    OtherLength,
    #[error("an empty array, which is left out")]
    EmptyArray,
    #[error("not a map")]
    NoMap,
    #[error("an empty map, which is left out")]
    EmptyMap,
    #[error("a key that is not an unsigned integer")]
    NoKey,
    #[error("a misplaced key")]
    Misplaced,
    #[error("an unknown key of the directory")]
    DirectoryKey,
    #[error("an unknown key of a weight")]
    WeightKey,
    #[error("an unknown key of a tensor")]
    TensorKey,
    #[error("an unknown key of the input")]
    InputKey,
    #[error("an unknown key of a step")]
    StepKey,
    #[error("a value that is left out")]
    LeftOut,
    #[error("a weight that lacks a key")]
    Weight,
    #[error("a tensor that lacks a key")]
    Tensor,
    #[error("a step that lacks a key or has one of another")]
    Step,
    #[error("an input that is none: {0}")]
    Input(#[source] InputError),
    #[error("no list of weights")]
    NoWeights,
    #[error("no list of tensors")]
    NoTensors,
    #[error("a newer version of the container")]
    NewerContainer,
    #[error("the file ends in its metadata")]
    Metadata,
    #[error("the file has another length than its tensor")]
    TensorLength,
}

/// What a step of a chain has wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "their messages say it")]
pub enum ChainError {
    #[error("a weight that has no entry")]
    NoWeight,
    #[error("a tensor that has no entry")]
    NoTensor,
    #[error("a value that is not there yet")]
    Later,
    #[error("the value before, which is left out")]
    Before,
}

/// Why bytes are not a packed file.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// They do not begin as a container does.
    #[error("not a burnpack file")]
    Foreign,
    /// The container holds something else.
    #[error("a burnpack file of {tensors} tensors, as a record of Burn is")]
    NotPacked {
        /// How many tensors it has.
        tensors: usize,
    },
    /// The container holds the checkpoint of a training.
    #[error("the checkpoint of a training")]
    Checkpoint,
    /// The container's version or its metadata.
    #[error("damaged container: {0}")]
    Container(#[source] Malformed),
    /// Written by a newer layout.
    #[error(
        "it has format version {found}, but this program reads up to {VERSION}; update the program"
    )]
    Version {
        /// The version.
        found: u16,
    },
    /// Deflated, and this program is built without the feature `deflate`.
    #[error(
        "it is deflated, which this program was not built to read; write it with Coding::Plain"
    )]
    Deflated,
    /// Deflated, where a part of the file was asked for.
    #[error(
        "it is deflated, which is read as a whole; parts are read of what Coding::Plain writes"
    )]
    Whole,
    /// The directory.
    #[error("damaged directory: {0}")]
    Directory(#[source] Malformed),
    /// The directory, as bytes.
    #[error("damaged directory: {0}")]
    Sections(#[source] SectionError),
    /// The directory's bytes do not have their checksum.
    #[error("wrong checksum, the file is damaged")]
    Checksum,
    /// A step of the chain names a tensor that has no entry, or a value that is made later.
    #[error("step {step} of the chain: {source}")]
    Chain {
        /// The step, counted from 1.
        step: usize,
        /// What is wrong with it.
        source: ChainError,
    },
    /// An entry.
    #[error("{path}: {source}")]
    Entry {
        /// The path of the weight or the tensor.
        path: String,
        /// What is wrong with it.
        source: EntryError,
    },
}

impl ReadError {
    /// What a file of `len` bytes is that starts with some, 512 at least where it has them, if it is no
    /// packed file at all; none of one that is damaged or newer.
    pub fn foreign(&self, start: &[u8], len: u64) -> Option<String> {
        match self {
            Self::Foreign => foreign_name(start, len),
            Self::Checkpoint | Self::NotPacked { .. } => Some(self.to_string()),
            _ => None,
        }
    }
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Two have the same path.
    #[error("twice in the directory")]
    Twice,
    /// A tied parameter's first place.
    #[error("is tied to {first}, which has no entry")]
    Untied {
        /// The first place.
        first: String,
    },
    /// The grouping does not fit the shape.
    #[error(transparent)]
    Grouping(#[from] GroupingError),
    /// The sections do not decode.
    #[error(transparent)]
    Weight(#[from] DecodeError),
    /// The bytes do not have their checksum.
    #[error("wrong checksum, the file is damaged")]
    Checksum,
    /// A type that this coding does not store.
    #[error("no tensor of {} is stored in {stored} by this coding", numbers.name())]
    Stored {
        /// The type of the numbers.
        numbers: NumberType,
        /// The type that they are stored in.
        stored: CoordinateType,
    },
    /// A tensor of Burn's own quantization in a deflated file.
    #[error("is quantized by Burn; only Coding::Plain stores it")]
    Burns,
    /// The sections.
    #[error(transparent)]
    Sections(#[from] SectionError),
}

impl EntryError {
    /// Whether it is known where the next entry lies.
    pub(super) fn has_place(&self) -> bool {
        use SectionError::{Plain, TooLarge};
        !matches!(
            self,
            Self::Stored { .. } | Self::Burns | Self::Sections(Plain | TooLarge)
        )
    }
}

/// What is wrong with sections as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SectionError {
    /// They are beyond the address space.
    #[error("does not fit the address space")]
    TooLarge,
    /// The file ends.
    #[error("the file ends in it")]
    Short,
    /// What was skipped is not 0.
    #[error("the padding before it is not 0")]
    Padding,
    /// Bytes that belong to nothing.
    #[error("{bytes} bytes are of no tensor")]
    Rest {
        /// How many.
        bytes: usize,
    },
    /// Deflated in a plain file.
    #[error("deflated in a plain file")]
    Plain,
    /// More bytes than can be.
    #[error("{stored} deflated bytes do not hold {length}")]
    Claim {
        /// Bytes in the file.
        stored: usize,
        /// Bytes that they claim to be.
        length: usize,
    },
    /// More bytes than a file of this size may become.
    #[error("the file inflates to more than twice its bytes and 65536")]
    Budget,
    /// The stream is damaged.
    #[error("damaged DEFLATE data")]
    Stream,
}
