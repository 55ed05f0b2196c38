//! A file of CIFAR-10's binary version.

#![no_main]

use example_common::cifar::parse;
use libfuzzer_sys::fuzz_target;
use multibit_fuzz::bounded;

fuzz_target!(|bytes: &[u8]| {
    // Images are large and of no interest, so that the fuzzer is spared theirs.
    let mut file = Vec::with_capacity(bytes.len() * 3073);
    for (index, &label) in bytes.iter().enumerate() {
        file.push(label);
        let cut = if label == 255 { index } else { 3072 };
        file.extend(std::iter::repeat_n(label ^ index as u8, cut));
    }
    if let Ok([labels, pixels]) = bounded(file.len(), || parse(&file)) {
        assert_eq!(labels, bytes);
        assert_eq!(pixels.len(), labels.len() * 3072);
    }
    let _ = bounded(bytes.len(), || parse(bytes));
});
