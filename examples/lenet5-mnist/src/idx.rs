//! Reading IDX files (MNIST and every data set in its format), gzip-compressed or not.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

const IMAGES: u32 = 2051;
const LABELS: u32 = 2049;

/// Grey images, one byte a pixel, row by row.
#[derive(Debug)]
pub struct IdxImages {
    pub count: usize,
    pub rows: usize,
    pub cols: usize,
    pub pixels: Vec<u8>,
}

/// Why data could not be read. Every variant names the file or folder.
#[derive(Debug)]
#[non_exhaustive]
pub enum DataError {
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
    /// Too few images to train and validate on.
    TooFew { folder: PathBuf, count: usize },
    /// The program was built without downloading.
    #[cfg(not(feature = "download"))]
    NoDownload,
    /// The download failed.
    #[cfg(feature = "download")]
    Download { reason: String },
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
            Self::TooFew { folder, count } => write!(
                f,
                "{}: {count} training images are too few to train and validate on",
                folder.display()
            ),
            #[cfg(not(feature = "download"))]
            Self::NoDownload => write!(
                f,
                "this program was built without downloading; build it with --features download"
            ),
            #[cfg(feature = "download")]
            Self::Download { reason } => write!(f, "the download failed: {reason}"),
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

/// Reads a file of images.
///
/// # Errors
/// If it is missing, damaged, or no file of images.
pub fn read_images(file: &Path) -> Result<IdxImages, DataError> {
    parse_images(file, &read(file)?)
}

/// Reads a file of labels.
///
/// # Errors
/// If it is missing, damaged, or no file of labels.
pub fn read_labels(file: &Path) -> Result<Vec<u8>, DataError> {
    parse_labels(file, &read(file)?)
}

fn read(file: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(file).map_err(|source| DataError::Io {
        file: file.to_path_buf(),
        source,
    })
}

/// Parses a file of images; `file` names it in errors.
///
/// # Errors
/// If the bytes are damaged or no images.
pub fn parse_images(file: &Path, bytes: &[u8]) -> Result<IdxImages, DataError> {
    let ([count, rows, cols], pixels) = parse(file, bytes, IMAGES)?;
    Ok(IdxImages {
        count,
        rows,
        cols,
        pixels,
    })
}

/// Parses a file of labels; `file` names it in errors.
///
/// # Errors
/// If the bytes are damaged or no labels.
pub fn parse_labels(file: &Path, bytes: &[u8]) -> Result<Vec<u8>, DataError> {
    let ([_], labels) = parse(file, bytes, LABELS)?;
    Ok(labels)
}

/// The sizes in the header, and the data, of exactly the length that they promise.
fn parse<const N: usize>(
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
    let mut data = Vec::new();
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
