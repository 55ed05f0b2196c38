//! One number, or as many as a register holds: for loops that must take few bytes of code.
//!
//! The kernels of `generic/` take sixteen lanes at a time, whatever the registers hold.

use core::ops::Range;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use super::wasm32::f32x8::F32x8 as Widest;

/// What this build computes at once: with registers that every processor of the kind has, lanes that the compiler
/// puts there.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) type Widest = [f32; 8];

/// What this build computes at once.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
)))]
pub(crate) type Widest = f32;

/// Some f32 side by side; each is computed alone.
pub(crate) trait Vector: Copy {
    /// How many.
    const LEN: usize;

    fn splat(x: f32) -> Self;
    /// Those of some from a place on, given as their bits.
    ///
    /// # Panics
    /// If they are fewer.
    fn load(words: &[u32], place: usize) -> Self;
    /// Sets the bits of those from a place on.
    ///
    /// # Panics
    /// If they are fewer.
    fn store(self, words: &mut [u32], place: usize);
    fn add(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `−x` where the lowest bit of `negative` is 1.
    fn signed(self, negative: u32) -> Self;
    /// `±x₀ ± x₁ ± x₂ ± x₃` of each of the first fours of some inputs, given as their bits, with the signs
    /// of the lowest bits; added in this order. The last four of them may lack some for one `f32`.
    ///
    /// # Panics
    /// If there are fewer for several.
    fn sums_of_four(inputs: &[u32], signs: u32) -> Self;
    /// `sum + x₀ + x₁ + …`, added in this order.
    fn add_to(self, sum: f32) -> f32;
}

impl Vector for f32 {
    const LEN: usize = 1;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn load(words: &[u32], place: usize) -> Self {
        Self::from_bits(words[place])
    }

    #[inline(always)]
    fn store(self, words: &mut [u32], place: usize) {
        words[place] = self.to_bits();
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self + other
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self * other
    }

    #[inline(always)]
    fn signed(self, negative: u32) -> Self {
        crate::bits::signed(self, negative & 1)
    }

    #[inline(always)]
    fn sums_of_four(inputs: &[u32], signs: u32) -> Self {
        let each = inputs.iter().take(4).enumerate();
        each.fold(0.0, |sum, (j, &x)| {
            sum + Self::from_bits(x).signed(signs >> j)
        })
    }

    #[inline(always)]
    fn add_to(self, sum: f32) -> f32 {
        sum + self
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
impl<const N: usize> Vector for [f32; N] {
    const LEN: usize = N;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; N]
    }

    #[inline(always)]
    fn load(words: &[u32], place: usize) -> Self {
        let words = words[place..].first_chunk::<N>().expect("a vector of them");
        words.map(f32::from_bits)
    }

    #[inline(always)]
    fn store(self, words: &mut [u32], place: usize) {
        words[place..][..N].copy_from_slice(&self.map(f32::to_bits));
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        core::array::from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        core::array::from_fn(|lane| self[lane] * other[lane])
    }

    #[inline(always)]
    fn signed(self, negative: u32) -> Self {
        self.map(|x| x.signed(negative))
    }

    #[inline(always)]
    fn sums_of_four(inputs: &[u32], signs: u32) -> Self {
        let inputs = &inputs[..4 * N];
        core::array::from_fn(|lane| f32::sums_of_four(&inputs[4 * lane..], signs >> (4 * lane)))
    }

    #[inline(always)]
    fn add_to(self, sum: f32) -> f32 {
        self.into_iter().fold(sum, |sum, x| sum + x)
    }
}

/// Work on places in a row.
pub(crate) trait Strip {
    /// Does the work on a place and those behind it, as many as a vector has.
    fn run<V: Vector>(&mut self, place: usize);

    /// On all of some places, `together` as many at once as this build can.
    #[inline(always)]
    fn over(&mut self, places: Range<usize>, together: bool) {
        let mut place = places.start;
        if Widest::LEN > 1 && together {
            while place + Widest::LEN <= places.end {
                self.run::<Widest>(place);
                place += Widest::LEN;
            }
        }
        while place < places.end {
            self.run::<f32>(place);
            place += 1;
        }
    }
}
