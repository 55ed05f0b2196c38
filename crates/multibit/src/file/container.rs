//! Burn's container of tensors, as far as a packed file has one.

use super::cbor::{Reader, Result};
use super::{Flaw, Malformed, ReadError};

/// How a container begins.
const MAGIC: &[u8; 4] = b"NRUB";

/// The newest version of the container.
const VERSION: u16 = 1;

/// Bytes before the metadata: magic number, version, length of the metadata.
pub(super) const HEADER: usize = 10;

/// Where the data starts: at a multiple.
const BOUNDARY: usize = 256;

/// The name of the tensor that holds a packed model.
pub const TENSOR: &str = "burn-alq";

/// The name of the tensor that only the checkpoint of a training has.
pub const CHECKPOINT: &str = "alq:position";

/// The body in a file.
pub(super) fn body(file: &[u8]) -> core::result::Result<&[u8], ReadError> {
    let size = file.len() as u64;
    let length = metadata(file, size)?;
    let start = data(&file[HEADER..][..length], size)?;
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    Ok(file.get(start..).unwrap_or_default())
}

/// Bytes of the metadata, which follows the header that a file of so many bytes starts with.
pub(super) fn metadata(start: &[u8], file: u64) -> core::result::Result<usize, ReadError> {
    let head = start.first_chunk::<HEADER>();
    let head = head.filter(|head| head.starts_with(MAGIC));
    let head = head.ok_or(ReadError::Foreign)?;
    if u16::from_le_bytes([head[4], head[5]]) > VERSION {
        return Err(wrong(Flaw::NewerContainer));
    }
    let length = u32::from_le_bytes([head[6], head[7], head[8], head[9]]);
    let there = HEADER as u64 + u64::from(length) <= file;
    let length = usize::try_from(length).ok().filter(|_| there);
    length.ok_or(wrong(Flaw::Metadata))
}

/// Where the body starts in a file of so many bytes; it ends where the file ends.
pub(super) fn data(metadata: &[u8], file: u64) -> core::result::Result<u64, ReadError> {
    let mut reader = Reader::new(metadata);
    let found = Found::read(&mut reader);
    let found = found.map_err(|_| ReadError::Container(reader.malformed()))?;
    if found.checkpoint {
        return Err(ReadError::Checkpoint);
    }
    let Some([start, end]) = found.range.filter(|_| found.tensors == 1) else {
        let tensors = found.tensors;
        return Err(ReadError::NotPacked { tensors });
    };
    let data = (HEADER + metadata.len()).next_multiple_of(BOUNDARY) as u64;
    let whole = start == 0 && end as u64 == file.saturating_sub(data);
    whole.then_some(data).ok_or(wrong(Flaw::TensorLength))
}

fn wrong(flaw: Flaw) -> ReadError {
    ReadError::Container(Malformed { at: 0, flaw })
}

/// What the metadata says.
#[derive(Default)]
struct Found {
    tensors: usize,
    checkpoint: bool,
    /// Where the packed model lies in the data.
    range: Option<[usize; 2]>,
}

impl Found {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let mut found = Self::default();
        for _ in 0..reader.map()? {
            if reader.text()? != "tensors" {
                reader.skip()?;
                continue;
            }
            found.tensors = reader.map()?;
            for _ in 0..found.tensors {
                match reader.text()? {
                    TENSOR => found.range = tensor(reader)?,
                    name => {
                        found.checkpoint |= name == CHECKPOINT;
                        reader.skip()?;
                    }
                }
            }
        }
        reader.end()?;
        Ok(found)
    }
}

/// Where a tensor of bytes lies; none if it is one of other numbers.
fn tensor(reader: &mut Reader<'_>) -> Result<Option<[usize; 2]>> {
    let (mut bytes, mut range, mut length) = (false, None, None);
    for _ in 0..reader.map()? {
        match reader.text()? {
            "dtype" => {
                // Numbers of other kinds have a map or an array here.
                bytes = reader.clone().text().is_ok_and(|name| name == "U8");
                reader.skip()?;
            }
            "shape" => length = Some(reader.sizes()?),
            "data_offsets" => {
                let mut offsets = [0; 2];
                reader.exactly(&mut offsets)?;
                range = Some(offsets);
            }
            _ => reader.skip()?,
        }
    }
    Ok(range.filter(|[start, end]| bytes && length == Some([end.saturating_sub(*start)].into())))
}

/// A file of a body.
pub fn container(body: &[u8]) -> alloc::vec::Vec<u8> {
    let mut file = start(body.len());
    file.extend(body);
    file
}

/// What a file has before a body of so many bytes.
pub(super) fn start(body: usize) -> alloc::vec::Vec<u8> {
    let mut writer = super::cbor::Writer::default();
    writer.tensor(TENSOR, body);
    let mut file = alloc::vec::Vec::with_capacity(BOUNDARY);
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend((writer.0.len() as u32).to_le_bytes());
    file.extend(writer.0);
    file.resize(file.len().next_multiple_of(BOUNDARY), 0);
    file
}
