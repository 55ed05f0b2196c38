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

/// A packed model of any version.
pub fn packed(bytes: &[u8]) -> Option<Vec<u8>> {
    let reader = reader(bytes)?;
    let directory = reader.metadata().get("burn-alq.directory").cloned();
    let mut parts = tensors(reader)?;
    let mut directory = match directory {
        Some(directory) => directory,
        None => {
            let [(_, _, _, _, body)] = parts.as_mut_slice() else {
                return None;
            };
            let (checksum, rest) = body.split_at_mut_checked(4)?;
            checksum.copy_from_slice(&crc32fast::hash(rest).to_le_bytes());
            return written(&parts, |writer| writer);
        }
    };
    if let Ok(mut json) = serde_json::from_str::<Value>(&directory) {
        for list in ["weights", "tensors"] {
            for entry in json
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let path = entry.get("path").and_then(Value::as_str);
                let part = path.and_then(|path| parts.iter().find(|part| part.0 == path));
                let checksum = part.map(|part| crc32fast::hash(&part.4));
                if let (Some(checksum), Some(entry)) = (checksum, entry.as_object_mut()) {
                    entry.insert("crc32".into(), checksum.into());
                }
            }
        }
        directory = json.to_string();
    }
    let checksum = Scalar::from(crc32fast::hash(directory.as_bytes()));
    written(&parts, |writer| {
        let writer = writer.with_scalar("burn-alq.directory.crc32", checksum);
        writer.with_metadata("burn-alq.directory", &directory)
    })
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

/// A checkpoint of a run.
pub fn checkpoint(bytes: &[u8]) -> Option<Vec<u8>> {
    let reader = reader(bytes)?;
    let position = reader.metadata().get("burn-alq.position")?.clone();
    let parts = tensors(reader)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(position.as_bytes());
    for name in ["model", "optimizer", "rest"] {
        let (.., bytes) = parts.iter().find(|part| part.0 == name)?;
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    }
    written(&parts, |writer| {
        let writer = writer.with_metadata("burn-alq.position", &position);
        writer.with_scalar("burn-alq.crc32", Scalar::from(hasher.finalize()))
    })
}

/// The record of a model in Burn's Learner.
pub fn record(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut parts = tensors(reader(bytes)?)?;
    let place = parts.iter().position(|part| part.0 == "alq:position")?;
    let (.., position) = &parts[place];
    let mut position: Value = serde_json::from_slice(position).ok()?;
    let step = position.get("step")?.as_u64()?;
    let fingerprint = position.get("fingerprint")?.as_str()?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(format!("{step} {fingerprint}").as_bytes());
    for (index, (name, dtype, shape, id, bytes)) in parts.iter().enumerate() {
        if index != place {
            hasher.update(format!("{name} {dtype:?} {shape:?} {id:?}").as_bytes());
            hasher.update(bytes);
        }
    }
    position["crc32"] = hasher.finalize().into();
    let position = position.to_string().into_bytes();
    parts[place].2 = vec![position.len()];
    parts[place].4 = position;
    written(&parts, |writer| writer)
}
