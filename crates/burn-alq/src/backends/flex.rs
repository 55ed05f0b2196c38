//! Flex: the slice kernels of `multibit`, in place where the buffers are not shared.

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_core::backend::tensor::{FloatTensor, IntTensor};
use burn_core::tensor::{DType, Shape, TensorData};
use burn_flex::{Flex, FlexTensor};
use multibit::cpu::{self, Conv2dInput, Conv2dOptions, Isa, Levels, Mode, Pool2dOptions};
use multibit::fit::{self, GroupsMut, MomentsMut, StepParams};

use crate::ops::packed::affine_of;
use crate::ops::planes;
use crate::ops::{AlqOps, Conv2dToPlanes, WeightLayout, WeightState};
use crate::prepared::PreparedWeight;

/// A contiguous tensor whose storage is exactly its elements.
fn own(tensor: FlexTensor, dtype: DType) -> FlexTensor {
    assert_eq!(tensor.dtype(), dtype, "ALQ on Flex computes with {dtype:?}");
    tensor.to_contiguous()
}

fn float(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// The gradient cut into groups.
fn group(grad: FlexTensor, layout: &WeightLayout) -> Vec<f32> {
    let grad = own(grad, DType::F32);
    let mut grouped = alloc::vec![0.0; grad.layout().num_elements()];
    layout
        .grouping
        .gather(&layout.shape, grad.storage::<f32>(), &mut grouped);
    grouped
}

/// The new weight in its own layout, in the buffer of the gradient: two buffers a step are enough.
fn ungroup(grouped: &[f32], mut weight: Vec<f32>, layout: &WeightLayout) -> FlexTensor {
    layout.grouping.scatter(&layout.shape, grouped, &mut weight);
    let len = weight.len();
    float(weight, [len])
}

/// Runs a kernel on the slices of a state.
fn with_slices<T>(
    state: WeightState<Flex>,
    layout: &WeightLayout,
    kernel: impl FnOnce(&mut GroupsMut<'_>, &mut MomentsMut<'_>) -> T,
) -> (WeightState<Flex>, T) {
    let max_bits = state.coordinates.layout().shape()[1];
    let mut codes = own(state.codes, DType::U8);
    let mut widths = own(state.widths, DType::U8);
    let mut floats = [
        state.coordinates,
        state.m,
        state.v,
        state.v_max,
        state.m_alpha,
        state.v_alpha,
        state.v_max_alpha,
    ]
    .map(|tensor| own(tensor, DType::F32));
    let [coordinates, m, v, v_max, m_alpha, v_alpha, v_max_alpha] = &mut floats;
    let mut groups = GroupsMut {
        len: layout.grouping.len(),
        max_bits,
        codes: codes.storage_mut(),
        coordinates: coordinates.storage_mut(),
        widths: widths.storage_mut(),
    };
    let mut moments = MomentsMut {
        m: m.storage_mut(),
        v: v.storage_mut(),
        v_max: v_max.storage_mut(),
        m_alpha: m_alpha.storage_mut(),
        v_alpha: v_alpha.storage_mut(),
        v_max_alpha: v_max_alpha.storage_mut(),
    };
    let result = kernel(&mut groups, &mut moments);
    let [coordinates, m, v, v_max, m_alpha, v_alpha, v_max_alpha] = floats;
    let state = WeightState {
        codes,
        coordinates,
        widths,
        m,
        v,
        v_max,
        m_alpha,
        v_alpha,
        v_max_alpha,
    };
    (state, result)
}

impl AlqOps for Flex {
    fn alq_basis(
        state: WeightState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        let grad = group(grad, &layout);
        let mut weight = alloc::vec![0.0; grad.len()];
        let (state, ()) = with_slices(state, &layout, |groups, moments| {
            fit::basis(groups, moments, None, &grad, &params, &mut weight);
        });
        (state, ungroup(&weight, grad, &layout))
    }

    fn alq_ste(
        state: WeightState<Self>,
        latent: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let grad = group(grad, &layout);
        let mut weight = alloc::vec![0.0; grad.len()];
        let mut latent = own(latent, DType::F32);
        let (state, ()) = with_slices(state, &layout, |groups, moments| {
            let latent = latent.storage_mut();
            fit::ste(groups, moments, latent, &grad, &params, &mut weight);
        });
        (state, latent, ungroup(&weight, grad, &layout))
    }

    fn alq_coordinate(
        state: WeightState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        let grad = group(grad, &layout);
        let mut weight = alloc::vec![0.0; grad.len()];
        let (state, ()) = with_slices(state, &layout, |groups, moments| {
            fit::coordinate(groups, moments, &grad, &params, &mut weight);
        });
        (state, ungroup(&weight, grad, &layout))
    }

    fn alq_importance(
        state: WeightState<Self>,
        grad: FloatTensor<Self>,
        layout: WeightLayout,
        params: StepParams,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        let grad = group(grad, &layout);
        let (state, (delta, dims)) = with_slices(state, &layout, |groups, moments| {
            let dims = [groups.widths.len(), groups.max_bits];
            let mut delta = alloc::vec![0.0; dims[0] * dims[1]];
            fit::importance(groups, moments, &grad, &params, &mut delta);
            (delta, dims)
        });
        (state, float(delta, dims))
    }

    fn alq_drop(
        state: WeightState<Self>,
        drop: IntTensor<Self>,
        layout: WeightLayout,
    ) -> (WeightState<Self>, FloatTensor<Self>) {
        let drop = own(drop, DType::U8);
        let drop: Vec<bool> = drop.storage::<u8>().iter().map(|&mark| mark != 0).collect();
        let mut weight = alloc::vec![0.0; layout.shape.iter().product()];
        let (state, ()) = with_slices(state, &layout, |groups, moments| {
            fit::drop_coordinates(groups, moments, &drop, &mut weight);
        });
        let buffer = alloc::vec![0.0; weight.len()];
        (state, ungroup(&weight, buffer, &layout))
    }

    fn alq_linear(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        mode: Mode,
    ) -> FloatTensor<Self> {
        let [input, scale, offset] = [input, scale, offset].map(|x| own(x, DType::F32));
        let batch = input.layout().shape()[0];
        let kernel = weight.linear(mode.arithmetic());
        let shape = [batch, kernel.shape()[1]];
        let mut output = alloc::vec![0.0; shape.iter().product()];
        let affine = affine_of(scale.storage(), offset.storage());
        kernel.forward(&mode, input.storage(), batch, &affine, &mut output);
        float(output, shape)
    }

    fn alq_conv2d(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        options: Conv2dOptions,
        mode: Mode,
    ) -> FloatTensor<Self> {
        let [input, scale, offset] = [input, scale, offset].map(|x| own(x, DType::F32));
        let dims = input.layout().shape().dims::<4>();
        let kernel = weight.conv2d(mode.arithmetic(), options.groups);
        let shape = cpu::conv2d_output_shape(dims, weight.shape(), &options);
        let mut output = alloc::vec![0.0; shape.iter().product()];
        let affine = affine_of(scale.storage(), offset.storage());
        kernel.forward(&mode, input.storage(), dims, &affine, &options, &mut output);
        float(output, shape)
    }

    fn alq_quantize(input: FloatTensor<Self>, levels: Levels) -> FloatTensor<Self> {
        let input = own(input, DType::F32);
        let shape = input.layout().shape().clone();
        let mut output = alloc::vec![0.0; shape.num_elements()];
        levels.quantize_all(input.storage(), &mut output);
        float(output, shape)
    }

    fn alq_max_pool2d(input: FloatTensor<Self>, options: Pool2dOptions) -> FloatTensor<Self> {
        let input = own(input, DType::F32);
        let [batch, channels, height, width] = input.layout().shape().dims();
        let [out_height, out_width] = options.output_size([height, width]);
        let shape = [batch, channels, out_height, out_width];
        let mut output = alloc::vec![0.0; shape.iter().product()];
        let planes = [batch * channels, height, width];
        cpu::max_pool2d(Isa::best(), input.storage(), planes, &options, &mut output);
        float(output, shape)
    }

    fn alq_planes_conv2d(
        input: IntTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        weight: Arc<PreparedWeight>,
        options: Conv2dOptions,
        levels: Levels,
    ) -> FloatTensor<Self> {
        let input = own(input, DType::U32);
        let [scale, offset] = [scale, offset].map(|x| own(x, DType::F32));
        let affine = affine_of(scale.storage(), offset.storage());
        let channels = weight.shape()[1] * options.groups;
        let dims = input.layout().shape().dims();
        let input = planes::planes_of(input.storage(), dims, channels, &levels);
        let (output, shape) = planes::forward(&input, &affine, &weight, &options);
        float(output, shape)
    }

    fn alq_conv2d_to_planes(
        input: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        residual: IntTensor<Self>,
        weight: Arc<PreparedWeight>,
        conv2d: Conv2dToPlanes,
    ) -> IntTensor<Self> {
        let input = own(input, DType::F32);
        let dims = input.layout().shape().dims();
        let input = Conv2dInput::Values(&conv2d.mode, input.storage(), dims);
        fused(&input, [scale, offset], residual, &weight, &conv2d)
    }

    fn alq_planes_conv2d_to_planes(
        input: IntTensor<Self>,
        scale: FloatTensor<Self>,
        offset: FloatTensor<Self>,
        residual: IntTensor<Self>,
        weight: Arc<PreparedWeight>,
        conv2d: Conv2dToPlanes,
    ) -> IntTensor<Self> {
        let input = own(input, DType::U32);
        let dims = input.layout().shape().dims();
        let input = Conv2dInput::Planes(conv2d.planes(input.storage(), dims, &weight));
        fused(&input, [scale, offset], residual, &weight, &conv2d)
    }
}

fn fused(
    input: &Conv2dInput<'_>,
    affine: [FlexTensor; 2],
    residual: FlexTensor,
    weight: &PreparedWeight,
    conv2d: &Conv2dToPlanes,
) -> FlexTensor {
    let [scale, offset] = affine.map(|x| own(x, DType::F32));
    let affine = affine_of(scale.storage(), offset.storage());
    let residual = own(residual, DType::U32);
    let residual = (residual.storage(), residual.layout().shape().as_slice());
    let (words, shape) = planes::forward_to_planes(input, &affine, residual, weight, conv2d);
    FlexTensor::from_data(TensorData::new(words, shape))
}
