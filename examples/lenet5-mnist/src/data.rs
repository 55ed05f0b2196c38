//! The data: a subset of MNIST inside the program, or any folder of IDX files.

use std::path::Path;

use example_common::bytes::{ByteImages, dataset};
use example_common::idx::{parse, read_folder};
use example_common::{Dataset, Failure};

/// The subset inside the program: 6,000 training, 1,000 validation and 2,000 test images of MNIST.
///
/// # Errors
/// If the files it was built with are damaged.
pub fn embedded() -> Result<Dataset, Failure> {
    macro_rules! embed {
        ($name:literal) => {
            (
                Path::new(concat!("data/", $name)),
                include_bytes!(concat!("../data/", $name)).as_slice(),
            )
        };
    }
    let folder = Path::new("data");
    let train = parse(
        folder,
        "training",
        embed!("train-images-idx3-ubyte.gz"),
        embed!("train-labels-idx1-ubyte.gz"),
    )?;
    let test = parse(
        folder,
        "test",
        embed!("t10k-images-idx3-ubyte.gz"),
        embed!("t10k-labels-idx1-ubyte.gz"),
    )?;
    dataset(folder, "MNIST subset", train, test, 1000)
}

/// The data set in a folder, with the usual names, `.gz` or not. The last sixth of the training
/// images validates.
///
/// # Errors
/// If the folder or a file is missing or damaged, or holds something else than 28×28 images of
/// ten classes.
pub fn from_dir(folder: &Path) -> Result<Dataset, Failure> {
    let [train, test] = read_folder(folder)?;
    let name = folder
        .file_name()
        .map_or("data".into(), |name| name.to_string_lossy());
    last_sixth(folder, &name, train, test)
}

fn last_sixth(
    folder: &Path,
    name: &str,
    train: ByteImages,
    test: ByteImages,
) -> Result<Dataset, Failure> {
    let valid = train.labels.len() / 6;
    dataset(folder, name, train, test, valid)
}

/// MNIST, downloaded through burn-dataset.
///
/// # Errors
/// If the program was built without the feature `download`.
#[cfg(not(feature = "download"))]
pub fn download() -> Result<Dataset, Failure> {
    Err("this program was built without downloading; build it with --features download".into())
}

/// MNIST, downloaded through burn-dataset.
///
/// # Errors
/// If the download fails.
#[cfg(feature = "download")]
pub fn download() -> Result<Dataset, Failure> {
    use burn::data::dataset::Dataset as _;
    use burn::data::dataset::vision::MnistDataset;
    use example_common::bytes::Augment;

    let failed = |reason: String| -> Failure { format!("the download failed: {reason}").into() };
    let read = |dataset: MnistDataset| -> Result<ByteImages, Failure> {
        let count = dataset.len();
        let mut split = ByteImages {
            pixels: Vec::with_capacity(count * 784),
            labels: Vec::with_capacity(count),
            shape: [1, 28, 28],
            repeat: 1,
            norm: vec![[0.1307, 0.3081]],
            augment: Augment::None,
        };
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
    last_sixth(Path::new("MNIST"), "MNIST", read(train)?, read(test)?)
}
