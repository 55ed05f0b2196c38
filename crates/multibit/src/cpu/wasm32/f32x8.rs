//! Eight f32 in two registers: what is read for each vector is read half as often as for four.

use core::arch::wasm32::*;

use crate::cpu::vector::Vector;

/// Eight f32.
#[derive(Clone, Copy)]
pub(crate) struct F32x8([v128; 2]);

/// Four words.
#[inline(always)]
fn four(words: &[u32]) -> v128 {
    let words = words[..4].as_ptr().cast();
    // SAFETY: `words` is 16 bytes, at any alignment.
    unsafe { v128_load(words) }
}

/// Four of the inputs, `−x` in the lanes whose bit is set.
#[inline(always)]
fn signed(inputs: &[u32], lanes: u32) -> v128 {
    let set = v128_and(u32x4_splat(lanes), u32x4(1, 2, 4, 8));
    let sign = v128_and(i32x4_ne(set, i32x4_splat(0)), u32x4_splat(1 << 31));
    v128_xor(four(inputs), sign)
}

/// Sums of four times four of the inputs.
#[inline(always)]
fn sums(inputs: &[u32], signs: u32) -> v128 {
    let a = signed(inputs, signs);
    let b = signed(&inputs[4..], signs >> 4);
    let c = signed(&inputs[8..], signs >> 8);
    let d = signed(&inputs[12..], signs >> 12);
    // The first and second inputs of two fours, and their third and fourth.
    let low = i32x4_shuffle::<0, 4, 1, 5>(a, b);
    let low_after = i32x4_shuffle::<0, 4, 1, 5>(c, d);
    let high = i32x4_shuffle::<2, 6, 3, 7>(a, b);
    let high_after = i32x4_shuffle::<2, 6, 3, 7>(c, d);
    let sum = f32x4_splat(0.0);
    let sum = f32x4_add(sum, i64x2_shuffle::<0, 2>(low, low_after));
    let sum = f32x4_add(sum, i64x2_shuffle::<1, 3>(low, low_after));
    let sum = f32x4_add(sum, i64x2_shuffle::<0, 2>(high, high_after));
    f32x4_add(sum, i64x2_shuffle::<1, 3>(high, high_after))
}

impl Vector for F32x8 {
    const LEN: usize = 8;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self([f32x4_splat(x); 2])
    }

    #[inline(always)]
    fn load(words: &[u32], place: usize) -> Self {
        let words = &words[place..][..8];
        Self([four(words), four(&words[4..])])
    }

    #[inline(always)]
    fn store(self, words: &mut [u32], place: usize) {
        let words = words[place..][..8].as_mut_ptr().cast::<v128>();
        // SAFETY: `words` is twice 16 bytes, at any alignment.
        unsafe {
            v128_store(words, self.0[0]);
            v128_store(words.add(1), self.0[1]);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self([f32x4_add(a, c), f32x4_add(b, d)])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        let ([a, b], [c, d]) = (self.0, other.0);
        Self([f32x4_mul(a, c), f32x4_mul(b, d)])
    }

    #[inline(always)]
    fn signed(self, negative: u32) -> Self {
        let ([a, b], sign) = (self.0, u32x4_splat(negative << 31));
        Self([v128_xor(a, sign), v128_xor(b, sign)])
    }

    #[inline(always)]
    fn sums_of_four(inputs: &[u32], signs: u32) -> Self {
        let inputs = &inputs[..32];
        Self([sums(inputs, signs), sums(&inputs[16..], signs >> 16)])
    }

    #[inline(always)]
    fn add_to(self, mut sum: f32) -> f32 {
        for four in self.0 {
            sum += f32x4_extract_lane::<0>(four);
            sum += f32x4_extract_lane::<1>(four);
            sum += f32x4_extract_lane::<2>(four);
            sum += f32x4_extract_lane::<3>(four);
        }
        sum
    }
}
