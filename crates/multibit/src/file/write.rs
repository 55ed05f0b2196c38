//! Model → body.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::ReadError;
use super::deflate::Deflater;
use super::directory::Directory;
use super::{
    About, Coding, Crc32, EntryError, FileTensor, FileWeight, HEAD, NumberType, SectionError,
    VERSION, container, directory,
};
use crate::cpu::Arithmetic;
use crate::{CoordinateType, PackedWeight};

/// A model, to be written. What is borrowed may come from anywhere.
#[derive(Clone, Debug, Default)]
pub struct Contents<'a> {
    /// Path, weight and arithmetic, in the order of the module tree.
    pub weights: Vec<(&'a str, &'a PackedWeight, Option<Arithmetic>)>,
    /// All other tensors.
    pub tensors: Vec<Numbers<'a>>,
    /// Free text, in ascending order of keys.
    pub config: Vec<(&'a str, &'a str)>,
    /// Further paths of parameters, in ascending order, and their first.
    pub tied: Vec<(&'a str, &'a str)>,
    /// How the model is used.
    pub about: About<'a>,
}

/// A tensor that is not multi-bit, to be written.
#[derive(Clone, Debug)]
pub struct Numbers<'a> {
    /// The path of the parameter.
    pub path: &'a str,
    /// The shape.
    pub shape: &'a [usize],
    /// The type of the numbers.
    pub number_type: NumberType,
    /// The numbers, little-endian; of [`NumberType::Burns`] a container.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Contents<'a> {
    /// The body of a file: the one tensor of its container.
    ///
    /// # Errors
    /// If a tensor is quantized by Burn, whose bytes only Burn understands, and is to be deflated; if
    /// paths are not unique, or the chain names a tensor or a value that is not there.
    pub fn body(&self, coding: Coding) -> Result<Vec<u8>, ReadError> {
        let mut deflater = Deflater::new(coding);
        let body = self.with(coding, &mut deflater)?;
        match deflater.fits(body.len()) {
            true => Ok(body),
            false => self.with(coding, &mut Deflater::bounded()),
        }
    }

    fn with(&self, coding: Coding, deflater: &mut Deflater) -> Result<Vec<u8>, ReadError> {
        let mut data = Vec::new();
        let mut entries = Entries::default();
        for &(path, weight, arithmetic) in &self.weights {
            let (entry, sections) = weight_entry(path, weight, arithmetic, coding, deflater);
            entries.weights.push(entry);
            data.extend(sections);
        }
        for numbers in &self.tensors {
            let (mut entry, plain) = numbers.entry(coding)?;
            let length = plain.len();
            let bytes = deflater.deflate(plain);
            entry.crc32 = coding.checksum(&[&bytes]);
            let derived = entry.numbers != NumberType::Burns && bytes.len() == length;
            entry.stored = (!derived).then_some(bytes.len());
            entries.tensors.push(entry);
            data.push(bytes);
        }
        let directory = entries.directory(&self.config, &self.tied, self.about.clone());
        let mut body = start(&directory, coding, deflater)?;
        let end = body.len();
        for section in data {
            body.resize(body.len().next_multiple_of(coding.boundary()), 0);
            body.extend(section);
        }
        seal(&mut body, coding, end);
        Ok(body)
    }
}

/// The entry of a weight, and its sections.
fn weight_entry<'a>(
    path: impl Into<Cow<'a, str>>,
    weight: &PackedWeight,
    arithmetic: Option<Arithmetic>,
    coding: Coding,
    deflater: &mut Deflater,
) -> (FileWeight<'a>, [Vec<u8>; 3]) {
    let sections = [
        weight.encode_coordinates(),
        weight.encode_bases(),
        weight.encode_widths(),
    ];
    let plain = sections.each_ref().map(Vec::len);
    let sections = sections.map(|section| deflater.deflate(section));
    let stored = sections.each_ref().map(Vec::len);
    let entry = FileWeight {
        path: path.into(),
        shape: weight.shape().to_vec(),
        crc32: coding.checksum(&sections),
        grouping: weight.grouping().clone(),
        rows: weight.coordinates().len(),
        width_bits: weight.width_bits(),
        coordinate_type: weight.coordinate_type(),
        stored: (stored != plain).then_some(stored),
        arithmetic,
        sections: Default::default(),
    };
    (entry, sections)
}

/// Writes the checksum that a body starts with.
fn seal(body: &mut [u8], coding: Coding, directory_end: usize) {
    let checksum = Crc32::of(&[coding.covered(body, directory_end)]);
    body[..4].copy_from_slice(&checksum.to_le_bytes());
}

/// The entries of a plain file that is written one at a time: what they are is kept, their sections are the
/// caller's to store, each at the next multiple of [`BOUNDARY`](Self::BOUNDARY). Those of the weights come
/// first, in their order, then those of the tensors, and [`head`](Self::head) before all.
#[derive(Clone, Debug, Default)]
pub struct Entries<'a> {
    weights: Vec<FileWeight<'a>>,
    tensors: Vec<FileTensor<'a>>,
}

impl<'a> Entries<'a> {
    /// Sections start at multiples of it, counted from the end of the [head](Self::head); what is skipped
    /// is 0, also before an empty section.
    pub const BOUNDARY: usize = 64;

    /// Adds a weight; gives its sections.
    pub fn weight(
        &mut self,
        path: impl Into<Cow<'a, str>>,
        weight: &PackedWeight,
        arithmetic: Option<Arithmetic>,
    ) -> [Vec<u8>; 3] {
        let (coding, mut deflater) = (Coding::Plain, Deflater::new(Coding::Plain));
        let (entry, sections) = weight_entry(path, weight, arithmetic, coding, &mut deflater);
        self.weights.push(entry);
        sections
    }

    /// Adds a tensor, whose one section is these bytes, part after part: little-endian numbers, or of
    /// [`NumberType::Burns`] a container.
    ///
    /// # Errors
    /// If the numbers have another length than the shape says.
    pub fn tensor(
        &mut self,
        path: impl Into<Cow<'a, str>>,
        shape: &[usize],
        numbers: NumberType,
        parts: &[&[u8]],
    ) -> Result<(), ReadError> {
        let length = parts.iter().map(|part| part.len()).sum();
        let entry = FileTensor {
            path: path.into(),
            shape: shape.to_vec(),
            crc32: Coding::Plain.checksum(parts),
            numbers,
            stored_type: CoordinateType::F32,
            stored: (numbers == NumberType::Burns).then_some(length),
            bytes: Cow::default(),
        };
        let plain = entry.plain(false);
        let plain = plain.map_err(|error| directory::entry(&entry.path, error))?;
        if plain != length {
            return Err(directory::entry(&entry.path, SectionError::Short));
        }
        self.tensors.push(entry);
        Ok(())
    }

    /// Whether there is no weight.
    pub fn has_no_weights(&self) -> bool {
        self.weights.is_empty()
    }

    /// All of the file before its sections, filled up to the [boundary](Self::BOUNDARY) where one follows.
    ///
    /// # Errors
    /// If paths are not unique, the chain names a tensor or a value that is not there, or the file is
    /// beyond the address space.
    pub fn head(
        self,
        config: &[(&'a str, &'a str)],
        tied: &[(&'a str, &'a str)],
        about: About<'a>,
    ) -> Result<Vec<u8>, ReadError> {
        let coding = Coding::Plain;
        let directory = self.directory(config, tied, about);
        let mut body = start(&directory, coding, &mut Deflater::new(coding))?;
        let mut end = body.len();
        seal(&mut body, coding, end);
        let places = directory.places(end)?;
        if let Some(&[.., last]) = places.last() {
            end = last;
            body.resize(body.len().next_multiple_of(coding.boundary()), 0);
        }
        let mut head = container::start(end);
        head.extend(body);
        Ok(head)
    }

    fn directory(
        self,
        config: &[(&'a str, &'a str)],
        tied: &[(&'a str, &'a str)],
        about: About<'a>,
    ) -> Directory<'a> {
        let texts = |pairs: &[(&'a str, &'a str)]| {
            let pairs = pairs.iter();
            let pairs = pairs.map(|&(key, value)| (Cow::Borrowed(key), Cow::Borrowed(value)));
            pairs.collect::<Vec<_>>()
        };
        Directory {
            weights: self.weights,
            tensors: self.tensors,
            config: texts(config),
            tied: texts(tied),
            about,
        }
    }
}

/// A body up to the end of its directory, without the checksum.
fn start(
    directory: &Directory<'_>,
    coding: Coding,
    deflater: &mut Deflater,
) -> Result<Vec<u8>, ReadError> {
    let plain = directory.write();
    // What would not be read again is not written.
    Directory::default().fill(&plain)?;
    let length = plain.len() as u64;
    let directory = deflater.deflate(plain);
    let mut body = alloc::vec![0; 4];
    body.extend(VERSION.to_le_bytes());
    body.extend((coding as u16).to_le_bytes());
    body.extend((directory.len() as u64).to_le_bytes());
    body.extend(length.to_le_bytes());
    debug_assert_eq!(body.len(), HEAD);
    body.extend(directory);
    Ok(body)
}

impl Numbers<'_> {
    /// The entry, and its bytes before they are deflated; in a deflated file in two bytes a number
    /// where those hold all of an f32 tensor's.
    fn entry(&self, coding: Coding) -> Result<(FileTensor<'_>, Vec<u8>), ReadError> {
        let mut entry = FileTensor {
            path: self.path.into(),
            shape: self.shape.to_vec(),
            crc32: None,
            numbers: self.number_type,
            stored_type: CoordinateType::F32,
            stored: None,
            bytes: Cow::default(),
        };
        if coding == Coding::Deflate && self.number_type == NumberType::Burns {
            return Err(directory::entry(self.path, EntryError::Burns));
        }
        if coding == Coding::Deflate && self.number_type == NumberType::F32 {
            let values = CoordinateType::F32.decode(&self.bytes);
            for kind in [CoordinateType::F16, CoordinateType::Bf16] {
                if values.iter().all(|&value| kind.holds(value)) {
                    entry.stored_type = kind;
                    return Ok((entry, kind.encode(&values)));
                }
            }
        }
        Ok((entry, self.bytes.to_vec()))
    }
}
