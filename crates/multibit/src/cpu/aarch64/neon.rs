//! NEON: four quarters of four lanes; with `dotprod` as well (Arm from Cortex-A75 and Neoverse N1,
//! Apple from A11), and with `i8mm` (Neoverse V1, Apple from A15).
//!
//! [`entry`](Simd::entry) and [`transpose`](Simd::transpose) are left to their defaults; the table of
//! `cpu::isa` says why. The intrinsics of `dotprod` and `i8mm` are not stable in Rust 1.95, so their two instructions
//! are written out.

use core::arch::aarch64::*;
#[cfg(feature = "std")]
use core::arch::asm;

use crate::cpu::simd::{LANES, Line, Simd, Tables, Task, quarters};

/// Runs a kernel with NEON.
///
/// # Safety
/// The processor must have it.
#[target_feature(enable = "neon")]
pub(in crate::cpu) unsafe fn run<T: Task>(task: T) {
    task.run(Neon::<false, false>(()));
}

/// Runs a kernel with NEON and `dotprod`.
///
/// # Safety
/// The processor must have them.
#[cfg(feature = "std")]
#[target_feature(enable = "neon,dotprod")]
pub(in crate::cpu) unsafe fn run_dotprod<T: Task>(task: T) {
    task.run(Neon::<true, false>(()));
}

/// Runs a kernel with NEON, `dotprod` and `i8mm`.
///
/// # Safety
/// The processor must have them.
#[cfg(feature = "std")]
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(in crate::cpu) unsafe fn run_i8mm<T: Task>(task: T) {
    task.run(Neon::<true, true>(()));
}

/// Proof of NEON; `DOTPROD` and `I8MM` of these too.
#[derive(Clone, Copy)]
struct Neon<const DOTPROD: bool, const I8MM: bool>(());

/// `total + Σ` over the four bytes of a word, of `a` and `b` with sign.
///
/// # Safety
/// The processor must have `dotprod`.
#[cfg(feature = "std")]
#[inline(always)]
unsafe fn sdot(mut total: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller has asked the processor; registers only.
    unsafe {
        asm!(
            "sdot {total:v}.4s, {a:v}.16b, {b:v}.16b",
            total = inout(vreg) total,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    total
}

/// `total + Σ` over the four bytes of a word, of `a` without sign and `b` with.
///
/// # Safety
/// The processor must have `i8mm`.
#[cfg(feature = "std")]
#[inline(always)]
unsafe fn usdot(mut total: int32x4_t, a: uint8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller has asked the processor; registers only.
    unsafe {
        asm!(
            "usdot {total:v}.4s, {a:v}.16b, {b:v}.16b",
            total = inout(vreg) total,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    total
}

impl<const DOTPROD: bool, const I8MM: bool> Neon<DOTPROD, I8MM> {
    /// `total + Σ` over the four bytes of a word, with sign.
    #[inline(always)]
    fn add_bytes(self, total: uint32x4_t, bytes: int8x16_t) -> uint32x4_t {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let total = vreinterpretq_s32_u32(total);
            #[cfg(feature = "std")]
            if DOTPROD {
                return vreinterpretq_u32_s32(sdot(total, bytes, vdupq_n_s8(1)));
            }
            vreinterpretq_u32_s32(vpadalq_s16(total, vpaddlq_s8(bytes)))
        }
    }

    /// `total + Σ` over the four bytes of a word, of `a` without sign and `b` with.
    #[inline(always)]
    fn add_quarter(self, total: uint32x4_t, a: uint8x16_t, b: int8x16_t) -> uint32x4_t {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let total = vreinterpretq_s32_u32(total);
            #[cfg(feature = "std")]
            if I8MM {
                return vreinterpretq_u32_s32(usdot(total, a, b));
            }
            #[cfg(feature = "std")]
            if DOTPROD {
                // Σ a·b = Σ (a − 128)·b + 2·64·Σ b
                let signed = vreinterpretq_s8_u8(veorq_u8(a, vdupq_n_u8(128)));
                let half = sdot(vdupq_n_s32(0), vdupq_n_s8(64), b);
                let total = vaddq_s32(sdot(total, signed, b), vaddq_s32(half, half));
                return vreinterpretq_u32_s32(total);
            }
            let wide = |a| vreinterpretq_s16_u16(vmovl_u8(a));
            let low = vmulq_s16(wide(vget_low_u8(a)), vmovl_s8(vget_low_s8(b)));
            let high = vmulq_s16(wide(vget_high_u8(a)), vmovl_s8(vget_high_s8(b)));
            let sums = vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high));
            vreinterpretq_u32_s32(vaddq_s32(total, sums))
        }
    }
}

impl<const DOTPROD: bool, const I8MM: bool> Simd for Neon<DOTPROD, I8MM> {
    type U = [uint32x4_t; 4];
    type F = [float32x4_t; 4];
    type M = [uint32x4_t; 4];

    const REGISTERS: usize = 8;

    #[inline(always)]
    fn zero(self) -> Self::U {
        self.splat(0)
    }

    #[inline(always)]
    fn splat(self, word: u32) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { [vdupq_n_u32(word); 4] }
    }

    #[inline(always)]
    fn load(self, words: &Line<u32>) -> Self::U {
        // SAFETY: `self` proves the instructions; a line is four quarters of 4 words.
        unsafe { quarters!(Q => vld1q_u32(words.0.as_ptr().add(4 * Q))) }
    }

    #[inline(always)]
    fn store(self, words: Self::U, to: &mut Line<u32>) {
        // SAFETY: `self` proves the instructions; a line is four quarters of 4 words.
        unsafe {
            quarters!(Q => vst1q_u32(to.0.as_mut_ptr().add(4 * Q), words[Q]));
        }
    }

    #[inline(always)]
    fn load_words(self, words: &[u32; LANES]) -> Self::U {
        // SAFETY: `self` proves the instructions; `words` is four quarters of 4 words.
        unsafe { quarters!(Q => vld1q_u32(words.as_ptr().add(4 * Q))) }
    }

    #[inline(always)]
    fn store_words(self, words: Self::U, to: &mut [u32; LANES]) {
        // SAFETY: `self` proves the instructions; `to` is four quarters of 4 words.
        unsafe {
            quarters!(Q => vst1q_u32(to.as_mut_ptr().add(4 * Q), words[Q]));
        }
    }

    #[inline(always)]
    fn subtract_where(self, bytes: Self::U, bits: u64, value: u8) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
            let value = vdupq_n_u8(value);
            quarters!(Q => {
                let bits = (bits >> (16 * Q)) as u16;
                let bits = vcombine_u8(vdup_n_u8(bits as u8), vdup_n_u8((bits >> 8) as u8));
                let set = vtstq_u8(bits, bit);
                let bytes = vreinterpretq_u8_u32(bytes[Q]);
                vreinterpretq_u32_u8(vsubq_u8(bytes, vandq_u8(set, value)))
            })
        }
    }

    #[inline(always)]
    fn repeat_byte(self, words: Self::U, byte: usize) -> Self::U {
        // SAFETY: `self` proves the instructions; `first` is 4 words.
        unsafe {
            let first = vld1q_u32([0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C].as_ptr());
            let places = vaddq_u8(vreinterpretq_u8_u32(first), vdupq_n_u8(byte as u8));
            quarters!(Q => {
                vreinterpretq_u32_u8(vqtbl1q_u8(vreinterpretq_u8_u32(words[Q]), places))
            })
        }
    }

    #[inline(always)]
    fn select(self, words: Self::U, bits: Self::U, set: Self::U, clear: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            quarters!(Q => {
                let words = vreinterpretq_u8_u32(words[Q]);
                let selected = vtstq_u8(words, vreinterpretq_u8_u32(bits[Q]));
                vbslq_u32(vreinterpretq_u32_u8(selected), set[Q], clear[Q])
            })
        }
    }

    #[inline(always)]
    fn subtract_selected(
        self,
        bytes: Self::U,
        words: Self::U,
        bits: Self::U,
        value: Self::U,
    ) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            quarters!(Q => {
                let words = vreinterpretq_u8_u32(words[Q]);
                let selected = vtstq_u8(words, vreinterpretq_u8_u32(bits[Q]));
                let value = vandq_u8(selected, vreinterpretq_u8_u32(value[Q]));
                vreinterpretq_u32_u8(vsubq_u8(vreinterpretq_u8_u32(bytes[Q]), value))
            })
        }
    }

    #[inline(always)]
    fn add(self, a: Self::U, b: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vaddq_u32(a[Q], b[Q])) }
    }

    #[inline(always)]
    fn next_nibble(self, words: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vshrq_n_u32::<4>(words[Q])) }
    }

    #[inline(always)]
    fn add_differences(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            quarters!(Q => {
                let bytes = vcntq_u8(vreinterpretq_u8_u32(veorq_u32(a[Q], b[Q])));
                self.add_bytes(total[Q], vreinterpretq_s8_u8(bytes))
            })
        }
    }

    #[inline(always)]
    fn add_low(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        let table = tables.0.as_ptr().cast::<i8>();
        // SAFETY: `self` proves the instructions; the load reads the 64 bytes of `tables`.
        unsafe {
            let table = vld1q_s8_x4(table);
            let nibble = vdupq_n_u32(0x0F0F_0F0F);
            let places = vdupq_n_u32(0x3020_1000);
            quarters!(Q => {
                let indices = vorrq_u32(vandq_u32(words[Q], nibble), places);
                let found = vqtbl4q_s8(table, vreinterpretq_u8_u32(indices));
                self.add_bytes(total[Q], found)
            })
        }
    }

    #[inline(always)]
    fn add_high(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        self.add_low(total, tables, self.next_nibble(words))
    }

    #[inline(always)]
    fn add_products(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            quarters!(Q => {
                let (a, b) = (vreinterpretq_u8_u32(a[Q]), vreinterpretq_s8_u32(b[Q]));
                self.add_quarter(total[Q], a, b)
            })
        }
    }

    #[inline(always)]
    fn toggle(self, words: Self::U, mask: Self::M, bits: u32) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let bits = vdupq_n_u32(bits);
            quarters!(Q => veorq_u32(words[Q], vandq_u32(mask[Q], bits)))
        }
    }

    #[inline(always)]
    fn as_words(self, x: Self::F) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vreinterpretq_u32_f32(x[Q])) }
    }

    #[inline(always)]
    fn as_floats(self, words: Self::U) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vreinterpretq_f32_u32(words[Q])) }
    }

    #[inline(always)]
    fn f_splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { [vdupq_n_f32(x); 4] }
    }

    #[inline(always)]
    fn f_load(self, x: &[f32; LANES]) -> Self::F {
        // SAFETY: `self` proves the instructions; `x` is four quarters of 4 values.
        unsafe { quarters!(Q => vld1q_f32(x.as_ptr().add(4 * Q))) }
    }

    #[inline(always)]
    fn f_store(self, x: Self::F, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves the instructions; `to` is four quarters of 4 values.
        unsafe {
            quarters!(Q => vst1q_f32(to.as_mut_ptr().add(4 * Q), x[Q]));
        }
    }

    #[inline(always)]
    fn f_add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vaddq_f32(a[Q], b[Q])) }
    }

    #[inline(always)]
    fn f_mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vmulq_f32(a[Q], b[Q])) }
    }

    #[inline(always)]
    fn f_sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vsubq_f32(a[Q], b[Q])) }
    }

    #[inline(always)]
    fn f_div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vdivq_f32(a[Q], b[Q])) }
    }

    #[inline(always)]
    fn f_min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vminq_f32(a[Q], b[Q])) }
    }

    #[inline(always)]
    fn f_max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vmaxq_f32(a[Q], b[Q])) }
    }

    #[inline(always)]
    fn f_scale(self, x: Self::F, n: Self::F) -> Self::F {
        // Two factors, as one alone overflows and has no denormals.
        // SAFETY: `self` proves the instructions.
        unsafe {
            let bias = vdupq_n_s32(127);
            quarters!(Q => {
                let n = vcvtq_s32_f32(n[Q]);
                let half = vshrq_n_s32::<1>(n);
                let first = vshlq_n_s32::<23>(vaddq_s32(half, bias));
                let rest = vshlq_n_s32::<23>(vaddq_s32(vsubq_s32(n, half), bias));
                let x = vmulq_f32(x[Q], vreinterpretq_f32_s32(first));
                vmulq_f32(x, vreinterpretq_f32_s32(rest))
            })
        }
    }

    #[inline(always)]
    fn f_fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vfmaq_f32(c[Q], a[Q], b[Q])) }
    }

    #[inline(always)]
    fn to_float(self, words: Self::U) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vcvtq_f32_s32(vreinterpretq_s32_u32(words[Q]))) }
    }

    #[inline(always)]
    fn flip(self, x: Self::F, words: Self::U, bit: u32) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let shift = vdupq_n_s32(31 - bit as i32);
            let sign = vdupq_n_u32(1 << 31);
            quarters!(Q => {
                let negative = vandq_u32(vshlq_u32(words[Q], shift), sign);
                vreinterpretq_f32_u32(veorq_u32(negative, vreinterpretq_u32_f32(x[Q])))
            })
        }
    }

    #[inline(always)]
    fn flip_lanes(self, x: Self::F, lanes: u32) -> Self::F {
        // SAFETY: `self` proves the instructions; `places` is 4 words.
        unsafe {
            let places = vld1q_u32([1, 2, 4, 8].as_ptr());
            let sign = vdupq_n_u32(1 << 31);
            quarters!(Q => {
                let set = vtstq_u32(vdupq_n_u32(lanes >> (4 * Q)), places);
                let negative = vandq_u32(set, sign);
                vreinterpretq_f32_u32(veorq_u32(negative, vreinterpretq_u32_f32(x[Q])))
            })
        }
    }

    #[inline(always)]
    fn greater(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: `self` proves the instructions.
        unsafe { quarters!(Q => vcgtq_f32(a[Q], b[Q])) }
    }

    #[inline(always)]
    fn bits(self, mask: Self::M) -> u32 {
        // SAFETY: `self` proves the instructions; `places` is 4 words.
        unsafe {
            let places = vld1q_u32([1, 2, 4, 8].as_ptr());
            let [a, b, c, d] = quarters!(Q => vaddvq_u32(vandq_u32(mask[Q], places)));
            a | b << 4 | c << 8 | d << 12
        }
    }

    #[inline(always)]
    fn f_even(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe {
            [
                vuzp1q_f32(a[0], a[1]),
                vuzp1q_f32(a[2], a[3]),
                vuzp1q_f32(b[0], b[1]),
                vuzp1q_f32(b[2], b[3]),
            ]
        }
    }

    #[inline(always)]
    fn to_i8(self, x: Self::F) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: `self` proves the instructions; `bytes` is 16 bytes.
        unsafe {
            let [a, b, c, d] = quarters!(Q => vqmovn_s32(vcvtnq_s32_f32(x[Q])));
            let low = vqmovn_s16(vcombine_s16(a, b));
            let high = vqmovn_s16(vcombine_s16(c, d));
            vst1q_s8(bytes.as_mut_ptr(), vcombine_s8(low, high));
        }
        bytes
    }
}
