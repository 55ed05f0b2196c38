//! The steps of ALQ on one weight, each a function of its arguments (ALQ by
//! Qu et al., CVPR 2020).
//!
//! All of them take the weight's state in both domains and its gradient, and return the new state
//! and the new dense weight. Tensors are plain, not autodiff.

pub mod prune;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use burn_core::backend::Dispatch;
use burn_core::tensor::{DType, Device, Int, Tensor, TensorData};
use multibit::CoordinateType;
pub use multibit::fit::StepParams;

use crate::multibit::{MultiBit, read_f32};
use crate::ops::{AlqOps, WeightLayout, WeightState};

/// AMSGrad's moments of one weight in both domains, and the full-precision weight
/// that the STE phase keeps.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Steps taken.
    pub t: u32,
    /// First moment, second moment, largest second moment: `[groups, len]`.
    pub weight: [Tensor<2>; 3],
    /// The same in the α domain: `[groups, max_bits]`.
    pub alpha: [Tensor<2>; 3],
    /// The kept weight `w` of the STE phase, `[groups, len]`.
    pub latent: Option<Tensor<2>>,
    /// The coordinates before they were rounded to what is stored, `[groups, max_bits]`, while they
    /// are.
    pub master: Option<Tensor<2>>,
}

/// The fields of [`Moments`] in records, in order.
const FIELDS: [&str; 6] = ["m", "v", "v_max", "m_alpha", "v_alpha", "v_max_alpha"];

impl Moments {
    /// Moments before the first step: zeros.
    pub fn new(state: &MultiBit) -> Self {
        let coordinates = state.coordinates.val();
        let device = coordinates.device().without_autodiff();
        let [groups, max_bits] = coordinates.dims();
        let [_, len] = state.codes.val().dims();
        let zeros = |columns| {
            core::array::from_fn(|_| Tensor::zeros([groups, columns], (&device, DType::F32)))
        };
        Self {
            t: 0,
            weight: zeros(len),
            alpha: zeros(max_bits),
            latent: None,
            master: None,
        }
    }

    /// The moments on a device, without autodiff.
    pub(crate) fn moved_to(self, device: &Device) -> Self {
        if self.weight[0].device() == *device {
            return self;
        }
        let device = device.clone().without_autodiff();
        Self {
            t: self.t,
            weight: self.weight.map(|tensor| tensor.to_device(&device)),
            alpha: self.alpha.map(|tensor| tensor.to_device(&device)),
            latent: self.latent.map(|tensor| tensor.to_device(&device)),
            master: self.master.map(|tensor| tensor.to_device(&device)),
        }
    }

    /// Whether the shapes are those of a weight's state.
    #[cfg(feature = "train")]
    pub(crate) fn fit(&self, state: &MultiBit) -> bool {
        let codes = state.codes.val().dims();
        let coordinates = state.coordinates.val().dims();
        let weights = self.weight.iter().chain(&self.latent);
        weights.into_iter().all(|tensor| tensor.dims() == codes)
            && self
                .alpha
                .iter()
                .chain(&self.master)
                .all(|tensor| tensor.dims() == coordinates)
    }

    /// Zero if all gradients so far and their squares were finite, else more. One tensor of one
    /// element, on the device.
    pub(crate) fn probe(&self) -> Tensor<1> {
        // Not arithmetic: shader compilers may assume that numbers are finite.
        let spoiled = |tensor: &Tensor<2>| tensor.clone().is_finite().bool_not().float().sum();
        let [m, _, v_max] = &self.weight;
        let [m_alpha, _, v_max_alpha] = &self.alpha;
        spoiled(m) + spoiled(v_max) + spoiled(m_alpha) + spoiled(v_max_alpha)
    }

    /// Name and data of every tensor, for records.
    pub(crate) fn to_record(&self) -> Vec<(String, TensorData)> {
        let named = FIELDS.iter().zip(self.weight.iter().chain(&self.alpha));
        let latent = self.latent.iter().map(|tensor| (&"latent", tensor));
        let master = self.master.iter().map(|tensor| (&"master", tensor));
        named
            .chain(latent)
            .chain(master)
            .map(|(name, tensor)| (name.to_string(), tensor.to_data()))
            .collect()
    }

    /// The moments in a record, or the name of what is missing.
    pub(crate) fn from_record(
        t: u32,
        mut take: impl FnMut(&str) -> Option<TensorData>,
        device: &Device,
    ) -> Result<Self, &'static str> {
        let is_matrix = |data: &TensorData| data.rank() == 2 && data.dtype().is_float();
        let mut tensors = Vec::with_capacity(FIELDS.len());
        for name in FIELDS {
            let data = take(name).filter(is_matrix).ok_or(name)?;
            tensors.push(Tensor::from_data(data, device));
        }
        let mut optional = |name| {
            let data = take(name).filter(is_matrix);
            data.map(|data| Tensor::from_data(data, device))
        };
        let (latent, master) = (optional("latent"), optional("master"));
        let alpha = tensors.split_off(3);
        Ok(Self {
            t,
            weight: tensors.try_into().expect("three tensors"),
            alpha: alpha.try_into().expect("three tensors"),
            latent,
            master,
        })
    }
}

/// A weight's bases, coordinates and widths as plain tensors.
#[derive(Debug, Clone)]
pub struct Bases {
    /// `[groups, len]`.
    pub codes: Tensor<2, Int>,
    /// `[groups, max_bits]`.
    pub coordinates: Tensor<2>,
    /// `[groups]`.
    pub widths: Tensor<1, Int>,
}

impl Bases {
    /// The tensors of an attached state, without autodiff.
    pub fn new(state: &MultiBit) -> Self {
        Self {
            codes: state.codes.val().without_autodiff(),
            coordinates: state.coordinates.val().without_autodiff(),
            widths: state.widths.val().without_autodiff(),
        }
    }
}

/// Runs an operation of the backend extension on a weight's state. The latent weight and the master
/// coordinates are not part of it.
fn run<T>(
    bases: Bases,
    moments: Moments,
    operation: impl FnOnce(WeightState<Dispatch>) -> (WeightState<Dispatch>, T),
) -> (Bases, Moments, T) {
    let [m, v, v_max] = moments.weight.map(Tensor::into_dispatch);
    let [m_alpha, v_alpha, v_max_alpha] = moments.alpha.map(Tensor::into_dispatch);
    let state = WeightState {
        codes: bases.codes.into_dispatch(),
        coordinates: bases.coordinates.into_dispatch(),
        widths: bases.widths.into_dispatch(),
        m,
        v,
        v_max,
        m_alpha,
        v_alpha,
        v_max_alpha,
    };
    let (state, result) = operation(state);
    let bases = Bases {
        codes: Tensor::from_dispatch(state.codes),
        coordinates: Tensor::from_dispatch(state.coordinates),
        widths: Tensor::from_dispatch(state.widths),
    };
    let moments = Moments {
        t: moments.t,
        weight: [state.m, state.v, state.v_max].map(Tensor::from_dispatch),
        alpha: [state.m_alpha, state.v_alpha, state.v_max_alpha].map(Tensor::from_dispatch),
        latent: moments.latent,
        master: moments.master,
    };
    (bases, moments, result)
}

/// What a step returns: the new bases, the new moments, and the new weight (flat, in its own
/// layout).
pub type Stepped = (Bases, Moments, Tensor<1>);

/// The basis step with speedup: `B` moves to the levels nearest to `ŵ − p/h`, then
/// `α = (BᵀHB + λI)⁻¹Bᵀ(Hŵ − p)`.
///
/// # Shapes
/// - `grad`: the weight's own shape, flat
pub fn basis(
    bases: Bases,
    moments: Moments,
    grad: Tensor<1>,
    layout: &WeightLayout,
    params: StepParams,
) -> Stepped {
    let (bases, moments, weight) = run(bases, moments, |state| {
        <Dispatch as AlqOps>::alq_basis(state, grad.into_dispatch(), layout.clone(), params)
    });
    (bases, moments, Tensor::from_dispatch(weight))
}

/// The STE step: like [`basis`] around the kept weight `w`, which moves by `−p/h`.
///
/// # Panics
/// If the moments hold no latent weight.
pub fn ste(
    bases: Bases,
    mut moments: Moments,
    grad: Tensor<1>,
    layout: &WeightLayout,
    params: StepParams,
) -> Stepped {
    let latent = moments.latent.take();
    let latent = latent.expect("the STE phase keeps a full-precision weight");
    let (bases, mut moments, (latent, weight)) = run(bases, moments, |state| {
        let (state, latent, weight) = <Dispatch as AlqOps>::alq_ste(
            state,
            latent.into_dispatch(),
            grad.into_dispatch(),
            layout.clone(),
            params,
        );
        (state, (latent, weight))
    });
    moments.latent = Some(Tensor::from_dispatch(latent));
    (bases, moments, Tensor::from_dispatch(weight))
}

/// The coordinate step: `α ← α − p_α/h_α` with fixed bases.
pub fn coordinate(
    bases: Bases,
    moments: Moments,
    grad: Tensor<1>,
    layout: &WeightLayout,
    params: StepParams,
) -> Stepped {
    let (bases, moments, weight) = run(bases, moments, |state| {
        <Dispatch as AlqOps>::alq_coordinate(state, grad.into_dispatch(), layout.clone(), params)
    });
    (bases, moments, Tensor::from_dispatch(weight))
}

/// The first half of the pruning step: new moments, and the modelled loss increase
/// `Δ_i = −p_α,i α_i + ½ h_α,i α_i²` of dropping each coordinate, `[groups, max_bits]`, infinite
/// where there is none.
pub fn importance(
    bases: Bases,
    moments: Moments,
    grad: Tensor<1>,
    layout: &WeightLayout,
    params: StepParams,
) -> (Bases, Moments, Tensor<2>) {
    let (bases, moments, delta) = run(bases, moments, |state| {
        <Dispatch as AlqOps>::alq_importance(state, grad.into_dispatch(), layout.clone(), params)
    });
    (bases, moments, Tensor::from_dispatch(delta))
}

/// The `count` smallest of the increases of [`importance`], each with its place in the table, in any
/// order: what pruning needs of them, so that no more is read back.
///
/// # Panics
/// If there are not as many.
pub fn smallest(delta: Tensor<2>, count: usize) -> Vec<(f32, usize)> {
    if count == 0 {
        return Vec::new();
    }
    let (places, smallest) = <Dispatch as AlqOps>::alq_smallest(delta.into_dispatch(), count);
    let places = Tensor::<1, Int>::from_dispatch(places).into_data_as::<u32>();
    let places: Vec<u32> = places.try_into_vec().expect("converted to u32");
    let smallest = read_f32(Tensor::<1>::from_dispatch(smallest));
    let places = places.into_iter().map(|place| place as usize);
    smallest.into_iter().zip(places).collect()
}

/// The second half of the pruning step: drops the coordinates marked in `drop`
/// (`[groups * max_bits]`) with their bases and moments.
pub fn drop_coordinates(
    bases: Bases,
    moments: Moments,
    drop: &[bool],
    layout: &WeightLayout,
) -> Stepped {
    let marks: Vec<u8> = drop.iter().map(|&mark| u8::from(mark)).collect();
    let marks = Tensor::<2, Int>::from_data(
        TensorData::new(marks, bases.coordinates.dims()),
        (&bases.coordinates.device(), bases.widths.dtype()),
    );
    let (bases, moments, weight) = run(bases, moments, |state| {
        <Dispatch as AlqOps>::alq_drop(state, marks.into_dispatch(), layout.clone())
    });
    (bases, moments, Tensor::from_dispatch(weight))
}

/// Rounds a step's coordinates to the type that they are stored with, and keeps those before as the
/// master.
///
/// On the host: they are few, and not every device has these types.
pub fn round_coordinates(
    bases: Bases,
    mut moments: Moments,
    coordinate_type: CoordinateType,
    layout: &WeightLayout,
) -> Stepped {
    let dims = bases.coordinates.dims();
    let coordinates = bases.coordinates;
    let mut rounded = read_f32(coordinates.clone());
    for coordinate in &mut rounded {
        *coordinate = coordinate_type.round(*coordinate);
    }
    let drop = alloc::vec![false; rounded.len()];
    let rounded = Tensor::from_data(TensorData::new(rounded, dims), &coordinates.device());
    moments.master = Some(coordinates);
    let bases = Bases {
        coordinates: rounded,
        ..bases
    };
    // Dropping nothing: what is left is to compute the weight from its bases.
    drop_coordinates(bases, moments, &drop, layout)
}

/// `ŵ = B α`, `[groups, len]`.
pub fn reconstruct(bases: &Bases) -> Tensor<2> {
    let [groups, max_bits] = bases.coordinates.dims();
    let [_, len] = bases.codes.dims();
    let codes = bases.codes.clone().cast(DType::I32);
    let zeros = Tensor::zeros([groups, len], (&bases.coordinates.device(), DType::F32));
    (0..max_bits).fold(zeros, |sum, i| {
        let bits = codes.clone().bitwise_right_shift_scalar(i as i32);
        let signs = bits.bitwise_and_scalar(1).float() * -2.0 + 1.0;
        sum + signs * bases.coordinates.clone().slice([0..groups, i..i + 1])
    })
}
