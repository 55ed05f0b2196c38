//! Reading the binary version of CIFAR-10.

use std::path::Path;

use crate::Failure;
use crate::bytes::{Augment, ByteImages};

/// Pixels in a row and rows of an image.
const SIDE: usize = 32;

/// A label and an image.
const RECORD: usize = 1 + 3 * SIDE * SIDE;

const TRAIN: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
const TEST: [&str; 1] = ["test_batch.bin"];

/// The training and the test images in the folder, in their ten classes.
///
/// # Errors
/// If the folder or a file is missing or damaged.
pub fn read_folder(folder: &Path) -> Result<[ByteImages; 2], Failure> {
    if !folder.is_dir() {
        return Err(format!("{} is not a folder", folder.display()).into());
    }
    Ok([read_files(folder, &TRAIN)?, read_files(folder, &TEST)?])
}

fn read_files(folder: &Path, names: &[&str]) -> Result<ByteImages, Failure> {
    let mut images = ByteImages {
        pixels: Vec::new(),
        labels: Vec::new(),
        shape: [3, SIDE, SIDE],
        repeat: 1,
        norm: vec![[0.4914, 0.2470], [0.4822, 0.2435], [0.4465, 0.2616]],
        augment: Augment::None,
    };
    for name in names {
        let file = folder.join(name);
        let failed = |what: String| -> Failure { format!("{}: {what}", file.display()).into() };
        let bytes = std::fs::read(&file).map_err(|error| {
            failed(format!(
                "{error}; the folder needs the binary version of CIFAR-10"
            ))
        })?;
        let [labels, pixels] = parse(&bytes).map_err(failed)?;
        images.labels.extend(labels);
        images.pixels.extend(pixels);
    }
    Ok(images)
}

/// The labels and the pixels of one file, `[images]` and `[images, 3, 32, 32]`.
///
/// # Errors
/// If the bytes are not whole images of ten classes; says what is wrong.
pub fn parse(bytes: &[u8]) -> Result<[Vec<u8>; 2], String> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
        return Err(format!(
            "{} bytes are not a number of images of {RECORD} bytes; fetch it again",
            bytes.len()
        ));
    }
    let count = bytes.len() / RECORD;
    let mut labels = Vec::with_capacity(count);
    let mut pixels = Vec::with_capacity(bytes.len() - count);
    for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
        let (label, image) = (record[0], &record[1..]);
        if label > 9 {
            return Err(format!(
                "label {index} is {label}, this network has classes 0 to 9; is it another data set?"
            ));
        }
        labels.push(label);
        pixels.extend_from_slice(image);
    }
    Ok([labels, pixels])
}
