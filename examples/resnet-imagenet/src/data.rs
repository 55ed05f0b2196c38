//! The data: a folder of images, or made up.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Args};
use example_common::image_folder::{self, Options};
use example_common::network::number;
use example_common::{Config, DataFlags, Dataset, Failure, Images, UnlabelledFlags, fake};

use crate::model::CLASSES;

/// What is around a made-up image before it is cropped.
const PAD: usize = 2;

/// Which images.
#[derive(Args)]
#[command(group = ArgGroup::new("images").required(true).args(["data_dir", "fake_data"]))]
pub struct DataArgs {
    /// Folder with train/CLASS and val/CLASS, each with .jpg, .jpeg or .png images.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Make a small image set of 10 classes that is easily learned; images have 32x32 pixels.
    #[arg(long)]
    fake_data: bool,
    /// Use at most so many images of the training set, and of the test set.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    #[command(flatten)]
    reading: ReadArgs,
}

/// How images in files are read.
#[derive(Args)]
struct ReadArgs {
    /// Height and width of the network's input. Images are resized to 256/224 of it before the
    /// crop.
    #[arg(long, value_name = "PIXELS", default_value_t = 224, conflicts_with = "fake_data", value_parser = clap::value_parser!(u32).range(8..=1024))]
    image_size: u32,
    /// Leave images out that cannot be decoded, and count them.
    #[arg(long, conflicts_with = "fake_data")]
    skip_corrupt: bool,
}

impl ReadArgs {
    fn options(&self, config: &Config, limit: Option<u32>) -> Result<Options, Failure> {
        Ok(Options {
            size: self.image_size as usize,
            limit,
            skip_corrupt: self.skip_corrupt,
            outputs: number(config, CLASSES)?,
        })
    }
}

/// Which images, where labels are not needed.
#[derive(Args)]
#[command(group = ArgGroup::new("unlabelled").required(true).args(["images", "fake_data"]))]
pub struct ImageArgs {
    /// Folder with .jpg, .jpeg or .png images, in it or in folders below it.
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// The training images of a small made-up image set; images have 32x32 pixels.
    #[arg(long)]
    fake_data: bool,
    #[command(flatten)]
    reading: ReadArgs,
}

impl UnlabelledFlags for ImageArgs {
    fn unlabelled(&self, config: &Config) -> Result<(String, Arc<dyn Images>), Failure> {
        match &self.images {
            Some(folder) => image_folder::unlabelled(folder, self.reading.options(config, None)?),
            None => {
                let data = fake::dataset(None, PAD)?;
                Ok((data.name, data.train))
            }
        }
    }
}

impl DataFlags for DataArgs {
    fn load(&self, config: &Config) -> Result<Dataset, Failure> {
        let options = self.reading.options(config, self.limit)?;
        match &self.data_dir {
            Some(folder) => image_folder::dataset(folder, options),
            None if options.outputs < fake::CLASSES => {
                Err(format!("--fake-data has {} classes", fake::CLASSES).into())
            }
            None => fake::dataset(self.limit, PAD),
        }
    }

    /// A folder's test images are read without a look at the training images.
    fn test(&self, config: &Config) -> Result<(String, Arc<dyn Images>), Failure> {
        match &self.data_dir {
            Some(folder) => {
                let options = self.reading.options(config, self.limit)?;
                image_folder::test(folder, options, config)
            }
            None => Ok(fake::test(self.limit)),
        }
    }
}
