//! Bitwidths of weights under a budget, by what they cost the model's outputs.

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use burn_core::module::{Module, ParamId};
use multibit::fit::allocate;

use super::CalibrateError;
use crate::quantize::{Conversion, Hessians, PlannedWeight};
use crate::weight::walk;

/// How much the weights may store whose bits no rule says: bases, coordinates and widths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Bits for each of them, on average.
    EffectiveBits(f64),
    /// Bytes, all together.
    Bytes(usize),
}

/// What is known of the bitwidths of some weights.
#[derive(Default)]
pub(super) struct Curves {
    paths: Vec<String>,
    /// Losses, from no bases on.
    curves: Vec<Vec<f64>>,
    basis_bits: Vec<usize>,
    /// Groups, and weights.
    groups: usize,
    weights: usize,
}

impl Curves {
    /// Adds weights that were measured.
    ///
    /// # Errors
    /// If a value, or what was measured, is not finite.
    pub fn add<M: Module>(
        &mut self,
        model: &M,
        conversion: &Conversion,
        planned: &[PlannedWeight],
        mut hessians: Hessians,
    ) -> Result<(), CalibrateError> {
        let found = walk(model).into_iter();
        let found: BTreeMap<ParamId, _> = found.map(|found| (found.id, found)).collect();
        for weight in planned {
            let values: Vec<f32> = found[&weight.id].read().iter().collect();
            let (curve, basis_bits) = conversion.curve(weight, &values, &mut hessians)?;
            self.paths.push(weight.path.clone());
            self.curves.push(curve);
            self.basis_bits.push(basis_bits);
            self.groups += values.len() / weight.grouping.len();
            self.weights += values.len();
        }
        Ok(())
    }

    /// The bits of each weight: as many as all can have, and one more where it helps most. (What whole bits
    /// are for is beyond a local model: free widths were worse than equal ones, cosine 0.882 after 0.911 on MiniLM
    /// at 2.28 bits.)
    ///
    /// # Errors
    /// If one bit each is too much.
    pub fn choose(mut self, budget: Budget) -> Result<BTreeMap<String, usize>, CalibrateError> {
        // All are of the quantizer's bits.
        let Some(max_bits) = self.curves.first().map(|curve| curve.len() - 1) else {
            return Ok(BTreeMap::new());
        };
        let bits = match budget {
            Budget::EffectiveBits(bits) => (bits * self.weights as f64) as usize,
            Budget::Bytes(bytes) => bytes.saturating_mul(8),
        };
        // Of all widths, 0 too.
        let widths = self.groups * (usize::BITS - max_bits.leading_zeros()) as usize;
        let least = widths + self.basis_bits.iter().sum::<usize>();
        if bits < least {
            let unit = match budget {
                Budget::EffectiveBits(_) => self.weights as f64,
                Budget::Bytes(_) => 8.0,
            };
            return Err(CalibrateError::OutOfReach {
                budget,
                least: least as f64 / unit,
            });
        }
        let each = ((bits - widths) / self.basis_bits.iter().sum::<usize>()).min(max_bits);
        for curve in &mut self.curves {
            // Fewer are out of the question, more are not looked at.
            curve[..each].fill(f64::MAX);
            let most = (each + 1).min(max_bits);
            let last = curve[most];
            curve[most..].fill(last);
        }
        let chosen = allocate(
            &self.curves.concat(),
            max_bits,
            &self.basis_bits,
            bits - widths,
        );
        Ok(self
            .paths
            .into_iter()
            .zip(chosen)
            .map(|(path, bits)| (path, bits.into()))
            .collect())
    }
}
