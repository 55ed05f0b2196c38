//! Parameters without a value of their own, beside what they are made of.

use burn_core::module::Param;
use burn_core::tensor::{DType, Device, Shape, Tensor};

use super::walk::one_number;

/// The same parameter without a value of its own, on a plain device.
pub(crate) fn hollow<const D: usize>(param: Param<Tensor<D>>) -> Param<Tensor<D>> {
    let device = param.lazy_device().without_autodiff();
    if param.is_initialized() {
        return param.map(|value| hollow_value(value.shape(), value.dtype(), &device));
    }
    // As loading does it: no random number is drawn, and a shape that is another one in records
    // becomes the weight's.
    let id = param.id;
    let value = hollow_value(param.lazy_shape(), default_dtype(&device), &device);
    param.transform_for_load(value, id)
}

/// The type of floats that a plain device makes if it is not told another.
pub(crate) fn default_dtype(device: &Device) -> DType {
    Tensor::<1>::zeros([1], device).dtype()
}

/// NaN in every place, in the memory of one: whoever takes it for the weight sees it.
pub(crate) fn hollow_value<const D: usize>(
    shape: Shape,
    dtype: DType,
    device: &Device,
) -> Tensor<D> {
    one_number(f32::NAN, shape, (device, dtype))
}

/// Whether a value is a [`hollow_value`], by its first number.
pub(crate) fn is_hollow<const D: usize>(value: &Tensor<D>) -> bool {
    // A browser's device does not wait for a number.
    if cfg!(target_family = "wasm") || value.shape().num_elements() == 0 {
        return true;
    }
    if !value.dtype().is_float() {
        return is_hollow(&value.clone().dequantize());
    }
    let first = value.clone().slice([const { 0..1 }; D]);
    let first = first.into_data();
    first.iter::<f32>().all(f32::is_nan)
}

/// [`hollow`], of which nothing is made until it is asked for: not initialized, it moves between devices
/// without a value. Until then it has the shape of its record, as Burn's own.
///
/// # Arguments
/// - `on_save`: what a record holds in the place of the hollow value
pub(crate) fn without_value<const D: usize>(
    param: Param<Tensor<D>>,
    on_save: impl Fn(Tensor<D>) -> Tensor<D> + Send + Sync + 'static,
) -> Param<Tensor<D>> {
    let (id, value, mapper) = hollow(param).consume();
    let (shape, dtype, device) = (value.shape(), value.dtype(), value.device());
    let recorded = mapper.on_save(value).shape();
    let (save, load) = (mapper.clone(), mapper);
    let init = move |device: &Device, _| hollow_value(shape, dtype, device);
    Param::uninitialized(id, init, device, false, recorded)
        .save_mapper(move |value| save.on_save(on_save(value)))
        .load_mapper(move |value| load.on_load(value))
}
