//! Burn's container of tensors, as far as a packed file has one.

use super::cbor::{Reader, Result};
use super::{Flaw, Malformed, ReadError};

/// How a container begins.
const MAGIC: &[u8; 4] = b"NRUB";

/// The newest version of the container.
const VERSION: u16 = 1;

/// Bytes before the metadata: magic number, version, length of the metadata.
const HEADER: usize = 10;

/// Where the data starts: at a multiple.
const BOUNDARY: usize = 256;

/// The name of the tensor that holds a packed model.
pub const TENSOR: &str = "burn-alq";

/// The name of the tensor that only the checkpoint of a training has.
pub const CHECKPOINT: &str = "alq:position";

/// The body in a file.
pub(super) fn body(file: &[u8]) -> core::result::Result<&[u8], ReadError> {
    let head = file.split_first_chunk::<HEADER>();
    let head = head.filter(|(head, _)| head.starts_with(MAGIC));
    let (head, rest) = head.ok_or(ReadError::Foreign)?;
    let wrong = |flaw| ReadError::Container(Malformed { at: 0, flaw });
    if u16::from_le_bytes([head[4], head[5]]) > VERSION {
        return Err(wrong(Flaw::NewerContainer));
    }
    let length = u32::from_le_bytes([head[6], head[7], head[8], head[9]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let metadata = rest.get(..length).ok_or(wrong(Flaw::Metadata))?;
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
    let data = (HEADER + length).next_multiple_of(BOUNDARY);
    let data = file.get(data..).unwrap_or_default();
    let whole = start == 0 && end == data.len();
    whole.then_some(data).ok_or(wrong(Flaw::TensorLength))
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
    let mut writer = super::cbor::Writer::default();
    writer.tensor(TENSOR, body.len());
    let mut file = alloc::vec::Vec::with_capacity(BOUNDARY + body.len());
    file.extend(MAGIC);
    file.extend(VERSION.to_le_bytes());
    file.extend((writer.0.len() as u32).to_le_bytes());
    file.extend(writer.0);
    file.resize(file.len().next_multiple_of(BOUNDARY), 0);
    file.extend(body);
    file
}
