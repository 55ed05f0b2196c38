//! The sections of a weight as bytes: plain, or deflated where that is shorter.

use std::borrow::Cow;
use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use multibit::PackedWeight;

/// How a file holds a model. Both are the same model once read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Coding {
    /// As it is, each tensor on a boundary of 256 bytes (versions 1 and 2).
    #[default]
    Plain,
    /// In the fewest bytes (version 3): nothing aligned, everything by DEFLATE (RFC 1951) where that
    /// is shorter, f32 tensors that lose nothing by it in two bytes a number.
    Deflate,
}

/// Lengths of the coordinates, the bases and the widths, in bytes.
pub(super) type Lengths = [usize; 3];

/// The most effort of the encoder; weights are written once and small.
const LEVEL: u8 = 10;

/// A byte of DEFLATE stands for at most so many: four copies of 258.
const MOST_OF_A_BYTE: usize = 1032;

/// The sections in the order of the file, and their lengths there if one is deflated.
pub(super) fn encode(weight: &PackedWeight, coding: Coding) -> (Vec<u8>, Option<Lengths>) {
    let sections = [
        weight.encode_coordinates(),
        weight.encode_bases(),
        weight.encode_widths(),
    ];
    let plain = sections.each_ref().map(Vec::len);
    let sections = match coding {
        Coding::Plain => sections,
        Coding::Deflate => sections.map(deflated),
    };
    let stored = sections.each_ref().map(Vec::len);
    (sections.concat(), (stored != plain).then_some(stored))
}

/// A section by DEFLATE, if that is shorter.
pub(super) fn deflated(section: Vec<u8>) -> Vec<u8> {
    let deflated = compress_to_vec(&section, LEVEL);
    match deflated.len() < section.len() {
        true => deflated,
        false => section,
    }
}

/// The plain sections. One that is stored in fewer bytes than it has is deflated.
///
/// Takes bytes and lengths that are wrong in any way; memory is taken in proportion to the bytes.
///
/// # Errors
/// If the bytes are not exactly sections of these lengths; says what is wrong.
pub(super) fn decode(
    bytes: &[u8],
    plain: Lengths,
    stored: Option<Lengths>,
) -> Result<[Cow<'_, [u8]>; 3], String> {
    let stored = stored.unwrap_or(plain);
    let total = stored
        .iter()
        .try_fold(0, |sum: usize, &n| sum.checked_add(n));
    if total != Some(bytes.len()) {
        return Err(format!(
            "{} bytes are not sections of {stored:?}",
            bytes.len()
        ));
    }
    let mut rest = bytes;
    let mut sections = Vec::with_capacity(plain.len());
    for (plain, stored) in plain.into_iter().zip(stored) {
        let (section, after) = rest.split_at(stored);
        rest = after;
        sections.push(inflated(section, plain)?);
    }
    Ok(sections.try_into().expect("as many as lengths"))
}

/// A section of `length` bytes when plain; deflated, if it has fewer here.
///
/// # Errors
/// If it does not have them.
pub(super) fn inflated(section: &[u8], length: usize) -> Result<Cow<'_, [u8]>, String> {
    match section.len() == length {
        true => Ok(Cow::Borrowed(section)),
        false => inflate(section, length).map(Cow::Owned),
    }
}

/// Exactly `length` bytes from a section that is one whole stream.
fn inflate(section: &[u8], length: usize) -> Result<Vec<u8>, String> {
    if length <= section.len() || length > section.len().saturating_mul(MOST_OF_A_BYTE) {
        return Err(format!(
            "{} deflated bytes do not hold {length}",
            section.len()
        ));
    }
    let mut plain = std::vec![0; length];
    let (status, read, written) = decompress(
        &mut DecompressorOxide::new(),
        section,
        &mut plain,
        0,
        TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
    );
    match status == TINFLStatus::Done && read == section.len() && written == length {
        true => Ok(plain),
        false => Err("damaged DEFLATE data".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_must_be_whole_and_of_its_length() {
        let plain = [7; 500];
        let deflated = compress_to_vec(&plain, LEVEL);
        assert_eq!(inflate(&deflated, 500).unwrap(), plain);
        for length in [0, 1, deflated.len(), 499, 501, usize::MAX] {
            assert!(inflate(&deflated, length).is_err(), "{length}");
        }
        for cut in 0..deflated.len() {
            assert!(inflate(&deflated[..cut], 500).is_err(), "{cut} bytes");
        }
        let longer = [&deflated[..], &[0]].concat();
        assert!(inflate(&longer, 500).is_err(), "a byte after the stream");
    }

    /// As dense as DEFLATE gets is allowed, and no claim beyond it takes memory.
    #[test]
    fn a_bomb_is_refused_before_it_is_decoded() {
        let zeros = std::vec![0; 1 << 20];
        let deflated = compress_to_vec(&zeros, LEVEL);
        assert_eq!(inflate(&deflated, zeros.len()).unwrap(), zeros);
        let error = inflate(&deflated, 1 << 40).unwrap_err();
        assert!(error.contains("do not hold"), "{error}");
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let bytes = [1, 2, 3, 4, 5, 6];
        assert!(decode(&bytes, [1, 2, 3], None).is_ok());
        assert!(decode(&bytes, [1, 2, 3], Some([1, 2, 3])).is_ok());
        for stored in [
            [1, 2, 2],
            [2, 2, 2],
            [0, 3, 3],
            [usize::MAX, 7, 0],
            [usize::MAX; 3],
        ] {
            assert!(
                decode(&bytes, [1, 2, 3], Some(stored)).is_err(),
                "{stored:?}"
            );
        }
        assert!(decode(&bytes, [usize::MAX; 3], None).is_err());
    }
}
