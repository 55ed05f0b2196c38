//! The smallest values of a buffer, so that no more than them is read back.
//!
//! A radix selection on the pair of a value and its place, digit by digit: as no two pairs are
//! equal, exactly as many as wanted are at or below the last of them.

use cubecl::prelude::*;

use super::{again, alone, buffer, check, cubes};

/// Bits of a digit.
const DIGIT: u32 = 8;

/// Digits of a pair of two words.
const DIGITS: u32 = 64 / DIGIT;

/// Cubes that count; each goes through the values in large steps.
const COUNTING: usize = 64;

/// What a selection has found, in words: the higher and the lower half of the last pair, and how
/// many of those with the same digits are wanted.
const HIGH: usize = 0;
const LOW: usize = 1;
const WANTED: usize = 2;

/// A number whose order is that of floats, NaN last.
#[cube]
fn key(x: f32) -> u32 {
    let bits = u32::reinterpret(x);
    let is_nan = (bits & 0x7FFF_FFFFu32) > 0x7F80_0000u32;
    let flipped = select(bits >> 31u32 == 1u32, !bits, bits | 0x8000_0000u32);
    select(is_nan, 0xFFFF_FFFFu32, flipped)
}

/// A digit of a pair, the highest first.
#[cube]
fn digit(high: u32, low: u32, #[comptime] number: u32) -> u32 {
    let word = if comptime!(number * DIGIT < 32) {
        high
    } else {
        low
    };
    (word >> comptime!(32 - DIGIT - number * DIGIT % 32)) & comptime!((1u32 << DIGIT) - 1)
}

/// Whether a pair has the digits found before a digit.
#[cube]
fn agrees(high: u32, low: u32, found: &[u32], #[comptime] number: u32) -> bool {
    let mut same = true.runtime();
    if comptime!(number > 0 && number * DIGIT < 32) {
        let shift = comptime!(32 - number * DIGIT);
        same = high >> shift == found[HIGH] >> shift;
    }
    if comptime!(number * DIGIT >= 32) {
        same = high == found[HIGH];
    }
    if comptime!(number * DIGIT > 32) {
        let shift = comptime!(64 - number * DIGIT);
        same = same && low >> shift == found[LOW] >> shift;
    }
    same
}

/// Counts each digit among the pairs that agree so far.
#[cube(launch_unchecked)]
fn count_digits(
    values: &[f32],
    found: &[u32],
    counts: &[Atomic<u32>],
    len: u32,
    #[comptime] number: u32,
) {
    let mut place = ABSOLUTE_POS as u32;
    while place < len {
        let high = key(values[place as usize]);
        if agrees(high, place, found, number) {
            counts[digit(high, place, number) as usize].fetch_add(1u32);
        }
        place += CUBE_COUNT as u32 * CUBE_DIM;
    }
}

/// Takes the digit at which as many pairs are reached as are wanted, and clears the counts.
#[cube(launch_unchecked)]
fn take_digit(found: &mut [u32], counts: &mut [u32], #[comptime] number: u32) {
    if ABSOLUTE_POS == 0 {
        let mut wanted = found[WANTED];
        let mut taken = 0u32;
        let mut searching = true.runtime();
        for digit in 0..comptime!(1u32 << DIGIT) {
            let count = counts[digit as usize];
            counts[digit as usize] = 0u32;
            if searching {
                if wanted <= count {
                    taken = digit;
                    searching = false.runtime();
                } else {
                    wanted -= count;
                }
            }
        }
        found[WANTED] = wanted;
        let shifted = taken << comptime!(32 - DIGIT - number * DIGIT % 32);
        if comptime!(number * DIGIT < 32) {
            found[HIGH] |= shifted;
        } else {
            found[LOW] |= shifted;
        }
    }
}

/// Collects the pairs up to the one that was found, in any order.
#[cube(launch_unchecked)]
fn collect(
    values: &[f32],
    found: &[u32],
    collected: &[Atomic<u32>],
    places: &mut [u32],
    smallest: &mut [f32],
    len: u32,
) {
    let place = ABSOLUTE_POS as u32;
    if place < len {
        let value = values[place as usize];
        let high = key(value);
        if high < found[HIGH] || (high == found[HIGH] && place <= found[LOW]) {
            let at = collected[0].fetch_add(1u32);
            if (at as usize) < places.len() {
                places[at as usize] = place;
                smallest[at as usize] = value;
            }
        }
    }
}

/// The smallest values and their places, in any order; of equal values the earlier ones, NaN last.
///
/// # Shapes
/// - `places`, `smallest`: `[count]`, written whole
///
/// # Panics
/// If there are not as many values, or 2³² or more.
pub fn smallest(client: &Client, values: BufferArg, places: BufferArg, smallest: BufferArg) {
    let (len, count) = (values.len(), places.len());
    check("smallest", &smallest, count);
    assert!(count <= len, "{count} smallest of {len} values");
    let len = u32::try_from(len).expect("fewer than 2³² values");
    if count == 0 {
        return;
    }
    let digits = 1 << DIGIT;
    let found = client.create_from_slice(u32::as_bytes(&[0, 0, count as u32]));
    let counts = client.create_from_slice(u32::as_bytes(&[0; 1 << DIGIT]));
    let (cubes_alone, dim) = alone(len as usize);
    let counting = len.div_ceil(dim.num_elems()).min(COUNTING as u32);
    for number in 0..DIGITS {
        // SAFETY: places are compared with the length, and a digit is below the number of counts.
        unsafe {
            count_digits::launch_unchecked(
                client,
                cubes(counting as usize),
                dim,
                again(&values),
                buffer(&found, 3),
                buffer(&counts, digits),
                len,
                number,
            );
            take_digit::launch_unchecked(
                client,
                cubes(1),
                CubeDim::new_1d(1),
                buffer(&found, 3),
                buffer(&counts, digits),
                number,
            );
        }
    }
    // SAFETY: places are compared with the length, and what is collected with the room for it. The
    // counts are all 0 again.
    unsafe {
        collect::launch_unchecked(
            client,
            cubes_alone,
            dim,
            values,
            buffer(&found, 3),
            buffer(&counts, digits),
            places,
            smallest,
            len,
        );
    }
}
