//! The two IDX files of a split: the first two bytes say how long the images' file is.

#![no_main]

use std::io::Read;
use std::path::Path;

use example_common::idx::parse;
use flate2::read::GzDecoder;
use libfuzzer_sys::fuzz_target;
use multibit_fuzz::bounded;

/// What a file holds when it is not compressed any more.
fn inflated(bytes: &[u8]) -> usize {
    let mut sink = [0; 4096];
    let mut decoder = GzDecoder::new(bytes);
    let mut sum = 0;
    while let Ok(read @ 1..) = decoder.read(&mut sink) {
        sum += read;
    }
    sum.max(bytes.len())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&[low, high], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
    let (images, labels) = rest.split_at(length);
    let size = inflated(images) + inflated(labels);
    let read = || {
        let (images, labels) = ((Path::new("images"), images), (Path::new("labels"), labels));
        parse(Path::new("folder"), "training", images, labels)
    };
    if let Ok(split) = bounded(size, read) {
        assert_eq!(split.pixels.len(), split.labels.len() * 28 * 28);
        assert!(split.labels.iter().all(|&label| label < 10));
    }
});
