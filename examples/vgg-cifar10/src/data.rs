//! The data: CIFAR-10's binary files, IDX files padded to the same size, or made up.

use std::path::{Path, PathBuf};

use example_common::bytes::{Augment, ByteImages, dataset};
use example_common::idx::read_folder;
use example_common::{Dataset, Failure, fake};

/// Pixels in a row and rows of an image.
const SIDE: usize = 32;

/// A label and an image.
const RECORD: usize = 1 + 3 * SIDE * SIDE;

/// What is around an image before it is cropped.
const PAD: usize = 4;

const TRAIN: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
const TEST: [&str; 1] = ["test_batch.bin"];

/// CIFAR-10 from its binary files. The last tenth of the training images validates.
///
/// # Errors
/// If a file is missing or damaged.
pub fn cifar10(folder: &Path, limit: Option<usize>) -> Result<Dataset, Failure> {
    let train = read_files(folder, &TRAIN)?;
    let test = read_files(folder, &TEST)?;
    last_tenth(folder, "CIFAR-10", train, test, limit)
}

/// Fashion-MNIST, MNIST or another data set in their format, padded to 32×32 and copied to three
/// channels. The last tenth of the training images validates.
///
/// # Errors
/// If a file is missing or damaged.
pub fn mnist(folder: &Path, limit: Option<usize>) -> Result<Dataset, Failure> {
    let [train, test] = read_folder(folder)?.map(padded);
    let name = folder.file_name();
    let name = name.map_or("data".into(), |name| name.to_string_lossy());
    last_tenth(folder, &name, train, test, limit)
}

/// A small set that is easily learned.
///
/// # Errors
/// If the limit leaves too few images.
pub fn fake(limit: Option<usize>) -> Result<Dataset, Failure> {
    let train = fake::images(600, SIDE, 1);
    let test = fake::images(200, SIDE, 2);
    last_tenth(Path::new("--fake-data"), "fake images", train, test, limit)
}

fn last_tenth(
    folder: &Path,
    name: &str,
    mut train: ByteImages,
    mut test: ByteImages,
    limit: Option<usize>,
) -> Result<Dataset, Failure> {
    train.limit(limit);
    test.limit(limit);
    train.augment = Augment::CropFlip(PAD);
    let valid = train.labels.len() / 10;
    dataset(folder, name, train, test, valid)
}

fn read_files(folder: &Path, names: &[&str]) -> Result<ByteImages, Failure> {
    if !folder.is_dir() {
        return Err(format!("{} is not a folder", folder.display()).into());
    }
    let mut images = ByteImages {
        pixels: Vec::new(),
        labels: Vec::new(),
        shape: [3, SIDE, SIDE],
        repeat: 1,
        norm: vec![[0.4914, 0.2470], [0.4822, 0.2435], [0.4465, 0.2616]],
        augment: Augment::None,
    };
    for name in names {
        let file: PathBuf = folder.join(name);
        let failed = |what: String| -> Failure { format!("{}: {what}", file.display()).into() };
        let bytes = std::fs::read(&file).map_err(|error| {
            failed(format!(
                "{error}; the folder needs the binary version of CIFAR-10"
            ))
        })?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
            return Err(failed(format!(
                "{} bytes are not a number of images of {RECORD} bytes; fetch it again",
                bytes.len()
            )));
        }
        for (index, record) in bytes.chunks_exact(RECORD).enumerate() {
            let (label, pixels) = (record[0], &record[1..]);
            if label > 9 {
                return Err(failed(format!(
                    "label {index} is {label}, this network has classes 0 to 9; is it another \
                     data set?"
                )));
            }
            images.labels.push(label);
            images.pixels.extend_from_slice(pixels);
        }
    }
    Ok(images)
}

/// Black pixels around images of 28×28; Fashion-MNIST's mean and deviation.
fn padded(images: ByteImages) -> ByteImages {
    let [_, height, width] = images.shape;
    let (top, left) = ((SIDE - height) / 2, (SIDE - width) / 2);
    let mut pixels = vec![0; images.labels.len() * SIDE * SIDE];
    let pairs = pixels
        .chunks_exact_mut(SIDE * SIDE)
        .zip(images.pixels.chunks_exact(height * width));
    for (padded, image) in pairs {
        for (y, row) in image.chunks_exact(width).enumerate() {
            padded[(top + y) * SIDE + left..][..width].copy_from_slice(row);
        }
    }
    ByteImages {
        pixels,
        labels: images.labels,
        shape: [1, SIDE, SIDE],
        repeat: 3,
        norm: vec![[0.2860, 0.3530]],
        augment: Augment::None,
    }
}
