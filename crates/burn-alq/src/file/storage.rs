//! In how many bytes a packed model's numbers are stored.

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_core::tensor::{DType, TensorData};
use multibit::CoordinateType;

use super::{PackModelError, PackedModel};
use crate::nn::MultiBitActivation;

impl PackedModel {
    /// The same model with coordinates of another type in its file. Nothing is rounded here:
    /// [`ScheduleConfig::coordinate_type`](crate::ScheduleConfig::coordinate_type) trains them so, and
    /// [`Quantizer::coordinate_type`](crate::Quantizer::coordinate_type) converts them so where
    /// nothing is trained. The scales of inputs of products are stored in that type too, and rounded to it.
    ///
    /// # Errors
    /// If the type does not hold a coordinate as it is, or a scale is beyond its range.
    pub fn with_coordinate_type(
        mut self,
        coordinate_type: CoordinateType,
    ) -> Result<Self, PackModelError> {
        for (path, weight) in &mut self.weights {
            let stored = Arc::unwrap_or_clone(weight.clone()).with_coordinate_type(coordinate_type);
            *weight = Arc::new(stored.map_err(|source| PackModelError::Weight {
                path: path.clone(),
                source,
            })?);
        }
        super::product::store_scales(&mut self, coordinate_type)?;
        Ok(self)
    }

    /// The same model with its other f32 tensors (biases, norms and their statistics) rounded to the
    /// nearest numbers of a type, so that a file with [`Coding::Deflate`](crate::file::Coding) holds
    /// them in two bytes. They stay f32. The levels of multi-bit activations are left as they are.
    ///
    /// Nothing was trained for this rounding: compare the accuracy.
    ///
    /// # Errors
    /// If a finite number is beyond the type's range.
    pub fn with_float_type(self, float_type: CoordinateType) -> Result<Self, PackModelError> {
        self.with_floats(float_type, |value| float_type.nearest(value))
    }

    /// The same model with its other f32 tensors rounded to the nearest with so many significant bits. Bytes
    /// that become 0 cost next to nothing in a file with [`Coding::Deflate`](crate::file::Coding): of an
    /// f16 ([`with_float_type`](Self::with_float_type)) the lower byte, from 3 significant bits down.
    ///
    /// Nothing was trained for this rounding: compare the accuracy.
    ///
    /// # Errors
    /// If a number is rounded up beyond the range of f32.
    ///
    /// # Panics
    /// Without a bit, or with more than the 24 of an f32.
    pub fn with_float_bits(self, bits: u32) -> Result<Self, PackModelError> {
        assert!(
            (1..=24).contains(&bits),
            "an f32 has 1 to 24 significant bits"
        );
        self.with_floats(CoordinateType::F32, |value| significant(value, bits))
    }

    fn with_floats(
        mut self,
        float_type: CoordinateType,
        nearest: impl Fn(f32) -> f32,
    ) -> Result<Self, PackModelError> {
        for (path, tensor) in &mut self.tensors {
            let name = path.rsplit('.').next();
            if tensor.dtype() != DType::F32 || name == Some(MultiBitActivation::STATE) {
                continue;
            }
            let round = |value: f32| match nearest(value) {
                rounded if rounded.is_infinite() && value.is_finite() => {
                    Err(PackModelError::Range {
                        path: path.clone(),
                        value,
                        float_type,
                    })
                }
                rounded => Ok(rounded),
            };
            let rounded: Result<Vec<f32>, _> = tensor.iter::<f32>().map(round).collect();
            *tensor = TensorData::new(rounded?, tensor.shape());
        }
        Ok(self)
    }
}

/// The nearest number with so many significant bits, ties to even; infinities and NaN stay.
fn significant(value: f32, bits: u32) -> f32 {
    if !value.is_finite() {
        return value;
    }
    let unit = 1 << (24 - bits);
    let word = value.to_bits();
    let even = (word / unit) & 1;
    f32::from_bits((word + (unit - 1 + even) / 2) / unit * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_few_significant_bits() {
        for (value, bits, nearest) in [
            (1.1, 3, 1.0),
            (1.2, 3, 1.25),
            // Ties to even: 1.125 lies between 1.00 and 1.01 in bits, 1.375 between 1.01 and 1.10.
            (1.125, 3, 1.0),
            (1.375, 3, 1.5),
            (-1.9, 3, -2.0),
            (3.1, 1, 4.0),
            (0.1, 24, 0.1),
            (0.0, 2, 0.0),
            (f32::MAX, 3, f32::INFINITY),
            (f32::NEG_INFINITY, 3, f32::NEG_INFINITY),
        ] {
            assert_eq!(significant(value, bits), nearest, "{value} in {bits} bits");
        }
        assert!(significant(f32::NAN, 3).is_nan());
    }
}
