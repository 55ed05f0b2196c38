//! One float weight → multi-bit: structured sketching (Qu et al., CVPR 2020).

use alloc::string::ToString;

use burn_core::module::{Module, Param};
use burn_core::tensor::{Tensor, TensorData};
use multibit::fit;
use multibit::{Grouping, GroupingRule, Layout, MAX_BITS};

use super::walk::{Attach, Replacement};
use super::{MultiBit, MultiBitData, QuantizeError, read_f32};

/// Sketches one weight.
///
/// # Arguments
/// - `weight`: the values in row-major order
/// - `shape`: of the weight
///
/// # Errors
/// If the grouping does not fit the shape, or a value is not finite.
#[cfg(feature = "train")]
pub fn sketch(
    path: &str,
    weight: &[f32],
    shape: &[usize],
    rule: GroupingRule,
    max_bits: usize,
) -> Result<MultiBitData, QuantizeError> {
    let plan = Plan::new(path, shape, rule, Layout::Direct, max_bits)?;
    plan.sketch(path, weight, shape)
}

/// How one weight is sketched, checked against its shape.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub grouping: Grouping,
    pub max_bits: usize,
}

impl Plan {
    pub fn new(
        path: &str,
        shape: &[usize],
        rule: GroupingRule,
        layout: Layout,
        max_bits: usize,
    ) -> Result<Self, QuantizeError> {
        let path = || path.to_string();
        if !(1..=MAX_BITS).contains(&max_bits) {
            return Err(QuantizeError::MaxBits {
                path: path(),
                max_bits,
            });
        }
        match rule.grouping(layout, shape) {
            Ok(grouping) => Ok(Self { grouping, max_bits }),
            Err(source) => Err(QuantizeError::Grouping {
                path: path(),
                source,
            }),
        }
    }

    fn sketch(
        &self,
        path: &str,
        weight: &[f32],
        shape: &[usize],
    ) -> Result<MultiBitData, QuantizeError> {
        let mut grouped = alloc::vec![0.0; weight.len()];
        self.grouping.gather(shape, weight, &mut grouped);
        let sketch = fit::sketch(&grouped, self.grouping.len(), self.max_bits);
        let sketch =
            sketch.map_err(|source| QuantizeError::of_sketch(path, shape, weight, source))?;
        Ok(MultiBitData {
            shape: shape.to_vec(),
            grouping: self.grouping.clone(),
            max_bits: self.max_bits,
            codes: sketch.codes,
            coordinates: sketch.coordinates,
            widths: sketch.widths,
        })
    }
}

/// The parameter at its sketch's value, and what became of it.
#[cfg_attr(
    not(feature = "train"),
    expect(dead_code, reason = "figures for the report of a whole module")
)]
pub(crate) struct Sketched<const D: usize> {
    pub param: Param<Tensor<D>>,
    pub state: MultiBit,
    pub average_bits: f64,
    pub relative_error: f64,
}

impl Plan {
    /// Sketches a parameter.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn apply<const D: usize>(
        &self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> Result<Sketched<D>, QuantizeError> {
        let value = param.val();
        let (device, shape) = (value.device(), value.dims());
        let float = read_f32(value);
        let data = self.sketch(path, &float, &shape)?;
        let state = data.to_device(&device);
        let reconstructed = data.reconstruct();
        let bits: usize = data.widths.iter().map(|&width| usize::from(width)).sum();
        let average_bits = bits as f64 / data.widths.len() as f64;
        let relative_error = relative_error(&float, &reconstructed);
        drop((data, float));
        let len = reconstructed.len();
        let flat = TensorData::new(reconstructed, [len]);
        let flat = Tensor::<1>::from_data(flat, &device.without_autodiff());
        let mut replacement = Replacement::default();
        replacement.floats.insert(param.id, flat);
        Ok(Sketched {
            param: Module::map(param, &mut replacement),
            state,
            average_bits,
            relative_error,
        })
    }
}

/// Sketches one parameter and attaches its state.
pub(crate) fn attach<const D: usize>(
    path: &str,
    param: Param<Tensor<D>>,
    rule: GroupingRule,
    layout: Layout,
    max_bits: usize,
) -> Result<Param<Tensor<D>>, QuantizeError> {
    let plan = Plan::new(path, &param.val().dims(), rule, layout, max_bits)?;
    let Sketched { param, state, .. } = plan.apply(path, param)?;
    Ok(param.apply_reparameterization(Attach(Some(state))))
}

/// `‖w − ŵ‖ / ‖w‖`; 0 for a weight of zeros.
pub(crate) fn relative_error(float: &[f32], packed: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let (error, norm) = float
        .iter()
        .zip(packed)
        .fold((0.0, 0.0), |(error, norm), (&w, &q)| {
            (
                error + square(f64::from(w) - f64::from(q)),
                norm + square(f64::from(w)),
            )
        });
    if norm > 0.0 {
        libm::sqrt(error / norm)
    } else {
        0.0
    }
}
