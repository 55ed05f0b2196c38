//! The C functions, as a host that is not Rust calls them.
#![cfg(all(feature = "exports", feature = "deflate"))]

use std::path::Path;

use multibit::exports::*;
use multibit::file::PackedFile;
use multibit::runtime::Plan;

/// The last text.
fn text(len: usize) -> String {
    assert_eq!(len, multibit_text_len());
    // SAFETY: the module's own text of this length; no call comes between.
    let bytes = unsafe { std::slice::from_raw_parts(multibit_text(), len) };
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn load(bytes: &[u8]) -> u32 {
    let room = multibit_file(bytes.len());
    assert!(!room.is_null());
    // SAFETY: room for as many bytes, which nothing else uses until it is loaded.
    unsafe { std::slice::from_raw_parts_mut(room, bytes.len()) }.copy_from_slice(bytes);
    multibit_load()
}

/// One test: an instance holds one model, and this process is one.
#[test]
fn a_model_is_loaded_and_run() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/every_step_deflate.bpk");
    let bytes = std::fs::read(file).unwrap();

    // Without a model there is nothing to read, and an error that says so.
    assert_eq!(multibit_run(), 0);
    assert_eq!(text(multibit_text_len()), "no model is loaded");
    assert!(multibit_input().is_null() && multibit_scores().is_null());
    let sizes = [multibit_outputs(), multibit_bytes(), multibit_shape(0)];
    assert_eq!(sizes, [0; 3]);
    assert_eq!(multibit_name(), 0);
    assert!(multibit_file(usize::MAX).is_null());
    for (bad, says) in [
        (&b"<html>"[..], "not a burnpack file"),
        (
            &bytes[..bytes.len() - 1],
            "the file has another length than its tensor",
        ),
    ] {
        assert_eq!(load(bad), 0);
        let said = text(multibit_text_len());
        assert!(said.contains(says), "{said}");
    }

    assert_eq!(load(&bytes), 1, "{}", text(multibit_text_len()));
    let file = PackedFile::read(&bytes).unwrap();
    let plan = Plan::new(&file).unwrap();
    assert_eq!(text(multibit_name()), "a model");
    let labels: Vec<String> = (0..5).map(|output| text(multibit_label(output))).collect();
    assert_eq!(labels, ["a", "b", "c", "d", ""]);
    assert_eq!([0, 1, 2, 3].map(|axis| multibit_shape(axis)), [2, 6, 6, 0]);
    assert_eq!((multibit_divisor(), multibit_channels_last()), (255.0, 1));
    assert_eq!((multibit_outputs(), multibit_bytes()), (4, plan.bytes()));

    let raw: Vec<u8> = (0..72).map(|i| (i * 37 % 256) as u8).collect();
    // SAFETY: the module's own sample of this length; no call comes between.
    unsafe { std::slice::from_raw_parts_mut(multibit_input(), 72) }.copy_from_slice(&raw);
    assert_eq!(multibit_run(), 1);
    // SAFETY: the module's own scores of this length; no call comes between.
    let found = unsafe { std::slice::from_raw_parts(multibit_scores(), 4) }.to_vec();
    let (mut buffer, mut scores) = (vec![0; plan.words()], vec![0.0; 4]);
    plan.run_raw(&raw, &mut buffer, &mut scores).unwrap();
    assert_eq!(found, scores);

    // The kernels of the first convolution, summed up, are its weight.
    let weight = file.weights()[0].decode();
    let shape = [0, 1, 2, 3, 4].map(|axis| multibit_kernel_shape(axis));
    assert_eq!(shape, [3, 2, 3, 3, 0]);
    for (place, value) in weight.unpack().into_iter().enumerate() {
        let found = (0..8).fold(0.0, |sum, basis| {
            let sign = multibit_kernel_sign(place, basis) as f32;
            sum + sign * multibit_kernel_coordinate(place, basis)
        });
        assert_eq!(found, value, "weight {place}");
    }
    assert_eq!(multibit_kernel_sign(weight.weights(), 0), 0);

    // Another model takes another instance.
    assert_eq!(load(&bytes), 0);
    assert_eq!(text(multibit_text_len()), "this instance holds a model");
    assert_eq!(multibit_run(), 1, "the first one is still there");
}
