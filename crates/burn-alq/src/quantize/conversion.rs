//! A conversion in several steps, for who looks at the model between them.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use burn_core::module::{Module, ParamId};

use super::convert::{convert, hollow};
use super::{Hessians, Outcome, Planned, QuantizeReport};
use crate::nn::Arithmetic;
use crate::weight::{Layout, Plan, QuantizeError, Replacement};

/// The conversion of a module, some weights at a time.
pub(crate) struct Conversion {
    /// What is to be done, by path.
    plans: BTreeMap<String, Planned>,
    /// What was to be done in the beginning.
    all: BTreeMap<String, Plan>,
    switched: Replacement<'static>,
    report: QuantizeReport,
}

impl Conversion {
    pub(super) fn new(
        plans: BTreeMap<String, Planned>,
        switched: Replacement<'static>,
        report: QuantizeReport,
    ) -> Self {
        let all = plans.iter();
        Self {
            all: all
                .map(|(path, to_do)| (path.clone(), to_do.plan.clone()))
                .collect(),
            plans,
            switched,
            report,
        }
    }

    /// Sketches the weights whose paths are chosen, by what was measured of them, if anything was.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn convert<M: Module>(
        &mut self,
        module: M,
        chosen: impl Fn(&str) -> bool,
        hessians: Hessians,
    ) -> Result<M, QuantizeError> {
        let plans = core::mem::take(&mut self.plans).into_iter();
        let (now, later) = plans.partition(|(path, _)| chosen(path));
        self.plans = later;
        convert(module, now, hessians, &mut self.report)
    }

    /// Switches activations on, when all weights are converted.
    pub fn finish<M: Module>(&mut self, module: M) -> M {
        module.map(&mut self.switched)
    }

    /// What is to be done, activations to be switched on, and what is known so far.
    #[cfg(feature = "store")]
    pub(super) fn into_parts(
        self,
    ) -> (
        BTreeMap<String, Planned>,
        Replacement<'static>,
        QuantizeReport,
    ) {
        (self.plans, self.switched, self.report)
    }

    /// What became of every parameter so far.
    pub fn report(&self) -> &QuantizeReport {
        &self.report
    }

    /// What became of every parameter.
    pub fn into_report(self) -> QuantizeReport {
        self.report
    }

    /// Gives weights another number of bits at most.
    pub fn set_bits(&mut self, bits: &BTreeMap<String, usize>) {
        for (path, &bits) in bits {
            if let Some(planned) = self.plans.get_mut(path) {
                planned.plan.max_bits = bits;
            }
            if let Some(Outcome::Quantized(weight)) = self.report.outcome_mut(path) {
                weight.max_bits = bits;
            }
        }
    }

    /// Bits that a basis of each group of a weight stores, with its coordinates.
    pub fn basis_bits(&self, weight: &PlannedWeight) -> usize {
        self.all[&weight.path].basis_bits(&weight.shape)
    }

    /// What a weight loses with so many bits, and with so many ([`Plan::loss`]); nothing, if nothing was measured
    /// of it.
    ///
    /// # Errors
    /// If a value, or what was measured, is not finite.
    pub fn losses(
        &self,
        weight: &PlannedWeight,
        values: &[f32],
        hessians: &mut Hessians,
        bits: [usize; 2],
    ) -> Result<[f64; 2], QuantizeError> {
        let (path, shape) = (&weight.path, &weight.shape);
        let products = hessians.0.get(&weight.id);
        let products = products.map(|measured| measured.products.clone());
        let known = hessians.take(weight.id);
        let known = known.map_err(|source| QuantizeError::Curvature {
            path: path.clone(),
            source,
        })?;
        let mut losses = [0.0; 2];
        if let Some((known, products)) = known.zip(products) {
            for (loss, max_bits) in losses.iter_mut().zip(bits) {
                let plan = self.all[path].clone();
                let plan = Plan { max_bits, ..plan };
                *loss = plan.loss(path, values, shape, &known, &products)?;
            }
        }
        Ok(losses)
    }

    /// A module with states without bits where these weights are, of as many bits as these or else the rules
    /// say, for a record to be loaded into.
    pub fn hollow<M: Module>(
        &self,
        module: M,
        bits: &BTreeMap<String, usize>,
        converted: &[String],
    ) -> M {
        let mut plans = BTreeMap::new();
        for path in converted {
            if let Some(plan) = self.all.get(path) {
                let max_bits = bits.get(path).copied().unwrap_or(plan.max_bits);
                let plan = plan.clone();
                plans.insert(path.clone(), Plan { max_bits, ..plan });
            }
        }
        hollow(module, &plans)
    }

    /// Goes on where these weights are converted.
    pub fn resume(
        &mut self,
        bits: &BTreeMap<String, usize>,
        converted: &[String],
        report: QuantizeReport,
    ) {
        self.set_bits(bits);
        self.plans.retain(|path, _| !converted.contains(path));
        self.report = report;
    }
}

/// A weight that rules quantize, and how.
#[derive(Debug, Clone)]
pub(crate) struct PlannedWeight {
    pub id: ParamId,
    pub path: String,
    pub shape: Vec<usize>,
    pub layout: Layout,
    pub grouping: multibit::Grouping,
    pub max_bits: usize,
    /// Whether its rule says its bits.
    pub has_own_bits: bool,
    /// Whether it becomes a product.
    pub is_product: bool,
    pub arithmetic: Option<Arithmetic>,
}
