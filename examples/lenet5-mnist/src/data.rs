//! The data: a subset of MNIST inside the program, or any folder of IDX files.

use std::path::Path;

use crate::idx::{DataError, IdxImages, parse_images, parse_labels, read_images, read_labels};

/// Pixels of an image.
pub const PIXELS: usize = 28 * 28;

/// Images with their labels.
#[derive(Debug, Clone)]
pub struct Split {
    /// `[count * 28 * 28]`.
    pub images: Vec<u8>,
    /// `[count]`, classes 0 to 9.
    pub labels: Vec<u8>,
    /// Number of images.
    pub count: usize,
}

/// A data set in its three splits. The validation images are training images that the training
/// does not see.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// To train on.
    pub train: Split,
    /// To choose by.
    pub valid: Split,
    /// To report, once.
    pub test: Split,
    /// For reports.
    pub name: String,
}

const NAMES: [[&str; 2]; 4] = [
    ["train-images-idx3-ubyte", "train-images.idx3-ubyte"],
    ["train-labels-idx1-ubyte", "train-labels.idx1-ubyte"],
    ["t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"],
    ["t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"],
];

impl Dataset {
    /// The subset inside the program: 6,000 training, 1,000 validation and 2,000 test images of
    /// MNIST.
    ///
    /// # Errors
    /// If the files it was built with are damaged.
    pub fn embedded() -> Result<Self, DataError> {
        macro_rules! embed {
            ($parse:ident, $name:literal) => {
                $parse(
                    Path::new(concat!("data/", $name)),
                    include_bytes!(concat!("../data/", $name)),
                )?
            };
        }
        let train = embed!(parse_images, "train-images-idx3-ubyte.gz");
        let train_labels = embed!(parse_labels, "train-labels-idx1-ubyte.gz");
        let test = embed!(parse_images, "t10k-images-idx3-ubyte.gz");
        let test_labels = embed!(parse_labels, "t10k-labels-idx1-ubyte.gz");
        let folder = Path::new("data");
        let train = split(folder, "training", train, train_labels)?;
        let test = split(folder, "test", test, test_labels)?;
        Self::cut(folder, "MNIST subset", train, test, 1000)
    }

    /// The data set in a folder, with the usual names, `.gz` or not. The last sixth of the training
    /// images validates.
    ///
    /// # Errors
    /// If the folder or a file is missing or damaged, or holds something else than 28×28 images of
    /// ten classes.
    pub fn from_dir(folder: &Path) -> Result<Self, DataError> {
        if !folder.is_dir() {
            return Err(DataError::Folder {
                folder: folder.to_path_buf(),
            });
        }
        let mut files = Vec::with_capacity(NAMES.len());
        for names in NAMES {
            let names: Vec<String> = names
                .iter()
                .flat_map(|name| [name.to_string(), format!("{name}.gz")])
                .collect();
            let found = names
                .iter()
                .map(|name| folder.join(name))
                .find(|file| file.exists());
            files.push(found.ok_or(DataError::Missing {
                folder: folder.to_path_buf(),
                names,
            })?);
        }
        let train = split(
            folder,
            "training",
            read_images(&files[0])?,
            read_labels(&files[1])?,
        )?;
        let test = split(
            folder,
            "test",
            read_images(&files[2])?,
            read_labels(&files[3])?,
        )?;
        let valid = train.count / 6;
        let name = folder
            .file_name()
            .map_or("data".into(), |name| name.to_string_lossy());
        Self::cut(folder, &name, train, test, valid)
    }

    /// MNIST, downloaded through burn-dataset.
    ///
    /// # Errors
    /// If the download fails, or the program was built without the feature `download`.
    #[cfg(not(feature = "download"))]
    pub fn download() -> Result<Self, DataError> {
        Err(DataError::NoDownload)
    }

    /// MNIST, downloaded through burn-dataset.
    ///
    /// # Errors
    /// If the download fails.
    #[cfg(feature = "download")]
    pub fn download() -> Result<Self, DataError> {
        use burn::data::dataset::Dataset as _;
        use burn::data::dataset::vision::MnistDataset;

        let failed = |reason: String| DataError::Download { reason };
        let read = |dataset: MnistDataset| {
            let count = dataset.len();
            let mut split = Split {
                images: Vec::with_capacity(count * PIXELS),
                labels: Vec::with_capacity(count),
                count,
            };
            for item in dataset.iter() {
                let item = item.map_err(|error| failed(error.to_string()))?;
                let pixels = item.image.iter().flatten();
                split.images.extend(pixels.map(|&pixel| pixel as u8));
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
        let (train, test) = (read(train)?, read(test)?);
        let valid = train.count / 6;
        Self::cut(Path::new("MNIST"), "MNIST", train, test, valid)
    }

    /// The last `valid` training images validate.
    fn cut(
        folder: &Path,
        name: &str,
        mut train: Split,
        test: Split,
        valid: usize,
    ) -> Result<Self, DataError> {
        let count = train.count;
        if count < 60 || valid >= count {
            let folder = folder.to_path_buf();
            return Err(DataError::TooFew { folder, count });
        }
        let kept = count - valid;
        let valid = Split {
            images: train.images.split_off(kept * PIXELS),
            labels: train.labels.split_off(kept),
            count: valid,
        };
        train.count = kept;
        let name = format!("{name} ({kept}/{}/{} images)", valid.count, test.count);
        Ok(Self {
            train,
            valid,
            test,
            name,
        })
    }

    /// A number that differs for other data (FNV-1a over all pixels and labels), so that a resumed
    /// run notices them.
    pub fn fingerprint(&self) -> u64 {
        let splits = [&self.train, &self.valid, &self.test];
        let bytes = splits
            .into_iter()
            .flat_map(|split| split.images.iter().chain(&split.labels));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

fn split(
    folder: &Path,
    name: &'static str,
    images: IdxImages,
    labels: Vec<u8>,
) -> Result<Split, DataError> {
    let folder = folder.to_path_buf();
    let IdxImages {
        count,
        rows,
        cols,
        pixels,
    } = images;
    if count != labels.len() {
        return Err(DataError::Counts {
            folder,
            split: name,
            images: count,
            labels: labels.len(),
        });
    }
    if [rows, cols] != [28, 28] {
        return Err(DataError::Size { folder, rows, cols });
    }
    if let Some(index) = labels.iter().position(|&label| label > 9) {
        let label = labels[index];
        return Err(DataError::Label {
            folder,
            index,
            label,
        });
    }
    Ok(Split {
        images: pixels,
        labels,
        count,
    })
}

/// The images of an epoch in random order: Fisher and Yates's shuffle, drawn from splitmix64. The
/// same for the same arguments, so that a resumed run sees the same batches.
pub fn epoch_order(count: usize, seed: u64, epoch: u64) -> Vec<u32> {
    let mut state = seed ^ epoch.wrapping_add(1).wrapping_mul(0xd134_2543_de82_ef95);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    };
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        // The bias of a 64-bit remainder is far below one in a billion here.
        order.swap(last, (next() % (last as u64 + 1)) as usize);
    }
    order
}

/// Some images of a split as floats of mean 0 and variance 1 on MNIST, `[indices * 28 * 28]`.
pub fn batch_pixels(split: &Split, indices: &[u32]) -> Vec<f32> {
    const MEAN: f32 = 0.1307;
    const DEVIATION: f32 = 0.3081;
    let images = indices
        .iter()
        .flat_map(|&index| &split.images[index as usize * PIXELS..][..PIXELS]);
    images
        .map(|&pixel| (f32::from(pixel) / 255.0 - MEAN) / DEVIATION)
        .collect()
}
