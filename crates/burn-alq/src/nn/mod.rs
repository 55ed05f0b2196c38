//! Multi-bit layers in the shape of Burn's own: change a field's type, keep the forward pass.
//!
//! They train, evaluate and pack like any module; once packed weights are put into them
//! ([`PackedModel::apply`](crate::pack::PackedModel::apply)) they run on the bits.

mod conv1d;
mod conv2d;
mod conv_transpose2d;
mod embedding;
mod linear;

pub use conv_transpose2d::{MultiBitConvTranspose2d, MultiBitConvTranspose2dConfig};
pub use conv1d::{MultiBitConv1d, MultiBitConv1dConfig};
pub use conv2d::{ConvGrouping, MultiBitConv2d, MultiBitConv2dConfig};
pub use embedding::{MultiBitEmbedding, MultiBitEmbeddingConfig};
pub use linear::{MultiBitLinear, MultiBitLinearConfig};

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use burn_core as burn;
use burn_core::config::Config;
use burn_core::module::Param;
use burn_core::tensor::{Device, Tensor};
use burn_nn::{BatchNorm, PaddingConfig2d};
use multibit::cpu::Mode;

use crate::activation::Quantized;
use crate::multibit::{MultiBit, read_u8};
use crate::optim::average_bits;
use crate::pack::Packed;
use crate::prepared::PreparedWeight;
use crate::step::prune::Size;

/// The arithmetic of a layer once it is packed; it trains as float in every case.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub enum Arithmetic {
    /// Inputs in f32: the result of the dense layer, up to the order of sums.
    Exact,
    /// Inputs rounded to int8 at run time; [`Mode::Int8`] bounds the error.
    Int8,
    /// Inputs from a [`MultiBitActivation`](crate::MultiBitActivation), as bits.
    Bitwise,
}

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
/// `γ·(y + b − μ)/√(σ² + ε) + β`. Where there is none, a tensor without elements.
fn affine(
    outputs: usize,
    bias: Option<Tensor<1>>,
    norm: Option<&BatchNorm>,
    device: &Device,
) -> [Tensor<1>; 2] {
    let none = || Tensor::empty([0], device);
    let Some(norm) = norm else {
        return [none(), bias.unwrap_or_else(none)];
    };
    assert_eq!(
        norm.gamma.dims(),
        [outputs],
        "forward_norm: the batch norm must have a feature for each output"
    );
    let deviation = (norm.running_var.value().to_device(device) + norm.epsilon).sqrt();
    let scale = norm.gamma.val() / deviation;
    let mean = norm.running_mean.value().to_device(device);
    let center = match bias {
        Some(bias) => bias - mean,
        None => -mean,
    };
    let offset = center * scale.clone() + norm.beta.val();
    [scale, offset]
}

/// The bits of a parameter, once packed.
fn packed<const D: usize>(weight: &Param<Tensor<D>>) -> Option<Arc<PreparedWeight>> {
    weight
        .reparameterization::<Packed>()
        .map(|packed| packed.weight.clone())
}

/// What a layer's display says of its weight: average bitwidth, and whether it is packed.
fn describe<const D: usize>(weight: &Param<Tensor<D>>) -> String {
    if let Some(packed) = packed(weight) {
        return format!("{:.2} packed", packed.average_bits());
    }
    match weight.reparameterization::<MultiBit>() {
        Some(state) => {
            let widths = read_u8(state.widths.val());
            let [_, len] = state.codes.val().dims();
            let size = Size {
                groups: widths.len(),
                len,
                coordinates: widths.iter().map(|&width| usize::from(width)).sum(),
                widest: 0,
            };
            format!("{:.2}", average_bits(&[size]))
        }
        None => "float".into(),
    }
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
