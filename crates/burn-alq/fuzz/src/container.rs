//! The fuzzer cannot guess a checksum, so each input is read twice: as it is, and with its checksums
//! made right.

use burn_pack::{Bytes, DType, Reader, Scalar, Tensor, Writer};
use serde_json::Value;

fn reader(bytes: &[u8]) -> Option<Reader> {
    Reader::from_bytes(Bytes::from_bytes_vec(bytes.to_vec())).ok()
}

/// Name, type, shape, id and bytes of a tensor.
type Part = (String, DType, Vec<usize>, Option<u64>, Vec<u8>);

fn tensors(reader: Reader) -> Option<Vec<Part>> {
    let parts = reader.into_tensors().ok()?.into_iter().map(|tensor| {
        let (name, dtype, shape, id, bytes) = tensor.into_parts().ok()?;
        Some((name, dtype, shape.to_vec(), id, bytes.to_vec()))
    });
    parts.collect()
}

/// A packed model. The checksums of a plain file's entries stay as they are: what is behind them is
/// reached through deflated files, whose sections may be plain too.
pub fn packed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut parts = tensors(reader(bytes)?)?;
    let [(.., body)] = parts.as_mut_slice() else {
        return None;
    };
    let deflated = body.get(6..8)? == [1, 0];
    let stored = u64::from_le_bytes(body.get(8..16)?.try_into().ok()?);
    let directory = usize::try_from(stored).ok()?.checked_add(24)?;
    let end = if deflated { body.len() } else { directory };
    let checksum = crc32fast::hash(body.get(4..end)?);
    body[..4].copy_from_slice(&checksum.to_le_bytes());
    written(&parts, |writer| writer)
}

/// The tensors in a container, with metadata added.
fn written(parts: &[Part], add: impl FnOnce(Writer) -> Writer) -> Option<Vec<u8>> {
    let tensors = parts.iter().map(|(name, dtype, shape, id, bytes)| {
        let bytes = Bytes::from_bytes_vec(bytes.clone());
        Tensor::new(name.clone(), *dtype, shape.clone(), *id, bytes)
    });
    let writer = add(Writer::new(tensors.collect()));
    Some(writer.into_bytes().ok()?.to_vec())
}

/// A checkpoint of a run, or the record of a model in Burn's Learner.
pub fn checkpoint(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut parts = tensors(reader(bytes)?)?;
    let place = parts.iter().position(|part| part.0 == "alq:position")?;
    let mut position = parts.remove(place);
    let mut hasher = crc32fast::Hasher::new();
    // A reader gives tensors in the order of their names.
    for (name, dtype, shape, id, bytes) in &parts {
        hasher.update(format!("{name} {dtype:?} {shape:?} {id:?}").as_bytes());
        hasher.update(bytes);
    }
    let (checksum, text) = position.4.split_at_mut_checked(4)?;
    hasher.update(text);
    checksum.copy_from_slice(&hasher.finalize().to_le_bytes());
    parts.push(position);
    written(&parts, |writer| writer)
}
