//! AVX-512: with the foundation and byte instructions only, with VNNI as well (Intel from Cascade
//! Lake), and with VNNI, VBMI and VPOPCNTDQ (Intel from Ice Lake, AMD from Zen 4).

use core::arch::x86_64::*;

use crate::cpu::simd::{LANES, Line, Simd, Tables, Task};

/// Runs a kernel with AVX-512 F and BW.
///
/// # Safety
/// The processor must have them, and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx2,fma")]
pub(in crate::cpu) unsafe fn run<T: Task>(task: T) {
    task.run(Avx512::<false, false>(()));
}

/// Runs a kernel with AVX-512 F, BW and VNNI.
///
/// # Safety
/// The processor must have them, and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2,fma")]
pub(in crate::cpu) unsafe fn run_vnni<T: Task>(task: T) {
    task.run(Avx512::<true, false>(()));
}

/// Runs a kernel with AVX-512 F, BW, VNNI, VBMI and VPOPCNTDQ.
///
/// # Safety
/// The processor must have them, and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni,avx512vpopcntdq,avx2,fma")]
pub(in crate::cpu) unsafe fn run_vbmi<T: Task>(task: T) {
    task.run(Avx512::<true, true>(()));
}

/// Proof of AVX-512 F and BW; `VNNI` of VNNI too, `VBMI` of VBMI and VPOPCNTDQ.
#[derive(Clone, Copy)]
struct Avx512<const VNNI: bool, const VBMI: bool>(());

impl<const VNNI: bool, const VBMI: bool> Avx512<VNNI, VBMI> {
    /// `total + Σ` over the four bytes of a word, of `a` without sign and `b` with; two products
    /// fit 16 bits.
    #[inline(always)]
    fn add_bytes(self, total: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the instructions.
        unsafe {
            if VNNI {
                return _mm512_dpbusd_epi32(total, a, b);
            }
            let pairs = _mm512_maddubs_epi16(a, b);
            _mm512_add_epi32(total, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        }
    }

    /// `total + Σ tables[j][byte j]`; bytes of `indices` below 16.
    #[inline(always)]
    fn add_entries(self, total: __m512i, tables: &Tables, indices: __m512i) -> __m512i {
        let tables = tables.0.as_ptr();
        // SAFETY: `self` proves the instructions; the loads read 64 and 16 bytes of `tables`.
        unsafe {
            if VBMI {
                let tables = _mm512_load_si512(tables.cast());
                let places = _mm512_set1_epi32(0x3020_1000);
                let found = _mm512_permutexvar_epi8(_mm512_or_si512(indices, places), tables);
                return self.add_bytes(total, _mm512_set1_epi8(1), found);
            }
            let table = |j: usize| _mm512_broadcast_i32x4(_mm_load_si128(tables.add(j).cast()));
            let found = _mm512_shuffle_epi8(table(0), indices);
            let second = 0x2222_2222_2222_2222;
            let found = _mm512_mask_shuffle_epi8(found, second, table(1), indices);
            let found = _mm512_mask_shuffle_epi8(found, second << 1, table(2), indices);
            let found = _mm512_mask_shuffle_epi8(found, second << 2, table(3), indices);
            self.add_bytes(total, _mm512_set1_epi8(1), found)
        }
    }
}

impl<const VNNI: bool, const VBMI: bool> Simd for Avx512<VNNI, VBMI> {
    type U = __m512i;
    type F = __m512;
    type M = __mmask16;

    const REGISTERS: usize = 32;

    #[inline(always)]
    fn zero(self) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn splat(self, word: u32) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_set1_epi32(word as i32) }
    }

    #[inline(always)]
    fn load(self, words: &Line<u32>) -> Self::U {
        // SAFETY: `self` proves the instructions; a line is 64 aligned bytes.
        unsafe { _mm512_load_si512((&raw const words.0).cast()) }
    }

    #[inline(always)]
    fn store(self, words: Self::U, to: &mut Line<u32>) {
        // SAFETY: `self` proves the instructions; a line is 64 aligned bytes.
        unsafe { _mm512_store_si512((&raw mut to.0).cast(), words) }
    }

    #[inline(always)]
    fn load_words(self, words: &[u32; LANES]) -> Self::U {
        // SAFETY: `self` proves the instructions; `words` is 64 bytes.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store_words(self, words: Self::U, to: &mut [u32; LANES]) {
        // SAFETY: `self` proves the instructions; `to` is 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), words) }
    }

    #[inline(always)]
    fn subtract_where(self, bytes: Self::U, bits: u64, value: u8) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_mask_sub_epi8(bytes, bits, bytes, _mm512_set1_epi8(value as i8)) }
    }

    #[inline(always)]
    fn repeat_byte(self, words: Self::U, byte: usize) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let first = _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C);
            let places = _mm_add_epi8(first, _mm_set1_epi8(byte as i8));
            _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(places))
        }
    }

    #[inline(always)]
    fn select(self, words: Self::U, bits: Self::U, set: Self::U, clear: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_mask_blend_epi8(_mm512_test_epi8_mask(words, bits), clear, set) }
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
            let selected = _mm512_test_epi8_mask(words, bits);
            _mm512_mask_sub_epi8(bytes, selected, bytes, value)
        }
    }

    #[inline(always)]
    fn add(self, a: Self::U, b: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn next_nibble(self, words: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_srli_epi32::<4>(words) }
    }

    #[inline(always)]
    fn add_differences(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let x = _mm512_xor_si512(a, b);
            if VBMI {
                return _mm512_add_epi32(total, _mm512_popcnt_epi32(x));
            }
            let counts = _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
            let counts = _mm512_broadcast_i32x4(counts);
            let nibble = _mm512_set1_epi8(15);
            let low = _mm512_shuffle_epi8(counts, _mm512_and_si512(x, nibble));
            let high = _mm512_and_si512(_mm512_srli_epi32::<4>(x), nibble);
            let bytes = _mm512_add_epi8(low, _mm512_shuffle_epi8(counts, high));
            self.add_bytes(total, bytes, _mm512_set1_epi8(1))
        }
    }

    #[inline(always)]
    fn add_low(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        // SAFETY: `self` proves the instructions.
        let nibbles = unsafe { _mm512_and_si512(words, _mm512_set1_epi8(15)) };
        self.add_entries(total, tables, nibbles)
    }

    #[inline(always)]
    fn add_high(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U {
        self.add_low(total, tables, self.next_nibble(words))
    }

    #[inline(always)]
    fn add_products(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U {
        self.add_bytes(total, a, b)
    }

    #[inline(always)]
    fn toggle(self, words: Self::U, mask: Self::M, bits: u32) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_mask_xor_epi32(words, mask, words, _mm512_set1_epi32(bits as i32)) }
    }

    #[inline(always)]
    fn as_words(self, x: Self::F) -> Self::U {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_castps_si512(x) }
    }

    #[inline(always)]
    fn as_floats(self, words: Self::U) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_castsi512_ps(words) }
    }

    #[inline(always)]
    fn f_splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn f_load(self, x: &[f32; LANES]) -> Self::F {
        // SAFETY: `self` proves the instructions; `x` is 64 bytes.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn f_store(self, x: Self::F, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves the instructions; `to` is 64 bytes.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn f_add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn f_mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn f_sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn f_div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn f_min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn f_max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn f_scale(self, x: Self::F, n: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_scalef_ps(x, n) }
    }

    #[inline(always)]
    fn f_fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn to_float(self, words: Self::U) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_cvtepi32_ps(words) }
    }

    #[inline(always)]
    fn flip(self, x: Self::F, words: Self::U, bit: u32) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let shifted = _mm512_sll_epi32(words, _mm_cvtsi32_si128(31 - bit as i32));
            let sign = _mm512_set1_epi32(i32::MIN);
            // (shifted & sign) ^ x
            let flipped = _mm512_ternarylogic_epi32::<0x6A>(shifted, sign, _mm512_castps_si512(x));
            _mm512_castsi512_ps(flipped)
        }
    }

    #[inline(always)]
    fn flip_lanes(self, x: Self::F, lanes: u32) -> Self::F {
        // SAFETY: `self` proves the instructions.
        unsafe {
            let (bits, sign) = (_mm512_castps_si512(x), _mm512_set1_epi32(i32::MIN));
            _mm512_castsi512_ps(_mm512_mask_xor_epi32(bits, lanes as __mmask16, bits, sign))
        }
    }

    #[inline(always)]
    fn entry(self, table: &[f32; LANES], words: Self::U) -> Self::F {
        // SAFETY: `self` proves the instructions; only the lowest four bits of an index count.
        unsafe { _mm512_permutexvar_ps(words, _mm512_loadu_ps(table.as_ptr())) }
    }

    #[inline(always)]
    fn greater(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: `self` proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) }
    }

    #[inline(always)]
    fn bits(self, mask: Self::M) -> u32 {
        u32::from(mask)
    }

    #[inline(always)]
    fn transpose(self, rows: &mut [Line<f32>; LANES]) {
        // SAFETY: `self` proves the instructions; a line is 64 aligned bytes.
        unsafe {
            let mut r = [_mm512_setzero_ps(); LANES];
            for (r, row) in r.iter_mut().zip(rows.iter()) {
                *r = _mm512_load_ps(row.0.as_ptr());
            }
            // Pairs of rows by one lane, by two, by four and by eight.
            let mut t = r;
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for i in 0..4 {
                let pd = |k: usize| _mm512_castps_pd(t[4 * i + k]);
                r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(0), pd(2)));
                r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(0), pd(2)));
                r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(pd(1), pd(3)));
                r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(pd(1), pd(3)));
            }
            for i in 0..4 {
                t[i] = _mm512_shuffle_f32x4::<0x88>(r[i], r[4 + i]);
                t[4 + i] = _mm512_shuffle_f32x4::<0xDD>(r[i], r[4 + i]);
                t[8 + i] = _mm512_shuffle_f32x4::<0x88>(r[8 + i], r[12 + i]);
                t[12 + i] = _mm512_shuffle_f32x4::<0xDD>(r[8 + i], r[12 + i]);
            }
            for i in 0..8 {
                let low = _mm512_shuffle_f32x4::<0x88>(t[i], t[8 + i]);
                let high = _mm512_shuffle_f32x4::<0xDD>(t[i], t[8 + i]);
                _mm512_store_ps(rows[i].0.as_mut_ptr(), low);
                _mm512_store_ps(rows[8 + i].0.as_mut_ptr(), high);
            }
        }
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
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            _mm512_permutex2var_ps(a, even, b)
        }
    }

    #[inline(always)]
    fn to_i8(self, x: Self::F) -> [i8; LANES] {
        let mut bytes = [0; LANES];
        // SAFETY: `self` proves the instructions; `bytes` is 16 bytes.
        unsafe {
            let narrow = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x));
            _mm_storeu_si128(bytes.as_mut_ptr().cast(), narrow);
        }
        bytes
    }
}
