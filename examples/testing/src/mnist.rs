//! A small data set in MNIST's format, ten kinds of squares, easily told apart; and some of MNIST's own images.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// A file in IDX format.
pub fn idx(magic: u32, sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let header = std::iter::once(&magic)
        .chain(sizes)
        .flat_map(|field| field.to_be_bytes());
    header.chain(data.iter().copied()).collect()
}

/// A compressed file.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Images of ten kinds: a bright square whose place is the class, with a little noise.
pub fn images(count: usize) -> (Vec<u8>, Vec<u8>) {
    let labels: Vec<u8> = (0..count).map(|i| (i * 7 % 10) as u8).collect();
    let mut pixels = Vec::with_capacity(count * 784);
    for (i, &label) in labels.iter().enumerate() {
        let (top, left) = (usize::from(label) / 5 * 13, usize::from(label) % 5 * 5);
        pixels.extend((0..784).map(|p| {
            let (y, x) = (p / 28, p % 28);
            let inside = (top..top + 10).contains(&y) && (left..left + 6).contains(&x);
            if inside {
                230
            } else {
                ((i * 31 + p * 17) % 40) as u8
            }
        }));
    }
    (pixels, labels)
}

/// MNIST's own test images in the repository, of LeNet5's example: 2,000 of 28×28 bytes.
pub fn test_images() -> Vec<u8> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lenet5-mnist/data");
    let file = fs::File::open(data.join("t10k-images-idx3-ubyte.gz")).unwrap();
    let mut idx = Vec::new();
    GzDecoder::new(file).read_to_end(&mut idx).unwrap();
    // Magic and sizes.
    idx.split_off(16)
}

/// Makes a folder with 240 training and 60 test images, plain and compressed files mixed.
pub fn folder(folder: &str) {
    fs::create_dir(folder).unwrap();
    for (name, count) in [("train", 240), ("t10k", 60)] {
        let (pixels, labels) = images(count);
        let images = idx(2051, &[count as u32, 28, 28], &pixels);
        let labels = idx(2049, &[count as u32], &labels);
        for (kind, bytes) in [("images-idx3", images), ("labels-idx1", labels)] {
            let file = format!("{folder}/{name}-{kind}-ubyte");
            if name == "train" {
                fs::write(file + ".gz", gzip(&bytes)).unwrap();
            } else {
                fs::write(file, bytes).unwrap();
            }
        }
    }
}
