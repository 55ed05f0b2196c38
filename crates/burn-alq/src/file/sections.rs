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
    /// As it is, each tensor on a boundary of 256 bytes (version 4).
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

/// A file inflates to at most so many times its own bytes, and [`FREE`] more: trained bits hardly
/// deflate, so no file that is meant well is near it, and a small one takes little memory.
const MOST_OF_A_FILE: usize = 2;

/// What a file may inflate to beside the multiple of its bytes.
const FREE: usize = 1 << 16;

/// The sections in the order of the file.
pub(super) fn plain(weight: &PackedWeight) -> [Vec<u8>; 3] {
    [
        weight.encode_coordinates(),
        weight.encode_bases(),
        weight.encode_widths(),
    ]
}

/// Deflates sections, and counts what they inflate to.
pub(super) struct Deflater {
    /// A section that deflates to less than one in so many of its bytes stays plain.
    most: usize,
    inflated: usize,
}

impl Deflater {
    pub(super) fn new() -> Self {
        Self {
            most: usize::MAX,
            inflated: 0,
        }
    }

    /// Stays within the [`Budget`] of every file.
    pub(super) fn bounded() -> Self {
        Self {
            most: MOST_OF_A_FILE,
            inflated: 0,
        }
    }

    /// A section by DEFLATE, if that is shorter.
    pub(super) fn deflate(&mut self, section: Vec<u8>) -> Vec<u8> {
        let deflated = compress_to_vec(&section, LEVEL);
        let most = deflated.len().saturating_mul(self.most);
        if deflated.len() >= section.len() || section.len() > most {
            return section;
        }
        self.inflated += section.len();
        deflated
    }

    /// Whether a file of so many bytes may hold what was deflated.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        Budget::of_file(bytes).0 >= self.inflated
    }
}

/// The bytes that a file may still inflate to.
pub(super) struct Budget(usize);

impl Budget {
    /// Of a file of so many bytes.
    pub(super) fn of_file(bytes: usize) -> Self {
        Self(bytes.saturating_mul(MOST_OF_A_FILE).saturating_add(FREE))
    }
}

/// The plain sections. One that is stored in fewer bytes than it has is deflated.
///
/// Takes bytes and lengths that are wrong in any way; memory is taken in proportion to the bytes.
///
/// # Errors
/// If the bytes are not exactly sections of these lengths; says what is wrong.
pub(super) fn decode<'a>(
    bytes: &'a [u8],
    plain: Lengths,
    stored: Option<Lengths>,
    budget: &mut Budget,
) -> Result<[Cow<'a, [u8]>; 3], String> {
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
        sections.push(inflated(section, plain, budget)?);
    }
    Ok(sections.try_into().expect("as many as lengths"))
}

/// A section of `length` bytes when plain; deflated, if it has fewer here.
///
/// # Errors
/// If it does not have them.
pub(super) fn inflated<'a>(
    section: &'a [u8],
    length: usize,
    budget: &mut Budget,
) -> Result<Cow<'a, [u8]>, String> {
    match section.len() == length {
        true => Ok(Cow::Borrowed(section)),
        false => inflate(section, length, budget).map(Cow::Owned),
    }
}

/// Exactly `length` bytes from a section that is one whole stream.
fn inflate(section: &[u8], length: usize, budget: &mut Budget) -> Result<Vec<u8>, String> {
    if length <= section.len() || length > section.len().saturating_mul(MOST_OF_A_BYTE) {
        return Err(format!(
            "{} deflated bytes do not hold {length}",
            section.len()
        ));
    }
    budget.0 = budget.0.checked_sub(length).ok_or_else(|| {
        format!("the file inflates to more than {MOST_OF_A_FILE} times its bytes and {FREE}")
    })?;
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
        assert_eq!(inflate(&deflated, 500, &mut Budget(500)).unwrap(), plain);
        for length in [0, 1, deflated.len(), 499, 501, usize::MAX] {
            assert!(
                inflate(&deflated, length, &mut Budget(usize::MAX)).is_err(),
                "{length}"
            );
        }
        for cut in 0..deflated.len() {
            assert!(
                inflate(&deflated[..cut], 500, &mut Budget(500)).is_err(),
                "{cut} bytes"
            );
        }
        let longer = [&deflated[..], &[0]].concat();
        assert!(
            inflate(&longer, 500, &mut Budget(500)).is_err(),
            "a byte after the stream"
        );
    }

    /// As dense as DEFLATE gets is allowed, and no claim beyond it takes memory.
    #[test]
    fn a_bomb_is_refused_before_it_is_decoded() {
        let zeros = std::vec![0; 1 << 20];
        let deflated = compress_to_vec(&zeros, LEVEL);
        assert_eq!(
            inflate(&deflated, zeros.len(), &mut Budget(zeros.len())).unwrap(),
            zeros
        );
        let error = inflate(&deflated, 1 << 40, &mut Budget(usize::MAX)).unwrap_err();
        assert!(error.contains("do not hold"), "{error}");
        let error = inflate(&deflated, zeros.len(), &mut Budget(zeros.len() - 1)).unwrap_err();
        assert!(error.contains("inflates to more"), "{error}");
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let bytes = [1, 2, 3, 4, 5, 6];
        assert!(decode(&bytes, [1, 2, 3], None, &mut Budget(0)).is_ok());
        assert!(decode(&bytes, [1, 2, 3], Some([1, 2, 3]), &mut Budget(0)).is_ok());
        for stored in [
            [1, 2, 2],
            [2, 2, 2],
            [0, 3, 3],
            [usize::MAX, 7, 0],
            [usize::MAX; 3],
        ] {
            assert!(
                decode(&bytes, [1, 2, 3], Some(stored), &mut Budget(usize::MAX)).is_err(),
                "{stored:?}"
            );
        }
        assert!(decode(&bytes, [usize::MAX; 3], None, &mut Budget(usize::MAX)).is_err());
    }

    /// What deflates well is deflated as long as the file stays small; the rest of a large file is
    /// plain where it would inflate to more than a reader takes.
    #[test]
    fn a_writer_stays_within_what_a_reader_takes() {
        let (mut free, mut bounded) = (Deflater::new(), Deflater::bounded());
        let zeros = std::vec![0; 2 * FREE];
        let five_bits = |i: u32| (i.wrapping_mul(0x9e37_79b9) >> 15) as u8 & 0x1f;
        let dense: Vec<u8> = (0..4096).map(|i| five_bits(i * i)).collect();
        assert!(free.deflate(zeros.clone()).len() < zeros.len() / 100);
        assert!(!free.fits(FREE / 2 - 1));
        assert!(free.fits(FREE / 2));
        assert_eq!(bounded.deflate(zeros.clone()), zeros);
        let stored = bounded.deflate(dense.clone()).len();
        assert!((dense.len() / 2..dense.len()).contains(&stored), "{stored}");
        assert!(bounded.fits(stored));
    }
}
