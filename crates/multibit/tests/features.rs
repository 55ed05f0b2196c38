//! What a build without a part of the runtime refuses, by name. `cargo xtask test` runs this with the least
//! features too, where checksums are computed with the small table.
#![cfg(feature = "chain")]

use std::path::Path;

use multibit::file::{PackedFile, ReadError};
use multibit::runtime::{Plan, PlanError, StepError};

/// The parts that the steps of the golden file ask for, in their order.
const PARTS: [(&str, bool); 3] = [
    ("bitwise", cfg!(feature = "bitwise")),
    ("functions", cfg!(feature = "functions")),
    ("int8", cfg!(feature = "int8")),
];

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::read(folder.join(name)).unwrap()
}

/// Plans a file; the part that it lacks, if it does.
fn lacks(bytes: &[u8]) -> Option<&'static str> {
    let file = PackedFile::read(bytes).unwrap();
    match Plan::new(&file) {
        Ok(_) => None,
        Err(PlanError::Step {
            source: StepError::Feature { feature },
            ..
        }) => Some(feature),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_part_that_is_not_built_in_is_named() {
    let mut bytes = golden("every_step_plain.bpk");
    let lacking = |parts: &[&str]| {
        let mut parts = PARTS.iter().filter(|(name, _)| parts.contains(name));
        parts.find(|(_, there)| !there).map(|(name, _)| *name)
    };
    assert_eq!(lacks(&bytes), lacking(&["bitwise", "int8"]));
    // A step: what it is, an activation, and its function.
    let relu6 = [0xA2, 0x00, 5, 0x0C, 2];
    let place = bytes.windows(5).position(|step| step == relu6).unwrap();
    bytes[place + 4] = 5;
    let body = 256;
    let stored = u64::from_le_bytes(bytes[body + 8..][..8].try_into().unwrap()) as usize;
    let checksum = crc32(&bytes[body + 4..body + 24 + stored]);
    bytes[body..][..4].copy_from_slice(&checksum.to_le_bytes());
    assert_eq!(lacks(&bytes), lacking(&["bitwise", "functions", "int8"]));
}

#[test]
fn deflated_files_are_refused_where_nothing_inflates_them() {
    let bytes = golden("every_step_deflate.bpk");
    let error = PackedFile::read(&bytes).err();
    let expected = cfg!(not(feature = "deflate")).then_some(ReadError::Deflated);
    assert_eq!(error, expected);
}

/// A byte of each kind: the table in use finds what the definition of a checksum does.
#[test]
fn checksums_are_those_of_every_other_program() {
    let bytes = golden("every_step_plain.bpk");
    let stored = u64::from_le_bytes(bytes[264..272].try_into().unwrap()) as usize;
    let found = u32::from_le_bytes(bytes[256..260].try_into().unwrap());
    assert_eq!(found, crc32(&bytes[260..280 + stored]));
    for at in [260, 270, 281, bytes.len() - 1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x40;
        assert!(PackedFile::read(&bytes).is_err(), "byte {at}");
    }
}

/// By its definition, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ 0xEDB8_8320 & (crc & 1).wrapping_neg()
        })
    })
}
