//! The data: a subset of MNIST inside the program, or any folder of IDX files.

use std::path::{Path, PathBuf};

use clap::Args;
use example_common::bytes::{ByteImages, dataset};
use example_common::data::name;
use example_common::idx::{parse, read_folder};
use example_common::{Config, DataFlags, Dataset, Failure};

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
        match &self.data_dir {
            Some(folder) => last_sixth(folder, &name(folder), read_folder(folder)?),
            None if self.download => download(),
            None => embedded(),
        }
    }
}

/// The subset inside the program: 6,000 training, 1,000 validation and 2,000 test images of MNIST.
///
/// # Errors
/// If the files it was built with are damaged.
fn embedded() -> Result<Dataset, Failure> {
    macro_rules! embed {
        ($name:literal) => {
            (
                Path::new(concat!("data/", $name)),
                include_bytes!(concat!("../data/", $name)).as_slice(),
            )
        };
    }
    let folder = Path::new("data");
    let images = embed!("train-images-idx3-ubyte.gz");
    let labels = embed!("train-labels-idx1-ubyte.gz");
    let train = parse(folder, "training", images, labels)?;
    let images = embed!("t10k-images-idx3-ubyte.gz");
    let labels = embed!("t10k-labels-idx1-ubyte.gz");
    let test = parse(folder, "test", images, labels)?;
    dataset(folder, "MNIST subset", [train, test], 1000)
}

/// A data set whose last sixth of the training images validates.
fn last_sixth(folder: &Path, name: &str, splits: [ByteImages; 2]) -> Result<Dataset, Failure> {
    let valid = splits[0].labels.len() / 6;
    dataset(folder, name, splits, valid)
}

/// MNIST, downloaded through burn-dataset.
///
/// # Errors
/// If the program was built without the feature `download`.
#[cfg(not(feature = "download"))]
fn download() -> Result<Dataset, Failure> {
    Err("this program was built without downloading; build it with --features download".into())
}

/// MNIST, downloaded through burn-dataset.
///
/// # Errors
/// If the download fails.
#[cfg(feature = "download")]
fn download() -> Result<Dataset, Failure> {
    use burn::data::dataset::Dataset as _;
    use burn::data::dataset::vision::MnistDataset;

    let failed = |reason: String| -> Failure { format!("the download failed: {reason}").into() };
    let read = |dataset: MnistDataset| -> Result<ByteImages, Failure> {
        let mut split = ByteImages::new([1, 28, 28], vec![[0.1307, 0.3081]]);
        for item in dataset.iter() {
            let item = item.map_err(|error| failed(error.to_string()))?;
            let pixels = item.image.iter().flatten();
            split.pixels.extend(pixels.map(|&pixel| pixel as u8));
            split.labels.push(item.label);
        }
        Ok(split)
    };
    // burn-dataset panics when it cannot download.
    let splits = std::panic::catch_unwind(|| (MnistDataset::train(), MnistDataset::test()));
    let (train, test) = splits.map_err(|panic| {
        let reason = panic.downcast_ref::<String>().map(String::as_str);
        failed(reason.unwrap_or("no reason given").to_string())
    })?;
    last_sixth(Path::new("MNIST"), "MNIST", [read(train)?, read(test)?])
}
