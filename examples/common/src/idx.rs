//! Reading IDX files (MNIST and every data set in its format), gzip-compressed or not.
//!
//! Public are [`read_folder`] and [`parse`].

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::Failure;
use crate::bytes::{Augment, ByteImages};

const IMAGES: u32 = 2051;
const LABELS: u32 = 2049;

/// Why data could not be read. Every variant names the file or folder.
#[derive(Debug)]
enum DataError {
    /// The file could not be read.
    Io {
        file: PathBuf,
        source: std::io::Error,
    },
    /// The gzip stream is truncated or damaged.
    Gzip {
        file: PathBuf,
        source: std::io::Error,
    },
    /// The file does not start with the magic number of its kind.
    Magic {
        file: PathBuf,
        expected: u32,
        found: u32,
    },
    /// The file ends within its header.
    Header { file: PathBuf, bytes: usize },
    /// The file holds more or less than its header says.
    Length {
        file: PathBuf,
        expected: u64,
        found: usize,
        more: bool,
    },
    /// The file holds nothing.
    Empty { file: PathBuf },
    /// The folder is missing or not a folder.
    Folder { folder: PathBuf },
    /// The folder has no file of any of these names.
    Missing { folder: PathBuf, names: Vec<String> },
    /// Images and labels of one split differ in number.
    Counts {
        folder: PathBuf,
        split: &'static str,
        images: usize,
        labels: usize,
    },
    /// The images have another size.
    Size {
        folder: PathBuf,
        rows: usize,
        cols: usize,
    },
    /// A label is not a class.
    Label {
        folder: PathBuf,
        index: usize,
        label: u8,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { file, source } => write!(f, "{}: {source}", file.display()),
            Self::Gzip { file, source } => write!(
                f,
                "{}: damaged gzip file ({source}); fetch it again",
                file.display()
            ),
            Self::Magic {
                file,
                expected,
                found,
            } => {
                let kind = |magic| match magic {
                    IMAGES => "IDX images",
                    LABELS => "IDX labels",
                    _ => "something else",
                };
                write!(
                    f,
                    "{}: expected {} (magic number {expected}), found {} ({found})",
                    file.display(),
                    kind(*expected),
                    kind(*found)
                )
            }
            Self::Header { file, bytes } => write!(
                f,
                "{}: {bytes} bytes are too few for the header of an IDX file",
                file.display()
            ),
            Self::Length {
                file,
                expected,
                found,
                more,
            } => write!(
                f,
                "{}: the header promises {expected} bytes of data, the file has {}{found}; \
                 fetch it again",
                file.display(),
                if *more { "more than " } else { "" }
            ),
            Self::Empty { file } => write!(f, "{}: no images in it", file.display()),
            Self::Folder { folder } => write!(f, "{} is not a folder", folder.display()),
            Self::Missing { folder, names } => write!(
                f,
                "{} has none of {}; put the four IDX files of the data set there",
                folder.display(),
                names.join(", ")
            ),
            Self::Counts {
                folder,
                split,
                images,
                labels,
            } => write!(
                f,
                "{}: the {split} split has {images} images, but {labels} labels",
                folder.display()
            ),
            Self::Size { folder, rows, cols } => write!(
                f,
                "{}: images are {rows}x{cols}, this network takes 28x28; is it another data set?",
                folder.display()
            ),
            Self::Label {
                folder,
                index,
                label,
            } => write!(
                f,
                "{}: label {index} is {label}, this network has classes 0 to 9; \
                 is it another data set?",
                folder.display()
            ),
        }
    }
}

impl std::error::Error for DataError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Gzip { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The usual names of the files.
const NAMES: [[&str; 2]; 4] = [
    ["train-images-idx3-ubyte", "train-images.idx3-ubyte"],
    ["train-labels-idx1-ubyte", "train-labels.idx1-ubyte"],
    ["t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"],
    ["t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"],
];

/// The training and the test images of the data set in a folder, with the usual names, `.gz` or not:
/// grey images of 28×28 pixels in ten classes, to be normalized as MNIST is.
///
/// # Errors
/// If the folder or a file is missing or damaged, or holds something else.
pub fn read_folder(folder: &Path) -> Result<[ByteImages; 2], Failure> {
    if !folder.is_dir() {
        let folder = folder.to_path_buf();
        return Err(DataError::Folder { folder }.into());
    }
    let mut files = Vec::with_capacity(NAMES.len());
    for names in NAMES {
        let names: Vec<String> = names
            .iter()
            .flat_map(|name| [name.to_string(), format!("{name}.gz")])
            .collect();
        let found = names.iter().map(|name| folder.join(name));
        let found = found.into_iter().find(|file| file.exists());
        let file = found.ok_or(DataError::Missing {
            folder: folder.to_path_buf(),
            names,
        })?;
        let bytes = std::fs::read(&file);
        let bytes = bytes.map_err(|source| DataError::Io {
            file: file.clone(),
            source,
        })?;
        files.push((file, bytes));
    }
    let [images, labels, test_images, test_labels] = [0, 1, 2, 3].map(|index| {
        let (file, bytes): &(PathBuf, Vec<u8>) = &files[index];
        (file.as_path(), bytes.as_slice())
    });
    Ok([
        parse(folder, "training", images, labels)?,
        parse(folder, "test", test_images, test_labels)?,
    ])
}

/// The images of one split from the bytes of its two files, each with the name for errors.
///
/// # Errors
/// If they are damaged, do not belong together, or hold something else than 28×28 images in ten
/// classes.
pub fn parse(
    folder: &Path,
    split: &'static str,
    images: (&Path, &[u8]),
    labels: (&Path, &[u8]),
) -> Result<ByteImages, Failure> {
    let ([count, rows, cols], pixels) = parse_file(images.0, images.1, IMAGES)?;
    let ([_], labels) = parse_file(labels.0, labels.1, LABELS)?;
    let folder = folder.to_path_buf();
    if count != labels.len() {
        let (images, labels) = (count, labels.len());
        return Err(DataError::Counts {
            folder,
            split,
            images,
            labels,
        }
        .into());
    }
    if [rows, cols] != [28, 28] {
        return Err(DataError::Size { folder, rows, cols }.into());
    }
    if let Some(index) = labels.iter().position(|&label| label > 9) {
        let label = labels[index];
        return Err(DataError::Label {
            folder,
            index,
            label,
        }
        .into());
    }
    Ok(ByteImages {
        pixels,
        labels,
        shape: [1, 28, 28],
        repeat: 1,
        norm: vec![[0.1307, 0.3081]],
        augment: Augment::None,
    })
}

/// The sizes in the header, and the data, of exactly the length that they promise.
fn parse_file<const N: usize>(
    file: &Path,
    bytes: &[u8],
    magic: u32,
) -> Result<([usize; N], Vec<u8>), DataError> {
    let file = file.to_path_buf();
    let gzip = bytes.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> = if gzip {
        Box::new(GzDecoder::new(bytes))
    } else {
        Box::new(bytes)
    };
    let failed = |source| DataError::Gzip {
        file: file.clone(),
        source,
    };
    let mut header = Vec::new();
    let size = 4 * (N + 1);
    let mut limited = reader.by_ref().take(size as u64);
    limited.read_to_end(&mut header).map_err(failed)?;
    let mut fields = header
        .chunks_exact(4)
        .map(|field| u32::from_be_bytes([field[0], field[1], field[2], field[3]]));
    if let Some(found) = fields.next().filter(|found| *found != magic) {
        return Err(DataError::Magic {
            file,
            expected: magic,
            found,
        });
    }
    if header.len() < size {
        let bytes = header.len();
        return Err(DataError::Header { file, bytes });
    }
    let sizes: [u32; N] = std::array::from_fn(|_| fields.next().unwrap_or(0));
    // At most 2^96, so the product saturates instead of overflowing.
    let expected = sizes.iter().fold(1u64, |product, &size| {
        product.saturating_mul(u64::from(size))
    });
    if expected == 0 {
        return Err(DataError::Empty { file });
    }
    // One byte more than promised, so that neither a lie nor a gzip bomb takes memory.
    let mut data = match gzip {
        true => Vec::new(),
        false => Vec::with_capacity(bytes.len() - size),
    };
    let mut limited = reader.take(expected.saturating_add(1));
    limited.read_to_end(&mut data).map_err(failed)?;
    if data.len() as u64 != expected {
        let more = data.len() as u64 > expected;
        let found = data.len() - usize::from(more);
        return Err(DataError::Length {
            file,
            expected,
            found,
            more,
        });
    }
    Ok((sizes.map(|size| size as usize), data))
}
