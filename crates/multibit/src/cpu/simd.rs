//! Sixteen lanes of 32 bits: all that the fast kernels ask of an instruction set.
//!
//! The kernels (`generic/`) are written once over [`Simd`]; each instruction set is a thin instance
//! of it. A value of an instance proves that the processor has the instructions: only
//! [`Isa`](super::Isa) makes one, after asking the processor.

/// Lanes of a vector.
pub(super) const LANES: usize = 16;

/// Sixteen words on their own cache line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Line<T>(pub [T; LANES]);

/// The bits of numbers.
pub(super) fn words_of(numbers: &[f32]) -> &[u32] {
    // SAFETY: both are plain words of 32 bits.
    unsafe { core::slice::from_raw_parts(numbers.as_ptr().cast(), numbers.len()) }
}

/// The numbers of lines, side by side.
#[inline(always)]
pub(super) fn flat_mut(lines: &mut [Line<f32>]) -> &mut [f32] {
    let len = LANES * lines.len();
    // SAFETY: a line is sixteen numbers without anything between or behind them.
    unsafe { core::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), len) }
}

/// The bits of numbers.
pub(super) fn flat_words(values: &[f32]) -> &[u32] {
    // SAFETY: both are 32 bits with the same alignment, and all bits are a word.
    unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
}

const _: () = assert!(size_of::<Line<f32>>() == 4 * LANES);

/// Up to sixteen values, and zeros.
#[inline(always)]
pub(super) fn first_lanes(values: &[f32]) -> [f32; LANES] {
    match values.first_chunk() {
        Some(values) => *values,
        None => {
            let mut lanes = [0.0; LANES];
            lanes[..values.len()].copy_from_slice(values);
            lanes
        }
    }
}

/// As many lanes as there are values, up to sixteen.
#[inline(always)]
pub(super) fn store_first<S: Simd>(simd: S, x: S::F, to: &mut [f32]) {
    match to.first_chunk_mut() {
        Some(to) => simd.f_store(x, to),
        None => {
            let mut lanes = [0.0; LANES];
            simd.f_store(x, &mut lanes);
            let lanes = &lanes[..to.len()];
            // Two pieces that may overlap, without a call.
            match to.len() {
                8.. => copy_ends::<8>(to, lanes),
                4.. => copy_ends::<4>(to, lanes),
                _ => {
                    for (to, lane) in to.iter_mut().zip(lanes) {
                        *to = *lane;
                    }
                }
            }
        }
    }
}

/// Copies the first and the last `N` values.
#[inline(always)]
fn copy_ends<const N: usize>(to: &mut [f32], from: &[f32]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk()) {
        *to = *from;
    }
}

/// All quarters of a value, each made of its number.
#[allow(
    unused_macros,
    reason = "of instruction sets with registers of four lanes"
)]
macro_rules! quarters {
    ($q:ident => $value:expr) => {
        [
            {
                const $q: usize = 0;
                $value
            },
            {
                const $q: usize = 1;
                $value
            },
            {
                const $q: usize = 2;
                $value
            },
            {
                const $q: usize = 3;
                $value
            },
        ]
    };
}
#[allow(unused_imports, reason = "as above")]
pub(super) use quarters;

/// Four tables of 16 bytes each, for the four bytes of a word.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Tables(pub [[i8; LANES]; 4]);

/// Operations on 16 lanes. Each lane is computed alone.
pub(super) trait Simd: Copy + Send + Sync {
    /// Sixteen words.
    type U: Copy;
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen truth values.
    type M: Copy;

    /// How many [`F`](Self::F) the registers hold.
    const REGISTERS: usize;

    fn zero(self) -> Self::U;
    fn splat(self, word: u32) -> Self::U;
    fn load(self, words: &Line<u32>) -> Self::U;
    fn store(self, words: Self::U, to: &mut Line<u32>);
    fn load_words(self, words: &[u32; LANES]) -> Self::U;
    fn store_words(self, words: Self::U, to: &mut [u32; LANES]);
    fn add(self, a: Self::U, b: Self::U) -> Self::U;
    /// `byte − value` in the bytes whose bit is set, the lowest first.
    fn subtract_where(self, bytes: Self::U, bits: u64, value: u8) -> Self::U;
    /// Byte `byte` of each word, in all four of its bytes.
    fn repeat_byte(self, words: Self::U, byte: usize) -> Self::U;
    /// The bytes of `set` where `words & bits` is not 0, and of `clear` where it is.
    fn select(self, words: Self::U, bits: Self::U, set: Self::U, clear: Self::U) -> Self::U;
    /// `byte − value` in the bytes where `words & bits` is not 0; no byte goes below 0.
    fn subtract_selected(
        self,
        bytes: Self::U,
        words: Self::U,
        bits: Self::U,
        value: Self::U,
    ) -> Self::U;
    /// `words >> 4`.
    fn next_nibble(self, words: Self::U) -> Self::U;
    /// `total + popcount(a ^ b)`.
    fn add_differences(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U;
    /// `total + Σ tables[j][low nibble of byte j]`, in two's complement.
    fn add_low(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U;
    /// `total + Σ tables[j][high nibble of byte j]`, in two's complement.
    fn add_high(self, total: Self::U, tables: &Tables, words: Self::U) -> Self::U;
    /// `total + Σ` over the four bytes of a word, of `a` without sign and `b` with.
    fn add_products(self, total: Self::U, a: Self::U, b: Self::U) -> Self::U;
    /// `words ^ bits` where `mask`.
    fn toggle(self, words: Self::U, mask: Self::M, bits: u32) -> Self::U;

    /// The same bits.
    fn as_words(self, x: Self::F) -> Self::U;
    /// The same bits.
    fn as_floats(self, words: Self::U) -> Self::F;
    fn f_splat(self, x: f32) -> Self::F;
    fn f_load(self, x: &[f32; LANES]) -> Self::F;
    fn f_store(self, x: Self::F, to: &mut [f32; LANES]);
    fn f_add(self, a: Self::F, b: Self::F) -> Self::F;
    fn f_mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn f_sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn f_div(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller; NaN where `b` is.
    fn f_min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; NaN where `b` is.
    fn f_max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `x·2ⁿ` for integers `n` of −252 to 254; NaN where `x` is.
    fn f_scale(self, x: Self::F, n: Self::F) -> Self::F;
    /// `a·b + c`, rounded once where the instruction set can.
    fn f_fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Two's complement as f32.
    fn to_float(self, words: Self::U) -> Self::F;
    /// `−x` where bit `bit` of the word is set.
    fn flip(self, x: Self::F, words: Self::U, bit: u32) -> Self::F;
    /// `−x` in the lanes whose bit is set.
    fn flip_lanes(self, x: Self::F, lanes: u32) -> Self::F;
    /// `table[lowest nibble]`.
    #[inline(always)]
    fn entry(self, table: &[f32; LANES], words: Self::U) -> Self::F {
        let mut indices = [0; LANES];
        self.store_words(words, &mut indices);
        let found = indices.map(
            #[inline(always)]
            |word| table[(word & 15) as usize],
        );
        self.f_load(&found)
    }
    /// `a > b`; false for NaN.
    fn greater(self, a: Self::F, b: Self::F) -> Self::M;
    /// Lane `i` as bit `i`.
    fn bits(self, mask: Self::M) -> u32;
    /// Lanes 0, 2, … of `a`, then of `b`.
    fn f_even(self, a: Self::F, b: Self::F) -> Self::F;
    /// Has the cache fetch a place that will be written soon, if there is an instruction for it.
    #[inline(always)]
    fn prefetch(self, _place: *const f32) {}
    /// Row `i`, lane `j` becomes row `j`, lane `i`.
    #[inline(always)]
    fn transpose(self, rows: &mut [Line<f32>; LANES]) {
        for i in 0..LANES {
            for j in 0..i {
                let (a, b) = (rows[i].0[j], rows[j].0[i]);
                (rows[i].0[j], rows[j].0[i]) = (b, a);
            }
        }
    }
    /// Rounded to the nearest integer, ties to even; the values fit.
    fn to_i8(self, x: Self::F) -> [i8; LANES];
}

/// A kernel, to be compiled once for each instruction set.
///
/// `run` must be `#[inline(always)]` and free of closures: only what is inlined into the entry of
/// an instruction set may use its instructions.
pub(super) trait Task {
    /// Whether it multiplies, looks up or counts bytes or bits, which is all that the further sets of
    /// a family of instruction sets are for.
    #[allow(dead_code, reason = "targets with one instruction set do not ask")]
    const BYTES: bool = false;

    fn run<S: Simd>(self, simd: S);
}
