//! What flows from an activation to a layer: values with the levels that they are to take, or bits.

use burn_core::backend::Dispatch;
use burn_core::tensor::{DType, Device, Int, Tensor};
use burn_nn::pool::MaxPool2d;
use multibit::cpu::{Levels, Pool2dOptions};

use super::padding_pairs;
use crate::ops::AlqOps;

/// Activations, quantized or about to be.
///
/// Between an activation and a layer, values may be moved and chosen, but not computed with: since
/// the levels ascend with the activations, the largest of some activations has the largest level, so
/// pooling before quantizing is the same. A packed layer in bitwise arithmetic turns values to bits
/// itself, once; those that several layers take are better turned to bits before, by
/// [`pack`](Quantized::pack), as [`MultiBitConv2d::forward_act`](crate::MultiBitConv2d::forward_act)
/// does. All others compute with [`into_tensor`](Self::into_tensor).
#[derive(Clone, Debug)]
pub struct Quantized<const D: usize> {
    state: State<D>,
}

#[derive(Clone, Debug)]
enum State<const D: usize> {
    /// Values, and the levels that they are to take.
    Values(Tensor<D>, Option<Levels>),
    /// Bits, which activations of rank 4 alone can be.
    Planes(BitPlanes),
}

/// Activations `[batch, channels, height, width]` as bits.
#[derive(Clone, Debug)]
pub(crate) struct BitPlanes {
    /// `[batch, ⌈channels / 32⌉, bits, height, width]`.
    pub words: Tensor<5, Int>,
    pub channels: usize,
    pub levels: Levels,
    /// The type of the values that they stand for.
    pub dtype: DType,
}

impl<const D: usize> From<Tensor<D>> for Quantized<D> {
    /// Plain values, without levels.
    fn from(values: Tensor<D>) -> Self {
        let state = State::Values(values, None);
        Self { state }
    }
}

impl From<BitPlanes> for Quantized<4> {
    fn from(planes: BitPlanes) -> Self {
        let state = State::Planes(planes);
        Self { state }
    }
}

impl<const D: usize> Quantized<D> {
    pub(super) fn new(values: Tensor<D>, levels: Option<Levels>) -> Self {
        let state = State::Values(values, levels);
        Self { state }
    }

    /// The activations at their levels.
    pub fn into_tensor(self) -> Tensor<D> {
        match self.into_parts() {
            (values, Some(levels)) => Tensor::from_dispatch(<Dispatch as AlqOps>::alq_quantize(
                values.into_dispatch(),
                levels,
            )),
            (values, None) => values,
        }
    }

    /// The values, and the levels that they are to take; of bits, the levels that they are.
    pub fn into_parts(self) -> (Tensor<D>, Option<Levels>) {
        match self.state {
            State::Values(values, levels) => (values, levels),
            State::Planes(BitPlanes {
                words,
                channels,
                levels,
                dtype,
            }) => {
                let values = <Dispatch as AlqOps>::alq_planes_values(
                    words.into_dispatch(),
                    channels,
                    levels.clone(),
                );
                (Tensor::<D>::from_dispatch(values).cast(dtype), Some(levels))
            }
        }
    }

    /// Where they are.
    pub(crate) fn device(&self) -> Device {
        match &self.state {
            State::Values(values, _) => values.device(),
            State::Planes(planes) => planes.words.device(),
        }
    }

    /// The type of their values.
    pub(crate) fn dtype(&self) -> DType {
        match &self.state {
            State::Values(values, _) => values.dtype(),
            State::Planes(planes) => planes.dtype,
        }
    }

    /// The shape.
    pub fn dims(&self) -> [usize; D] {
        match &self.state {
            State::Values(values, _) => values.dims(),
            State::Planes(planes) => {
                let [batch, _, _, height, width] = planes.words.dims();
                let dims = [batch, planes.channels, height, width];
                core::array::from_fn(|axis| dims[axis])
            }
        }
    }

    /// Moves or chooses values: reshape, flatten, slice, select, maximum.
    ///
    /// `f` must not compute with them.
    pub fn map<const E: usize>(self, f: impl FnOnce(Tensor<D>) -> Tensor<E>) -> Quantized<E> {
        let (values, levels) = self.into_parts();
        Quantized::new(f(values), levels)
    }
}

impl Quantized<4> {
    /// The activations as bits, for more than one packed layer; in training, and if there are no
    /// levels, the same as before.
    #[must_use]
    pub fn pack(self) -> Self {
        match self.state {
            State::Values(values, Some(levels)) if !values.device().is_autodiff() => {
                let ([_, channels, ..], dtype) = (values.dims(), values.dtype());
                let words =
                    <Dispatch as AlqOps>::alq_planes(values.into_dispatch(), levels.clone());
                let words = Tensor::from_dispatch(words);
                BitPlanes {
                    words,
                    channels,
                    levels,
                    dtype,
                }
                .into()
            }
            state => Self { state },
        }
    }

    /// The bits, if they are there.
    pub(crate) fn planes(&self) -> Option<&BitPlanes> {
        match &self.state {
            State::Planes(planes) => Some(planes),
            State::Values(..) => None,
        }
    }

    /// Max pooling of the activations, exact; `pool.forward` for plain values, but in evaluation on
    /// the CPU several times as fast.
    ///
    /// # Shapes
    /// - `self`: `[batch, channels, height, width]`
    /// - result: `[batch, channels, height_out, width_out]`
    ///
    /// # Panics
    /// If the window is larger than the padded input.
    pub fn max_pool2d(self, pool: &MaxPool2d) -> Self {
        let [.., height, width] = self.dims();
        let padding = padding_pairs(
            &pool.padding,
            [height, width],
            pool.kernel_size,
            pool.stride,
        );
        let symmetric = padding.iter().all(|(before, after)| before == after);
        if pool.ceil_mode || !symmetric {
            return self.map(|values| pool.forward(values));
        }
        let options = Pool2dOptions {
            kernel: pool.kernel_size,
            stride: pool.stride,
            padding: padding.map(|(before, _)| before),
            dilation: pool.dilation,
        };
        match self.state {
            State::Planes(planes) => {
                let words = <Dispatch as AlqOps>::alq_planes_max_pool2d(
                    planes.words.into_dispatch(),
                    planes.channels,
                    planes.levels.clone(),
                    options,
                );
                let words = Tensor::from_dispatch(words);
                BitPlanes { words, ..planes }.into()
            }
            State::Values(values, levels) if values.device().is_autodiff() => {
                Self::new(pool.forward(values), levels)
            }
            State::Values(values, levels) => {
                let values = values.into_dispatch();
                let values = <Dispatch as AlqOps>::alq_max_pool2d(values, options);
                Self::new(Tensor::from_dispatch(values), levels)
            }
        }
    }
}
