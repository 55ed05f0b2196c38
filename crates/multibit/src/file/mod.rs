//! Packed files, as `FORMAT.md` of burn-alq describes them: a reader from a slice, without a
//! framework and without std, and the writer.
//!
//! [`PackedFile::read`] checks everything that can be wrong with the bytes, before any of it is used.
//! Paths, coordinates and words of a plain file are read where they lie, in flash or in a mapped
//! file; those of a deflated one are inflated (feature `deflate`). [`Index`] reads the directory of a plain
//! file alone, and then the entries that are asked for; [`Entries`] writes one an entry at a time.

#![cfg_attr(
    not(feature = "deflate"),
    allow(dead_code, reason = "the writer comes with it")
)]

mod cbor;
mod chain;
mod container;
#[cfg(feature = "deflate")]
mod deflate;
mod directory;
mod entry;
mod error;
mod foreign;
#[cfg(feature = "deflate")]
mod index;
mod step;
#[cfg(feature = "deflate")]
mod write;

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use chain::{About, Input, InputError, Layer, List, Norm, Op, Order, Step, describe};
pub use container::{CHECKPOINT, TENSOR, container};
pub use entry::{FileTensor, FileWeight, NumberType};
pub use error::{ChainError, EntryError, Flaw, Malformed, ReadError, SectionError};
pub use foreign::foreign_name;
#[cfg(feature = "deflate")]
pub use index::Index;
#[cfg(feature = "deflate")]
pub use write::{Contents, Entries, Numbers};

use crate::cpu::Arithmetic;
use directory::{Directory, entry};

/// The newest version of the layout that this crate reads, and the one that it writes.
pub const VERSION: u16 = 1;

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

/// CRC-32, version, coding, bytes of the directory as stored, its bytes as CBOR.
const HEAD: usize = 24;

/// Whether checksums are let pass, which no fuzzer would.
#[allow(unexpected_cfgs, reason = "cargo-fuzz sets it")]
const FUZZING: bool = cfg!(fuzzing);

impl Coding {
    /// Where sections start, counted from the head. Of a plain file: a multiple of a cache line and
    /// of the widest vector, and a divisor of the container's 256, so that it holds in the file too.
    fn boundary(self) -> usize {
        match self {
            Self::Plain => 64,
            Self::Deflate => 1,
        }
    }

    /// What the head's checksum covers. A plain file can be used in parts, which have their own; a
    /// deflated one is read as a whole and has no other.
    fn covered(self, body: &[u8], directory_end: usize) -> &[u8] {
        match self {
            Self::Plain => &body[4..directory_end],
            Self::Deflate => &body[4..],
        }
    }

    /// The checksum of an entry's sections; a deflated file has none.
    fn checksum<T: AsRef<[u8]>>(self, sections: &[T]) -> Option<u32> {
        (self == Self::Plain).then(|| Crc32::of(sections))
    }
}

/// CRC-32 of IEEE 802.3, as in gzip.
struct Crc32;

impl Crc32 {
    /// Bits that are looked up at once: a table of a kibibyte where there is room, or of 64 bytes where a page
    /// fetches it.
    const BITS: u32 = if cfg!(all(feature = "std", not(target_arch = "wasm32"))) {
        8
    } else {
        4
    };

    /// Bytes that are looked up side by side, each in a table of its own.
    const STRIDE: usize = if Self::BITS == 8 { 8 } else { 1 };

    /// By the value of so many bits, followed by as many bytes of 0 as tables lie before.
    const TABLES: [[u32; 1 << Self::BITS]; Self::STRIDE] = {
        let mut tables = [[0; 1 << Self::BITS]; Self::STRIDE];
        let mut value = 0;
        while value < tables[0].len() {
            let (mut crc, mut bit) = (value as u32, 0);
            while bit < Self::BITS {
                crc = crc >> 1 ^ 0xEDB8_8320 & (crc & 1).wrapping_neg();
                bit += 1;
            }
            tables[0][value] = crc;
            value += 1;
        }
        let mut stride = 1;
        while stride < Self::STRIDE {
            let mut value = 0;
            while value < tables[0].len() {
                let crc = tables[stride - 1][value];
                tables[stride][value] = crc >> 8 ^ tables[0][(crc & 0xff) as usize];
                value += 1;
            }
            stride += 1;
        }
        tables
    };

    /// Of some bytes, one after the other.
    fn of<T: AsRef<[u8]>>(parts: &[T]) -> u32 {
        let parts = parts.iter();
        !parts.fold(!0, |crc, part| Self::on(crc, part.as_ref()))
    }

    /// Goes on behind a checksum that is not inverted yet.
    fn on(mut crc: u32, bytes: &[u8]) -> u32 {
        static TABLES: [[u32; 1 << Crc32::BITS]; Crc32::STRIDE] = Crc32::TABLES;
        let strides = bytes.chunks_exact(match Self::STRIDE {
            1 => usize::MAX,
            stride => stride,
        });
        let rest = strides.remainder();
        for stride in strides {
            let mut bytes = crc.to_le_bytes().into_iter();
            crc = stride
                .iter()
                .zip(TABLES.iter().rev())
                .fold(0, |sum, (&byte, table)| {
                    let byte = byte ^ bytes.next().unwrap_or(0);
                    sum ^ table[usize::from(byte) % table.len()]
                });
        }
        let [table, ..] = &TABLES;
        rest.iter().fold(crc, |crc, &byte| {
            (0..8 / Self::BITS).fold(crc ^ u32::from(byte), |crc, _| {
                crc >> Self::BITS ^ table[crc as usize % table.len()]
            })
        })
    }
}

/// Where a section of so many bytes starts and ends behind another, counted from the body's first byte;
/// none beyond the address space.
fn place(before: usize, length: usize, coding: Coding) -> Option<[usize; 2]> {
    let start = before.checked_next_multiple_of(coding.boundary())?;
    Some([start, start.checked_add(length)?])
}

/// A packed file, checked. Sections and texts of a plain one are those of the slice.
#[derive(Clone, Debug)]
pub struct PackedFile<'a> {
    coding: Coding,
    directory: Directory<'a>,
}

impl<'a> PackedFile<'a> {
    /// Reads a file.
    ///
    /// Takes bytes that are wrong in any way; memory for the directory, in proportion to its bytes,
    /// and for what is deflated, at most twice the file's bytes and 65,536.
    ///
    /// # Errors
    /// If it is no packed file, of a newer version, or damaged: if any length, width or checksum is
    /// wrong.
    // Apart from its caller, so that its stack is free again then.
    #[inline(never)]
    pub fn read(file: &'a [u8]) -> Result<Self, ReadError> {
        Self::read_body(container::body(file)?, file.len())
    }

    fn read_body(body: &'a [u8], file: usize) -> Result<Self, ReadError> {
        let mut directory = Directory::default();
        let mut data = Data::open(body, file, &mut directory)?;
        let fails = |path: &str, read: Result<(), EntryError>| {
            read.map_err(|error| entry(path, error))?;
            Ok(true)
        };
        data.entries(&mut directory, fails)?;
        let bytes = data.rest();
        if bytes > 0 {
            return Err(ReadError::Sections(SectionError::Rest { bytes }));
        }
        let coding = data.coding;
        Ok(Self { coding, directory })
    }

    /// Looks at every part of a file, where [`read`](Self::read) stops at the first that is wrong.
    ///
    /// # Errors
    /// If the container or the directory is wrong: without them no part has a place.
    pub fn check(file: &'a [u8]) -> Result<Check, ReadError> {
        let mut directory = Directory::default();
        let mut data = Data::open(container::body(file)?, file.len(), &mut directory)?;
        let mut entries = Vec::new();
        data.entries(&mut directory, |path, read| {
            let placed = read.as_ref().err().is_none_or(EntryError::has_place);
            entries.push((path.to_string(), read));
            Ok(placed)
        })?;
        Ok(Check {
            coding: data.coding,
            unseen: directory.weights.len() + directory.tensors.len() - entries.len(),
            rest: data.rest(),
            entries,
        })
    }

    /// How it holds the model.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// The multi-bit weights, in the order of the module tree.
    pub fn weights(&self) -> &[FileWeight<'a>] {
        &self.directory.weights
    }

    /// All other tensors.
    pub fn tensors(&self) -> &[FileTensor<'a>] {
        &self.directory.tensors
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
    pub fn about(&self) -> &About<'a> {
        &self.directory.about
    }

    /// A step of the chain with the paths of its tensors.
    pub fn by_path(&self, step: &Step<usize>) -> Step<&str> {
        self.directory.by_path(step)
    }

    /// The same file with all layers in one arithmetic, whatever it says.
    pub fn with_arithmetic(mut self, arithmetic: Arithmetic) -> Self {
        for weight in &mut self.directory.weights {
            weight.arithmetic = Some(arithmetic);
        }
        self
    }

    /// Bytes of memory that what is deflated takes; the rest is read where it lies.
    pub fn inflated_bytes(&self) -> usize {
        let weights = self.weights().iter().flat_map(|weight| &weight.sections);
        let sections = weights.chain(self.tensors().iter().map(|tensor| &tensor.bytes));
        let inflated = sections.map(|section| match section {
            Cow::Owned(bytes) => bytes.len(),
            Cow::Borrowed(_) => 0,
        });
        inflated.sum()
    }
}

/// What [`PackedFile::check`] has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// How the file holds the model.
    pub coding: Coding,
    /// Each weight and tensor by its path, in the order of their sections, and whether it is whole. In
    /// a deflated file, whose one checksum was right, all are that anybody has not forged.
    pub entries: Vec<(String, Result<(), EntryError>)>,
    /// Entries behind one that does not say where it ends.
    pub unseen: usize,
    /// Bytes behind the last section.
    pub rest: usize,
}

impl Check {
    /// Whether [`PackedFile::read`] takes the file.
    pub fn is_whole(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.all(|(_, read)| read.is_ok()) && self.unseen == 0 && self.rest == 0
    }
}

/// What a body begins with.
struct Head {
    checksum: u32,
    coding: Coding,
    /// Bytes of the directory in the file, and as CBOR.
    stored: usize,
    plain: usize,
}

impl Head {
    fn read(head: &[u8; HEAD]) -> Result<Self, ReadError> {
        let number = |at: usize| {
            let bytes = head[at..][..8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes)
        };
        let (version, coding) = ((number(0) >> 32) as u16, (number(0) >> 48) as u16);
        if version != VERSION {
            return Err(ReadError::Version { found: version });
        }
        let coding = match coding {
            0 => Coding::Plain,
            1 => Coding::Deflate,
            _ => {
                let flaw = Flaw::Code;
                return Err(ReadError::Directory(Malformed { at: 0, flaw }));
            }
        };
        // What is beyond the address space is beyond the file.
        let size = |at| usize::try_from(number(at)).unwrap_or(usize::MAX);
        Ok(Self {
            checksum: number(0) as u32,
            coding,
            stored: size(8),
            plain: size(16),
        })
    }
}

/// The data of a file, read once from its start to its end.
struct Data<'a> {
    coding: Coding,
    /// A part of the body.
    body: &'a [u8],
    /// Where the part starts.
    base: usize,
    /// Where the section that was read last ends.
    end: usize,
    #[cfg(feature = "deflate")]
    budget: deflate::Budget,
}

impl<'a> Data<'a> {
    /// Reads the directory of a body; sections come next.
    fn open(body: &'a [u8], file: usize, directory: &mut Directory<'a>) -> Result<Self, ReadError> {
        let short = ReadError::Sections(SectionError::Short);
        let (head, rest) = body.split_first_chunk::<HEAD>().ok_or(short.clone())?;
        let Head {
            checksum,
            coding,
            stored,
            plain,
        } = Head::read(head)?;
        if coding == Coding::Deflate && cfg!(not(feature = "deflate")) {
            return Err(ReadError::Deflated);
        }
        let section = rest.get(..stored).ok_or(short)?;
        let end = HEAD + stored;
        let covered = Crc32::of(&[coding.covered(body, end)]);
        if covered != checksum && !FUZZING {
            return Err(ReadError::Checksum);
        }
        if coding == Coding::Plain && stored != plain {
            return Err(ReadError::Sections(SectionError::Plain));
        }
        let mut data = Self {
            coding,
            body,
            base: 0,
            end,
            #[cfg(feature = "deflate")]
            budget: deflate::Budget::of_file(file),
        };
        let _ = file;
        match data.inflated(section, plain).map_err(ReadError::Sections)? {
            Cow::Borrowed(bytes) => directory.fill(bytes)?,
            #[cfg(feature = "deflate")]
            Cow::Owned(bytes) => {
                let mut read = Directory::default();
                read.fill(&bytes)?;
                *directory = read.owned();
            }
            #[cfg(not(feature = "deflate"))]
            Cow::Owned(_) => return Err(ReadError::Deflated),
        }
        Ok(data)
    }

    /// A part of a plain body that starts where an entry before it ends.
    #[cfg(feature = "deflate")]
    fn part(body: &'a [u8], base: usize) -> Self {
        Self {
            coding: Coding::Plain,
            body,
            base,
            end: base,
            budget: deflate::Budget::of_file(0),
        }
    }

    /// Reads the sections of all entries, as long as `seen` wants to know of more.
    fn entries(
        &mut self,
        directory: &mut Directory<'a>,
        mut seen: impl FnMut(&str, Result<(), EntryError>) -> Result<bool, ReadError>,
    ) -> Result<(), ReadError> {
        for weight in &mut directory.weights {
            let read = self.weight(weight);
            if !seen(&weight.path, read)? {
                return Ok(());
            }
        }
        for tensor in &mut directory.tensors {
            let read = self.tensor(tensor);
            if !seen(&tensor.path, read)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Bytes behind the section that was read last.
    fn rest(&self) -> usize {
        self.base + self.body.len() - self.end
    }

    #[inline(never)]
    fn weight(&mut self, weight: &mut FileWeight<'a>) -> Result<(), EntryError> {
        let plain = weight.plain().ok_or(SectionError::TooLarge)?;
        let stored = weight.stored.unwrap_or(plain);
        if weight.stored == Some(plain) {
            return Err(SectionError::Plain.into());
        }
        self.sections(weight.crc32, &plain, &stored, &mut weight.sections)?;
        Ok(weight.check()?)
    }

    #[inline(never)]
    fn tensor(&mut self, tensor: &mut FileTensor<'a>) -> Result<(), EntryError> {
        let plain = tensor.plain(self.coding == Coding::Deflate)?;
        let stored = tensor.stored.unwrap_or(plain);
        let burns = tensor.numbers == NumberType::Burns;
        if tensor.stored.is_some() != (stored != plain || burns) {
            return Err(SectionError::Plain.into());
        }
        let bytes = core::slice::from_mut(&mut tensor.bytes);
        self.sections(tensor.crc32, &[plain], &[stored], bytes)
    }

    /// The sections of an entry, inflated.
    fn sections(
        &mut self,
        crc32: Option<u32>,
        plain: &[usize],
        stored: &[usize],
        sections: &mut [Cow<'a, [u8]>],
    ) -> Result<(), EntryError> {
        if self.coding == Coding::Plain && stored != plain {
            return Err(SectionError::Plain.into());
        }
        for (section, &length) in sections.iter_mut().zip(stored) {
            *section = Cow::Borrowed(self.take(length)?);
        }
        let checksum = self.coding.checksum(sections);
        let same = checksum == crc32 || FUZZING && checksum.is_some() == crc32.is_some();
        if !same {
            return Err(EntryError::Checksum);
        }
        for (section, &length) in sections.iter_mut().zip(plain) {
            if let Cow::Borrowed(stored) = *section {
                *section = self.inflated(stored, length)?;
            }
        }
        Ok(())
    }

    /// The section of so many bytes that comes next.
    fn take(&mut self, length: usize) -> Result<&'a [u8], SectionError> {
        let (before, base, body) = (self.end, self.base, self.body);
        let place = place(before, length, self.coding);
        let section =
            place.and_then(|[start, end]| Some((start, body.get(start - base..end - base)?)));
        // What follows a section that is cut has no bytes either.
        let end = section.map(|(start, section)| start + section.len());
        self.end = end.unwrap_or(base + body.len());
        let (start, section) = section.ok_or(SectionError::Short)?;
        match body[before - base..start - base]
            .iter()
            .all(|&byte| byte == 0)
        {
            true => Ok(section),
            false => Err(SectionError::Padding),
        }
    }

    /// A section of `length` bytes when plain; deflated, if it has fewer here.
    fn inflated(
        &mut self,
        section: &'a [u8],
        length: usize,
    ) -> Result<Cow<'a, [u8]>, SectionError> {
        if section.len() == length {
            return Ok(Cow::Borrowed(section));
        }
        #[cfg(feature = "deflate")]
        return deflate::inflate(section, length, &mut self.budget).map(Cow::Owned);
        #[cfg(not(feature = "deflate"))]
        Err(SectionError::Stream)
    }
}
