//! Numbers in ascending order.

use alloc::vec::Vec;

/// Below so many, comparisons are quicker than counts of digits.
const FEW: usize = 128;

/// Values of a digit: a byte.
const DIGITS: usize = 1 << u8::BITS;

/// Sorts numbers by [`f32::total_cmp`], digit after digit where they are many.
#[derive(Default)]
pub(super) struct Sorter {
    keys: Vec<u32>,
    moved: Vec<u32>,
}

impl Sorter {
    pub(super) fn sort(&mut self, values: &mut [f32]) {
        if values.len() < FEW {
            return values.sort_unstable_by(f32::total_cmp);
        }
        self.keys.clear();
        self.keys.extend(values.iter().map(|&value| key(value)));
        self.moved.resize(values.len(), 0);
        let mut counts = [[0; DIGITS]; size_of::<u32>()];
        for key in &self.keys {
            for (counts, digit) in counts.iter_mut().zip(key.to_le_bytes()) {
                counts[usize::from(digit)] += 1;
            }
        }
        for (byte, places) in counts.iter_mut().enumerate() {
            let mut next = 0;
            for place in places.iter_mut() {
                next += core::mem::replace(place, next);
            }
            for &key in &self.keys {
                let place = &mut places[usize::from(key.to_le_bytes()[byte])];
                self.moved[*place] = key;
                *place += 1;
            }
            core::mem::swap(&mut self.keys, &mut self.moved);
        }
        for (value, &key) in values.iter_mut().zip(&self.keys) {
            *value = number(key);
        }
    }
}

/// A number as an integer of the same order.
fn key(value: f32) -> u32 {
    let bits = value.to_bits();
    bits ^ ((bits as i32 >> 31) as u32 | 1 << 31)
}

fn number(key: u32) -> f32 {
    f32::from_bits(key ^ (!(key as i32 >> 31) as u32 | 1 << 31))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_comparisons() {
        let mut sorter = Sorter::default();
        let mut state = 1u64;
        for count in [0, 1, 2, FEW - 1, FEW, FEW + 1, 5000] {
            let mut values: Vec<f32> = (0..count)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                    f32::from_bits((state >> 32) as u32)
                })
                .collect();
            for (value, special) in
                values
                    .iter_mut()
                    .zip([0.0, -0.0, f32::MAX, -f32::INFINITY, 0.0])
            {
                *value = special;
            }
            let mut expected = values.clone();
            expected.sort_unstable_by(f32::total_cmp);
            sorter.sort(&mut values);
            let bits = |values: &[f32]| {
                values
                    .iter()
                    .map(|value| value.to_bits())
                    .collect::<Vec<_>>()
            };
            assert_eq!(bits(&values), bits(&expected), "{count} numbers");
        }
    }
}
