//! Burn's `burn::nn`, with layers that run on bits in the place of its own, and multi-bit layers.
//!
//! Every name of [`burn_nn`] is here, at the same path. Change `use burn::nn::…` to `use burn_alq::nn::…`
//! and nothing else: [`Linear`], the convolutions in [`conv`], [`Embedding`], [`attention`], the
//! [`transformer`], [`Lstm`], [`Gru`] and their like are then types of ours, with the same constructors,
//! fields and records and the same results. They train and pack like any module; once packed weights are
//! put into them ([`PackedModel::apply`](crate::file::PackedModel::apply)) they run on the bits. All other
//! names are Burn's own types.
//!
//! Layers named `MultiBit…` take the place of one field each instead: they choose their grouping and their
//! arithmetic where they are made. What lies between two layers can be fused into both kinds (`forward_then`);
//! attention, transformers and recurrent layers do so themselves where they run on bits.

/// The ways to make a layer. A file says how Burn's layer is made (`float`) and what it becomes
/// (`wrap`); the table of layers has the layout of its weight.
macro_rules! constructors {
    ($layer:ident, $config:ident from $burn:path, default $default:expr) => {
        impl $config {
            /// A fresh layer: random weights, quantized.
            ///
            /// # Panics
            /// If a number of the configuration is out of range or does not divide another.
            pub fn init(&self, device: &Device) -> $layer {
                self.quantize(self.float(device))
                    .unwrap_or_else(|error| panic!("{}: {error}", stringify!($config)))
            }

            /// A layer that is not quantized yet: train it as float, then quantize the whole model by
            /// path rules (`Quantizer`).
            ///
            /// # Panics
            /// If a number of the configuration does not divide another.
            pub fn init_float(&self, device: &Device) -> $layer {
                self.wrap(self.float(device))
            }

            /// A layer from a trained one, by structured sketching. Only `grouping`, `max_bits` and
            /// `arithmetic` of the configuration are used; everything else comes from the layer.
            ///
            /// # Errors
            /// If the grouping does not fit the weight, `max_bits` is out of range, or a weight is not
            /// finite.
            pub fn quantize(&self, layer: impl Into<$burn>) -> Result<$layer, QuantizeError> {
                let mut layer = self.wrap(layer.into());
                let layout = crate::nn::table::ours(stringify!($layer)).layout;
                layer.weight =
                    attach("weight", layer.weight, self.grouping, layout, self.max_bits)?;
                Ok(layer)
            }
        }

        impl From<&$burn> for $layer {
            /// Quantizes a trained layer with the defaults of its configuration.
            ///
            /// # Panics
            /// If a weight is not finite.
            fn from(layer: &$burn) -> Self {
                let config: fn(&$burn) -> $config = $default;
                config(layer)
                    .quantize(layer.clone())
                    .unwrap_or_else(|error| panic!("{}: {error}", stringify!($layer)))
            }
        }
    };
}

/// A layer in the place of one of Burn's with the same fields: made as that is made, and convertible from
/// and to it.
macro_rules! drop_in {
    (
        $layer:ident, $config:ident of $burn:path, $burn_config:path { $($option:ident),* }
        => { $($field:ident),* }
    ) => {
        impl $config {
            /// Initializes a new layer, as Burn does.
            ///
            /// # Panics
            /// If a number of the configuration does not divide another.
            pub fn init(&self, device: &Device) -> $layer {
                let Self { $($option),* } = self.clone();
                $burn_config { $($option),* }.init(device).into()
            }
        }

        impl From<$burn> for $layer {
            fn from(layer: $burn) -> Self {
                Self { $($field: layer.$field),* }
            }
        }

        impl From<$layer> for $burn {
            /// The layer with the same parameters. Burn's do not run on bits: one that is packed unpacks
            /// its weight.
            fn from(layer: $layer) -> Self {
                Self { $($field: layer.$field),* }
            }
        }
    };
}

pub mod activation;
pub mod attention;
pub mod cache;
mod conv1d;
mod conv2d;
mod conv_transpose1d;
mod conv_transpose2d;
mod embedding;
mod epilogue;
pub mod functional;
mod linear;
mod multi_bit_activation;
mod packed;
mod quantized;
mod rnn;
#[cfg(feature = "store")]
mod store;
pub(crate) mod table;
#[cfg(feature = "train")]
mod training;
pub mod transformer;
#[cfg(feature = "train")]
pub(crate) mod watch;

/// Burn's convolutions ([`burn_nn::conv`]); those of one and two dimensions run on the bits once packed.
pub mod conv {
    pub use burn_nn::conv::*;

    pub use super::conv_transpose1d::{ConvTranspose1d, ConvTranspose1dConfig};
    pub use super::conv_transpose2d::{ConvTranspose2d, ConvTranspose2dConfig};
    pub use super::conv1d::{Conv1d, Conv1dConfig};
    pub use super::conv2d::{Conv2d, Conv2dConfig};
}

/// Burn's other path to the same names.
pub mod modules {
    #[doc(no_inline)]
    pub use super::*;
}

pub use burn_nn::*;
pub use multibit::cpu::{Activation, Arithmetic};

pub use self::activation::{SwiGlu, SwiGluConfig};
pub use self::conv_transpose2d::{MultiBitConvTranspose2d, MultiBitConvTranspose2dConfig};
pub use self::conv1d::{MultiBitConv1d, MultiBitConv1dConfig};
pub use self::conv2d::{MultiBitConv2d, MultiBitConv2dConfig};
pub use self::embedding::{Embedding, EmbeddingConfig, MultiBitEmbedding, MultiBitEmbeddingConfig};
pub use self::epilogue::Epilogue;
pub use self::linear::{Linear, LinearConfig, MultiBitLinear, MultiBitLinearConfig};
pub use self::multi_bit_activation::{MultiBitActivation, MultiBitActivationConfig};
pub use self::packed::{ApplyOptions, Packed, Unpacking, unpacked_weights};
pub use self::quantized::Quantized;
pub use self::rnn::GateController;
pub use self::rnn::basic::{self, BiRnn, BiRnnConfig, Rnn, RnnConfig};
pub use self::rnn::gru::{self, BiGru, BiGruConfig, Gru, GruConfig};
pub use self::rnn::lstm::{self, BiLstm, BiLstmConfig, Lstm, LstmConfig};
#[cfg(feature = "store")]
pub use self::store::AsBurnLayers;

use alloc::format;
use alloc::string::String;

use burn_core::backend::Dispatch;
use burn_core::module::{Content, Param};
use burn_core::tensor::{DType, Device, Tensor};
use multibit::cpu::Mode;

use self::packed::{dense, packed, product, same_device};
use crate::ops::Term;
use crate::weight::{MultiBit, Product, Size, average_bits, read_u8};

/// What the kernels compute with: the values, and what to do with them.
///
/// # Panics
/// If the arithmetic is bitwise and the input has no levels.
fn mode<const D: usize>(
    layer: &str,
    arithmetic: Arithmetic,
    input: Quantized<D>,
) -> (Tensor<D>, Mode) {
    match arithmetic {
        Arithmetic::Exact => (input.into_tensor(), Mode::Exact),
        Arithmetic::Int8 => (input.into_tensor(), Mode::Int8),
        Arithmetic::Bitwise => {
            let (values, levels) = input.into_parts();
            let levels = levels.unwrap_or_else(|| {
                panic!(
                    "{layer}: bitwise arithmetic needs the output of a MultiBitActivation as input"
                )
            });
            (values, Mode::Bitwise(levels))
        }
    }
}

/// Scale and offset at the end of a packed layer: its bias, and batch norm in evaluation behind it,
/// `γ·(y + b − μ)/√(σ² + ε) + β`, in f32.
fn affine(
    outputs: usize,
    bias: Option<Tensor<1>>,
    norm: Option<&BatchNorm>,
    device: impl FnOnce() -> Device,
) -> [Term<Dispatch>; 2] {
    let term = |tensor: Tensor<1>| Term::Tensor(tensor.into_dispatch());
    // What the kernels compute with, whatever the model's type.
    let wide = |tensor: Tensor<1>| tensor.cast(DType::F32);
    let bias = bias.map(wide);
    let Some(norm) = norm else {
        return [Term::None, bias.map_or(Term::None, term)];
    };
    let device = &device();
    assert_eq!(
        norm.gamma.dims(),
        [outputs],
        "the batch norm behind a layer must have a feature for each output"
    );
    let deviation = (wide(norm.running_var.value().to_device(device)) + norm.epsilon).sqrt();
    let scale = wide(norm.gamma.val()) / deviation;
    let mean = wide(norm.running_mean.value().to_device(device));
    let center = match bias {
        Some(bias) => bias - mean,
        None => -mean,
    };
    let offset = center * scale.clone() + wide(norm.beta.val());
    [term(scale), term(offset)]
}

/// The shape of a layer's weight. A packed one's parameter is not given a value for it.
fn dims<const D: usize>(weight: &Param<Tensor<D>>) -> [usize; D] {
    match weight.reparameterization::<Packed>() {
        Some(packed) => packed.shape(),
        None => weight.dims(),
    }
}

/// What a layer's display says of its weight: average bitwidth, and whether it is packed.
fn describe<const D: usize>(weight: &Param<Tensor<D>>) -> String {
    bits(weight).unwrap_or_else(|| "float".into())
}

/// Adds to a display what the layers in the place of Burn's say of their weight: nothing while it is float,
/// as Burn's.
fn add_bits<const D: usize>(content: Content, weight: &Param<Tensor<D>>) -> Content {
    match bits(weight) {
        Some(bits) => content.add("bits", &bits),
        None => content,
    }
}

/// The same of layers that compute on bits: once packed, also with which arithmetic.
fn add_kernel<const D: usize>(content: Content, weight: &Param<Tensor<D>>) -> Content {
    let content = add_bits(content, weight);
    match weight.reparameterization::<Packed>() {
        Some(_) => {
            let arithmetic = arithmetic_of(weight, Arithmetic::Exact);
            content.add_debug_attribute("arithmetic", &arithmetic)
        }
        None => content,
    }
}

/// The arithmetic of a layer: the weight's own, or else the layer's.
fn arithmetic_of<const D: usize>(weight: &Param<Tensor<D>>, layers: Arithmetic) -> Arithmetic {
    if let Some(product) = weight.reparameterization::<Product>() {
        return arithmetic_of(&product.first, layers);
    }
    let packed = weight.reparameterization::<Packed>();
    packed.map_or(layers, |packed| packed.arithmetic_or(layers))
}

/// The average bitwidth of a weight that is not float, and whether it is packed.
fn bits<const D: usize>(weight: &Param<Tensor<D>>) -> Option<String> {
    let (bits, is_packed, kind) = match weight.reparameterization::<Product>() {
        Some(product) => {
            let factors = [&product.first, &product.second];
            let count = |shape: &[usize]| shape.iter().product::<usize>() as f64;
            let (mut bits, mut is_packed) = (0.0, false);
            for factor in factors {
                let (average, packed) = average(factor)?;
                bits += average * count(&dims(factor));
                is_packed = packed;
            }
            (bits / count(&dims(weight)), is_packed, " product")
        }
        None => {
            let (average, is_packed) = average(weight)?;
            (average, is_packed, "")
        }
    };
    let packed = if is_packed { " packed" } else { "" };
    Some(format!("{bits:.2}{kind}{packed}"))
}

/// The average bitwidth of a weight with bits, and whether it is packed.
fn average<const D: usize>(weight: &Param<Tensor<D>>) -> Option<(f64, bool)> {
    if let Some(packed) = weight.reparameterization::<Packed>() {
        return Some((packed.weight.average_bits(), true));
    }
    let state = weight.reparameterization::<MultiBit>()?;
    let widths = read_u8(state.widths.val());
    let [_, len] = state.codes.val().dims();
    let size = Size {
        groups: widths.len(),
        len,
        coordinates: widths.iter().map(|&width| usize::from(width)).sum(),
        ..Size::default()
    };
    Some((average_bits(&[size]), false))
}

/// Padding before and after each axis of an input `[height, width]`, as Burn's layers compute it.
pub(crate) fn padding_pairs(
    padding: &PaddingConfig2d,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
) -> [(usize, usize); 2] {
    match *padding {
        PaddingConfig2d::Valid => [(0, 0); 2],
        PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
        PaddingConfig2d::Same => core::array::from_fn(|axis| {
            let output = input[axis].div_ceil(stride[axis]);
            let reach = (output.max(1) - 1) * stride[axis] + kernel[axis];
            let total = reach.saturating_sub(input[axis]);
            (total / 2, total - total / 2)
        }),
    }
}
