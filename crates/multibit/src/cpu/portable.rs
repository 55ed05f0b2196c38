//! Plain Rust: every processor, no_std.

use super::simd::{LANES, Line, Simd, Tables, Task};

/// Runs a kernel without special instructions.
pub(super) fn run<T: Task>(task: T) {
    task.run(Portable);
}

#[derive(Clone, Copy)]
struct Portable;

macro_rules! each {
    ($i:ident => $value:expr) => {
        core::array::from_fn(
            #[inline(always)]
            |$i| $value,
        )
    };
}

impl Simd for Portable {
    type U = [u32; LANES];
    type F = [f32; LANES];
    type M = [bool; LANES];

    const REGISTERS: usize = 4;

    #[inline(always)]
    fn zero(self) -> Self::U {
        [0; LANES]
    }

    #[inline(always)]
    fn splat(self, word: u32) -> Self::U {
        [word; LANES]
    }

    #[inline(always)]
    fn load(self, words: &Line<u32>) -> Self::U {
        words.0
    }

    #[inline(always)]
    fn store(self, words: Self::U, to: &mut Line<u32>) {
        to.0 = words;
    }

    #[inline(always)]
    fn load_words(self, words: &[u32; LANES]) -> Self::U {
        *words
    }

    #[inline(always)]
    fn store_words(self, words: Self::U, to: &mut [u32; LANES]) {
        *to = words;
    }

    #[inline(always)]
    fn subtract_where(self, bytes: Self::U, bits: u64, value: u8) -> Self::U {
        each!(i => {
            let nibble = (bits >> (4 * i)) as u32 & 15;
            // Bit `j` of the nibble as the lowest bit of byte `j`; the bytes stay 0 or more.
            let set = (nibble * 0x0020_4081) & 0x0101_0101;
            bytes[i].wrapping_sub(set * u32::from(value))
        })
    }

    #[inline(always)]
    fn repeat_byte(self, words: Self::U, byte: usize) -> Self::U {
        each!(i => (words[i] >> (8 * byte) & 0xFF) * 0x0101_0101)
    }

    #[inline(always)]
    fn select(self, words: Self::U, bits: Self::U, set: Self::U, clear: Self::U) -> Self::U {
        each!(i => {
            let found = words[i] & bits[i];
            // The highest bit of each byte that is not 0, then all of its bits.
            let found = (((found & 0x7F7F_7F7F) + 0x7F7F_7F7F) | found) >> 7 & 0x0101_0101;
            let found = found * 0xFF;
            set[i] & found | clear[i] & !found
        })
    }

    #[inline(always)]
    fn subtract_selected(
        self,
        bytes: Self::U,
        words: Self::U,
        bits: Self::U,
        value: Self::U,
    ) -> Self::U {
        let selected = self.select(words, bits, value, self.zero());
        each!(i => bytes[i].wrapping_sub(selected[i]))
    }

    #[inline(always)]
    fn add(self, a: Self::U, b: Self::U) -> Self::U {
        each!(i => a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn next_nibble(self, words: Self::U) -> Self::U {
        each!(i => words[i] >> 4)
    }

    #[inline(always)]
    fn add_differences(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        each!(i => total[i].wrapping_add((a[i] ^ b[i]).count_ones()))
    }

    #[inline(always)]
    fn add_low(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        each!(i => (0..4).fold(total[i], |total, j| {
            let nibble = (words[i] >> (8 * j)) & 15;
            total.wrapping_add(i32::from(tables.0[j][nibble as usize]) as u32)
        }))
    }

    #[inline(always)]
    fn add_high(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        self.add_low(total, tables, self.next_nibble(words))
    }

    #[inline(always)]
    fn add_products(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        each!(i => (0..4).fold(total[i], |total, j| {
            let (a, b) = ((a[i] >> (8 * j)) as u8, (b[i] >> (8 * j)) as i8);
            total.wrapping_add((i32::from(a) * i32::from(b)) as u32)
        }))
    }

    #[inline(always)]
    fn toggle(self, words: Self::U, mask: Self::M, bits: u32) -> Self::U {
        each!(i => words[i] ^ if mask[i] { bits } else { 0 })
    }

    #[inline(always)]
    fn as_words(self, x: Self::F) -> Self::U {
        each!(i => x[i].to_bits())
    }

    #[inline(always)]
    fn as_floats(self, words: Self::U) -> Self::F {
        each!(i => f32::from_bits(words[i]))
    }

    #[inline(always)]
    fn f_splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    fn f_load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }

    #[inline(always)]
    fn f_store(self, x: Self::F, to: &mut [f32; LANES]) {
        *to = x;
    }

    #[inline(always)]
    fn f_add(self, a: Self::F, b: Self::F) -> Self::F {
        each!(i => a[i] + b[i])
    }

    #[inline(always)]
    fn f_mul(self, a: Self::F, b: Self::F) -> Self::F {
        each!(i => a[i] * b[i])
    }

    #[inline(always)]
    fn f_sub(self, a: Self::F, b: Self::F) -> Self::F {
        each!(i => a[i] - b[i])
    }

    #[inline(always)]
    fn f_div(self, a: Self::F, b: Self::F) -> Self::F {
        each!(i => a[i] / b[i])
    }

    #[inline(always)]
    fn f_min(self, a: Self::F, b: Self::F) -> Self::F {
        each!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn f_max(self, a: Self::F, b: Self::F) -> Self::F {
        each!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn f_scale(self, x: Self::F, n: Self::F) -> Self::F {
        // Two factors, as one alone overflows and has no denormals.
        each!(i => {
            let n = n[i] as i32;
            let half = n >> 1;
            x[i] * power_of_two(half) * power_of_two(n - half)
        })
    }

    #[inline(always)]
    fn f_fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Not `mul_add`: without the instruction that is a call of a slow function.
        each!(i => a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn to_float(self, words: Self::U) -> Self::F {
        each!(i => words[i] as i32 as f32)
    }

    #[inline(always)]
    fn flip(self, x: Self::F, words: Self::U, bit: u32) -> Self::F {
        each!(i => crate::bits::signed(x[i], (words[i] >> bit) & 1))
    }

    #[inline(always)]
    fn flip_lanes(self, x: Self::F, lanes: u32) -> Self::F {
        each!(i => crate::bits::signed(x[i], (lanes >> i) & 1))
    }

    #[inline(always)]
    fn greater(self, a: Self::F, b: Self::F) -> Self::M {
        each!(i => a[i] > b[i])
    }

    #[inline(always)]
    fn bits(self, mask: Self::M) -> u32 {
        mask.iter()
            .enumerate()
            .fold(0, |bits, (i, &set)| bits | u32::from(set) << i)
    }

    #[inline(always)]
    fn f_even(self, a: Self::F, b: Self::F) -> Self::F {
        each!(i => if i < LANES / 2 { a[2 * i] } else { b[2 * i - LANES] })
    }

    #[inline(always)]
    fn to_i8(self, x: Self::F) -> [i8; LANES] {
        each!(i => crate::math::round(x[i]) as i8)
    }
}

/// `2ⁿ` for `n` of −126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}
