//! Flags for small colour images: CIFAR-10's binary files, IDX files padded to the same size, folders of JPEG or
//! PNG files, or made up.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args, ValueEnum};

use crate::bytes::{ByteImages, varied};
use crate::data::name;
use crate::{Config, DataFlags, Dataset, Failure, Images, cifar, fake, idx, image_folder};

/// Pixels in a row and rows of an image.
const SIDE: usize = 32;

/// What is around an image before it is cropped.
const PAD: usize = 4;

/// The name of the data in [`Format::Cifar10`].
const CIFAR10: &str = "CIFAR-10";

/// Which images of 3×32×32.
#[derive(Args)]
#[command(group = ArgGroup::new("images").required(true).args(["data_dir", "fake_data"]))]
pub struct SmallImages {
    /// Folder with the images.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What is in the folder.
    #[arg(long, value_enum, default_value_t = Format::Cifar10, conflicts_with = "fake_data")]
    data_format: Format,
    /// Make a small image set that is easily learned.
    #[arg(long)]
    fake_data: bool,
    /// Use at most so many images of the training set, and of the test set.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// What a folder of images holds.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// CIFAR-10's binary files, data_batch_1.bin to data_batch_5.bin and test_batch.bin.
    Cifar10,
    /// The four IDX files of Fashion-MNIST or MNIST, .gz or not; padded to 32x32.
    Mnist,
    /// JPEG or PNG files of 32x32 in train/CLASS and test/CLASS, at most ten classes.
    Images,
}

impl DataFlags for SmallImages {
    fn load(&self, _config: &Config) -> Result<Dataset, Failure> {
        let Some(folder) = &self.data_dir else {
            return fake::dataset(self.limit, PAD);
        };
        let name = name(folder);
        let (name, labels, splits) = match self.data_format {
            Format::Cifar10 => {
                let labels = cifar::CLASSES.map(String::from).into();
                (CIFAR10.into(), labels, cifar::read_folder(folder)?)
            }
            Format::Mnist => (name, Vec::new(), idx::read_folder(folder)?.map(padded)),
            Format::Images => {
                let (labels, splits) = image_folder::small(folder, SIDE)?;
                (name, labels, splits)
            }
        };
        let mut data = varied(folder, &name, splits, self.limit, PAD)?;
        if !labels.is_empty() {
            data.labels = labels;
        }
        Ok(data)
    }

    fn test(&self, _config: &Config) -> Result<(String, Arc<dyn Images>), Failure> {
        let Some(folder) = &self.data_dir else {
            return Ok(fake::test(self.limit));
        };
        let (name, images) = match self.data_format {
            Format::Cifar10 => (CIFAR10.into(), cifar::read_test(folder)?),
            Format::Mnist => (name(folder), padded(idx::read_test(folder)?)),
            Format::Images => (name(folder), image_folder::small_test(folder, SIDE)?),
        };
        Ok((name, images.into_test(self.limit)))
    }
}

/// Grey images of 28×28 with black pixels around them, in three channels; Fashion-MNIST's mean and
/// deviation.
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
        repeat: 3,
        ..ByteImages::new([1, SIDE, SIDE], vec![[0.2860, 0.3530]])
    }
}
