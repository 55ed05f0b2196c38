//! AVX2 with FMA: two halves of eight lanes; with AVX-VNNI as well (Intel's efficient cores and what
//! is built from them, from Alder Lake on).
//!
//! [`transpose`](Simd::transpose) is left to its default; the table of `cpu::isa` says why.

use core::arch::x86_64::*;

use crate::cpu::simd::{LANES, Line, Simd, Tables, Task};

/// Runs a kernel with AVX2 and FMA.
///
/// # Safety
/// The processor must have them.
#[target_feature(enable = "avx2,fma")]
pub(in crate::cpu) unsafe fn run<T: Task>(task: T) {
    task.run(Avx2::<false>(()));
}

/// Runs a kernel with AVX2, FMA and AVX-VNNI.
///
/// # Safety
/// The processor must have them.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(in crate::cpu) unsafe fn run_vnni<T: Task>(task: T) {
    task.run(Avx2::<true>(()));
}

/// Proof of AVX2 and FMA; `VNNI` of AVX-VNNI too.
#[derive(Clone, Copy)]
struct Avx2<const VNNI: bool>(());

/// Both halves of a value.
macro_rules! halves {
    ($half:ident => $value:expr) => {{
        let one = {
            const $half: usize = 0;
            $value
        };
        let two = {
            const $half: usize = 1;
            $value
        };
        [one, two]
    }};
}

impl<const VNNI: bool> Avx2<VNNI> {
    /// `total + Σ` over the four bytes of a word, of `a` without sign and `b` with; two products
    /// fit 16 bits.
    #[inline(always)]
    fn add_bytes(self, total: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves the instructions.
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(total, a, b);
            }
            let pairs = _mm256_maddubs_epi16(a, b);
            _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    /// `total + Σ tables[j][byte j]`; bytes of `indices` below 16.
    #[inline(always)]
    fn add_entries(self, total: __m256i, tables: &Tables, indices: __m256i) -> __m256i {
        let tables = tables.0.as_ptr();
        // SAFETY: `self` proves the instructions; each load reads the 16 bytes of one table.
        unsafe {
            let mut found = _mm256_setzero_si256();
            for j in 0..4 {
                let table = _mm256_broadcastsi128_si256(_mm_load_si128(tables.add(j).cast()));
                let byte = _mm256_set1_epi32((0xFF_u32 << (8 * j)) as i32);
                let entries = _mm256_shuffle_epi8(table, indices);
                found = _mm256_or_si256(found, _mm256_and_si256(entries, byte));
            }
            self.add_bytes(total, _mm256_set1_epi8(1), found)
        }
    }
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type U = [__m256i; 2];
    type F = [__m256; 2];
    type M = [__m256i; 2];

    const REGISTERS: usize = 8;

    #[inline(always)]
    fn zero(self) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { [_mm256_setzero_si256(); 2] }
    }

    #[inline(always)]
    fn splat(self, word: u32) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { [_mm256_set1_epi32(word as i32); 2] }
    }

    #[inline(always)]
    fn load(self, words: &Line<u32>) -> Self::U {
        let words = words.0.as_ptr().cast::<__m256i>();
        // SAFETY: `self` proves the instructions; a line is two aligned halves of 32 bytes.
        unsafe { halves!(H => _mm256_load_si256(words.add(H))) }
    }

    #[inline(always)]
    fn store(self, words: Self::U, to: &mut Line<u32>) {
        let to = to.0.as_mut_ptr().cast::<__m256i>();
        // SAFETY: `self` proves the instructions; a line is two aligned halves of 32 bytes.
        unsafe {
            halves!(H => _mm256_store_si256(to.add(H), words[H]));
        }
    }

    #[inline(always)]
    fn load_words(self, words: &[u32; LANES]) -> Self::U {
        let words = words.as_ptr().cast::<__m256i>();
        // SAFETY: `self` proves the instructions; `words` is two halves of 32 bytes.
        unsafe { halves!(H => _mm256_loadu_si256(words.add(H))) }
    }

    #[inline(always)]
    fn store_words(self, words: Self::U, to: &mut [u32; LANES]) {
        let to = to.as_mut_ptr().cast::<__m256i>();
        // SAFETY: `self` proves the instructions; `to` is two halves of 32 bytes.
        unsafe {
            halves!(H => _mm256_storeu_si256(to.add(H), words[H]));
        }
    }

    #[inline(always)]
    fn subtract_where(self, bytes: Self::U, bits: u64, value: u8) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            // Byte `i` of a half takes byte `i / 8` of its 32 bits, and bit `i % 8` there.
            let bytes_of_bits = _mm256_setr_epi8(
                0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3,
                3, 3, 3, 3,
            );
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let value = _mm256_set1_epi8(value as i8);
            halves!(H => {
                let bits = _mm256_set1_epi32((bits >> (32 * H)) as i32);
                let bits = _mm256_and_si256(_mm256_shuffle_epi8(bits, bytes_of_bits), bit);
                let set = _mm256_cmpeq_epi8(bits, bit);
                _mm256_sub_epi8(bytes[H], _mm256_and_si256(set, value))
            })
        }
    }

    #[inline(always)]
    fn repeat_byte(self, words: Self::U, byte: usize) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let first = _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C);
            let places = _mm_add_epi8(first, _mm_set1_epi8(byte as i8));
            let places = _mm256_broadcastsi128_si256(places);
            halves!(H => _mm256_shuffle_epi8(words[H], places))
        }
    }

    #[inline(always)]
    fn select(self, words: Self::U, bits: Self::U, set: Self::U, clear: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            halves!(H => {
                let found = _mm256_and_si256(words[H], bits[H]);
                let none = _mm256_cmpeq_epi8(found, _mm256_setzero_si256());
                _mm256_blendv_epi8(set[H], clear[H], none)
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
            halves!(H => {
                let found = _mm256_and_si256(words[H], bits[H]);
                let none = _mm256_cmpeq_epi8(found, _mm256_setzero_si256());
                _mm256_sub_epi8(bytes[H], _mm256_andnot_si256(none, value[H]))
            })
        }
    }

    #[inline(always)]
    fn add(self, a: Self::U, b: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_add_epi32(a[H], b[H])) }
    }

    #[inline(always)]
    fn next_nibble(self, words: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_srli_epi32::<4>(words[H])) }
    }

    #[inline(always)]
    fn add_differences(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let counts = _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
            let counts = _mm256_broadcastsi128_si256(counts);
            let nibble = _mm256_set1_epi8(15);
            halves!(H => {
                let x = _mm256_xor_si256(a[H], b[H]);
                let low = _mm256_shuffle_epi8(counts, _mm256_and_si256(x, nibble));
                let high = _mm256_and_si256(_mm256_srli_epi32::<4>(x), nibble);
                let bytes = _mm256_add_epi8(low, _mm256_shuffle_epi8(counts, high));
                self.add_bytes(total[H], bytes, _mm256_set1_epi8(1))
            })
        }
    }

    #[inline(always)]
    fn add_low(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        let nibbles = unsafe {
            let nibble = _mm256_set1_epi8(15);
            halves!(H => _mm256_and_si256(words[H], nibble))
        };
        halves!(H => self.add_entries(total[H], tables, nibbles[H]))
    }

    #[inline(always)]
    fn add_high(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        self.add_low(total, tables, self.next_nibble(words))
    }

    #[inline(always)]
    fn add_products(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        halves!(H => self.add_bytes(total[H], a[H], b[H]))
    }

    #[inline(always)]
    fn toggle(self, words: Self::U, mask: Self::M, bits: u32) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let bits = _mm256_set1_epi32(bits as i32);
            halves!(H => _mm256_xor_si256(words[H], _mm256_and_si256(mask[H], bits)))
        }
    }

    #[inline(always)]
    fn as_words(self, x: Self::F) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_castps_si256(x[H])) }
    }

    #[inline(always)]
    fn as_floats(self, words: Self::U) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_castsi256_ps(words[H])) }
    }

    #[inline(always)]
    fn f_splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn f_load(self, x: &[f32; LANES]) -> Self::F {
        // SAFETY: `self` proves the instructions; `x` is twice 8 values.
        unsafe { halves!(H => _mm256_loadu_ps(x.as_ptr().add(8 * H))) }
    }

    #[inline(always)]
    fn f_store(self, x: Self::F, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves the instructions; `to` is twice 8 values.
        unsafe {
            halves!(H => _mm256_storeu_ps(to.as_mut_ptr().add(8 * H), x[H]));
        }
    }

    #[inline(always)]
    fn f_add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_add_ps(a[H], b[H])) }
    }

    #[inline(always)]
    fn f_mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_mul_ps(a[H], b[H])) }
    }

    #[inline(always)]
    fn f_sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_sub_ps(a[H], b[H])) }
    }

    #[inline(always)]
    fn f_div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_div_ps(a[H], b[H])) }
    }

    #[inline(always)]
    fn f_min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_min_ps(a[H], b[H])) }
    }

    #[inline(always)]
    fn f_max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_max_ps(a[H], b[H])) }
    }

    #[inline(always)]
    fn f_scale(self, x: Self::F, n: Self::F) -> Self::F {
        // Two factors, as one alone overflows and has no denormals.
        // SAFETY: `self` proves the instructions.
        unsafe {
            let bias = _mm256_set1_epi32(127);
            halves!(H => {
                let n = _mm256_cvtps_epi32(n[H]);
                let half = _mm256_srai_epi32::<1>(n);
                let first = _mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias));
                let rest = _mm256_add_epi32(_mm256_sub_epi32(n, half), bias);
                let rest = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(rest));
                _mm256_mul_ps(_mm256_mul_ps(x[H], _mm256_castsi256_ps(first)), rest)
            })
        }
    }

    #[inline(always)]
    fn f_fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_fmadd_ps(a[H], b[H], c[H])) }
    }

    #[inline(always)]
    fn to_float(self, words: Self::U) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_cvtepi32_ps(words[H])) }
    }

    #[inline(always)]
    fn flip(self, x: Self::F, words: Self::U, bit: u32) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let shift = _mm_cvtsi32_si128(31 - bit as i32);
            let sign = _mm256_set1_ps(-0.0);
            halves!(H => {
                let shifted = _mm256_castsi256_ps(_mm256_sll_epi32(words[H], shift));
                _mm256_xor_ps(_mm256_and_ps(shifted, sign), x[H])
            })
        }
    }

    #[inline(always)]
    fn flip_lanes(self, x: Self::F, lanes: u32) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let sign = _mm256_set1_ps(-0.0);
            halves!(H => {
                let bits = _mm256_set1_epi32((lanes >> (8 * H)) as i32);
                let set = _mm256_cmpeq_epi32(_mm256_and_si256(bits, lane), lane);
                _mm256_xor_ps(_mm256_and_ps(_mm256_castsi256_ps(set), sign), x[H])
            })
        }
    }

    #[inline(always)]
    fn entry(self, table: &[f32; LANES], words: Self::U) -> Self::F {
        // SAFETY: `self` proves the instructions; `table` is twice 8 values, and only the lowest
        // three bits of an index count.
        unsafe {
            let low = _mm256_loadu_ps(table.as_ptr());
            let high = _mm256_loadu_ps(table.as_ptr().add(8));
            halves!(H => {
                let fourth = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(words[H]));
                let low = _mm256_permutevar8x32_ps(low, words[H]);
                let high = _mm256_permutevar8x32_ps(high, words[H]);
                _mm256_blendv_ps(low, high, fourth)
            })
        }
    }

    #[inline(always)]
    fn greater(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: `self` proves the instructions.
        unsafe { halves!(H => _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(a[H], b[H]))) }
    }

    #[inline(always)]
    fn bits(self, mask: Self::M) -> u32 {
        // SAFETY: `self` proves the instructions.
        let [low, high] = unsafe { halves!(H => _mm256_movemask_ps(_mm256_castsi256_ps(mask[H]))) };
        low as u32 | (high as u32) << 8
    }

    #[inline(always)]
    fn prefetch(self, place: *const f32) {
        // SAFETY: any place may be fetched.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) }
    }

    #[inline(always)]
    fn f_even(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let pairs = [a, b];
            halves!(H => {
                let [low, high] = pairs[H];
                // Even lanes of the halves of both in turns, then in order.
                let even = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(low, high));
                _mm256_castpd_ps(_mm256_permute4x64_pd::<0xD8>(even))
            })
        }
    }

    #[inline(always)]
    fn to_i8(self, x: Self::F) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: `self` proves the instructions; `bytes` is 16 bytes.
        unsafe {
            let [low, high] = halves!(H => {
                let wide = _mm256_cvtps_epi32(x[H]);
                _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide))
            });
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm_packs_epi16(low, high));
        }
        bytes
    }
}
