//! SIMD128: four quarters of four lanes. Without a fused multiply-add, so that every bit is that of
//! plain Rust.
//!
//! [`entry`](Simd::entry) and [`transpose`](Simd::transpose) are left to their defaults; the table of
//! `cpu::isa` says why.

use core::arch::wasm32::*;

use crate::cpu::simd::{LANES, Line, Simd, Tables, Task, quarters};

/// Runs a kernel with SIMD128, which the program is compiled for.
pub(in crate::cpu) fn run<T: Task>(task: T) {
    task.run(Simd128);
}

#[derive(Clone, Copy)]
struct Simd128;

type Quarters = [v128; 4];

/// Four quarters from memory.
#[inline(always)]
fn load<T>(from: &[T; LANES]) -> Quarters {
    const { assert!(size_of::<T>() == 4) };
    let from = from.as_ptr().cast::<v128>();
    // SAFETY: `from` is four quarters of 16 bytes, at any alignment.
    unsafe { quarters!(Q => v128_load(from.add(Q))) }
}

/// Four quarters to memory.
#[inline(always)]
fn store<T>(quarters: Quarters, to: &mut [T; LANES]) {
    const { assert!(size_of::<T>() == 4) };
    let to = to.as_mut_ptr().cast::<v128>();
    // SAFETY: `to` is four quarters of 16 bytes, at any alignment.
    unsafe {
        quarters!(Q => v128_store(to.add(Q), quarters[Q]));
    }
}

/// Byte `j` of all sixteen words, in their order.
#[inline(always)]
fn bytes(words: Quarters) -> [v128; 4] {
    let [a, b, c, d] = words;
    // Bytes 0 and 1 of eight words, then 2 and 3.
    let pairs = |a, b| {
        [
            i8x16_shuffle::<0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29>(a, b),
            i8x16_shuffle::<2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31>(a, b),
        ]
    };
    let ([low, high], [low_after, high_after]) = (pairs(a, b), pairs(c, d));
    [
        i64x2_shuffle::<0, 2>(low, low_after),
        i64x2_shuffle::<1, 3>(low, low_after),
        i64x2_shuffle::<0, 2>(high, high_after),
        i64x2_shuffle::<1, 3>(high, high_after),
    ]
}

/// `total + Σ tables[j][indices[j]]`; bytes of `indices` below 16.
#[inline(always)]
fn add_entries(total: Quarters, tables: &Tables, indices: [v128; 4]) -> Quarters {
    let tables = tables.0.as_ptr().cast::<v128>();
    // SAFETY: each load reads the 16 bytes of one table.
    let [a, b, c, d] =
        unsafe { quarters!(Q => i8x16_swizzle(v128_load(tables.add(Q)), indices[Q])) };
    let low = i16x8_add(
        i16x8_add(i16x8_extend_low_i8x16(a), i16x8_extend_low_i8x16(b)),
        i16x8_add(i16x8_extend_low_i8x16(c), i16x8_extend_low_i8x16(d)),
    );
    let high = i16x8_add(
        i16x8_add(i16x8_extend_high_i8x16(a), i16x8_extend_high_i8x16(b)),
        i16x8_add(i16x8_extend_high_i8x16(c), i16x8_extend_high_i8x16(d)),
    );
    [
        i32x4_add(total[0], i32x4_extend_low_i16x8(low)),
        i32x4_add(total[1], i32x4_extend_high_i16x8(low)),
        i32x4_add(total[2], i32x4_extend_low_i16x8(high)),
        i32x4_add(total[3], i32x4_extend_high_i16x8(high)),
    ]
}

/// The bytes where `words & bits` is not 0.
#[inline(always)]
fn found(words: v128, bits: v128) -> v128 {
    i8x16_ne(v128_and(words, bits), i8x16_splat(0))
}

/// The highest bit of each lane.
#[inline(always)]
fn sign() -> v128 {
    u32x4_splat(1 << 31)
}

impl Simd for Simd128 {
    type U = Quarters;
    type F = Quarters;
    type M = Quarters;

    const REGISTERS: usize = 4;

    #[inline(always)]
    fn zero(self) -> Self::U {
        self.splat(0)
    }

    #[inline(always)]
    fn splat(self, word: u32) -> Self::U {
        [u32x4_splat(word); 4]
    }

    #[inline(always)]
    fn load(self, words: &Line<u32>) -> Self::U {
        load(&words.0)
    }

    #[inline(always)]
    fn store(self, words: Self::U, to: &mut Line<u32>) {
        store(words, &mut to.0);
    }

    #[inline(always)]
    fn load_words(self, words: &[u32; LANES]) -> Self::U {
        load(words)
    }

    #[inline(always)]
    fn store_words(self, words: Self::U, to: &mut [u32; LANES]) {
        store(words, to);
    }

    #[inline(always)]
    fn add(self, a: Self::U, b: Self::U) -> Self::U {
        quarters!(Q => i32x4_add(a[Q], b[Q]))
    }

    #[inline(always)]
    fn subtract_where(self, bytes: Self::U, bits: u64, value: u8) -> Self::U {
        let bit = u64x2_splat(0x8040_2010_0804_0201);
        let value = u8x16_splat(value);
        quarters!(Q => {
            // Byte `i` of a quarter takes byte `i / 8` of its 16 bits, and bit `i % 8` there.
            let bits = u16x8_splat((bits >> (16 * Q)) as u16);
            let bits = i8x16_shuffle::<0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1>(bits, bits);
            i8x16_sub(bytes[Q], v128_and(found(bits, bit), value))
        })
    }

    #[inline(always)]
    fn repeat_byte(self, words: Self::U, byte: usize) -> Self::U {
        let first = u32x4(0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C);
        let places = i8x16_add(first, u8x16_splat(byte as u8));
        quarters!(Q => i8x16_swizzle(words[Q], places))
    }

    #[inline(always)]
    fn select(self, words: Self::U, bits: Self::U, set: Self::U, clear: Self::U) -> Self::U {
        quarters!(Q => v128_bitselect(set[Q], clear[Q], found(words[Q], bits[Q])))
    }

    #[inline(always)]
    fn subtract_selected(
        self,
        bytes: Self::U,
        words: Self::U,
        bits: Self::U,
        value: Self::U,
    ) -> Self::U {
        quarters!(Q => i8x16_sub(bytes[Q], v128_and(found(words[Q], bits[Q]), value[Q])))
    }

    #[inline(always)]
    fn next_nibble(self, words: Self::U) -> Self::U {
        quarters!(Q => u32x4_shr(words[Q], 4))
    }

    #[inline(always)]
    fn add_differences(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        quarters!(Q => {
            let bytes = u8x16_popcnt(v128_xor(a[Q], b[Q]));
            let sums = u32x4_extadd_pairwise_u16x8(u16x8_extadd_pairwise_u8x16(bytes));
            i32x4_add(total[Q], sums)
        })
    }

    #[inline(always)]
    fn add_low(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        let nibble = u8x16_splat(15);
        add_entries(
            total,
            tables,
            bytes(words).map(|byte| v128_and(byte, nibble)),
        )
    }

    #[inline(always)]
    fn add_high(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        // Shifted when they are apart, so that `add_low` of the same words takes them apart for both.
        let bytes = bytes(words);
        add_entries(total, tables, quarters!(J => u8x16_shr(bytes[J], 4)))
    }

    #[inline(always)]
    fn add_products(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        quarters!(Q => {
            // Bytes 0 and 2 of a word as halves of it, and bytes 1 and 3.
            let (a, b) = (a[Q], b[Q]);
            let even = i32x4_dot_i16x8(v128_and(a, u16x8_splat(0xFF)), i16x8_shr(i16x8_shl(b, 8), 8));
            let odd = i32x4_dot_i16x8(u16x8_shr(a, 8), i16x8_shr(b, 8));
            i32x4_add(total[Q], i32x4_add(even, odd))
        })
    }

    #[inline(always)]
    fn toggle(self, words: Self::U, mask: Self::M, bits: u32) -> Self::U {
        let bits = u32x4_splat(bits);
        quarters!(Q => v128_xor(words[Q], v128_and(mask[Q], bits)))
    }

    #[inline(always)]
    fn as_words(self, x: Self::F) -> Self::U {
        x
    }

    #[inline(always)]
    fn as_floats(self, words: Self::U) -> Self::F {
        words
    }

    #[inline(always)]
    fn f_splat(self, x: f32) -> Self::F {
        [f32x4_splat(x); 4]
    }

    #[inline(always)]
    fn f_load(self, x: &[f32; LANES]) -> Self::F {
        load(x)
    }

    #[inline(always)]
    fn f_store(self, x: Self::F, to: &mut [f32; LANES]) {
        store(x, to);
    }

    #[inline(always)]
    fn f_add(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(Q => f32x4_add(a[Q], b[Q]))
    }

    #[inline(always)]
    fn f_mul(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(Q => f32x4_mul(a[Q], b[Q]))
    }

    #[inline(always)]
    fn f_sub(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(Q => f32x4_sub(a[Q], b[Q]))
    }

    #[inline(always)]
    fn f_div(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(Q => f32x4_div(a[Q], b[Q]))
    }

    #[inline(always)]
    fn f_min(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(Q => f32x4_pmin(b[Q], a[Q]))
    }

    #[inline(always)]
    fn f_max(self, a: Self::F, b: Self::F) -> Self::F {
        quarters!(Q => f32x4_pmax(b[Q], a[Q]))
    }

    #[inline(always)]
    fn f_scale(self, x: Self::F, n: Self::F) -> Self::F {
        // Two factors, as one alone overflows and has no denormals.
        let power = |n| i32x4_shl(i32x4_add(n, i32x4_splat(127)), 23);
        quarters!(Q => {
            let n = i32x4_trunc_sat_f32x4(n[Q]);
            let half = i32x4_shr(n, 1);
            f32x4_mul(f32x4_mul(x[Q], power(half)), power(i32x4_sub(n, half)))
        })
    }

    #[inline(always)]
    fn f_fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        quarters!(Q => f32x4_add(f32x4_mul(a[Q], b[Q]), c[Q]))
    }

    #[inline(always)]
    fn to_float(self, words: Self::U) -> Self::F {
        quarters!(Q => f32x4_convert_i32x4(words[Q]))
    }

    #[inline(always)]
    fn flip(self, x: Self::F, words: Self::U, bit: u32) -> Self::F {
        quarters!(Q => v128_xor(x[Q], v128_and(i32x4_shl(words[Q], 31 - bit), sign())))
    }

    #[inline(always)]
    fn flip_lanes(self, x: Self::F, lanes: u32) -> Self::F {
        let lane = u32x4(1, 2, 4, 8);
        quarters!(Q => {
            let bits = v128_and(u32x4_splat(lanes >> (4 * Q)), lane);
            let set = i32x4_ne(bits, i32x4_splat(0));
            v128_xor(x[Q], v128_and(set, sign()))
        })
    }

    #[inline(always)]
    fn greater(self, a: Self::F, b: Self::F) -> Self::M {
        quarters!(Q => f32x4_gt(a[Q], b[Q]))
    }

    #[inline(always)]
    fn bits(self, mask: Self::M) -> u32 {
        let [a, b, c, d] = quarters!(Q => u32::from(i32x4_bitmask(mask[Q])));
        a | b << 4 | c << 8 | d << 12
    }

    #[inline(always)]
    fn f_even(self, a: Self::F, b: Self::F) -> Self::F {
        let pairs = [a, b];
        quarters!(Q => {
            let pair = pairs[Q / 2];
            i32x4_shuffle::<0, 2, 4, 6>(pair[Q % 2 * 2], pair[Q % 2 * 2 + 1])
        })
    }

    #[inline(always)]
    fn to_i8(self, x: Self::F) -> [i8; LANES] {
        let [a, b, c, d] = quarters!(Q => i32x4_trunc_sat_f32x4(f32x4_nearest(x[Q])));
        let narrow = i8x16_narrow_i16x8(i16x8_narrow_i32x4(a, b), i16x8_narrow_i32x4(c, d));
        let mut bytes = [0; LANES];
        // SAFETY: `bytes` is 16 bytes.
        unsafe { v128_store(bytes.as_mut_ptr().cast(), narrow) };
        bytes
    }
}
