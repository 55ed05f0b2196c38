//! Packed models. What loads must be written and read again as the same model.

#![no_main]

use burn_alq::PackedModel;
use burn_alq::file::Coding;
use burn_alq_fuzz::{bounded, container};
use libfuzzer_sys::fuzz_target;

fn load(bytes: &[u8]) -> Option<PackedModel> {
    let owned = bytes.to_vec();
    bounded(bytes.len(), move || {
        PackedModel::from_bytes(owned, "fuzz").ok()
    })
}

fuzz_target!(|bytes: &[u8]| {
    load(bytes);
    let Some(bytes) = container::packed(bytes) else {
        return;
    };
    let Some(model) = load(&bytes) else {
        return;
    };
    // The encoder works hard: not every time.
    let coding = match crc32fast::hash(&bytes) % 64 {
        0 => Coding::Deflate,
        _ => Coding::Plain,
    };
    let Ok(written) = model.to_bytes_with(coding) else {
        // Tensors quantized by Burn are only stored plainly.
        assert_eq!(coding, Coding::Deflate);
        return;
    };
    let again = PackedModel::from_bytes(written.clone(), "again").expect("what was written");
    // By bytes, because a NaN is not equal to itself.
    assert!(again.to_bytes_with(coding).expect("once more") == written);
    for (_, weight) in &again.weights {
        if weight.weights() < 1 << 16 {
            let _ = weight.unpack();
        }
    }
});
