//! The multi-bit weight in training: bases, coordinates and widths as tensors beside the weight
//! that they stand for.
//!
//! A quantized parameter keeps its dense reconstruction `ŵ = B α` as its value (so autodiff sees
//! one leaf and never `I` copies), and carries a [`MultiBit`] reparameterization with what `ŵ` is
//! made of. Both are ordinary parts of the module tree: recorded, moved between devices, resumed.

use alloc::vec::Vec;

use burn_core as burn;
use burn_core::module::{Module, Param, ParamId, Reparameterization};
use burn_core::tensor::{DType, Device, Int, Tensor, TensorData, bf16, f16};
use multibit::cpu::Arithmetic;
use multibit::{Grouping, GroupingError, PackError, PackedWeight};

use super::read::{read_f32, read_u8};

/// The state of one quantized weight, attached to its parameter.
///
/// Its [`apply`](Reparameterization::apply) is the identity: the parameter's own value already is
/// the reconstruction, kept equal to it by every step of the optimizer.
///
/// # Shapes
/// - codes: `[groups, len]`; bit `i` of a code is set where basis `i` is −1
/// - coordinates: `[groups, max_bits]`; the first `width` of a group are live and positive, the
///   others 0
/// - widths: `[groups]`
#[derive(Module, Debug)]
pub struct MultiBit {
    /// One small integer a weight: its signs on all bases of its group.
    pub codes: Param<Tensor<2, Int>>,
    /// The coordinates `α` of each group.
    pub coordinates: Param<Tensor<2>>,
    /// The bitwidth `I` of each group.
    pub widths: Param<Tensor<1, Int>>,
    /// The [`Arithmetic`] that a layer computes with once the weight is packed, `[1]`, as its place in the
    /// enumeration; none where no rule says it.
    pub arithmetic: Option<Param<Tensor<1, Int>>>,
    /// The grouping as numbers: the permuted axes, then the length of a run.
    ///
    /// A tensor, because visitors see parameters only and records hold tensors only.
    pub layout: Param<Tensor<1, Int>>,
}

impl MultiBit {
    /// The arithmetic that a layer computes with once the weight is packed, where a rule says it.
    pub fn arithmetic(&self) -> Option<Arithmetic> {
        let code = read_u8(self.arithmetic.as_ref()?.val())[0];
        ARITHMETICS.get(usize::from(code)).copied()
    }
}

/// Kinds of arithmetic by their codes, in states and files.
pub(crate) const ARITHMETICS: [Arithmetic; 3] =
    [Arithmetic::Exact, Arithmetic::Int8, Arithmetic::Bitwise];

impl Reparameterization for MultiBit {
    const NAME: &'static str = "multi_bit";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        base
    }
}

/// Host copy of a multi-bit weight: what sketching makes, packing takes and reports read.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiBitData {
    /// The shape of the weight.
    pub shape: Vec<usize>,
    /// How the weight is cut into groups.
    pub grouping: Grouping,
    /// Columns of `coordinates`: the bitwidth that a group can have at most.
    pub max_bits: usize,
    /// `[groups * len]`, bit `i` set where basis `i` is −1.
    pub codes: Vec<u8>,
    /// `[groups * max_bits]`.
    pub coordinates: Vec<f32>,
    /// `[groups]`.
    pub widths: Vec<u8>,
    /// The arithmetic that a layer computes with once the weight is packed, where a rule says it.
    pub arithmetic: Option<Arithmetic>,
}

impl MultiBitData {
    /// Packs the weight into bits.
    ///
    /// # Errors
    /// If the state breaks an invariant of the packed form, for example by a coordinate that is
    /// not positive.
    pub fn pack(&self) -> Result<PackedWeight, PackError> {
        PackedWeight::pack(
            &self.shape,
            self.grouping.clone(),
            self.max_bits,
            &self.codes,
            &self.coordinates,
            &self.widths,
        )
    }

    /// The dense weight, in its own row-major layout.
    pub fn reconstruct(&self) -> Vec<f32> {
        self.scatter(&self.reconstruct_grouped())
    }

    /// Numbers in the order of the groups in that of the weight.
    pub(crate) fn scatter(&self, grouped: &[f32]) -> Vec<f32> {
        let mut weight = alloc::vec![0.0; grouped.len()];
        self.grouping.scatter(&self.shape, grouped, &mut weight);
        weight
    }

    /// The dense weight in the order of its groups.
    pub(crate) fn reconstruct_grouped(&self) -> Vec<f32> {
        let mut grouped = alloc::vec![0.0; self.codes.len()];
        multibit::fit::reconstruct(
            &self.codes,
            &self.coordinates,
            &self.widths,
            self.grouping.len(),
            self.max_bits,
            &mut grouped,
        );
        grouped
    }

    /// Moves the state to a device, as the reparameterization of a parameter.
    pub fn to_device(&self, device: &Device) -> MultiBit {
        let groups = self.widths.len();
        let small = small_int(device);
        let layout: Vec<i32> = self
            .grouping
            .axes()
            .iter()
            .chain([&self.grouping.len()])
            .map(|&value| value as i32)
            .collect();
        let dims = layout.len();
        let arithmetic = self.arithmetic.map(|arithmetic| {
            let code = TensorData::new(alloc::vec![arithmetic as u8], [1]);
            int_param(code, device, small)
        });
        MultiBit {
            codes: int_param(
                TensorData::new(self.codes.clone(), [groups, self.grouping.len()]),
                device,
                small,
            ),
            coordinates: Param::initialized(
                ParamId::new(),
                Tensor::from_data(
                    TensorData::new(self.coordinates.clone(), [groups, self.max_bits]),
                    (device, DType::F32),
                ),
            ),
            widths: int_param(
                TensorData::new(self.widths.clone(), [groups]),
                device,
                small,
            ),
            arithmetic,
            layout: int_param(TensorData::new(layout, [dims]), device, DType::I32),
        }
    }

    /// Reads the state of a parameter of shape `shape`.
    ///
    /// # Errors
    /// If the recorded layout does not fit the shape.
    pub fn from_module(state: &MultiBit, shape: &[usize]) -> Result<Self, GroupingError> {
        Ok(Self {
            shape: shape.to_vec(),
            grouping: read_grouping(&state.layout.val(), shape)?,
            max_bits: state.coordinates.val().dims()[1],
            codes: read_u8(state.codes.val()),
            coordinates: read_f32(state.coordinates.val()),
            widths: read_u8(state.widths.val()),
            arithmetic: state.arithmetic(),
        })
    }
}

fn int_param<const D: usize>(
    data: TensorData,
    device: &Device,
    dtype: DType,
) -> Param<Tensor<D, Int>> {
    Param::initialized(ParamId::new(), Tensor::from_data(data, (device, dtype)))
}

/// The smallest integer that a device computes with: bytes on CPUs, 32 bits where shaders have
/// nothing smaller.
pub(super) fn small_int(device: &Device) -> DType {
    if device.supports_dtype(DType::U8) {
        DType::U8
    } else {
        DType::I32
    }
}

/// Small integers in the device's own type, by way of floats: see `cast_small` of `ops::expr`.
#[cfg(feature = "train")]
pub(crate) fn widened<const D: usize>(small: Tensor<D, Int>) -> Tensor<D, Int> {
    small.float().int()
}

/// How exact numbers of a type are that are computed in f32 at most: what 1 and the next differ by.
pub(crate) fn epsilon(dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::EPSILON.into(),
        DType::BF16 => bf16::EPSILON.into(),
        _ => f32::EPSILON,
    }
}

/// The grouping that a recorded layout stands for, checked against the weight's shape.
pub(crate) fn read_grouping(
    layout: &Tensor<1, Int>,
    shape: &[usize],
) -> Result<Grouping, GroupingError> {
    let layout = layout.to_data_as::<i64>();
    let layout: Vec<i64> = layout.try_into_vec().expect("data were converted to i64");
    let (len, axes) = layout.split_last().expect("a layout has at least a length");
    // What is no number of this machine's becomes huge and fails the checks.
    let number = |&value: &i64| usize::try_from(value).unwrap_or(usize::MAX);
    let grouping = Grouping::new(axes.iter().map(number).collect(), number(len))?;
    grouping.check(shape)?;
    Ok(grouping)
}
