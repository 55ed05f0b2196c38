//! The levels of a multi-bit activation.

use alloc::vec::Vec;
use core::fmt;

/// The most bits of an activation.
pub const MAX_ACTIVATION_BITS: usize = 4;

/// The levels of a multi-bit activation, `x̂ = x_ref + Σ ±γⱼ` (Qu et al., CVPR 2020, section 5).
///
/// An activation takes the nearest of the `2^I` levels; half-way, the lower one. NaN takes the
/// lowest.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    reference: f32,
    coordinates: Vec<f32>,
    /// Ascending, `[2^I]`.
    values: Vec<f32>,
    /// Signs of each level; bit `j` set where coordinate `j` is subtracted.
    codes: Vec<u8>,
    /// Halfway between neighbours, `[2^I − 1]`.
    thresholds: Vec<f32>,
}

/// Why numbers are no levels.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LevelsError {
    /// No coordinate, or more than [`MAX_ACTIVATION_BITS`].
    Bits {
        /// How many there are.
        bits: usize,
    },
    /// A number that must be finite, or a coordinate that must be positive.
    Value {
        /// `x_ref`, `gamma 0`, …
        index: Option<usize>,
        /// The number.
        value: f32,
    },
}

impl fmt::Display for LevelsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bits { bits } => {
                write!(
                    f,
                    "{bits} coordinates, but 1 to {MAX_ACTIVATION_BITS} can be used"
                )
            }
            Self::Value { index: None, value } => write!(f, "x_ref is {value}, not finite"),
            Self::Value {
                index: Some(index),
                value,
            } => write!(f, "coordinate {index} is {value}, not positive and finite"),
        }
    }
}

impl core::error::Error for LevelsError {}

impl Levels {
    /// Levels around `reference` with the given coordinates, in any order.
    ///
    /// # Errors
    /// If there are no coordinates or too many, or one is not positive and finite.
    pub fn new(reference: f32, coordinates: &[f32]) -> Result<Self, LevelsError> {
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
        let mut codes: Vec<u8> = (0..1 << bits).collect();
        codes.sort_by(|&a, &b| value(a).total_cmp(&value(b)).then(b.cmp(&a)));
        let values: Vec<f32> = codes.iter().map(|&code| value(code)).collect();
        let halfway = |pair: &[f32]| pair[0] + 0.5 * (pair[1] - pair[0]);
        Ok(Self {
            reference,
            coordinates: coordinates.to_vec(),
            thresholds: values.windows(2).map(halfway).collect(),
            values,
            codes,
        })
    }

    /// `x_ref`.
    pub fn reference(&self) -> f32 {
        self.reference
    }

    /// The coordinates `γ`.
    pub fn coordinates(&self) -> &[f32] {
        &self.coordinates
    }

    /// The levels, ascending.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Between the levels: an activation above `r` thresholds takes level `r`.
    pub fn thresholds(&self) -> &[f32] {
        &self.thresholds
    }

    /// The bits of an activation.
    pub fn bits(&self) -> usize {
        self.coordinates.len()
    }

    /// Which level an activation takes.
    pub fn rank(&self, x: f32) -> usize {
        self.thresholds.iter().filter(|&&t| x > t).count()
    }

    /// The nearest level.
    pub fn quantize(&self, x: f32) -> f32 {
        self.values[self.rank(x)]
    }

    /// The signs of a level; bit `j` set where coordinate `j` is subtracted.
    pub(super) fn code(&self, rank: usize) -> u8 {
        self.codes[rank]
    }

    /// Each threshold, and the signs that change where an activation is above it.
    pub(super) fn changes(&self) -> impl Iterator<Item = (f32, u8)> {
        let codes = self.codes.windows(2).map(|pair| pair[0] ^ pair[1]);
        self.thresholds.iter().copied().zip(codes)
    }
}
