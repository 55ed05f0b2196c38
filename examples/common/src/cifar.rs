//! Reading the binary version of CIFAR-10.

use std::path::Path;

use crate::bytes::{ByteImages, check_labels};
use crate::{Failure, at};

/// Pixels in a row and rows of an image.
const SIDE: usize = 32;

/// The names of the classes.
pub const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// Mean and deviation of each channel of the training images.
pub(crate) const NORM: [[f32; 2]; 3] = [[0.4914, 0.2470], [0.4822, 0.2435], [0.4465, 0.2616]];

/// A label and an image.
const RECORD: usize = 1 + 3 * SIDE * SIDE;

/// The training and the test images in the folder, in their ten classes.
///
/// # Errors
/// If the folder or a file is missing or damaged.
pub fn read_folder(folder: &Path) -> Result<[ByteImages; 2], Failure> {
    let train = (1..=5).map(|number| format!("data_batch_{number}.bin"));
    Ok([read_files(folder, train)?, read_test(folder)?])
}

/// The test images of the same, which need no other file.
///
/// # Errors
/// As [`read_folder`].
pub fn read_test(folder: &Path) -> Result<ByteImages, Failure> {
    read_files(folder, std::iter::once("test_batch.bin".to_string()))
}

fn read_files(folder: &Path, names: impl Iterator<Item = String>) -> Result<ByteImages, Failure> {
    if !folder.is_dir() {
        return Err(format!("{} is not a folder", folder.display()).into());
    }
    let mut images = ByteImages::new([3, SIDE, SIDE], NORM.into());
    for name in names {
        let file = folder.join(name);
        let bytes = std::fs::read(&file).map_err(|error| {
            let error = format!("{error}; the folder needs the binary version of CIFAR-10");
            at(&file, error)
        })?;
        let [labels, pixels] = parse(&bytes).map_err(|error| at(&file, error))?;
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
    let records = || bytes.chunks_exact(RECORD);
    let labels: Vec<u8> = records().map(|record| record[0]).collect();
    check_labels(&labels)?;
    let pixels: Vec<&[u8]> = records().map(|record| &record[1..]).collect();
    Ok([labels, pixels.concat()])
}
