//! The MNIST images inside the repository.

use std::path::Path;

use super::Failure;

/// Of a gzip file without name and comment: its head, and checksum and length behind the data.
const HEAD: usize = 10;
const TAIL: usize = 8;

/// Of an IDX file of images: magic number, count, height, width.
const IDX_HEAD: usize = 16;

/// Bytes of an image.
const SIZE: usize = 28 * 28;

/// The first test images, one after the other, a byte a pixel.
pub fn images(count: usize) -> Result<Vec<u8>, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../examples/lenet5-mnist/data/t10k-images-idx3-ubyte.gz");
    let name = path.display();
    let file = std::fs::read(&path).map_err(|error| format!("{name}: {error}"))?;
    let deflated = match file.len().checked_sub(TAIL) {
        Some(end) if file.starts_with(&[0x1f, 0x8b, 8, 0]) && end > HEAD => &file[HEAD..end],
        _ => return Err(format!("{name}: not a gzip file without a name").into()),
    };
    let idx = miniz_oxide::inflate::decompress_to_vec(deflated)
        .map_err(|error| format!("{name}: {error}"))?;
    let mut pixels = match idx.get(IDX_HEAD..) {
        Some(pixels) if pixels.len() % SIZE == 0 => pixels.to_vec(),
        _ => return Err(format!("{name}: no images of 28x28 bytes").into()),
    };
    let most = pixels.len() / SIZE;
    if count > most {
        return Err(format!("--images {count}: the repository has {most}").into());
    }
    pixels.truncate(count * SIZE);
    Ok(pixels)
}
