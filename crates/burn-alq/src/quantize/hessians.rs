//! What was measured of a model's outputs, for a conversion that keeps them.

use alloc::collections::BTreeMap;

use burn_core::module::ParamId;
use burn_core::tensor::Tensor;
use multibit::fit::{Hessian, HessianError};

use crate::weight::read_f32;

/// The share of the mean curvature that is added to all: directions that no sample showed still count.
const DAMPING: f64 = 0.01;

/// How the outputs bend along the weights of an output, by the id of the weight: `[inputs, inputs]`, or
/// the diagonal alone, `[1, inputs]`.
#[derive(Debug, Default)]
pub(crate) struct Hessians(pub BTreeMap<ParamId, Tensor<2>>);

impl Hessians {
    /// That of a weight, which there is once; none if no gradient has reached it, or nothing
    /// was measured. Factored only here: a factor takes as much memory again.
    ///
    /// # Errors
    /// If what was measured is not finite.
    pub fn take(&mut self, id: ParamId) -> Result<Option<Hessian>, HessianError> {
        let Some(sum) = self.0.remove(&id) else {
            return Ok(None);
        };
        let [rows, inputs] = sum.dims();
        let values = read_f32(sum);
        let hessian = if rows == inputs {
            Hessian::new(&values, inputs, DAMPING)
        } else {
            Hessian::diagonal(&values, DAMPING)
        };
        hessian.map(Some)
    }
}
