//! Values of tensors on the host, or which device does not give them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use burn_core::tensor::{Element, Int, Tensor, kind::Basic};
use thiserror::Error;

/// A device gives no values back, as one of a server that is gone.
#[derive(Debug, Clone, PartialEq, Error)]
#[error(
    "{device} gives no values back; if it is a server's, is the server still there? ({reason})"
)]
#[non_exhaustive]
pub struct DeviceLost {
    /// The device as Burn writes it; of a server's, with its address.
    pub device: String,
    /// What Burn says.
    pub reason: String,
}

/// A tensor on the host.
///
/// # Errors
/// If its device does not give it back.
pub(crate) fn try_read<E: Element, const D: usize, K: Basic>(
    tensor: Tensor<D, K>,
) -> Result<Vec<E>, DeviceLost> {
    let device = tensor.device();
    let values = tensor.try_into_vec_as();
    values.map_err(|error| DeviceLost {
        device: format!("{device:?}"),
        reason: error.to_string(),
    })
}

/// [`try_read`] where a lost device is the end.
///
/// # Panics
/// If its device does not give it back.
pub(crate) fn read<E: Element, const D: usize, K: Basic>(tensor: Tensor<D, K>) -> Vec<E> {
    try_read(tensor).unwrap_or_else(|lost| panic!("{lost}"))
}

/// A tensor of small integers on the host.
pub(crate) fn read_u8<const D: usize>(tensor: Tensor<D, Int>) -> Vec<u8> {
    read(tensor)
}

/// A float tensor on the host.
pub(crate) fn read_f32<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    read(tensor)
}
