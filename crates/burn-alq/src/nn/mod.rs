//! Multi-bit layers in the shape of Burn's own: change a field's type, keep the forward pass.
//!
//! They train, evaluate and pack like any module; once packed weights are put into them
//! ([`PackedModel::apply`](crate::pack::PackedModel::apply)) they run on the bits.

mod conv2d;
mod linear;

pub use conv2d::{ConvGrouping, MultiBitConv2d, MultiBitConv2dConfig};
pub use linear::{MultiBitLinear, MultiBitLinearConfig};

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use burn_core::module::Param;
use burn_core::tensor::Tensor;
use multibit::PackedWeight;

use crate::multibit::{MultiBit, read_u8};
use crate::optim::average_bits;
use crate::pack::Packed;
use crate::step::prune::Size;

/// The bits of a parameter, once packed.
fn packed<const D: usize>(weight: &Param<Tensor<D>>) -> Option<Arc<PackedWeight>> {
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
