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

/// Weights under a budget: as many bits as all can have, and one more where it helps most. (What whole bits are
/// for is beyond a local model: free widths were worse than equal ones, cosine 0.882 after 0.911 on MiniLM at 2.28
/// bits.)
pub(super) struct Shares {
    /// The bits that all can have.
    each: usize,
    /// Whether that is the most.
    is_most: bool,
    /// What is left for more, in bits that are stored.
    left: usize,
    /// Of the weights that were measured: their paths, what they lose with these bits and with one more, and what
    /// one more stores.
    paths: Vec<String>,
    losses: Vec<f64>,
    basis_bits: Vec<usize>,
}

impl Shares {
    /// # Errors
    /// If one bit each is too much.
    pub fn new(
        budget: Budget,
        conversion: &Conversion,
        planned: &[PlannedWeight],
    ) -> Result<Self, CalibrateError> {
        // All are of the quantizer's bits.
        let max_bits = planned.first().map_or(1, |weight| weight.max_bits);
        let sum = |of: fn(&PlannedWeight) -> usize| planned.iter().map(of).sum::<usize>();
        let weights = sum(|weight| weight.shape.iter().product());
        let groups = sum(|weight| weight.grouping.groups(&weight.shape));
        let basis = planned.iter().map(|weight| conversion.basis_bits(weight));
        let basis: usize = basis.sum();
        // Of all widths, 0 too.
        let widths = groups * (usize::BITS - max_bits.leading_zeros()) as usize;
        let (bits, unit) = match budget {
            Budget::EffectiveBits(bits) => ((bits * weights as f64) as usize, weights as f64),
            Budget::Bytes(bytes) => (bytes.saturating_mul(8), 8.0),
        };
        if bits < widths + basis {
            return Err(CalibrateError::OutOfReach {
                budget,
                least: (widths + basis) as f64 / unit,
            });
        }
        let each = ((bits - widths) / basis.max(1)).min(max_bits);
        Ok(Self {
            each,
            is_most: each == max_bits,
            left: bits - widths - each * basis,
            paths: Vec::new(),
            losses: Vec::new(),
            basis_bits: Vec::new(),
        })
    }

    /// Whether nothing has to be measured.
    pub fn are_equal(&self) -> bool {
        self.is_most
    }

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
            let bits = [self.each, self.each + 1];
            self.losses
                .extend(conversion.losses(weight, &values, &mut hessians, bits)?);
            self.paths.push(weight.path.clone());
            self.basis_bits.push(conversion.basis_bits(weight));
        }
        Ok(())
    }

    /// The bits of each of some weights.
    pub fn choose(self, planned: &[PlannedWeight]) -> BTreeMap<String, usize> {
        let all = planned
            .iter()
            .map(|weight| (weight.path.clone(), self.each));
        let mut bits: BTreeMap<String, usize> = all.collect();
        let more = allocate(&self.losses, 1, &self.basis_bits, self.left);
        for (path, more) in self.paths.into_iter().zip(more) {
            bits.insert(path, self.each + usize::from(more));
        }
        bits
    }
}
