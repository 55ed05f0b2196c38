//! Burn's container of tensors, from anyone.

use alloc::format;

use burn_core::tensor::Bytes;
use burn_pack::{Error, Reader};

/// The name of the tensor that only the checkpoint of a training has.
#[cfg(feature = "train")]
pub(crate) use multibit::file::CHECKPOINT as POSITION;

/// Bytes before the directory: magic number, version, length of the directory.
pub(crate) const HEADER: usize = 10;

/// CBOR's major types of items with a length.
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;

/// Opens a container, once its directory is [checked](check). Names what is none.
pub(crate) fn open(bytes: Bytes) -> Result<Reader, Error> {
    if let Some(found) = multibit::file::foreign_name(&bytes, bytes.len() as u64) {
        let error = format!("not a burnpack file: this is {found}");
        return Err(Error::ValidationError(error));
    }
    check(&bytes)?;
    Reader::from_bytes(bytes)
}

/// Refuses a directory that names more entries than it has bytes left: whoever reads it reserves memory
/// by what it names, up to a mebibyte at once. What else may be wrong is the reader's to find.
pub(crate) fn check(bytes: &[u8]) -> Result<(), Error> {
    // CBOR (RFC 8949): what a list holds follows its head, so that one pass sees all heads.
    let mut rest = directory(bytes).unwrap_or_default();
    while let Some((kind, argument, tail)) = head(rest) {
        let left = tail.len();
        let after = match kind {
            BYTES | TEXT => tail.get(usize::try_from(argument).unwrap_or(usize::MAX)..),
            LIST | MAP => (argument <= left as u64).then_some(tail),
            _ => Some(tail),
        };
        rest = after.ok_or_else(|| {
            Error::ValidationError(format!("a length of {argument} with {left} bytes left"))
        })?;
    }
    Ok(())
}

fn directory(bytes: &[u8]) -> Option<&[u8]> {
    let len = bytes.get(..HEADER)?.last_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    bytes[HEADER..].get(..len)
}

/// The kind and the argument of the item that comes next, and what follows its head; none where there is
/// no whole head.
fn head(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (&first, tail) = bytes.split_first()?;
    let len = match first & 31 {
        short @ ..24 => return Some((first >> 5, short.into(), tail)),
        long @ 24..28 => 1 << (long - 24),
        28..31 => return None,
        // Until a break.
        _ => 0,
    };
    let (argument, tail) = tail.split_at_checked(len)?;
    let argument = argument.iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
    Some((first >> 5, argument, tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn container(directory: &[u8]) -> Vec<u8> {
        let len = directory.len() as u32;
        [b"NRUB\x01\x00", &len.to_le_bytes()[..], directory, &[0; 64]].concat()
    }

    #[test]
    fn lists_no_longer_than_the_rest_pass() {
        for directory in [
            &b""[..],
            b"\x80",
            b"\xa1\x61a\x82\x01\x18\xff",
            b"\x9f\x01\xff",
            b"\xfb\0\0\0\0\0\0\0\0\xd9\x01\x02\x41x",
            // Not whole, which is for the reader to say.
            b"\x9b\0\0",
            b"\x9c",
        ] {
            assert!(check(&container(directory)).is_ok(), "{directory:x?}");
        }
        assert!(check(b"NRUB").is_ok());
        assert!(check(b"NRUB\x01\x00\xff\0\0\0\x9a\xff\xff\xff\xff").is_ok());
    }

    #[test]
    fn longer_ones_do_not() {
        for (directory, len) in [
            (&b"\x82\x01"[..], 2),
            (b"\xa1\x61a\x99\x01\x00\x01", 256),
            (b"\x81\x9b\0\0\0\0\xff\0\0\0", 0xff00_0000),
            (b"\xb8\x20\x61a", 32),
            (b"\x42x", 2),
            (b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff", u64::MAX),
        ] {
            let error = check(&container(directory)).unwrap_err();
            let text = format!("a length of {len} with");
            assert!(error.to_string().contains(&text), "{error}");
        }
    }
}
