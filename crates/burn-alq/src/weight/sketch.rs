//! One float weight → multi-bit: structured sketching (Qu et al., CVPR 2020).

#[cfg(feature = "train")]
mod product;

use alloc::borrow::Cow;
use alloc::string::ToString;
use alloc::vec::Vec;

#[cfg(feature = "train")]
use burn_core::module::Reparameterization;
use burn_core::module::{Module, Param, ParamId};
#[cfg(feature = "train")]
use burn_core::tensor::Device;
use burn_core::tensor::{DType, Tensor, TensorData};
use multibit::cpu::Arithmetic;
use multibit::fit::{self, Hessian, SketchError};
use multibit::{CoordinateType, Grouping, GroupingRule, Layout, MAX_BITS};

use super::walk::{Attach, Replacement};
use super::{MultiBit, MultiBitData, QuantizeError, Size, average_bits, read_f32};

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
    plan.sketch(shape, &plan.gather(shape, weight), None)
        .map_err(|source| QuantizeError::of_sketch(path, shape, weight, source))
}

/// How often all codes of a weight are gone through again, given each other.
const SWEEPS: usize = 2;

/// What is known of the inputs of a weight, in the order of its groups.
#[derive(Debug)]
pub(crate) struct Known {
    pub hessian: Hessian,
    /// What outputs lack, `Σ e xᵀ`, `[outputs, inputs]`.
    pub lacks: Option<Vec<f32>>,
    /// Of a layer with a bias; both sums are then of what differs from them.
    pub means: Option<Means>,
}

#[cfg(feature = "train")]
impl Known {
    pub fn new(hessian: Hessian) -> Self {
        Self {
            hessian,
            lacks: None,
            means: None,
        }
    }
}

/// Means over the inputs of a layer with a bias.
#[derive(Debug)]
pub(crate) struct Means {
    /// The bias.
    pub id: ParamId,
    /// What outputs lack, `[outputs]`.
    pub lacks: Vec<f32>,
    /// `[inputs]`.
    pub inputs: Vec<f32>,
}

/// A weight in the order of its groups, with what makes up for what outputs lack.
fn target<'a>(grouped: &'a [f32], known: Option<&Known>) -> Cow<'a, [f32]> {
    match known {
        Some(Known {
            hessian,
            lacks: Some(lacks),
            ..
        }) => hessian.least_squares(grouped, lacks).into(),
        _ => grouped.into(),
    }
}

/// How one weight is sketched, checked against its shape.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub grouping: Grouping,
    pub max_bits: usize,
    pub coordinate_type: CoordinateType,
    pub arithmetic: Option<Arithmetic>,
    /// Of what becomes a product: its rank. Its groups are outputs then, and its bases one.
    #[cfg(feature = "train")]
    pub rank: Option<usize>,
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
                #[cfg(feature = "train")]
                rank: None,
            }),
            Err(source) => Err(QuantizeError::Grouping {
                path: path(),
                source,
            }),
        }
    }

    /// Sketches a weight that is given in the order of its groups.
    fn sketch(
        &self,
        shape: &[usize],
        grouped: &[f32],
        known: Option<&Known>,
    ) -> Result<MultiBitData, SketchError> {
        let len = self.grouping.len();
        let sketch = match known {
            Some(Known { hessian, .. }) => {
                let widths = alloc::vec![self.max_bits as u8; self.grouping.groups(shape)];
                fit::calibrate(
                    &target(grouped, known),
                    hessian,
                    len,
                    &widths,
                    self.coordinate_type,
                    SWEEPS,
                )?
            }
            None => fit::sketch(grouped, len, self.max_bits, self.coordinate_type)?,
        };
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

/// What a weight can be made of, in training.
#[cfg(feature = "train")]
pub(crate) trait State: Reparameterization + Clone {
    /// Whether a plan is for it.
    fn is_planned(plan: &Plan) -> bool;

    /// Sketches a parameter.
    ///
    /// # Errors
    /// If a value is not finite.
    fn sketch<const D: usize>(
        plan: &Plan,
        path: &str,
        param: Param<Tensor<D>>,
        known: Option<&Known>,
    ) -> Result<Sketched<D, Self>, QuantizeError>;

    /// The state of a parameter without bits yet, for a record to be loaded into.
    fn hollow<const D: usize>(plan: &Plan, param: &Param<Tensor<D>>) -> Self;
}

#[cfg(feature = "train")]
impl State for MultiBit {
    fn is_planned(plan: &Plan) -> bool {
        plan.rank.is_none()
    }

    fn sketch<const D: usize>(
        plan: &Plan,
        path: &str,
        param: Param<Tensor<D>>,
        known: Option<&Known>,
    ) -> Result<Sketched<D>, QuantizeError> {
        plan.apply(path, param, known)
    }

    fn hollow<const D: usize>(plan: &Plan, param: &Param<Tensor<D>>) -> Self {
        plan.hollow(&param.dims(), &param.lazy_device())
    }
}

/// The parameter at its sketch's value, and what became of it.
#[cfg_attr(
    not(feature = "train"),
    expect(dead_code, reason = "figures for the report of a whole module")
)]
pub(crate) struct Sketched<const D: usize, S = MultiBit> {
    pub param: Param<Tensor<D>>,
    pub state: S,
    pub average_bits: f64,
    pub effective_bits: f64,
    pub relative_error: f64,
    /// What is to be added to a bias, `[outputs]`.
    pub offset: Option<(ParamId, Vec<f32>)>,
}

impl Plan {
    /// What is to be added to a bias, `b + Σ e / n + (w − ŵ)ᵀ μ`.
    fn offset([float, new]: [&[f32]; 2], known: Option<&Known>) -> Option<(ParamId, Vec<f32>)> {
        let means = known?.means.as_ref()?;
        let inputs = means.inputs.len();
        let rows = float.chunks_exact(inputs).zip(new.chunks_exact(inputs));
        let offsets = rows.zip(&means.lacks).map(|((float, new), lacks)| {
            let moved = float.iter().zip(new).zip(&means.inputs);
            lacks + moved.map(|((w, new), mean)| (w - new) * mean).sum::<f32>()
        });
        Some((means.id, offsets.collect()))
    }

    /// A weight in the order of its groups.
    fn gather(&self, shape: &[usize], weight: &[f32]) -> Vec<f32> {
        let mut grouped = alloc::vec![0.0; weight.len()];
        self.grouping.gather(shape, weight, &mut grouped);
        grouped
    }

    /// The state of a parameter without bits yet, for a record to be loaded into.
    #[cfg(feature = "train")]
    pub fn hollow(&self, shape: &[usize], device: &Device) -> MultiBit {
        let groups = self.grouping.groups(shape);
        let data = MultiBitData {
            shape: shape.to_vec(),
            grouping: self.grouping.clone(),
            max_bits: self.max_bits,
            codes: alloc::vec![0; groups * self.grouping.len()],
            coordinates: alloc::vec![0.0; groups * self.max_bits],
            widths: alloc::vec![0; groups],
            arithmetic: self.arithmetic,
        };
        data.to_device(device)
    }

    /// What a sketch leaves of `Σ (w − ŵ)ᵀ H (w − ŵ)` over the outputs.
    ///
    /// # Arguments
    /// - `products`: `H`, `[inputs, inputs]`, or its diagonal, `[1, inputs]`
    ///
    /// # Errors
    /// If a value is not finite.
    #[cfg(feature = "train")]
    pub fn loss(
        &self,
        path: &str,
        weight: &[f32],
        shape: &[usize],
        known: &Known,
        products: &Tensor<2>,
    ) -> Result<f64, QuantizeError> {
        let [rows, inputs] = products.dims();
        let float = self.gather(shape, weight);
        let sketch = self
            .sketch(shape, &float, Some(known))
            .map_err(|source| QuantizeError::of_sketch(path, shape, weight, source))?;
        let levels = sketch.reconstruct_grouped();
        let errors = float.iter().zip(levels).map(|(w, level)| level - w);
        let errors = TensorData::new(errors.collect::<Vec<f32>>(), [float.len() / inputs, inputs]);
        let errors = Tensor::<2>::from_data(errors, (&products.device(), DType::F32));
        let bent = match rows == inputs {
            true => errors.clone().matmul(products.clone()),
            false => errors.clone() * products.clone(),
        };
        Ok(f64::from(read_f32((bent * errors).sum())[0]))
    }

    /// Bits that a basis of each group stores, with its coordinates.
    #[cfg(feature = "train")]
    pub fn basis_bits(&self, shape: &[usize]) -> usize {
        let coordinate = 8 * self.coordinate_type.bytes();
        self.grouping.groups(shape) * (self.grouping.len() + coordinate)
    }

    /// Sketches a parameter.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn apply<const D: usize>(
        &self,
        path: &str,
        param: Param<Tensor<D>>,
        known: Option<&Known>,
    ) -> Result<Sketched<D>, QuantizeError> {
        let value = param.val();
        let (device, shape) = (value.device(), value.dims());
        // One copy beside the parameter's own and what becomes of it: large weights count.
        let float = self.gather(&shape, &read_f32(value));
        let data = self.sketch(&shape, &float, known).map_err(|source| {
            QuantizeError::of_sketch(path, &shape, &read_f32(param.val()), source)
        })?;
        let state = data.to_device(&device);
        let levels = data.reconstruct_grouped();
        let size = Size::new(&data.grouping, &data.widths);
        let relative_error = relative_error(&float, &levels);
        let offset = Self::offset([&float, &levels], known);
        drop(float);
        let weight = data.scatter(&levels);
        drop((data, levels));
        let len = weight.len();
        let flat = TensorData::new(weight, [len]);
        let flat = Tensor::<1>::from_data(flat, (&device.without_autodiff(), DType::F32));
        let mut replacement = Replacement::default();
        replacement.floats.insert(param.id, flat);
        Ok(Sketched {
            param: Module::map(param, &mut replacement),
            state,
            average_bits: average_bits(&[size]),
            effective_bits: size.effective_bits(self.coordinate_type),
            relative_error,
            offset,
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
