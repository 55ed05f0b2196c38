//! The levels of a multi-bit activation.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::mem::MaybeUninit;

use thiserror::Error;

use super::Isa;
use super::generic::Quantize;
use super::simd::LANES;
use super::threads::{self, Shared};

/// The most bits of an activation.
pub const MAX_ACTIVATION_BITS: usize = 4;

/// The levels of a multi-bit activation, `x̂ = x_ref + Σ ±γⱼ` (Qu et al., CVPR 2020, section 5).
///
/// An activation takes the nearest of the `2^I` levels; half-way, the lower one. NaN takes the
/// lowest.
///
/// A clone is the same numbers in the same place.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels(Arc<Numbers>);

/// What [`Levels`] are, and what follows from it; behind what there is of each, nothing that counts.
#[derive(Debug, PartialEq)]
struct Numbers {
    bits: usize,
    reference: f32,
    coordinates: [f32; MAX_ACTIVATION_BITS],
    /// Signs of each level; bit `j` set where coordinate `j` is subtracted.
    codes: [u8; LANES],
    /// Halfway between neighbours, `[2^I − 1]`.
    thresholds: [f32; LANES],
    /// With the levels, ascending.
    tables: LevelTables,
}

/// Levels as tables of sixteen.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LevelTables {
    /// By how many of the thresholds are known to be below: the one that halves the next
    /// [`HALVES`].
    pub halfway: [[f32; LANES]; MAX_ACTIVATION_BITS],
    /// The levels.
    pub values: [f32; LANES],
    /// By sign: 1 for a level where it is not that of the lowest level.
    pub changed: [[f32; LANES]; MAX_ACTIVATION_BITS],
}

/// How many levels a search by halves leaves.
pub(super) const HALVES: [usize; MAX_ACTIVATION_BITS] = [8, 4, 2, 1];

impl LevelTables {
    fn new(thresholds: &[f32], values: [f32; LANES], codes: &[u8]) -> Self {
        let halfway = |half: usize| {
            let threshold = |i: usize| thresholds.get(half - 1 + i).copied();
            core::array::from_fn(|i| threshold(i).unwrap_or(f32::INFINITY))
        };
        let changed = |sign: usize| {
            let bit = |code: u8| f32::from((code ^ codes[0]) >> sign & 1);
            core::array::from_fn(|i| codes.get(i).map_or(0.0, |&code| bit(code)))
        };
        Self {
            halfway: HALVES.map(halfway),
            values,
            changed: core::array::from_fn(changed),
        }
    }
}

/// Why numbers are no levels.
///
/// Messages name places, not values: writing a float takes more code than running a small model.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum LevelsError {
    /// No coordinate, or more than [`MAX_ACTIVATION_BITS`].
    #[error("{bits} coordinates, but 1 to {MAX_ACTIVATION_BITS} can be used")]
    Bits {
        /// How many there are.
        bits: usize,
    },
    /// A number that must be finite, or a coordinate that must be positive.
    #[error(fmt = name_value)]
    Value {
        /// Which coordinate, none for `x_ref`.
        index: Option<usize>,
        /// The number.
        value: f32,
    },
    /// A level, or the distance of two neighbours, is beyond f32.
    #[error("the levels lie too far apart for f32")]
    TooLarge {
        /// `|x_ref| + Σγ`.
        largest: f64,
    },
}

fn name_value(index: &Option<usize>, _: &f32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match index {
        None => write!(f, "x_ref is not finite"),
        Some(index) => write!(f, "coordinate {index} is not positive and finite"),
    }
}

/// Levels in the order of their values.
#[derive(Clone, Debug)]
pub(crate) struct Ladder {
    /// Ascending, as many as there are levels.
    pub values: [f32; 1 << MAX_ACTIVATION_BITS],
    /// Signs of each level.
    pub codes: [u8; 1 << MAX_ACTIVATION_BITS],
    /// Halfway between neighbours, one fewer.
    pub thresholds: [f32; 1 << MAX_ACTIVATION_BITS],
}

impl Ladder {
    pub(crate) fn new(reference: f32, coordinates: &[f32]) -> Result<Self, LevelsError> {
        let bits = coordinates.len();
        if !(1..=MAX_ACTIVATION_BITS).contains(&bits) {
            return Err(LevelsError::Bits { bits });
        }
        if !reference.is_finite() {
            let (index, value) = (None, reference);
            return Err(LevelsError::Value { index, value });
        }
        let wrong = |value: &f32| !(*value > 0.0 && value.is_finite());
        if let Some(index) = coordinates.iter().position(wrong) {
            let value = coordinates[index];
            let index = Some(index);
            return Err(LevelsError::Value { index, value });
        }
        let value = |code: u8| {
            let signed = |j: usize| crate::bits::signed(coordinates[j], u32::from(code >> j) & 1);
            (0..bits).fold(reference, |sum, j| sum + signed(j))
        };
        let count = 1 << bits;
        let mut ladder = Self {
            values: [0.0; 1 << MAX_ACTIVATION_BITS],
            codes: [0; 1 << MAX_ACTIVATION_BITS],
            thresholds: [f32::INFINITY; 1 << MAX_ACTIVATION_BITS],
        };
        // Sixteen at most: each goes to its place among those before.
        for (place, code) in (0..count as u8).enumerate() {
            let x = value(code);
            let after = |i: usize| {
                let order = ladder.values[i].total_cmp(&x);
                order.then(code.cmp(&ladder.codes[i])).is_gt()
            };
            let to = (0..place).find(|&i| after(i)).unwrap_or(place);
            ladder.values.copy_within(to..place, to + 1);
            ladder.codes.copy_within(to..place, to + 1);
            (ladder.values[to], ladder.codes[to]) = (x, code);
        }
        for i in 1..count {
            let (low, high) = (ladder.values[i - 1], ladder.values[i]);
            ladder.thresholds[i - 1] = low + 0.5 * (high - low);
        }
        let values = ladder.values[..count].iter();
        let mut all = values.chain(&ladder.thresholds[..count - 1]);
        if !all.all(|x| x.is_finite()) {
            let gammas = coordinates.iter().copied().map(f64::from);
            let largest = f64::from(reference).abs() + gammas.sum::<f64>();
            return Err(LevelsError::TooLarge { largest });
        }
        Ok(ladder)
    }

    /// Which level an activation takes.
    #[cfg(feature = "chain")]
    #[inline]
    pub(crate) fn rank(&self, x: f32) -> usize {
        // Behind the last threshold they are infinite.
        self.thresholds.iter().filter(|&&t| x > t).count()
    }

    /// Whether each level is the nearest of its own value.
    #[cfg(feature = "chain")]
    pub(crate) fn are_apart(&self, bits: usize) -> bool {
        (0..1 << bits).all(|i| self.rank(self.values[i]) == i)
    }
}

impl Levels {
    /// Levels around `reference` with the given coordinates, in any order.
    ///
    /// # Errors
    /// If there are no coordinates or too many, one is not positive and finite, or a level or the
    /// distance of neighbours is beyond f32.
    pub fn new(reference: f32, coordinates: &[f32]) -> Result<Self, LevelsError> {
        let ladder = Ladder::new(reference, coordinates)?;
        let count = 1 << coordinates.len();
        let Ladder {
            values,
            codes,
            thresholds,
        } = ladder;
        let tables = LevelTables::new(&thresholds[..count - 1], values, &codes[..count]);
        let mut gammas = [0.0; MAX_ACTIVATION_BITS];
        gammas[..coordinates.len()].copy_from_slice(coordinates);
        Ok(Self(Arc::new(Numbers {
            bits: coordinates.len(),
            reference,
            coordinates: gammas,
            codes,
            thresholds,
            tables,
        })))
    }

    /// `2^bits` levels at equal distances from 0 to `largest`: where a fit begins.
    ///
    /// # Errors
    /// If `bits` is out of range or `largest` is not positive and finite, or is so small that a
    /// coordinate is 0.
    pub fn uniform(bits: usize, largest: f32) -> Result<Self, LevelsError> {
        if !(1..=MAX_ACTIVATION_BITS).contains(&bits) {
            return Err(LevelsError::Bits { bits });
        }
        let step = largest / ((1u32 << bits) - 1) as f32;
        let coordinates: Vec<f32> = (0..bits)
            .rev()
            .map(|j| 0.5 * step * (1u32 << j) as f32)
            .collect();
        Self::new(0.5 * largest, &coordinates)
    }

    /// The least-squares fit `(D'ᵀD')⁻¹D'ᵀx` of `x_ref` and `γ` to activations that have taken these
    /// levels, with a millionth of their number as weight of the present values, so that a level
    /// that nothing takes does no harm. A coordinate that would be 0 keeps its value, a negative one
    /// changes its sign (the same levels). Numbers that give no levels leave these as they are.
    ///
    /// # Shapes
    /// - `counts`, `sums`: `[2^I]`, activations at each level and their sum
    ///
    /// # Panics
    /// If a slice has another length.
    #[must_use]
    pub fn refit(&self, counts: &[f64], sums: &[f64]) -> Self {
        assert_eq!(counts.len(), self.values().len(), "one count a level");
        assert_eq!(sums.len(), self.values().len(), "one sum a level");
        let n = 1 + self.bits();
        let present: Vec<f32> = [self.reference()]
            .into_iter()
            .chain(self.coordinates().iter().copied())
            .collect();
        let ridge = 1e-6 * counts.iter().sum::<f64>();
        let mut a = alloc::vec![0.0; n * n];
        let mut b: Vec<f64> = present.iter().map(|&x| ridge * f64::from(x)).collect();
        for (&code, (count, sum)) in self.0.codes.iter().zip(counts.iter().zip(sums)) {
            let term = |i: usize| match i {
                0 => 1.0,
                _ => 1.0 - 2.0 * f64::from(code >> (i - 1) & 1),
            };
            for i in 0..n {
                b[i] += term(i) * sum;
                for j in 0..=i {
                    a[i * n + j] += count * term(i) * term(j);
                }
            }
        }
        for i in 0..n {
            a[i * n + i] += ridge;
        }
        if crate::math::solve_spd(&mut a, &mut b, n).is_err() {
            return self.clone();
        }
        let fitted = present.iter().zip(&b).map(|(&present, &new)| {
            let new = new as f32;
            if new.is_finite() { new } else { present }
        });
        let fitted: Vec<f32> = fitted.collect();
        let gammas = fitted[1..].iter().zip(self.coordinates());
        let gammas: Vec<f32> = gammas
            .map(|(&new, &old)| if new == 0.0 { old } else { new.abs() })
            .collect();
        Self::new(fitted[0], &gammas).unwrap_or_else(|_| self.clone())
    }

    /// `keep` of these levels and the rest of others with as many bits.
    ///
    /// # Panics
    /// If the others have another number of bits, or `keep` is not between 0 and 1.
    #[must_use]
    pub fn blend(&self, other: &Self, keep: f32) -> Self {
        assert_eq!(self.bits(), other.bits(), "levels of as many bits");
        assert!((0.0..=1.0).contains(&keep), "a share between 0 and 1");
        let mix = |a: f32, b: f32| keep * a + (1.0 - keep) * b;
        let gammas = self.coordinates().iter().zip(other.coordinates());
        let gammas: Vec<f32> = gammas.map(|(&a, &b)| mix(a, b)).collect();
        Self::new(mix(self.reference(), other.reference()), &gammas)
            .unwrap_or_else(|_| self.clone())
    }

    /// `x_ref`.
    pub fn reference(&self) -> f32 {
        self.0.reference
    }

    /// The coordinates `γ`.
    pub fn coordinates(&self) -> &[f32] {
        &self.0.coordinates[..self.0.bits]
    }

    /// The levels, ascending.
    pub fn values(&self) -> &[f32] {
        &self.0.tables.values[..1 << self.0.bits]
    }

    /// The thresholds between the levels: an activation above `r` of them takes level `r`.
    pub fn thresholds(&self) -> &[f32] {
        &self.0.thresholds[..(1 << self.0.bits) - 1]
    }

    /// The bits of an activation.
    pub fn bits(&self) -> usize {
        self.0.bits
    }

    /// Which level an activation takes.
    pub fn rank(&self, x: f32) -> usize {
        self.thresholds().iter().filter(|&&t| x > t).count()
    }

    /// The nearest level.
    pub fn quantize(&self, x: f32) -> f32 {
        self.values()[self.rank(x)]
    }

    /// The nearest levels, with [`Isa::best`].
    ///
    /// # Panics
    /// If the slices have other lengths.
    pub fn quantize_all(&self, input: &[f32], output: &mut [f32]) {
        assert_eq!(input.len(), output.len(), "an output for each input");
        self.quantize_on(Isa::best(), input, output);
    }

    /// The nearest levels, of as many inputs as outputs.
    pub(super) fn quantize_on(&self, isa: Isa, input: &[f32], output: &mut [f32]) {
        let output = core::ptr::from_mut(output) as *mut [MaybeUninit<f32>];
        // SAFETY: the same numbers, in whose place numbers are written.
        self.quantize_into(isa, input, unsafe { &mut *output });
    }

    /// The nearest levels.
    pub(super) fn quantized_on(&self, isa: Isa, input: &[f32]) -> Vec<f32> {
        let mut output = Vec::with_capacity(input.len());
        self.quantize_into(isa, input, &mut output.spare_capacity_mut()[..input.len()]);
        // SAFETY: as many numbers were written.
        unsafe { output.set_len(input.len()) };
        output
    }

    /// Writes all of as many outputs as inputs.
    fn quantize_into(&self, isa: Isa, input: &[f32], output: &mut [MaybeUninit<f32>]) {
        const PART: usize = 1 << 14;
        let shared = Shared::new(output);
        threads::for_each(input.len().div_ceil(PART), input.len() / 2, |part| {
            let input = &input[part * PART..input.len().min((part + 1) * PART)];
            isa.run(Quantize {
                input,
                levels: self,
                // SAFETY: the parts are disjoint.
                output: unsafe { shared.part(part * PART, input.len()) },
            });
        });
    }

    pub(super) fn tables(&self) -> &LevelTables {
        &self.0.tables
    }

    /// The signs of a level; bit `j` set where coordinate `j` is subtracted.
    pub(crate) fn code(&self, rank: usize) -> u8 {
        self.0.codes[rank]
    }

    /// Each threshold, and the signs that change where an activation is above it.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (f32, u8)> {
        let codes = self.0.codes.windows(2).map(|pair| pair[0] ^ pair[1]);
        self.thresholds().iter().copied().zip(codes)
    }
}
