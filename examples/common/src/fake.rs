//! A small image set that a network learns in seconds.

use std::sync::Arc;

use crate::bytes::{ByteImages, varied};
use crate::data::Random;
use crate::{Dataset, Failure, Images};

/// Classes of the set.
pub const CLASSES: usize = 10;

/// Pixels in a row and rows of an image.
const SIDE: usize = 32;

/// The set, with at most so many images of both kinds; see [`varied`].
///
/// # Errors
/// If the limit leaves too few images.
pub fn dataset(limit: Option<u32>, pad: usize) -> Result<Dataset, Failure> {
    let splits = [images(600, 1), images(200, 2)];
    varied("--fake-data".as_ref(), NAME, splits, limit, pad)
}

/// The name and the test images of the set, at most so many.
pub fn test(limit: Option<u32>) -> (String, Arc<dyn Images>) {
    (NAME.into(), images(200, 2).into_test(limit))
}

const NAME: &str = "fake images";

/// Colour images of ten classes: a square whose colour and height in the image are the class's, at a
/// random place, over noise. The same for the same arguments.
fn images(count: usize, seed: u64) -> ByteImages {
    let mut images = ByteImages::new([3, SIDE, SIDE], vec![[0.25; 2]; 3]);
    for image in 0..count {
        let mut random = Random::new(seed, image as u64);
        let class = image % CLASSES;
        let side = SIDE / 3;
        let (colour, low) = (class % 5, class / 5 == 1);
        let top = random.below(SIDE / 8 + 1) + if low { SIDE / 2 } else { 0 };
        let left = random.below(SIDE - side);
        for channel in 0..3 {
            // red, green, blue, yellow, white
            let bright = [1, 2, 4, 3, 7][colour] >> channel & 1 == 1;
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let inside = (top..top + side).contains(&y) && (left..left + side).contains(&x);
                    let noise = random.below(48) as u8;
                    let value = if inside && bright { 200 + noise } else { noise };
                    images.pixels.push(value);
                }
            }
        }
        images.labels.push(class as u8);
    }
    images
}
