//! The one tensor that holds everything: head, directory, data.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_core::tensor::{Bytes, DType, Shape, TensorData};
use burn_pack::{Error, Tensor, Writer};
use crc32fast::Hasher;
use multibit::{CoordinateType, EncodedBytes, Grouping, PackedWeight};

use super::directory::{BURN, DTYPES, Directory, STORED_TYPES};
use super::directory::{TensorEntry, WeightEntry, code, value};
use super::sections::{self, Budget, Deflater, Lengths};
use super::{Coding, FORMAT_VERSION, FileError, PackedModel, Source, container};
use crate::weight::ARITHMETICS;

/// The tensor's name, by which a packed model is known.
pub(super) const NAME: &str = "burn-alq";

/// CRC-32, version, coding, bytes of the directory as stored, its bytes as CBOR.
const HEAD: usize = 24;

/// Codes of the codings.
const CODINGS: [Coding; 2] = [Coding::Plain, Coding::Deflate];

/// Why a tensor of Burn's own quantization is not deflated: only Burn understands its bytes.
const BURNS_OWN: &str = "is quantized by Burn; only Coding::Plain stores it";

/// And why it is not read or written where they are in another order.
const BURNS_ENDIAN: &str =
    "is quantized by Burn: its bytes are not known on a big-endian machine; dequantize it";

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
        if self == Self::Deflate {
            return None;
        }
        let mut hasher = Hasher::new();
        for section in sections {
            hasher.update(section.as_ref());
        }
        Some(hasher.finalize())
    }
}

/// The container of a model.
///
/// # Errors
/// If a tensor is quantized by Burn, whose bytes only Burn understands, and is to be deflated.
pub(super) fn writer(model: &PackedModel, coding: Coding) -> Result<Writer, Error> {
    let mut deflater = Deflater::new(coding);
    let mut body = body(model, coding, &mut deflater)?;
    if !deflater.fits(body.len()) {
        body = self::body(model, coding, &mut Deflater::bounded())?;
    }
    let shape = [body.len()].into();
    Ok(container_of(DType::U8, shape, Bytes::from_bytes_vec(body)))
}

fn container_of(dtype: DType, shape: Shape, bytes: Bytes) -> Writer {
    let tensor = Tensor::new(NAME.to_string(), dtype, shape, None, bytes);
    Writer::new(alloc::vec![tensor])
}

fn body(model: &PackedModel, coding: Coding, deflater: &mut Deflater) -> Result<Vec<u8>, Error> {
    let mut directory = Directory {
        weights: Vec::new(),
        tensors: Vec::new(),
        config: model.config.clone(),
        tied: model.tied.clone(),
    };
    let mut data = Vec::new();
    for (path, weight) in &model.weights {
        let sections = sections::plain(weight);
        let plain = sections.each_ref().map(Vec::len);
        let sections = sections.map(|section| deflater.deflate(section));
        let stored = sections.each_ref().map(Vec::len);
        directory.weights.push(WeightEntry {
            path: path.clone(),
            shape: weight.shape().to_vec(),
            crc32: coding.checksum(&sections),
            axes: weight.grouping().axes().to_vec(),
            len: weight.grouping().len(),
            coordinates: weight.coordinates().len(),
            width_bits: weight.width_bits(),
            stored_type: code(&STORED_TYPES, weight.coordinate_type()).expect("a code for each"),
            stored: (stored != plain).then_some(stored),
            arithmetic: model
                .arithmetic
                .get(path)
                .map(|&arithmetic| code(&ARITHMETICS, arithmetic).expect("a code for each")),
        });
        data.extend(sections);
    }
    for (path, tensor) in &model.tensors {
        let (mut entry, plain) = tensor_entry(path, tensor, coding)?;
        let length = plain.len();
        let bytes = deflater.deflate(plain);
        entry.crc32 = coding.checksum(&[&bytes]);
        let derived = entry.dtype != BURN && bytes.len() == length;
        entry.stored = (!derived).then_some(bytes.len());
        directory.tensors.push(entry);
        data.push(bytes);
    }
    let plain = directory.encode();
    let length = plain.len() as u64;
    let directory = deflater.deflate(plain);
    let mut body = alloc::vec![0; 4];
    body.extend((FORMAT_VERSION as u16).to_le_bytes());
    body.extend((coding as u16).to_le_bytes());
    body.extend((directory.len() as u64).to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(directory);
    let directory_end = body.len();
    for section in data {
        body.resize(body.len().next_multiple_of(coding.boundary()), 0);
        body.extend(section);
    }
    let checksum = crc32fast::hash(coding.covered(&body, directory_end));
    body[..4].copy_from_slice(&checksum.to_le_bytes());
    Ok(body)
}

/// A tensor's entry and its bytes before they are deflated; in a deflated file in two bytes a number
/// where those hold all of an f32 tensor's.
fn tensor_entry(
    path: &str,
    tensor: &TensorData,
    coding: Coding,
) -> Result<(TensorEntry, Vec<u8>), Error> {
    let mut entry = TensorEntry {
        path: path.to_string(),
        shape: tensor.shape().to_vec(),
        crc32: None,
        dtype: code(&DTYPES, tensor.dtype()).unwrap_or(BURN),
        stored_type: 0,
        stored: None,
    };
    if entry.dtype == BURN && coding == Coding::Deflate {
        return Err(Error::ValidationError(format!("{path} {BURNS_OWN}")));
    }
    let (bytes, shape, dtype) = tensor.clone().into_parts();
    if entry.dtype == BURN {
        if cfg!(target_endian = "big") {
            return Err(Error::ValidationError(format!("{path} {BURNS_ENDIAN}")));
        }
        let bytes = container_of(dtype, shape, bytes).into_bytes()?;
        return Ok((entry, bytes.to_vec()));
    }
    if dtype == DType::F32 && coding == Coding::Deflate {
        let values: Vec<f32> = tensor.iter::<f32>().collect();
        for (code, kind) in (0..).zip(STORED_TYPES).skip(1) {
            if values.iter().all(|&value| kind.holds(value)) {
                entry.stored_type = code;
                return Ok((entry, kind.encode(&values)));
            }
        }
    }
    Ok((entry, little_endian(dtype, bytes.to_vec())))
}

/// A tensor's numbers from this machine's order of bytes to the file's, or back.
fn little_endian(dtype: DType, mut bytes: Vec<u8>) -> Vec<u8> {
    if cfg!(target_endian = "big") {
        let numbers = bytes.chunks_exact_mut(dtype.size().max(1));
        numbers.for_each(<[u8]>::reverse);
    }
    bytes
}

impl Source<'_> {
    /// The model in a body.
    pub(super) fn read_body(
        &self,
        body: &[u8],
        mut budget: Budget,
    ) -> Result<PackedModel, FileError> {
        let short = || self.directory("the file ends in it");
        let (head, rest) = body.split_first_chunk::<HEAD>().ok_or_else(short)?;
        let [marks, stored, plain] = [0, 8, 16].map(|at| {
            let number = head[at..][..8].try_into().expect("eight bytes");
            u64::from_le_bytes(number)
        });
        let [version, coding] = [32, 48].map(|bit| (marks >> bit) as u16);
        if u32::from(version) != FORMAT_VERSION {
            return Err(FileError::Version {
                file: self.file.to_string(),
                found: version.into(),
            });
        }
        let coding = value(&CODINGS, coding).map_err(|e| self.directory(e))?;
        // What is beyond the address space is beyond the file.
        let [stored, plain] =
            [stored, plain].map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let directory = rest.get(..stored).ok_or_else(short)?;
        let end = HEAD + stored;
        if crc32fast::hash(coding.covered(body, end)) != marks as u32 {
            return Err(self.checksum(NAME));
        }
        if coding == Coding::Plain && stored != plain {
            return Err(self.directory("deflated in a plain file"));
        }
        let directory = sections::inflated(directory, plain, &mut budget);
        let directory = directory.map_err(|e| self.directory(e))?;
        let directory = Directory::decode(&directory).map_err(|e| self.directory(e))?;
        let data = Data {
            source: self,
            coding,
            body,
            end,
            budget,
        };
        data.read(directory)
    }
}

/// The data of a file, read once from its start to its end.
struct Data<'a> {
    source: &'a Source<'a>,
    coding: Coding,
    body: &'a [u8],
    /// Where the section that was read last ends.
    end: usize,
    budget: Budget,
}

impl<'a> Data<'a> {
    fn read(mut self, directory: Directory) -> Result<PackedModel, FileError> {
        let mut seen = BTreeSet::new();
        let weights = directory.weights.iter().map(|entry| &entry.path);
        for path in weights.chain(directory.tensors.iter().map(|entry| &entry.path)) {
            if !seen.insert(path) {
                return Err(self.source.tensor(path, "twice in the directory"));
            }
        }
        for (path, first) in &directory.tied {
            if seen.contains(path) {
                return Err(self.source.tensor(path, "twice in the directory"));
            }
            if !seen.contains(first) {
                let reason = format!("is tied to {first}, which has no entry");
                return Err(self.source.tensor(path, reason));
            }
        }
        let (mut weights, mut arithmetic) = (Vec::new(), BTreeMap::new());
        for entry in directory.weights {
            let weight = self.weight(&entry)?;
            if let Some(code) = entry.arithmetic {
                let found = value(&ARITHMETICS, code);
                let found = found.map_err(|e| self.source.tensor(&entry.path, e))?;
                arithmetic.insert(entry.path.clone(), found);
            }
            weights.push((entry.path, Arc::new(weight)));
        }
        let mut tensors = Vec::new();
        for entry in directory.tensors {
            let tensor = self.tensor(&entry)?;
            tensors.push((entry.path, tensor));
        }
        let rest = self.body.len() - self.end;
        if rest > 0 {
            let reason = format!("{rest} bytes are of no tensor");
            return Err(self.source.directory(reason));
        }
        Ok(PackedModel {
            weights,
            tensors,
            arithmetic,
            tied: directory.tied,
            config: directory.config,
        })
    }

    fn weight(&mut self, entry: &WeightEntry) -> Result<PackedWeight, FileError> {
        let WeightEntry { path, shape, .. } = entry;
        let source = self.source;
        let kind = value(&STORED_TYPES, entry.stored_type).map_err(|e| source.tensor(path, e))?;
        let grouping = Grouping::new(entry.axes.clone(), entry.len);
        let grouping = grouping.and_then(|grouping| grouping.check(shape).map(|()| grouping));
        let grouping = grouping.map_err(|reason| FileError::Grouping {
            file: source.file.to_string(),
            path: path.clone(),
            source: reason,
        })?;
        // None of these products may overflow.
        let plain = EncodedBytes::new(
            grouping.groups(shape),
            entry.len,
            entry.coordinates,
            entry.width_bits,
            kind,
        );
        let plain = plain.map(|bytes| [bytes.coordinates, bytes.bases, bytes.widths]);
        let plain: Lengths = plain
            .ok_or_else(|| source.tensor(path, "its sections do not fit the address space"))?;
        let stored = entry.stored.unwrap_or(plain);
        let [coordinates, bases, widths] = self.sections(path, entry.crc32, plain, stored)?;
        let coordinates = kind.decode(&coordinates);
        let width_bits = entry.width_bits;
        let weight =
            PackedWeight::decode(shape, grouping, width_bits, &widths, &coordinates, &bases);
        let weight = weight.map_err(|reason| FileError::Weight {
            file: source.file.to_string(),
            path: path.clone(),
            source: reason,
        })?;
        let weight = weight.with_coordinate_type(kind);
        weight.map_err(|e| source.tensor(path, e))
    }

    fn tensor(&mut self, entry: &TensorEntry) -> Result<TensorData, FileError> {
        if entry.dtype == BURN {
            return self.quantized(entry);
        }
        let wrong = |reason: String| self.source.tensor(&entry.path, reason);
        let dtype = value(&DTYPES, entry.dtype).map_err(wrong)?;
        let kind = value(&STORED_TYPES, entry.stored_type).map_err(wrong)?;
        let narrow = kind != CoordinateType::F32;
        if narrow && (dtype, self.coding) != (DType::F32, Coding::Deflate) {
            let coding = self.coding;
            let reason = format!("no tensor of {dtype:?} is stored in {kind} by {coding:?}");
            return Err(wrong(reason));
        }
        let size = if narrow { kind.bytes() } else { dtype.size() };
        let mut sizes = entry.shape.iter();
        let plain = sizes.try_fold(size, |product: usize, &n| product.checked_mul(n));
        let plain = plain.ok_or_else(|| wrong("does not fit the address space".to_string()))?;
        let stored = entry.stored.unwrap_or(plain);
        let [bytes] = self.sections(&entry.path, entry.crc32, [plain], [stored])?;
        let shape = &entry.shape[..];
        if narrow {
            return Ok(TensorData::new(kind.decode(&bytes), shape));
        }
        let bytes = Bytes::from_bytes_vec(little_endian(dtype, bytes.into_owned()));
        Ok(TensorData::from_bytes(bytes, shape, dtype))
    }

    /// A tensor of Burn's own quantization, from a container of one tensor.
    fn quantized(&mut self, entry: &TensorEntry) -> Result<TensorData, FileError> {
        let source = self.source;
        if self.coding == Coding::Deflate || entry.stored_type != 0 {
            return Err(source.tensor(&entry.path, BURNS_OWN));
        }
        if cfg!(target_endian = "big") {
            return Err(source.tensor(&entry.path, BURNS_ENDIAN));
        }
        let length = [entry.stored.unwrap_or_default()];
        let [bytes] = self.sections(&entry.path, entry.crc32, length, length)?;
        let tensors = container::open(Bytes::from_bytes_vec(bytes.into_owned()))
            .and_then(|reader| reader.into_tensors());
        let mut tensors = tensors.map_err(|e| source.tensor(&entry.path, e))?;
        let tensor = tensors.pop().filter(|tensor| {
            let quantized = matches!(tensor.dtype, DType::QFloat(_));
            tensors.is_empty() && quantized && tensor.shape[..] == entry.shape[..]
        });
        let tensor = tensor.ok_or_else(|| {
            source.tensor(&entry.path, "another type or shape than in the directory")
        })?;
        let parts = tensor.into_parts();
        let (_, dtype, shape, _, bytes) = parts.map_err(|e| source.tensor(&entry.path, e))?;
        Ok(TensorData::from_bytes(bytes, shape, dtype))
    }

    /// The sections of a weight or a tensor, inflated.
    fn sections<const N: usize>(
        &mut self,
        path: &str,
        crc32: Option<u32>,
        plain: [usize; N],
        stored: [usize; N],
    ) -> Result<[Cow<'a, [u8]>; N], FileError> {
        if self.coding == Coding::Plain && stored != plain {
            return Err(self.source.tensor(path, "deflated in a plain file"));
        }
        let mut sections = [&[][..]; N];
        for (section, length) in sections.iter_mut().zip(stored) {
            let taken = self.take(length);
            *section = taken.map_err(|reason| self.source.tensor(path, reason))?;
        }
        if self.coding.checksum(&sections) != crc32 {
            return Err(self.source.checksum(path));
        }
        let mut inflated = [const { Cow::Borrowed(&[] as &[u8]) }; N];
        for ((inflated, section), length) in inflated.iter_mut().zip(sections).zip(plain) {
            let bytes = sections::inflated(section, length, &mut self.budget);
            *inflated = bytes.map_err(|reason| self.source.tensor(path, reason))?;
        }
        Ok(inflated)
    }

    /// The section of so many bytes that comes next.
    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let start = self.end.next_multiple_of(self.coding.boundary());
        let padding = self.body.get(self.end..start);
        let section = start
            .checked_add(length)
            .and_then(|end| self.body.get(start..end));
        let (Some(padding), Some(section)) = (padding, section) else {
            return Err("the file ends in it");
        };
        if padding.iter().any(|&byte| byte != 0) {
            return Err("the padding before it is not 0");
        }
        self.end = start + length;
        Ok(section)
    }
}
