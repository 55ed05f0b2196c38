//! One float weight → multi-bit: structured sketching (Qu et al., CVPR 2020).

use alloc::string::ToString;
#[cfg(feature = "train")]
use alloc::vec::Vec;

use burn_core::module::{Module, Param};
use burn_core::tensor::{DType, Tensor, TensorData};
use multibit::cpu::Arithmetic;
use multibit::fit::{self, Hessian};
use multibit::{CoordinateType, Grouping, GroupingRule, Layout, MAX_BITS};

use super::walk::{Attach, Replacement};
use super::{MultiBit, MultiBitData, QuantizeError, Size, read_f32};

/// Sketches one weight ([`multibit::fit::sketch`]).
///
/// # Arguments
/// - `weight`: the values in row-major order
/// - `shape`: of the weight
/// - `coordinate_type`: what will hold the coordinates
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
    coordinate_type: CoordinateType,
) -> Result<MultiBitData, QuantizeError> {
    let mut plan = Plan::new(path, shape, rule, Layout::Direct, max_bits)?;
    plan.coordinate_type = coordinate_type;
    plan.sketch(path, weight, shape, None)
}

/// How often all codes of a weight are gone through again, given each other.
const SWEEPS: usize = 2;

/// How one weight is sketched, checked against its shape.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub grouping: Grouping,
    pub max_bits: usize,
    pub coordinate_type: CoordinateType,
    pub arithmetic: Option<Arithmetic>,
}

impl Plan {
    /// With coordinates in f32 and no arithmetic said.
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
            Ok(grouping) => Ok(Self {
                grouping,
                max_bits,
                coordinate_type: CoordinateType::F32,
                arithmetic: None,
            }),
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
        hessian: Option<&Hessian>,
    ) -> Result<MultiBitData, QuantizeError> {
        let mut grouped = alloc::vec![0.0; weight.len()];
        self.grouping.gather(shape, weight, &mut grouped);
        let len = self.grouping.len();
        let sketch = match hessian {
            Some(hessian) => {
                let widths = alloc::vec![self.max_bits as u8; self.grouping.groups(shape)];
                fit::calibrate(
                    &grouped,
                    hessian,
                    len,
                    &widths,
                    self.coordinate_type,
                    SWEEPS,
                )
            }
            None => fit::sketch(&grouped, len, self.max_bits, self.coordinate_type),
        };
        let sketch =
            sketch.map_err(|source| QuantizeError::of_sketch(path, shape, weight, source))?;
        Ok(MultiBitData {
            shape: shape.to_vec(),
            grouping: self.grouping.clone(),
            max_bits: self.max_bits,
            codes: sketch.codes,
            coordinates: sketch.coordinates,
            widths: sketch.widths,
            arithmetic: self.arithmetic,
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
    pub size: Size,
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
        hessian: Option<&Hessian>,
    ) -> Result<Sketched<D>, QuantizeError> {
        let value = param.val();
        let (device, shape) = (value.device(), value.dims());
        let float = read_f32(value);
        let data = self.sketch(path, &float, &shape, hessian)?;
        let state = data.to_device(&device);
        let reconstructed = data.reconstruct();
        let size = Size::new(&data.grouping, &data.widths);
        let relative_error = relative_error(&float, &reconstructed);
        drop((data, float));
        let len = reconstructed.len();
        let flat = TensorData::new(reconstructed, [len]);
        let flat = Tensor::<1>::from_data(flat, (&device.without_autodiff(), DType::F32));
        let mut replacement = Replacement::default();
        replacement.floats.insert(param.id, flat);
        Ok(Sketched {
            param: Module::map(param, &mut replacement),
            state,
            size,
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
    let Sketched { param, state, .. } = plan.apply(path, param, None)?;
    Ok(param.apply_reparameterization(Attach(Some(state))))
}

/// Sketches a weight anew, each group with the bitwidth that it has; a group that is no better by that
/// stays as it is.
///
/// # Errors
/// If a value is not finite.
#[cfg(feature = "train")]
pub(crate) fn resketch(
    path: &str,
    weight: &[f32],
    old: &MultiBitData,
    coordinate_type: CoordinateType,
) -> Result<MultiBitData, QuantizeError> {
    let (len, max_bits) = (old.grouping.len(), old.max_bits);
    let mut grouped = alloc::vec![0.0; weight.len()];
    old.grouping.gather(&old.shape, weight, &mut grouped);
    let wrong = |source| QuantizeError::of_sketch(path, &old.shape, weight, source);
    let mut new = old.clone();
    // `‖w − ŵ‖²` of a group.
    let error = |values: &[f32], codes: &[u8], slots: &[f32]| -> f64 {
        let mut levels = alloc::vec![0.0; values.len()];
        let (width, len) = (slots.len(), values.len());
        fit::reconstruct(codes, slots, &[width as u8], len, width, &mut levels);
        let pairs = values.iter().zip(&levels);
        let left = pairs.map(|(value, level)| f64::from(value - level));
        left.map(|left| left * left).sum()
    };
    // All groups of a bitwidth at a time, on all threads.
    for bits in 1..=max_bits {
        let places = old.widths.iter().zip(0..);
        let places: Vec<usize> = places
            .filter_map(|(&width, group)| (usize::from(width) == bits).then_some(group))
            .collect();
        let group = |&group: &usize| &grouped[group * len..][..len];
        let some: Vec<f32> = places.iter().flat_map(group).copied().collect();
        let sketch = fit::sketch(&some, len, bits, coordinate_type).map_err(wrong)?;
        for (index, &group) in places.iter().enumerate() {
            let (codes, slots) = (index * len.., index * bits..);
            let (codes, slots) = (
                &sketch.codes[codes][..len],
                &sketch.coordinates[slots][..bits],
            );
            let values = &grouped[group * len..][..len];
            let (old_codes, old_slots) = (group * len.., group * max_bits..);
            let old_codes = &mut new.codes[old_codes][..len];
            let old_slots = &mut new.coordinates[old_slots][..bits];
            if error(values, codes, slots) < error(values, old_codes, old_slots) {
                old_codes.copy_from_slice(codes);
                old_slots.copy_from_slice(slots);
                new.widths[group] = sketch.widths[index];
            }
        }
    }
    Ok(new)
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
