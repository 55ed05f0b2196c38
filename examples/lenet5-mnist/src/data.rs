//! The data: a subset of MNIST inside the program, or any folder of IDX files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use example_common::bytes::{ByteImages, dataset};
use example_common::data::name;
use example_common::idx::{parse, read_folder, read_test};
use example_common::{Config, DataFlags, Dataset, Failure, Images};

use crate::model::CLASSES;

/// Which data set.
#[derive(Args)]
pub struct DataArgs {
    /// Folder with the four IDX files of MNIST, Fashion-MNIST or another data set in their format,
    /// .gz or not [default: a subset of MNIST inside the program]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Download MNIST through burn-dataset.
    #[arg(long, conflicts_with = "data_dir")]
    download: bool,
}

impl DataFlags for DataArgs {
    fn load(&self, _config: &Config) -> Result<Dataset, Failure> {
        let mut data = match &self.data_dir {
            // Of any classes.
            Some(folder) => return last_sixth(folder, &name(folder), read_folder(folder)?),
            None if self.download => {
                let splits = [download(Split::Train)?, download(Split::Test)?];
                last_sixth(Path::new(DOWNLOADED), DOWNLOADED, splits)?
            }
            None => dataset(Path::new(FOLDER), EMBEDDED, [train()?, test()?], 1000)?,
        };
        data.labels = (0..CLASSES).map(|digit| digit.to_string()).collect();
        Ok(data)
    }

    fn test(&self, _config: &Config) -> Result<(String, Arc<dyn Images>), Failure> {
        let (name, images) = match &self.data_dir {
            Some(folder) => (name(folder), read_test(folder)?),
            None if self.download => (DOWNLOADED.into(), download(Split::Test)?),
            None => (EMBEDDED.into(), test()?),
        };
        Ok((name, images.into_test(None)))
    }
}

/// The subset inside the program: 6,000 training, 1,000 validation and 2,000 test images of MNIST.
const EMBEDDED: &str = "MNIST subset";
const FOLDER: &str = "data";

const DOWNLOADED: &str = "MNIST";

macro_rules! embed {
    ($name:literal) => {
        (
            Path::new(concat!("data/", $name)),
            include_bytes!(concat!("../data/", $name)).as_slice(),
        )
    };
}

/// The training and validation images inside the program.
///
/// # Errors
/// If the files it was built with are damaged.
fn train() -> Result<ByteImages, Failure> {
    let images = embed!("train-images-idx3-ubyte.gz");
    let labels = embed!("train-labels-idx1-ubyte.gz");
    parse(Path::new(FOLDER), "training", images, labels)
}

/// The test images inside the program.
///
/// # Errors
/// If the files it was built with are damaged.
fn test() -> Result<ByteImages, Failure> {
    let images = embed!("t10k-images-idx3-ubyte.gz");
    let labels = embed!("t10k-labels-idx1-ubyte.gz");
    parse(Path::new(FOLDER), "test", images, labels)
}

/// A data set whose last sixth of the training images validates.
fn last_sixth(folder: &Path, name: &str, splits: [ByteImages; 2]) -> Result<Dataset, Failure> {
    let valid = splits[0].labels.len() / 6;
    dataset(folder, name, splits, valid)
}

/// What is downloaded at a time.
enum Split {
    Train,
    Test,
}

/// A split of MNIST, downloaded through burn-dataset.
///
/// # Errors
/// If the program was built without the feature `download`.
#[cfg(not(feature = "download"))]
fn download(_: Split) -> Result<ByteImages, Failure> {
    Err("this program was built without downloading; build it with --features download".into())
}

/// A split of MNIST, downloaded through burn-dataset.
///
/// # Errors
/// If the download fails.
#[cfg(feature = "download")]
fn download(split: Split) -> Result<ByteImages, Failure> {
    use burn::data::dataset::Dataset as _;
    use burn::data::dataset::vision::MnistDataset;

    let failed = |reason: String| -> Failure { format!("the download failed: {reason}").into() };
    // burn-dataset panics when it cannot download.
    let dataset = std::panic::catch_unwind(|| match split {
        Split::Train => MnistDataset::train(),
        Split::Test => MnistDataset::test(),
    });
    let dataset = dataset.map_err(|panic| {
        let reason = panic.downcast_ref::<String>().map(String::as_str);
        failed(reason.unwrap_or("no reason given").to_string())
    })?;
    let mut images = ByteImages::new([1, 28, 28], vec![[0.1307, 0.3081]]);
    for item in dataset.iter() {
        let item = item.map_err(|error| failed(error.to_string()))?;
        let pixels = item.image.iter().flatten();
        images.pixels.extend(pixels.map(|&pixel| pixel as u8));
        images.labels.push(item.label);
    }
    Ok(images)
}
