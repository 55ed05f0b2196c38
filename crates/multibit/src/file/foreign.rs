//! What a file is that is no container of tensors: told by its first bytes, so that an error can say
//! more than that it is the wrong one.

use alloc::format;
use alloc::string::{String, ToString};

/// Bytes before the metadata of a container.
const HEADER: usize = 10;

/// The container's magic number, as it lies in a file.
const MAGIC: &[u8] = b"NRUB";

/// Bytes at a place by which a kind of file is known.
const SIGNATURES: [(usize, &[u8], &str); 16] = [
    (
        0,
        b"PK\x03\x04",
        "a ZIP archive, as PyTorch's .pt and .pth are",
    ),
    (0, b"\x1f\x8b", "a gzip file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"\xfd7zXZ\0", "an XZ file"),
    (257, b"ustar", "a tar archive"),
    (0, b"GGUF", "a GGUF model"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras's .h5 are"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x80\x02", "a Python pickle, as PyTorch's old .pth are"),
    (0, b"\x80\x03", "a Python pickle"),
    (0, b"\x80\x04", "a Python pickle"),
    (0, b"\x80\x05", "a Python pickle"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x7fELF", "a program"),
];

/// How a text begins, in small letters.
const TEXTS: [(&str, &str); 6] = [
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("<", "XML or HTML"),
    (
        "version https://git-lfs.github.com",
        "a Git LFS pointer, which stands for the file",
    ),
    ("{", "JSON"),
    ("[", "JSON"),
];

/// Bytes that tell a text.
const SEEN: usize = 512;

/// What a file of `len` bytes is that does not begin as a container does, to follow "this is"; none if it
/// does. Its first 512 bytes tell it, or all that it has.
pub fn foreign_name(bytes: &[u8], len: u64) -> Option<String> {
    let start = &bytes[..bytes.len().min(MAGIC.len())];
    if start == MAGIC && bytes.len() >= HEADER {
        return None;
    }
    let signature = |&&(at, magic, _): &&(usize, &[u8], &str)| {
        bytes
            .get(at..)
            .is_some_and(|bytes| bytes.starts_with(magic))
    };
    Some(if bytes.is_empty() {
        "an empty file".to_string()
    } else if MAGIC.starts_with(start) {
        format!("the first {} bytes of a burnpack file", bytes.len())
    } else if bytes.iter().all(|&byte| byte == 0) {
        let begins = if len > bytes.len() as u64 {
            ", and more"
        } else {
            ""
        };
        format!("{} bytes of zero{begins}", bytes.len())
    } else if is_safetensors(bytes, len) {
        "a safetensors file".to_string()
    } else if let Some((.., name)) = SIGNATURES.iter().find(signature) {
        name.to_string()
    } else if let Some(text) = text(bytes) {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        let text = text.to_ascii_lowercase();
        let known = TEXTS.iter().find(|(start, _)| text.starts_with(start));
        known.map_or("a text file", |(_, name)| name).to_string()
    } else {
        let start = &bytes[..bytes.len().min(4)];
        format!("of an unknown kind (its first bytes are {start:02x?})")
    })
}

/// The length of a header in JSON, then the header.
fn is_safetensors(bytes: &[u8], file: u64) -> bool {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return false;
    };
    let fits = u64::from_le_bytes(*len) <= file.saturating_sub(8);
    fits && rest.starts_with(b"{")
}

/// The beginning of the file, if it is text.
fn text(bytes: &[u8]) -> Option<&str> {
    let start = &bytes[..bytes.len().min(SEEN)];
    let text = match core::str::from_utf8(start) {
        Ok(text) => text,
        // A character that the end of the part cuts.
        Err(error) if error.error_len().is_none() => {
            core::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\x0c');
    (!text.contains(control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn files_of_other_programs_are_known() {
        let mut tar = vec![1; 300];
        tar[257..262].copy_from_slice(b"ustar");
        let header = b"{\"w\":{}}";
        let safetensors = [&8u64.to_le_bytes()[..], header].concat();
        let cut = [&9u64.to_le_bytes()[..], header].concat();
        // A character of three bytes over the end of the part that is looked at.
        let long = "\u{feff} é€".repeat(SEEN);
        for (bytes, expected) in [
            (&b""[..], "an empty file"),
            (b"NRU", "the first 3 bytes of a burnpack file"),
            (b"NRUB\x01\0", "the first 6 bytes of a burnpack file"),
            (&[0; 64], "64 bytes of zero"),
            (&safetensors, "a safetensors file"),
            (&cut, "an unknown kind"),
            (b"PK\x03\x04rest", "a ZIP archive"),
            (b"\x80\x02}q", "PyTorch's old .pth"),
            (&tar, "a tar archive"),
            (b"\n <!DOCTYPE HTML><p>", "an HTML page"),
            (b"\xef\xbb\xbf<HTML>", "an HTML page"),
            (b"<?xml version", "XML or HTML"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid",
                "Git LFS",
            ),
            (b"{\"a\": 1}", "JSON"),
            (b"something else", "a text file"),
            (long.as_bytes(), "a text file"),
            (b"\x01\x02\xfe\xff\0", "first bytes are [01, 02, fe, ff]"),
        ] {
            let found = foreign_name(bytes, bytes.len() as u64).unwrap();
            assert!(found.contains(expected), "{found} for {bytes:x?}");
        }
        assert_eq!(foreign_name(b"NRUB\x01\0\0\0\0\0", 10), None);
    }
}
