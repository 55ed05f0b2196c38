//! Images in memory, one byte a value, with random crops and flips.

use std::path::Path;
use std::sync::Arc;

use burn_alq::file::{Input, Order};

use crate::data::{Batch, Images, Random, fingerprint, input, too_few};
use crate::{Dataset, Failure};

/// Images of one size in memory.
#[derive(Debug, Clone)]
pub struct ByteImages {
    /// `[images, channels, height, width]`.
    pub pixels: Vec<u8>,
    /// `[images]`.
    pub labels: Vec<u8>,
    /// The shape of an image, `[channels, height, width]`.
    pub shape: [usize; 3],
    /// The network's channels are so many copies of these.
    pub repeat: usize,
    /// Mean and deviation of every channel, of pixels from 0 to 1.
    pub norm: Vec<[f32; 2]>,
    /// The width of the black frame that a training image is cropped out of, mirrored half of the
    /// time; none for images as they are.
    pub crop: Option<usize>,
}

impl ByteImages {
    /// No images yet, of a shape and with the mean and deviation of every channel.
    pub fn new(shape: [usize; 3], norm: Vec<[f32; 2]>) -> Self {
        Self {
            pixels: Vec::new(),
            labels: Vec::new(),
            shape,
            repeat: 1,
            norm,
            crop: None,
        }
    }

    /// Keeps the first images, if there is a limit.
    fn limit(&mut self, limit: Option<u32>) {
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        if self.count() > limit {
            self.split_off(self.count() - limit);
        }
    }

    /// Images to evaluate on, at most so many.
    pub fn into_test(mut self, limit: Option<u32>) -> Arc<dyn Images> {
        self.limit(limit);
        Arc::new(self)
    }

    /// Cuts the last `count` images off.
    ///
    /// # Panics
    /// If there are fewer.
    fn split_off(&mut self, count: usize) -> Self {
        let kept = self.labels.len() - count;
        let size: usize = self.shape.iter().product();
        Self {
            pixels: self.pixels.split_off(kept * size),
            labels: self.labels.split_off(kept),
            norm: self.norm.clone(),
            ..*self
        }
    }
}

/// A data set whose last `valid` training images validate.
///
/// # Errors
/// If there are too few images.
pub fn dataset(
    source: &Path,
    name: &str,
    [mut train, test]: [ByteImages; 2],
    valid: usize,
) -> Result<Dataset, Failure> {
    let count = train.count();
    if count < 60 || valid >= count || valid == 0 {
        return Err(too_few(source, count));
    }
    let mut valid = train.split_off(valid);
    valid.crop = None;
    let splits = [&train, &valid, &test].into_iter();
    let values = splits.flat_map(|split| split.pixels.iter().chain(&split.labels));
    let fingerprint = fingerprint(values);
    let splits: [Arc<dyn Images>; 3] = [Arc::new(train), Arc::new(valid), Arc::new(test)];
    Ok(Dataset::new(splits, name, "", fingerprint))
}

/// Checks that labels are those of ten classes.
///
/// # Errors
/// If one is not; says which.
pub(crate) fn check_labels(labels: &[u8]) -> Result<(), String> {
    match labels.iter().enumerate().find(|(_, label)| **label > 9) {
        None => Ok(()),
        Some((index, label)) => Err(format!(
            "label {index} is {label}, this network has classes 0 to 9; is it another data set?"
        )),
    }
}

/// A data set of at most so many training and so many test images. In training they are cropped out of
/// a frame of `pad` black pixels and mirrored half of the time; the last tenth of them validates.
///
/// # Errors
/// If there are too few images.
pub fn varied(
    source: &Path,
    name: &str,
    mut splits: [ByteImages; 2],
    limit: Option<u32>,
    pad: usize,
) -> Result<Dataset, Failure> {
    for split in &mut splits {
        split.limit(limit);
    }
    splits[0].crop = Some(pad);
    let valid = splits[0].count() / 10;
    dataset(source, name, splits, valid)
}

impl Images for ByteImages {
    fn count(&self) -> usize {
        self.labels.len()
    }

    fn input(&self) -> Input {
        let [channels, height, width] = self.shape;
        let shape = [channels * self.repeat, height, width];
        input(shape, &self.norm.repeat(self.repeat), Order::ChannelsFirst)
    }

    fn batch(&self, indices: &[u32], augment: Option<u64>) -> Result<Batch, Failure> {
        let [channels, height, width] = self.shape;
        let size = channels * height * width;
        let mut pixels = Vec::with_capacity(indices.len() * size * self.repeat);
        for &index in indices {
            let image = &self.pixels[index as usize * size..][..size];
            let (top, left, mirrored) = match (self.crop, augment) {
                (Some(pad), Some(seed)) => {
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
