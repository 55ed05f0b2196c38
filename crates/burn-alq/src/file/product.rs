//! Weights that are products, in a packed model: two packed weights and a tensor of scales below the path of
//! the weight that they make.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::sync::{Arc, Weak};

use burn_core::module::{Param, ParamId, Reparameterizer};
use burn_core::tensor::{DType, Tensor, TensorData};
use multibit::{CoordinateType, PackedWeight};

use super::{PackModelError, PackedModel};
use crate::weight::{
    PreparedWeight, Product, hollow, hollow_value, is_hollow, value_shape, without_value,
};

/// A product of a packed model.
pub(crate) struct PackedProduct<'a> {
    /// The path of the weight.
    pub path: &'a str,
    /// The factor `[inputs, rank]`, with its path.
    pub first: (&'a str, &'a PackedWeight),
    /// The factor `[rank, outputs]`, with its path.
    pub second: (&'a str, &'a PackedWeight),
    /// The scales of inputs, with their path.
    pub scale: (&'a str, &'a TensorData),
}

impl PackedProduct<'_> {
    /// Inputs of the weight.
    pub fn inputs(&self) -> usize {
        self.first.1.shape()[0]
    }

    /// Outputs of the weight.
    pub fn outputs(&self) -> usize {
        self.second.1.shape()[1]
    }
}

/// The products of a model, in the order of their first factors: packed weights and a tensor by the names of
/// a product's parts, whose shapes fit.
pub(crate) fn products(model: &PackedModel) -> impl Iterator<Item = PackedProduct<'_>> {
    let [first, second, scale] = Product::FIELDS;
    model.weights.iter().filter_map(move |(part, weight)| {
        let (path, _) = Product::part(part).filter(|(_, field)| *field == first)?;
        let other = Product::path_of(path, second);
        let (second, other) = model.weights.iter().find(|(path, _)| *path == other)?;
        let scale = Product::path_of(path, scale);
        let (scale, data) = model.tensors.iter().find(|(path, _)| *path == scale)?;
        let (&[inputs, rank], &[of_rank, _]) = (weight.shape(), other.shape()) else {
            return None;
        };
        let fits = rank == of_rank && data.shape()[..] == [inputs] && data.dtype().is_float();
        fits.then_some(PackedProduct {
            path,
            first: (part, weight),
            second: (second, other),
            scale: (scale, data),
        })
    })
}

/// Stores the scales of all products in a type, rounded to it.
///
/// # Errors
/// If one is beyond the range of the type.
pub(super) fn store_scales(
    model: &mut PackedModel,
    coordinate_type: CoordinateType,
) -> Result<(), PackModelError> {
    let scales: alloc::vec::Vec<_> = products(model)
        .map(|product| product.scale.0.to_string())
        .collect();
    for (path, tensor) in &mut model.tensors {
        if scales.contains(path) {
            *tensor = stored_scale(path, tensor, coordinate_type)?;
        }
    }
    Ok(())
}

/// The scales of a product in a type, rounded to it.
///
/// # Errors
/// If one is beyond the range of the type.
pub(crate) fn stored_scale(
    path: &str,
    scale: &TensorData,
    coordinate_type: CoordinateType,
) -> Result<TensorData, PackModelError> {
    let beyond = scale
        .iter::<f32>()
        .find(|value| !coordinate_type.nearest(*value).is_finite());
    if let Some(value) = beyond {
        return Err(PackModelError::Range {
            path: path.to_string(),
            value,
            float_type: coordinate_type,
        });
    }
    Ok(scale.clone().convert_dtype(match coordinate_type {
        CoordinateType::F32 => DType::F32,
        CoordinateType::F16 => DType::F16,
        CoordinateType::Bf16 => DType::BF16,
    }))
}

/// Makes products of the parameters whose factors a model has, for these to be put in.
pub(super) struct Attach<'a> {
    pub weights: &'a BTreeMap<&'a str, Arc<PreparedWeight>>,
    pub tensors: &'a BTreeMap<&'a str, &'a TensorData>,
    /// Whether layers that do not run on bits keep the product.
    pub is_kept: bool,
    pub error: Option<PackModelError>,
}

/// Two packed weights of one rank, and the scales of inputs.
type Parts<'a> = ([&'a Arc<PreparedWeight>; 2], &'a TensorData);

impl Attach<'_> {
    /// The parts of a product of inputs and outputs at a path, `None` if the model has none.
    fn parts(
        &self,
        path: &str,
        [inputs, outputs]: [usize; 2],
    ) -> Result<Option<Parts<'_>>, PackModelError> {
        let [first, second, scale] = Product::FIELDS.map(|field| Product::path_of(path, field));
        let Some(weight) = self.weights.get(first.as_str()) else {
            return Ok(None);
        };
        let missing = |path| PackModelError::Missing { path };
        let other = self.weights.get(second.as_str());
        let other = other.ok_or_else(|| missing(second.clone()))?;
        let data = self.tensors.get(scale.as_str());
        let data = data.ok_or_else(|| missing(scale.clone()))?;
        let rank = other.shape().first().copied().unwrap_or(0);
        for (path, packed, module) in [
            (first, weight.shape(), &[inputs, rank][..]),
            (second, other.shape(), &[rank, outputs]),
            (scale, &data.shape()[..], &[inputs]),
        ] {
            if packed != module {
                return Err(PackModelError::Shape {
                    path,
                    packed: packed.to_vec(),
                    module: module.to_vec(),
                });
            }
        }
        Ok(Some(([weight, other], data)))
    }
}

impl Reparameterizer for &mut Attach<'_> {
    type Reparam = Product;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Product>) {
        let [inputs, outputs] = Product::dims(&value_shape(&param));
        let (factors, scale) = match self.parts(path, [inputs, outputs]) {
            Ok(Some(parts)) => parts,
            Ok(None) => return (param, None),
            Err(error) => {
                self.error.get_or_insert(error);
                return (param, None);
            }
        };
        let param = hollow(param);
        let (kind, device) = (param.base().dtype(), param.lazy_device());
        let rank = factors[1].shape()[0];
        let bits = factors.map(|weight| Arc::downgrade(weight.bits()));
        let scale = scale.clone();
        // A record holds the product.
        let param = without_value(param, move |value: Tensor<D>| {
            let [Some(first), Some(second)] = bits.each_ref().map(Weak::upgrade) else {
                return value;
            };
            if !is_hollow(&value) {
                return value;
            }
            let (device, dtype) = (value.device(), value.dtype());
            let factors = [first, second].map(|weight| {
                let data = TensorData::new(weight.unpack(), weight.shape().to_vec());
                Tensor::from_data(data, (&device, DType::F32))
            });
            let scale = Tensor::from_data(scale.clone(), (&device, DType::F32));
            Product::multiply(factors, scale, value.dims()).cast(dtype)
        });
        let factor = |shape: [usize; 2]| {
            Param::initialized(ParamId::new(), hollow_value(shape.into(), kind, &device))
        };
        let scale = hollow_value([inputs].into(), DType::F32, &device);
        let product = Product::new(
            factor([inputs, rank]),
            factor([rank, outputs]),
            Param::initialized(ParamId::new(), scale),
            self.is_kept,
        );
        (param, Some(product))
    }
}
