//! Packed files from a slice: what is whole is read, and nothing else; no byte makes it panic.
#![cfg(all(feature = "runtime", feature = "deflate"))]

mod support;

use std::path::Path;

use multibit::Grouping;
use multibit::cpu::{Activation, Arithmetic, Conv2dOptions, Levels, Pool2dOptions};
use multibit::file::{Coding, PackedFile, ReadError, SectionError};
use multibit::file::{Input, Op, Order};
use multibit::runtime::{Plan, RunError};
use support::chain::Model;

/// A network of every kind of step, in few bytes.
fn every_step() -> Model {
    let mut model = Model::new(77, [2, 6, 6]);
    let options = Conv2dOptions {
        padding: [(1, 1); 2],
        ..Conv2dOptions::default()
    };
    let pool = |size: usize| Pool2dOptions {
        kernel: [size; 2],
        stride: [size; 2],
        padding: [0; 2],
        dilation: [1; 2],
    };
    let shape = [3, 2, 3, 3];
    let grouping = Grouping::kernelwise(&shape).unwrap();
    let layer = model.layer(&shape, grouping, 2, Arithmetic::Exact, [true, true]);
    model.step(Op::Conv2d(layer, options));
    model.step(Op::MaxPool2d(pool(2)));
    model.levels(&Levels::new(0.9, &[0.6, 0.3]).unwrap());
    let skip = model.value();
    let shape = [3, 3, 3, 3];
    let grouping = Grouping::pixelwise(&shape).unwrap();
    let layer = model.layer(&shape, grouping, 2, Arithmetic::Bitwise, [false, true]);
    model.step(Op::Conv2d(layer, options));
    model.step(Op::Add(skip));
    model.step(Op::Activation(Activation::Relu6));
    let shape = [3, 1, 3, 3];
    let grouping = Grouping::channelwise(&shape).unwrap();
    let layer = model.layer(&shape, grouping, 1, Arithmetic::Int8, [true, false]);
    model.step(Op::Conv2d(
        layer,
        Conv2dOptions {
            groups: 3,
            ..options
        },
    ));
    model.step(Op::AvgPool2d(pool(3)));
    model.step(Op::GlobalAvgPool2d);
    model.step(Op::Flatten);
    let shape = [3, 4];
    let grouping = Grouping::subchannelwise(&shape, 1).unwrap();
    let layer = model.layer(&shape, grouping, 3, Arithmetic::Int8, [true, false]);
    model.step(Op::Linear(layer));
    let input = Input {
        divisor: 255.0,
        mean: vec![0.5, 0.25],
        deviation: vec![0.25, 0.5],
        order: Order::ChannelsLast,
        ..Input::new([2, 6, 6])
    };
    model.input(input).labels(&["a", "b", "c", "d"])
}

const FILES: [(Coding, &str); 2] = [
    (Coding::Plain, "every_step_plain.bpk"),
    (Coding::Deflate, "every_step_deflate.bpk"),
];

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The scores of the golden files; a change of any bit of arithmetic shows.
const SCORES: [u32; 4] = [1066230792, 3181245626, 3216982110, 3213739103];

/// As they were first written: what was a model once stays one, with the same scores.
#[test]
fn golden_files_are_read_and_run() {
    for (coding, name) in FILES {
        let path = golden(name);
        let written = every_step().file(coding);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        // What DEFLATE makes of the same bytes is its encoder's to choose.
        assert!(written == bytes || coding == Coding::Deflate, "{name}");
        let file = PackedFile::read(&bytes).unwrap();
        assert_eq!(file.coding(), coding);
        let plan = Plan::new(&file).unwrap();
        let raw: Vec<u8> = (0..72).map(|i| (i * 37 % 256) as u8).collect();
        let mut buffer = vec![0; plan.words()];
        let mut scores = [0.0; 4];
        plan.run_raw(&raw, &mut buffer, &mut scores).unwrap();
        assert_eq!(scores.map(f32::to_bits), SCORES, "{scores:?}");
    }
}

/// Reads a file that may be wrong in any way, plans it and runs it if it is small.
fn try_all(bytes: &[u8]) -> bool {
    let checked = PackedFile::check(bytes).is_ok_and(|check| check.is_whole());
    let read = PackedFile::read(bytes);
    assert_eq!(checked, read.is_ok());
    let Ok(file) = read else {
        return false;
    };
    if let Ok(plan) = Plan::new(&file)
        && plan.words() < 1 << 14
    {
        let input = vec![0.5; plan.input().len()];
        let mut scores = vec![0.0; plan.scores()];
        plan.run(&input, &mut vec![0; plan.words()], &mut scores)
            .unwrap();
    }
    true
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ 0xEDB8_8320 & (crc & 1).wrapping_neg()
        })
    })
}

/// Where the container's data starts.
const BODY: usize = 256;

/// The directory's checksum set right.
fn sealed(bytes: &mut [u8], coding: Coding) {
    let stored = u64::from_le_bytes(bytes[BODY + 8..][..8].try_into().unwrap()) as usize;
    let end = match coding {
        Coding::Plain => (BODY + 24).saturating_add(stored).min(bytes.len()),
        Coding::Deflate => bytes.len(),
    };
    let checksum = crc32(&bytes[BODY + 4..end]);
    bytes[BODY..][..4].copy_from_slice(&checksum.to_le_bytes());
}

/// A byte that was changed is seen by a checksum, or belongs to what no reader looks at.
#[test]
fn no_byte_can_be_changed_unseen() {
    for (coding, _) in FILES {
        let bytes = every_step().file(coding);
        let metadata = 10 + u32::from_le_bytes(bytes[6..10].try_into().unwrap()) as usize;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                // An older version of the container, and zeros before the data.
                let unseen = at == 4 || (metadata..BODY).contains(&at);
                assert!(
                    !try_all(&bytes) || unseen,
                    "{coding:?}: byte {at}, bit {bit}"
                );
            }
        }
        for cut in 0..bytes.len() {
            assert!(!try_all(&bytes[..cut]), "{coding:?}: {cut} bytes");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(!try_all(&longer), "{coding:?}: a byte behind the end");
    }
}

/// Lies with a right checksum.
#[test]
fn no_lie_of_the_directory_makes_it_panic() {
    for (coding, _) in FILES {
        let bytes = every_step().file(coding);
        let stored = u64::from_le_bytes(bytes[BODY + 8..][..8].try_into().unwrap()) as usize;
        let mut read = 0;
        for at in BODY + 4..BODY + 24 + stored {
            for value in 0..=255 {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                sealed(&mut bytes, coding);
                read += usize::from(try_all(&bytes));
            }
        }
        assert!(read > 0, "some changes are of numbers that may be others");
    }
}

#[test]
fn errors_have_types() {
    let bytes = every_step().file(Coding::Plain);
    let error = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        PackedFile::read(&bytes).unwrap_err()
    };
    assert_eq!(error(&|bytes| bytes[0] = b'X'), ReadError::Foreign);
    assert_eq!(error(&Vec::clear), ReadError::Foreign);
    assert_eq!(
        error(&|bytes| bytes[BODY + 4] = 2),
        ReadError::Version { found: 2 }
    );
    assert_eq!(error(&|bytes| bytes[BODY + 24] ^= 1), ReadError::Checksum);
    let longer = error(&|bytes| {
        bytes[BODY + 8..][..8].fill(0xFF);
        sealed(bytes, Coding::Deflate);
    });
    assert_eq!(longer, ReadError::Sections(SectionError::Short));
    let last = error(&|bytes| *bytes.last_mut().unwrap() ^= 1);
    assert!(matches!(last, ReadError::Entry { .. }), "{last}");

    let file = PackedFile::read(&bytes).unwrap();
    let plan = Plan::new(&file).unwrap();
    let (mut buffer, mut scores) = (vec![0; plan.words()], [0.0; 4]);
    let short = plan.run(&[0.0; 71], &mut buffer, &mut scores).unwrap_err();
    assert_eq!(
        short,
        RunError::Input {
            expected: 72,
            found: 71
        }
    );
    let short = plan
        .run_raw(&[0; 73], &mut buffer, &mut scores)
        .unwrap_err();
    assert_eq!(
        short,
        RunError::Input {
            expected: 72,
            found: 73
        }
    );
    let (expected, found) = (plan.words(), plan.words() - 1);
    let short = plan
        .run(&[0.0; 72], &mut buffer[1..], &mut scores)
        .unwrap_err();
    assert_eq!(short, RunError::Buffer { expected, found });
    let short = plan
        .run(&[0.0; 72], &mut buffer, &mut scores[1..])
        .unwrap_err();
    assert_eq!(
        short,
        RunError::Scores {
            expected: 4,
            found: 3
        }
    );
}
