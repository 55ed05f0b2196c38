//! Reading IDX files (MNIST and every data set in its format), gzip-compressed or not.
//!
//! Public are [`read_folder`], [`read_test`] and [`parse`].

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::bytes::{ByteImages, check_labels};
use crate::{Failure, at};

const IMAGES: u32 = 2051;
const LABELS: u32 = 2049;

/// The training and the test images of the data set in a folder, with the usual names, `.gz` or not:
/// grey images of 28×28 pixels in ten classes, to be normalized as MNIST is.
///
/// # Errors
/// If the folder or a file is missing or damaged, or holds something else.
pub fn read_folder(folder: &Path) -> Result<[ByteImages; 2], Failure> {
    Ok([read_split(folder, "training", "train")?, read_test(folder)?])
}

/// The test images of the same, which need no other files.
///
/// # Errors
/// As [`read_folder`].
pub fn read_test(folder: &Path) -> Result<ByteImages, Failure> {
    read_split(folder, "test", "t10k")
}

fn read_split(folder: &Path, split: &'static str, name: &str) -> Result<ByteImages, Failure> {
    if !folder.is_dir() {
        return Err(format!("{} is not a folder", folder.display()).into());
    }
    let file = |kind: &str, axes: u8| -> Result<(PathBuf, Vec<u8>), Failure> {
        let names = ["-", "."].map(|dash| format!("{name}-{kind}{dash}idx{axes}-ubyte"));
        let names = names.map(|name| [name.clone(), name + ".gz"]).concat();
        let found = names.iter().map(|name| folder.join(name));
        let file = found
            .into_iter()
            .find(|file| file.exists())
            .ok_or_else(|| {
                format!(
                    "{} has none of {}; put the IDX files of the data set there",
                    folder.display(),
                    names.join(", ")
                )
            })?;
        let bytes = std::fs::read(&file).map_err(|error| at(&file, error))?;
        Ok((file, bytes))
    };
    let (images, labels) = (file("images", 3)?, file("labels", 1)?);
    parse(
        folder,
        split,
        (&images.0, &images.1),
        (&labels.0, &labels.1),
    )
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
    if count != labels.len() {
        let labels = labels.len();
        let error = format!("the {split} split has {count} images, but {labels} labels");
        return Err(at(folder, error));
    }
    if [rows, cols] != [28, 28] {
        let error =
            format!("images are {rows}x{cols}, this network takes 28x28; is it another data set?");
        return Err(at(folder, error));
    }
    check_labels(&labels).map_err(|error| at(folder, error))?;
    Ok(ByteImages {
        pixels,
        labels,
        ..ByteImages::new([1, 28, 28], vec![[0.1307, 0.3081]])
    })
}

/// The sizes in the header, and the data, of exactly the length that they promise.
fn parse_file<const N: usize>(
    file: &Path,
    bytes: &[u8],
    magic: u32,
) -> Result<([usize; N], Vec<u8>), Failure> {
    let gzip = bytes.starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> = if gzip {
        Box::new(GzDecoder::new(bytes))
    } else {
        Box::new(bytes)
    };
    let damaged =
        |error: std::io::Error| at(file, format!("damaged gzip file ({error}); fetch it again"));
    let mut header = Vec::new();
    let size = 4 * (N + 1);
    let mut limited = reader.by_ref().take(size as u64);
    limited.read_to_end(&mut header).map_err(damaged)?;
    let mut fields = header
        .chunks_exact(4)
        .map(|field| u32::from_be_bytes([field[0], field[1], field[2], field[3]]));
    if let Some(found) = fields.next().filter(|found| *found != magic) {
        let kind = |magic| match magic {
            IMAGES => "IDX images",
            LABELS => "IDX labels",
            _ => "something else",
        };
        let (expected, other) = (kind(magic), kind(found));
        let error = format!("expected {expected} (magic number {magic}), found {other} ({found})");
        return Err(at(file, error));
    }
    if header.len() < size {
        let bytes = header.len();
        let error = format!("{bytes} bytes are too few for the header of an IDX file");
        return Err(at(file, error));
    }
    let sizes: [u32; N] = std::array::from_fn(|_| fields.next().unwrap_or(0));
    // At most 2^96, so the product saturates instead of overflowing.
    let expected = sizes.iter().fold(1u64, |product, &size| {
        product.saturating_mul(u64::from(size))
    });
    if expected == 0 {
        return Err(at(file, "no images in it"));
    }
    // One byte more than promised, so that neither a lie nor a gzip bomb takes memory.
    let mut data = Vec::with_capacity(if gzip { 0 } else { bytes.len() - size });
    let mut limited = reader.take(expected.saturating_add(1));
    limited.read_to_end(&mut data).map_err(damaged)?;
    if data.len() as u64 != expected {
        let found = if data.len() as u64 > expected {
            format!("more than {expected}")
        } else {
            data.len().to_string()
        };
        let error = format!(
            "the header promises {expected} bytes of data, the file has {found}; fetch it again"
        );
        return Err(at(file, error));
    }
    Ok((sizes.map(|size| size as usize), data))
}
