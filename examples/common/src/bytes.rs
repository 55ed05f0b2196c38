//! Images in memory, one byte a value, with random crops and flips.

use std::path::Path;
use std::sync::Arc;

use crate::data::{Batch, Images, Random, fingerprint};
use crate::{Dataset, Failure};

/// How training images are varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Augment {
    /// Not at all.
    None,
    /// A crop of the image with so many black pixels around it, mirrored half of the time.
    CropFlip(usize),
}

/// Images of one size in memory.
#[derive(Debug, Clone)]
pub struct ByteImages {
    /// `[images, channels, height, width]`.
    pub pixels: Vec<u8>,
    /// `[images]`.
    pub labels: Vec<u8>,
    /// Of one image, `[channels, height, width]`.
    pub shape: [usize; 3],
    /// The network's channels are so many copies of these.
    pub repeat: usize,
    /// Mean and deviation of every channel, of pixels from 0 to 1.
    pub norm: Vec<[f32; 2]>,
    /// What varies in training.
    pub augment: Augment,
}

impl ByteImages {
    /// Cuts the last `count` images off.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn split_off(&mut self, count: usize) -> Self {
        let kept = self.labels.len() - count;
        let size: usize = self.shape.iter().product();
        Self {
            pixels: self.pixels.split_off(kept * size),
            labels: self.labels.split_off(kept),
            shape: self.shape,
            repeat: self.repeat,
            norm: self.norm.clone(),
            augment: self.augment,
        }
    }

    /// Keeps the first images, at most so many.
    pub fn limit(&mut self, count: Option<usize>) {
        let count = count.map_or(self.labels.len(), |count| count.min(self.labels.len()));
        self.pixels
            .truncate(count * self.shape.iter().product::<usize>());
        self.labels.truncate(count);
    }

    /// All values, for a fingerprint.
    pub fn values(&self) -> impl Iterator<Item = &u8> {
        self.pixels.iter().chain(&self.labels)
    }
}

/// A data set whose last `valid` training images validate.
///
/// # Errors
/// If there are too few images.
pub fn dataset(
    source: &Path,
    name: &str,
    mut train: ByteImages,
    test: ByteImages,
    valid: usize,
) -> Result<Dataset, Failure> {
    let count = train.count();
    if count < 60 || valid >= count || valid == 0 {
        let source = source.display();
        return Err(format!(
            "{source}: {count} training images are too few to train and validate on"
        )
        .into());
    }
    let mut valid = train.split_off(valid);
    valid.augment = Augment::None;
    let splits = [&train, &valid, &test];
    let fingerprint = fingerprint(splits.into_iter().flat_map(ByteImages::values));
    let counts = splits.map(|split| split.count().to_string()).join("/");
    Ok(Dataset {
        train: Arc::new(train),
        valid: Arc::new(valid),
        test: Arc::new(test),
        name: format!("{name} ({counts} images)"),
        fingerprint,
    })
}

impl Images for ByteImages {
    fn count(&self) -> usize {
        self.labels.len()
    }

    fn batch(&self, indices: &[u32], augment: Option<u64>) -> Result<Batch, Failure> {
        let [channels, height, width] = self.shape;
        let size = channels * height * width;
        let mut pixels = Vec::with_capacity(indices.len() * size * self.repeat);
        for &index in indices {
            let image = &self.pixels[index as usize * size..][..size];
            let (top, left, mirrored) = match (self.augment, augment) {
                (Augment::CropFlip(pad), Some(seed)) => {
                    let mut random = Random::new(seed, u64::from(index));
                    let mut offset = || random.below(2 * pad + 1) as isize - pad as isize;
                    let (top, left) = (offset(), offset());
                    (top, left, random.below(2) == 1)
                }
                _ => (0, 0, false),
            };
            for _ in 0..self.repeat {
                for (plane, [mean, deviation]) in image.chunks_exact(height * width).zip(&self.norm)
                {
                    let value = |byte: u8| (f32::from(byte) / 255.0 - mean) / deviation;
                    for y in 0..height {
                        let row = y.checked_add_signed(top).filter(|&y| y < height);
                        pixels.extend((0..width).map(|x| {
                            let x = if mirrored { width - 1 - x } else { x };
                            let x = x.checked_add_signed(left).filter(|&x| x < width);
                            match (row, x) {
                                (Some(y), Some(x)) => value(plane[y * width + x]),
                                _ => value(0),
                            }
                        }));
                    }
                }
            }
        }
        let labels = indices
            .iter()
            .map(|&index| i32::from(self.labels[index as usize]));
        Ok(Batch {
            pixels,
            labels: labels.collect(),
            shape: [channels * self.repeat, height, width],
        })
    }
}
