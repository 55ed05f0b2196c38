//! A small image set that a network learns in seconds.

use crate::bytes::{Augment, ByteImages};
use crate::data::Random;

/// Classes of the set.
pub const CLASSES: usize = 10;

/// Colour images of ten classes: a square whose colour and height in the image are the class's, at a
/// random place, over noise. The same for the same arguments.
pub fn images(count: usize, size: usize, seed: u64) -> ByteImages {
    let mut pixels = Vec::with_capacity(count * 3 * size * size);
    let mut labels = Vec::with_capacity(count);
    for image in 0..count {
        let mut random = Random::new(seed, image as u64);
        let class = image % CLASSES;
        let side = size / 3;
        let (colour, low) = (class % 5, class / 5 == 1);
        let top = random.below(size / 8 + 1) + if low { size / 2 } else { 0 };
        let left = random.below(size - side);
        for channel in 0..3 {
            // red, green, blue, yellow, white
            let bright = [1, 2, 4, 3, 7][colour] >> channel & 1 == 1;
            for y in 0..size {
                for x in 0..size {
                    let inside = (top..top + side).contains(&y) && (left..left + side).contains(&x);
                    let noise = random.below(48) as u8;
                    pixels.push(if inside && bright { 200 + noise } else { noise });
                }
            }
        }
        labels.push(class as u8);
    }
    ByteImages {
        pixels,
        labels,
        shape: [3, size, size],
        repeat: 1,
        norm: vec![[0.25; 2]; 3],
        augment: Augment::None,
    }
}
