//! Sections by DEFLATE, where that is shorter.

use alloc::vec::Vec;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::{Coding, SectionError};

/// The most effort of the encoder; weights are written once and small.
const LEVEL: u8 = 10;

/// A byte of DEFLATE stands for at most so many: four copies of 258.
const MOST_OF_A_BYTE: usize = 1032;

/// A file inflates to at most so many times its own bytes, and [`FREE`] more: trained bits hardly
/// deflate, so no file that is meant well is near it, and a small one takes little memory.
const MOST_OF_A_FILE: usize = 2;

/// What a file may inflate to beside the multiple of its bytes.
const FREE: usize = 1 << 16;

/// Deflates sections, and counts what they inflate to.
pub(super) struct Deflater {
    /// A section that deflates to less than one in so many of its bytes stays plain.
    most: usize,
    inflated: usize,
}

impl Deflater {
    pub(super) fn new(coding: Coding) -> Self {
        let most = match coding {
            Coding::Plain => 0,
            Coding::Deflate => usize::MAX,
        };
        Self { most, inflated: 0 }
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
        if self.most == 0 {
            return section;
        }
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
    /// What a file of so many bytes may inflate to.
    pub(super) fn of_file(bytes: usize) -> Self {
        Self(bytes.saturating_mul(MOST_OF_A_FILE).saturating_add(FREE))
    }
}

/// Exactly `length` bytes from a section that is one whole stream.
pub(super) fn inflate(
    section: &[u8],
    length: usize,
    budget: &mut Budget,
) -> Result<Vec<u8>, SectionError> {
    if length <= section.len() || length > section.len().saturating_mul(MOST_OF_A_BYTE) {
        let stored = section.len();
        return Err(SectionError::Claim { stored, length });
    }
    budget.0 = budget.0.checked_sub(length).ok_or(SectionError::Budget)?;
    let mut plain = alloc::vec![0; length];
    let (status, read, written) = decompress(
        &mut DecompressorOxide::new(),
        section,
        &mut plain,
        0,
        TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
    );
    if status == TINFLStatus::Done && read == section.len() && written == length {
        Ok(plain)
    } else {
        Err(SectionError::Stream)
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

    /// What is as dense as DEFLATE gets is allowed, and no claim beyond it takes memory.
    #[test]
    fn a_bomb_is_refused_before_it_is_decoded() {
        let zeros = alloc::vec![0; 1 << 20];
        let deflated = compress_to_vec(&zeros, LEVEL);
        assert_eq!(
            inflate(&deflated, zeros.len(), &mut Budget(zeros.len())).unwrap(),
            zeros
        );
        let error = inflate(&deflated, 1 << 30, &mut Budget(usize::MAX)).unwrap_err();
        assert!(matches!(error, SectionError::Claim { .. }), "{error}");
        let error = inflate(&deflated, zeros.len(), &mut Budget(zeros.len() - 1)).unwrap_err();
        assert_eq!(error, SectionError::Budget);
    }

    /// What deflates well is deflated as long as the file stays small; the rest of a large file is
    /// plain where it would inflate to more than a reader takes.
    #[test]
    fn a_writer_stays_within_what_a_reader_takes() {
        let (mut free, mut bounded) = (Deflater::new(Coding::Deflate), Deflater::bounded());
        let zeros = alloc::vec![0; 2 * FREE];
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
