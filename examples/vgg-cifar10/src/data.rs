//! The data: CIFAR-10's binary files, IDX files padded to the same size, or made up.

use std::path::Path;

use example_common::bytes::{Augment, ByteImages, dataset};
use example_common::{Dataset, Failure, cifar, fake, idx};

/// Pixels in a row and rows of an image.
const SIDE: usize = 32;

/// What is around an image before it is cropped.
const PAD: usize = 4;

/// CIFAR-10 from its binary files. The last tenth of the training images validates.
///
/// # Errors
/// If a file is missing or damaged.
pub fn cifar10(folder: &Path, limit: Option<usize>) -> Result<Dataset, Failure> {
    let [train, test] = cifar::read_folder(folder)?;
    last_tenth(folder, "CIFAR-10", train, test, limit)
}

/// Fashion-MNIST, MNIST or another data set in their format, padded to 32×32 and copied to three
/// channels. The last tenth of the training images validates.
///
/// # Errors
/// If a file is missing or damaged.
pub fn mnist(folder: &Path, limit: Option<usize>) -> Result<Dataset, Failure> {
    let [train, test] = idx::read_folder(folder)?.map(padded);
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
