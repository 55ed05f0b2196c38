//! The type that coordinates are stored with.

use alloc::vec::Vec;
use core::fmt;

use half::{bf16, f16};

/// How the coordinates of a packed weight are stored. In memory they are f32 with values that this
/// type holds, so nothing is lost between the two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum CoordinateType {
    /// IEEE 754 single precision.
    #[default]
    F32,
    /// IEEE 754 half precision: 11 significant bits, from 6e-8 to 65504.
    F16,
    /// bfloat16: 8 significant bits, over the range of f32.
    Bf16,
}

impl fmt::Display for CoordinateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

impl CoordinateType {
    /// Bytes of one coordinate.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The nearest value that this type holds, ties to even; infinite beyond its range.
    pub fn nearest(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// The nearest coordinate of this type, ties to even. A coordinate stays positive and finite: at
    /// least the smallest that this type and a normal f32 can be, at most the largest. The 0 of an
    /// absent slot stays 0, and NaN stays NaN.
    pub fn round(self, coordinate: f32) -> f32 {
        let (smallest, largest) = match self {
            Self::F32 => (f32::MIN_POSITIVE, f32::MAX),
            Self::F16 => (f16::MIN_POSITIVE_SUBNORMAL.to_f32(), f16::MAX.to_f32()),
            Self::Bf16 => (bf16::MIN_POSITIVE.to_f32(), bf16::MAX.to_f32()),
        };
        match coordinate {
            0.0 => 0.0,
            _ => self.nearest(coordinate).clamp(smallest, largest),
        }
    }

    /// Whether a coordinate can be stored without a loss.
    pub fn holds(self, coordinate: f32) -> bool {
        self.nearest(coordinate) == coordinate
    }

    /// Coordinates, or other numbers, as stored, little-endian.
    pub fn encode(self, coordinates: &[f32]) -> Vec<u8> {
        let each = coordinates.iter();
        match self {
            Self::F32 => each.flat_map(|a| a.to_le_bytes()).collect(),
            Self::F16 => each.flat_map(|&a| f16::from_f32(a).to_le_bytes()).collect(),
            Self::Bf16 => each
                .flat_map(|&a| bf16::from_f32(a).to_le_bytes())
                .collect(),
        }
    }

    /// One of the numbers in their stored form; 0 if it is not there.
    #[cfg(feature = "file")]
    #[inline]
    pub(crate) fn at(self, bytes: &[u8], index: usize) -> f32 {
        let size = self.bytes();
        let bytes = bytes.get(index * size..).unwrap_or_default();
        let pair = || bytes.first_chunk().copied().unwrap_or_default();
        match self {
            Self::F32 => f32::from_le_bytes(bytes.first_chunk().copied().unwrap_or_default()),
            Self::F16 => f16::from_le_bytes(pair()).to_f32(),
            Self::Bf16 => bf16::from_le_bytes(pair()).to_f32(),
        }
    }

    /// Coordinates from their stored form. Bytes that do not make a whole one are left out.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let pairs = bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        match self {
            Self::F32 => bytes
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                .collect(),
            Self::F16 => pairs
                .map(|pair| f16::from_le_bytes(pair).to_f32())
                .collect(),
            Self::Bf16 => pairs
                .map(|pair| bf16::from_le_bytes(pair).to_f32())
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a type holds is stored bit for bit, and rounding finds the nearest.
    #[test]
    fn every_half_comes_back() {
        // All of them would take minutes under Miri.
        for bits in (0..=u16::MAX).step_by(if cfg!(miri) { 997 } else { 1 }) {
            let bytes = bits.to_le_bytes();
            for kind in [CoordinateType::F16, CoordinateType::Bf16] {
                let value = kind.decode(&bytes)[0];
                if value.is_nan() {
                    continue;
                }
                assert!(kind.holds(value));
                assert_eq!(kind.encode(&[value]), bytes, "{kind} {value}");
                if value.is_normal() && value > 0.0 {
                    assert_eq!(kind.round(value), value, "{kind}");
                    let next = kind.decode(&(bits + 1).to_le_bytes())[0];
                    let near = value + (next - value) * 0.25;
                    if next.is_finite() {
                        assert_eq!(kind.round(near), value, "{kind}");
                        assert!(!kind.holds(near), "{kind}");
                    }
                }
            }
        }
    }

    #[test]
    fn coordinates_stay_positive_and_finite() {
        for kind in [
            CoordinateType::F32,
            CoordinateType::F16,
            CoordinateType::Bf16,
        ] {
            assert_eq!(kind.round(0.0), 0.0);
            for value in [1e-45, 1e-38, 1e-9, 0.1, 70000.0, f32::MAX] {
                let rounded = kind.round(value);
                assert!(rounded.is_normal() && rounded > 0.0, "{kind} {value}");
                assert!(kind.holds(rounded), "{kind} {value}");
            }
        }
        assert_eq!(CoordinateType::F16.round(70000.0), 65504.0);
        // 1 + 2⁻⁸ lies between two neighbours of bf16; the even one is 1.
        assert_eq!(CoordinateType::Bf16.round(1.0 + 1.0 / 256.0), 1.0);
    }
}
