//! The kernels of `multibit` on tensors of any back end whose values can be had on the host.

use alloc::vec;
use alloc::vec::Vec;

use burn_core::backend::tensor::{Device, FloatTensor, IntTensor};
use burn_core::backend::{Backend, ExecutionError, TensorMetadata};
use burn_core::tensor::{DType, Shape, TensorData, read_sync};
#[cfg(any(feature = "flex", feature = "ndarray"))]
use multibit::cpu;
use multibit::cpu::{
    Activation, Affine, Conv2dInput, Isa, Levels, LinearKernel, Mode, Planes, Pool2dOptions,
    conv2d_output_shape,
};

use super::{Activations, PackedConv2d, Term};
#[cfg(any(feature = "flex", feature = "ndarray"))]
use super::{Attended, Attention, Mask};
use crate::weight::PreparedWeight;

/// How the host gets at the elements of a tensor, in row-major order.
pub(crate) trait Memory<B: Backend> {
    /// A tensor's elements on the host.
    type Buffer: Elements;

    /// Elements in f32.
    fn floats(tensor: FloatTensor<B>) -> Self::Buffer;

    /// Rows `[batch, length, width]` in f32, where they lie if they lie evenly.
    #[cfg(any(feature = "flex", feature = "ndarray"))]
    fn rows(tensor: FloatTensor<B>) -> Rows<Self::Buffer> {
        let buffer = Self::floats(tensor);
        let [_, _, stride] = buffer.shape().dims();
        Rows {
            buffer,
            start: 0,
            stride,
        }
    }

    /// A tensor of values, in a type.
    fn tensor(
        values: Vec<f32>,
        shape: impl Into<Shape>,
        dtype: DType,
        device: &Device<B>,
    ) -> FloatTensor<B> {
        let data = TensorData::new(values, shape.into());
        B::float_from_data(data.convert_dtype(dtype), device)
    }

    /// Elements in an integer type.
    fn ints(tensor: IntTensor<B>, dtype: DType) -> Self::Buffer;

    /// The tensor of floats again.
    #[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
    fn into_floats(buffer: Self::Buffer, device: &Device<B>) -> FloatTensor<B>;

    /// The tensor of integers again, in a type of the caller's.
    #[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
    fn into_ints(buffer: Self::Buffer, dtype: DType, device: &Device<B>) -> IntTensor<B>;
}

/// Rows that lie evenly in a buffer.
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) struct Rows<T> {
    pub buffer: T,
    /// Where the first one begins.
    pub start: usize,
    /// Distance of neighbouring ones.
    pub stride: usize,
}

/// Elements as slices.
pub(crate) trait Elements {
    fn shape(&self) -> Shape;

    fn f32(&self) -> &[f32];

    fn u32(&self) -> &[u32];

    #[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
    fn u8(&self) -> &[u8];

    #[cfg(feature = "train")]
    fn f32_mut(&mut self) -> &mut [f32];

    #[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
    fn u8_mut(&mut self) -> &mut [u8];
}

/// Waits for what a device gives back.
///
/// # Panics
/// If it does not.
fn data_of<B: Backend>(
    data: impl Future<Output = Result<TensorData, ExecutionError>>,
    device: &Device<B>,
) -> TensorData {
    read_sync(data).unwrap_or_else(|error| panic!("{device:?} gives no values back: {error}"))
}

/// Through [`TensorData`]: a copy, unless the back end is on the host and nobody else holds the tensor.
pub(crate) struct Copied;

impl<B: Backend> Memory<B> for Copied {
    type Buffer = TensorData;

    fn floats(tensor: FloatTensor<B>) -> TensorData {
        let device = tensor.device();
        data_of::<B>(B::float_into_data(tensor), &device).convert_dtype(DType::F32)
    }

    fn ints(tensor: IntTensor<B>, dtype: DType) -> TensorData {
        let device = tensor.device();
        data_of::<B>(B::int_into_data(tensor), &device).convert_dtype(dtype)
    }

    #[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
    fn into_floats(buffer: TensorData, device: &Device<B>) -> FloatTensor<B> {
        B::float_from_data(buffer, device)
    }

    #[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
    fn into_ints(buffer: TensorData, dtype: DType, device: &Device<B>) -> IntTensor<B> {
        B::int_from_data(buffer.convert_dtype(dtype), device)
    }
}

const CONVERTED: &str = "the data were converted to this type";

impl Elements for TensorData {
    fn shape(&self) -> Shape {
        self.shape().clone()
    }

    fn f32(&self) -> &[f32] {
        self.as_slice().expect(CONVERTED)
    }

    fn u32(&self) -> &[u32] {
        self.as_slice().expect(CONVERTED)
    }

    #[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
    fn u8(&self) -> &[u8] {
        self.as_slice().expect(CONVERTED)
    }

    #[cfg(feature = "train")]
    fn f32_mut(&mut self) -> &mut [f32] {
        self.as_mut_slice().expect(CONVERTED)
    }

    #[cfg(all(feature = "train", any(feature = "flex", feature = "ndarray")))]
    fn u8_mut(&mut self) -> &mut [u8] {
        self.as_mut_slice().expect(CONVERTED)
    }
}

/// The numbers of a term on the host.
fn floats<B: Backend, M: Memory<B>>(term: Term<B>) -> Option<M::Buffer> {
    match term {
        Term::None => None,
        Term::Tensor(tensor) => Some(M::floats(tensor)),
    }
}

/// A layer's scale and offset on the host.
struct Terms<T>([Option<T>; 2]);

impl<T: Elements> Terms<T> {
    fn new<B: Backend, M: Memory<B, Buffer = T>>(terms: [Term<B>; 2]) -> Self {
        let [scale, offset] = terms;
        Self([floats::<B, M>(scale), floats::<B, M>(offset)])
    }

    fn affine<'a>(&'a self, residual: Option<&'a T>, activation: Activation) -> Affine<'a> {
        let [scale, offset] = self.0.each_ref().map(|term| term.as_ref().map(T::f32));
        Affine {
            scale,
            offset,
            residual: residual.map(T::f32),
            activation,
        }
    }
}

/// Planes of activations `[batch, channels, h, w]`, which `fill` writes.
fn planes<B: Backend>(
    shape: [usize; 4],
    levels: &Levels,
    device: &Device<B>,
    fill: impl FnOnce(&mut [u32]),
) -> IntTensor<B> {
    let mut words = vec![0; Planes::len(shape, levels)];
    fill(&mut words);
    let [batch, channels, height, width] = shape;
    let shape = [batch, channels.div_ceil(32), levels.bits(), height, width];
    B::int_from_data(TensorData::new(words, shape), device)
}

/// Planes of activations with so many channels.
fn view<'a>(words: &'a impl Elements, channels: usize, levels: &'a Levels) -> Planes<'a> {
    let [batch, _, _, height, width] = words.shape().dims();
    Planes::new(words.u32(), [batch, channels, height, width], levels)
}

/// Linear layers of one input, side by side.
pub(crate) fn linears<'a, B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    affine: [Term<B>; 2],
    (residual, activation): (Term<B>, Activation),
    weights: impl Iterator<Item = &'a PreparedWeight> + Clone,
    mode: &Mode,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let residual = floats::<B, M>(residual);
    let (input, terms) = (M::floats(input), Terms::new::<B, M>(affine));
    let kernels = weights.map(|weight| weight.linear(mode.arithmetic()));
    let affine = terms.affine(residual.as_ref(), activation);
    let batch = input.shape()[0];
    let d_out: usize = kernels.clone().map(|kernel| kernel.shape()[1]).sum();
    let mut output = vec![0.0; batch * d_out];
    LinearKernel::forward_all(kernels, mode, input.f32(), batch, &affine, &mut output);
    M::tensor(output, [batch, d_out], dtype, &device)
}

/// [`Activations`] on the host.
enum Held<T> {
    Values(T),
    Planes(T),
}

pub(crate) fn conv2d<B: Backend, M: Memory<B>>(
    input: Activations<B>,
    affine: [Term<B>; 2],
    residual: Activations<B>,
    weight: &PreparedWeight,
    conv2d: &PackedConv2d,
) -> Activations<B> {
    let terms = Terms::new::<B, M>(affine);
    let (input, dtype, device) = match input {
        Activations::Values(input) => {
            let (dtype, device) = (input.dtype(), input.device());
            (Held::Values(M::floats(input)), dtype, device)
        }
        Activations::Planes(input) => {
            let device = input.device();
            (Held::Planes(M::ints(input, DType::U32)), DType::F32, device)
        }
        Activations::None => panic!("a convolution without an input"),
    };
    let options = &conv2d.options;
    let input = match (&input, &conv2d.mode) {
        (Held::Values(values), mode) => {
            Conv2dInput::Values(mode, values.f32(), values.shape().dims())
        }
        (Held::Planes(words), Mode::Bitwise(levels)) => {
            let channels = weight.shape()[1] * options.groups;
            Conv2dInput::Planes(view(words, channels, levels))
        }
        (Held::Planes(_), _) => panic!("activations that are bits need bitwise arithmetic"),
    };
    let kernel = weight.conv2d(conv2d.mode.arithmetic(), options.groups);
    let shape = conv2d_output_shape(input.shape(), weight.shape(), options);
    let Some(levels) = &conv2d.levels else {
        let residual = match residual {
            Activations::None => None,
            Activations::Values(values) => Some(M::floats(values)),
            Activations::Planes(_) => panic!("a residual that is bits is added to bits"),
        };
        let affine = terms.affine(residual.as_ref(), conv2d.activation);
        let mut output = vec![0.0; shape.iter().product()];
        match input {
            Conv2dInput::Planes(planes) => {
                kernel.forward_planes(&planes, &affine, options, &mut output);
            }
            Conv2dInput::Values(mode, values, dims) => {
                kernel.forward(mode, values, dims, &affine, options, &mut output);
            }
        }
        return Activations::Values(M::tensor(output, shape, dtype, &device));
    };
    let residual = match residual {
        Activations::Planes(words) => Some(M::ints(words, DType::U32)),
        Activations::None => None,
        Activations::Values(_) => panic!("a residual without levels is added to values"),
    };
    let affine = terms.affine(None, Activation::Identity);
    let residual = residual.as_ref().zip(conv2d.residual.as_ref());
    let residual = residual.map(|(words, levels)| view(words, shape[1], levels));
    Activations::Planes(planes::<B>(shape, levels, &device, |words| {
        kernel.forward_to_planes(&input, &affine, options, residual.as_ref(), levels, words);
    }))
}

pub(super) fn lookup<B: Backend>(indices: IntTensor<B>, weight: &PreparedWeight) -> FloatTensor<B> {
    let device = indices.device();
    let data = <Copied as Memory<B>>::ints(indices, DType::I64);
    let indices: &[i64] = data.as_slice().expect(CONVERTED);
    let shape = [indices.len(), weight.shape()[1]];
    <Copied as Memory<B>>::tensor(weight.rows(indices), shape, DType::F32, &device)
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) fn quantize<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    levels: &Levels,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let input = M::floats(input);
    let mut output = vec![0.0; input.f32().len()];
    levels.quantize_all(input.f32(), &mut output);
    M::tensor(output, input.shape(), dtype, &device)
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) fn activate<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    activation: Activation,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let input = M::floats(input);
    let mut output = input.f32().to_vec();
    cpu::activate(Isa::best(), activation, &mut output);
    M::tensor(output, input.shape(), dtype, &device)
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) fn layer_norm<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    gamma: FloatTensor<B>,
    beta: Term<B>,
    epsilon: f64,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let (input, gamma) = (M::floats(input), M::floats(gamma));
    let terms = Terms::new::<B, M>([Term::None, beta]);
    let beta = terms.affine(None, Activation::Identity).offset;
    let mut output = vec![0.0; input.f32().len()];
    let isa = Isa::best();
    cpu::layer_norm(isa, input.f32(), gamma.f32(), beta, epsilon, &mut output);
    M::tensor(output, input.shape(), dtype, &device)
}

/// A mask, one byte an element.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn bytes<B: Backend>(mask: Mask<B>) -> Option<Vec<u8>> {
    let Mask::Tensor(mask) = mask else {
        return None;
    };
    let device = mask.device();
    let data = data_of::<B>(B::bool_into_data(mask), &device);
    Some(match data.as_slice::<bool>() {
        Ok(mask) => mask.iter().map(|&masked| masked.into()).collect(),
        Err(_) => data.iter::<bool>().map(u8::from).collect(),
    })
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) fn attention<B: Backend, M: Memory<B>>(
    rows: [FloatTensor<B>; 3],
    masks: [Mask<B>; 2],
    attention: &Attention,
) -> Attended<B> {
    let (dtype, device) = (rows[0].dtype(), rows[0].device());
    let shapes = rows.each_ref().map(TensorMetadata::shape);
    let [batch, queries, keys, width] = attention.sizes(shapes);
    let heads = attention.heads;
    let kernel = cpu::Attention {
        batch,
        heads,
        queries,
        keys,
        width,
        scale: attention.scale as f32,
        min_float: attention.min_float as f32,
        quiet: attention.quiet,
    };
    let rows = rows.map(M::rows);
    let [pad, pairs] = masks.map(bytes::<B>);
    let masks = cpu::Masks {
        pad: pad.as_deref(),
        pairs: pairs.as_deref(),
    };
    let mut context = vec![0.0; batch * queries * heads * width];
    let weights_shape = [batch, heads, queries, keys];
    let mut weights = attention
        .weights
        .then(|| vec![0.0; weights_shape.iter().product()]);
    let rows = rows.each_ref().map(|rows| cpu::Rows {
        values: &rows.buffer.f32()[rows.start..],
        stride: rows.stride,
    });
    kernel.forward(
        Isa::best(),
        rows,
        &masks,
        &mut context,
        weights.as_deref_mut(),
    );
    Attended {
        context: M::tensor(context, [batch, queries, heads * width], dtype, &device),
        weights: weights.map_or(Term::None, |weights| {
            Term::Tensor(M::tensor(weights, weights_shape, dtype, &device))
        }),
    }
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) fn max_pool2d<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    options: &Pool2dOptions,
) -> FloatTensor<B> {
    let (dtype, device) = (input.dtype(), input.device());
    let input = M::floats(input);
    let [batch, channels, height, width] = input.shape().dims();
    let [out_height, out_width] = options.output_size([height, width]);
    let shape = [batch, channels, out_height, out_width];
    let mut output = vec![0.0; shape.iter().product()];
    let planes = [batch * channels, height, width];
    cpu::max_pool2d(Isa::best(), input.f32(), planes, options, &mut output);
    M::tensor(output, shape, dtype, &device)
}

pub(crate) fn pack<B: Backend, M: Memory<B>>(
    input: FloatTensor<B>,
    levels: &Levels,
) -> IntTensor<B> {
    let device = input.device();
    let input = M::floats(input);
    let shape = input.shape().dims();
    planes::<B>(shape, levels, &device, |words| {
        Planes::pack(Isa::best(), input.f32(), shape, levels, words);
    })
}

pub(crate) fn unpack<B: Backend, M: Memory<B>>(
    planes: IntTensor<B>,
    channels: usize,
    levels: &Levels,
) -> FloatTensor<B> {
    let device = planes.device();
    let words = M::ints(planes, DType::U32);
    let planes = view(&words, channels, levels);
    let mut values = vec![0.0; planes.shape().iter().product()];
    planes.unpack(Isa::best(), &mut values);
    M::tensor(values, planes.shape(), DType::F32, &device)
}

pub(crate) fn planes_max_pool2d<B: Backend, M: Memory<B>>(
    input: IntTensor<B>,
    channels: usize,
    levels: &Levels,
    options: &Pool2dOptions,
) -> IntTensor<B> {
    let device = input.device();
    let words = M::ints(input, DType::U32);
    let input = view(&words, channels, levels);
    let [batch, _, height, width] = input.shape();
    let [height, width] = options.output_size([height, width]);
    planes::<B>([batch, channels, height, width], levels, &device, |words| {
        input.max_pool2d(Isa::best(), options, words);
    })
}
