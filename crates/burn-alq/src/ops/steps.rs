//! The arithmetic of training on one weight.
//!
//! All operations work on the weight cut into its groups, `[groups, len]`, and on plain (not autodiff)
//! tensors.

use alloc::vec::Vec;

use burn_core as burn;
use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind,
    ExtensionType, backend_extension,
};
use derive_new::new;
use multibit::fit::{State, StepParams};
use multibit::{CoordinateType, Grouping};

use super::dense;
#[cfg(feature = "fusion")]
use super::shapes;

/// The shape of one weight and how it is cut.
#[derive(Debug, Clone, PartialEq, new)]
pub struct WeightLayout {
    /// The shape of the dense weight.
    pub shape: Vec<usize>,
    /// How it is cut into groups.
    pub grouping: Grouping,
}

impl WeightLayout {
    /// Number of groups and weights of each.
    pub fn dims(&self) -> [usize; 2] {
        [self.grouping.groups(&self.shape), self.grouping.len()]
    }
}

/// A multi-bit weight with its moments, as tensors of one back end.
#[derive(Debug, Clone)]
pub struct StepState<B: Backend>(pub State<IntTensor<B>, FloatTensor<B>>);

// This is written by hand, because a derive would need the fields once more.
impl<B: Backend> ExtensionType<B> for StepState<B> {
    type Target = StepState<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap = |tensor, map_kind: &mut F| DispatchTensor {
            kind: map_kind(tensor),
            autodiff,
        };
        StepState(self.0.each(
            &mut { map_kind },
            |int, map| wrap(BackendTensor::Int(int), map),
            |float, map| wrap(BackendTensor::Float(float), map),
        ))
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        Self(target.0.each(
            &mut { unwrap_kind },
            |int, unwrap| unwrap(int).int(),
            |float, unwrap| unwrap(float).float(),
        ))
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.0.coordinates)
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        Some(&target.0.coordinates)
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        let mut all = DispatchAutodiffContext::Disabled;
        let merge = |tensor: &DispatchTensor, all: &mut DispatchAutodiffContext| {
            *all = all.merge(tensor.autodiff);
        };
        target.0.as_ref().each(&mut all, merge, merge);
        all
    }
}

/// Steps of ALQ on one weight. Every device can run the defaults.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Remote: cfg(feature = "remote"),
    Autodiff: cfg(feature = "autodiff"),
    Fusion: cfg(feature = "fusion"),
)]
pub trait StepOps: Backend {
    /// The basis step with speedup: returns the new state and the new weight.
    ///
    /// # Shapes
    /// - `grad`, result: the weight's own shape, flat
    #[fusion(meta = shapes::step)]
    fn alq_basis(
        #[extension_type] state: StepState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (StepState<Self>, FloatTensor<Self>) {
        dense::basis::<Self>(state, grad, &layout, &params)
    }

    /// The step of the last phase: the quadratic model is taken around the kept full-precision
    /// weight `latent` (`[groups, len]`), which moves too. Returns state, latent and weight.
    #[fusion(meta = shapes::ste)]
    fn alq_ste(
        #[extension_type] state: StepState<Self>,
        latent: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (StepState<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        dense::ste::<Self>(state, latent, grad, &layout, &params)
    }

    /// The coordinate step: AMSGrad in the α domain with fixed bases.
    #[fusion(meta = shapes::step)]
    fn alq_coordinate(
        #[extension_type] state: StepState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (StepState<Self>, FloatTensor<Self>) {
        dense::coordinate::<Self>(state, grad, &layout, &params)
    }

    /// Updates the moments and returns the modelled loss increase `Δ` of dropping each coordinate,
    /// `[groups, max_bits]`, infinite where there is none.
    #[fusion(meta = shapes::importance)]
    fn alq_importance(
        #[extension_type] state: StepState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (StepState<Self>, FloatTensor<Self>) {
        dense::importance::<Self>(state, grad, &layout, &params)
    }

    /// The `count` smallest of some values with their places, in any order: of equal values the
    /// earlier ones, NaN last.
    ///
    /// # Shapes
    /// - `values`: any, of at least `count` elements
    /// - places, smallest: `[count]`
    #[fusion(meta = shapes::smallest)]
    fn alq_smallest(
        values: FloatTensor<Self>,
        count: usize,
    ) -> (IntTensor<Self>, FloatTensor<Self>) {
        dense::smallest::<Self>(values, count)
    }

    /// Drops the coordinates marked by a non-zero in `drop`, `[groups, max_bits]`, with their bases
    /// and moments; the kept ones move to the front. Returns the new state and the new weight.
    #[fusion(meta = shapes::drop)]
    fn alq_drop(
        #[extension_type] state: StepState<Self>,
        drop: IntTensor<Self>,
        layout: WeightLayout,
    ) -> (StepState<Self>, FloatTensor<Self>) {
        dense::drop_coordinates::<Self>(state, drop, &layout)
    }

    /// Coordinates as a type stores them ([`CoordinateType::round`]).
    ///
    /// # Shapes
    /// - `coordinates`, result: any, the same
    #[fusion(dtype = coordinates, shape = coordinates)]
    fn alq_round(
        coordinates: FloatTensor<Self>,
        coordinate_type: CoordinateType,
    ) -> FloatTensor<Self> {
        dense::round::<Self>(coordinates, coordinate_type)
    }

    /// The dense weight `ŵ = B α`, flat.
    ///
    /// # Shapes
    /// - `codes`: `[groups, len]`
    /// - `coordinates`: `[groups, max_bits]`, 0 in absent slots
    /// - result: the weight's own shape, flat
    #[fusion(dtype = coordinates, shape = shapes::flat(layout))]
    fn alq_reconstruct(
        codes: IntTensor<Self>,
        coordinates: FloatTensor<Self>,
        layout: WeightLayout,
    ) -> FloatTensor<Self> {
        dense::reconstruct::<Self>(codes, coordinates, &layout)
    }
}
