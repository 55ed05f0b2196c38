//! Multi-bit → packed: a whole model's weights as bits, and back into a module that runs on them.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_core::module::{Module, Param, Reparameterization, Reparameterizer};
use burn_core::tensor::{Tensor, TensorData};
use multibit::cpu::{Arithmetic, KernelError};
use multibit::file::{Input, InputError, Step};
use multibit::runtime::PlanError;
use multibit::{CoordinateType, GroupingError, PackError, PackedWeight};
use thiserror::Error;

use super::product::{Attach, products};
use crate::nn::{ApplyOptions, Packed, Unpacking, table};
use crate::weight::{
    Found, MultiBitData, PreparedWeight, Product, Replacement, epsilon, hollow, value_shape, walk,
};

/// Why a model could not be packed, or a packed model not put into a module.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum PackModelError {
    /// The module has no multi-bit weights.
    #[error("the model has no multi-bit weights")]
    NoWeights,
    /// The grouping recorded with a weight does not fit it.
    #[error("{path}: {source}")]
    Grouping {
        /// Path of the weight.
        path: String,
        /// What does not fit.
        source: GroupingError,
    },
    /// A weight breaks an invariant of the packed form.
    #[error("{path}: {source}")]
    Weight {
        /// Path of the weight.
        path: String,
        /// Which.
        source: PackError,
    },
    /// A weight is not what its bits say.
    #[error(
        "{path} is up to {difference} away from its bits (its largest weight is {largest}): it was \
         changed by something other than AlqOptimizer; bring its bits to it with quantize::refit, or \
         leave it as it was"
    )]
    Moved {
        /// Path of the weight.
        path: String,
        /// The largest difference between a weight and its bits.
        difference: f32,
        /// The largest of its weights.
        largest: f32,
    },
    /// A weight that is a product has a value of its own.
    #[error(
        "{path} is a product of two weights, but was given a value of its own, which no layer sees; \
         materialize the module before it is given one"
    )]
    Given {
        /// Path of the weight.
        path: String,
    },
    /// A chain names a weight that is a product.
    #[error(
        "{path} is a product of two weights, which a chain cannot hold; quantize it by a grouping"
    )]
    Product {
        /// Path of the weight.
        path: String,
    },
    /// The places of one parameter have different values.
    #[error("{path} and {first} are one parameter, but have different values")]
    Tied {
        /// Path of the second place.
        path: String,
        /// Path of the first.
        first: String,
    },
    /// A weight is packed already.
    #[error("{path} is packed already; save the packed model that it came from")]
    Packed {
        /// Path of the weight.
        path: String,
    },
    /// An adapter was put on a weight that has bits, where it has no effect.
    #[error(
        "{path} has bits and cannot carry {by} beside them; materialize the module first \
         (Module::materialize), or leave the weight out of the adapter's group of parameters"
    )]
    Adapter {
        /// Path of the weight.
        path: String,
        /// Name of the adapter.
        by: String,
    },
    /// A weight is grouped in a way that no kernel can run.
    #[error("{path}: {source}")]
    Kernel {
        /// Path of the weight.
        path: String,
        /// Why not.
        source: KernelError,
    },
    /// A number of a tensor is beyond the range of the type that it is to be rounded to.
    #[error("{path} holds {value}, which is beyond the range of {float_type}")]
    Range {
        /// Path of the tensor.
        path: String,
        /// The number.
        value: f32,
        /// The type.
        float_type: CoordinateType,
    },
    /// A tensor has another shape in the module than in the packed model.
    #[error("{path} has shape {packed:?} in the packed model, but {module:?} in the module")]
    Shape {
        /// Path of the tensor.
        path: String,
        /// Its shape in the packed model.
        packed: Vec<usize>,
        /// Its shape in the module.
        module: Vec<usize>,
    },
    /// The module has a parameter that the packed model lacks.
    #[error("the packed model has no tensor {path}")]
    Missing {
        /// Path of the parameter.
        path: String,
    },
    /// A description of inputs is none.
    #[error("the description of inputs: {0}")]
    Input(#[from] InputError),
    /// A layer does what a chain cannot say.
    #[error("{path}: a chain cannot hold this layer: {reason}")]
    Chain {
        /// Path or name of the layer.
        path: String,
        /// What it does.
        reason: &'static str,
    },
    /// A layer of a chain whose weight is not multi-bit.
    #[error("{path} is not multi-bit; the layers of a chain run on bits")]
    Float {
        /// Path of the weight.
        path: String,
    },
    /// The chain does not fit the weights or the input.
    #[error("the chain does not fit the model: {0}")]
    Plan(#[from] PlanError),
    /// The model makes no file.
    #[error("the model makes no file: {reason}")]
    Unwritten {
        /// Why not.
        reason: String,
    },
    /// The packed model has a tensor that the module lacks.
    #[error("the module has no parameter {path}")]
    Unused {
        /// Path of the tensor.
        path: String,
    },
}

/// A model's tensors by path: multi-bit weights packed, everything else as it is.
///
/// Made from a trained model with [`PackedModel::pack`] or read from a file
/// ([`PackedModel::load`]); put to work with [`PackedModel::apply`].
#[derive(Debug, Clone, PartialEq)]
pub struct PackedModel {
    /// Packed weights by path, in the order of the module tree.
    pub weights: Vec<(String, Arc<PackedWeight>)>,
    /// Biases, norms and whatever else the model holds, by path.
    pub tensors: Vec<(String, TensorData)>,
    /// Tied weights, one parameter in several places: each further path, and the one under which the
    /// parameter stands in `weights` or `tensors`.
    pub tied: BTreeMap<String, String>,
    /// How layers compute with packed weights, by path, where it is not left to the layer. A weight that is
    /// tied has that of its first place.
    pub arithmetic: BTreeMap<String, Arithmetic>,
    /// Free text that travels with the model.
    pub config: BTreeMap<String, String>,
    /// A name, for people; empty if there is none.
    pub name: String,
    /// What a sample is, and how raw values become it ([`with_input`](Self::with_input)).
    pub input: Option<Input>,
    /// The names of the outputs, in their order ([`with_labels`](Self::with_labels)).
    pub labels: Vec<String>,
    /// The layers by the paths of their parameters ([`with_chain`](Self::with_chain)); empty if the
    /// model does not say.
    pub chain: Vec<Step<String>>,
}

impl PackedModel {
    /// Packs a model's multi-bit weights into bits.
    ///
    /// # Errors
    /// If the model has no multi-bit weights, or one of them holds something that cannot be
    /// packed, for example a coordinate that is NaN; if one is packed already, or an adapter such as
    /// LoRA was put on one; if a multi-bit weight is not what its bits say, because something other
    /// than [`AlqOptimizer`](crate::AlqOptimizer) has changed it
    /// ([`refit`](crate::quantize::refit) brings its bits to it); or if the places of a tied weight
    /// differ.
    pub fn pack<M: Module>(model: &M) -> Result<Self, PackModelError> {
        // Running statistics keep their last update aside; validation mode takes it in.
        let model = model.valid();
        let (mut weights, mut tensors) = (Vec::new(), Vec::new());
        let (mut tied, mut arithmetic) = (BTreeMap::new(), BTreeMap::new());
        let all = walk(&model);
        for found in &all {
            let path = found.path.clone();
            // A product has no value of its own in any place.
            if let (Some(first), false) = (found.tied_to, found.is_product()) {
                check_carried(found, &path)?;
                let first = &all[first];
                if found.read() != first.read() {
                    let first = first.path.clone();
                    return Err(PackModelError::Tied { path, first });
                }
                tied.insert(path, first.path.clone());
                continue;
            }
            match pack(found, &path)? {
                Packable::Product => {}
                Packable::Float(tensor) => tensors.push((path, tensor)),
                Packable::Weight(weight, said) => {
                    arithmetic.extend(said.map(|said| (path.clone(), said)));
                    weights.push((path, Arc::new(weight)));
                }
            }
        }
        if weights.is_empty() {
            return Err(PackModelError::NoWeights);
        }
        Ok(Self {
            weights,
            tensors,
            tied,
            arithmetic,
            config: Default::default(),
            name: String::new(),
            input: None,
            labels: Vec::new(),
            chain: Vec::new(),
        })
    }

    /// Puts the packed weights and the other tensors into a module of the same structure, on a
    /// plain (not autodiff) device.
    ///
    /// The module may be fresh, float or multi-bit; its own weights are dropped. The layers of
    /// [`nn`](crate::nn) then run on the bits and make no dense weight, where the weight's groups lie within
    /// outputs; any other layer unpacks its weight once and keeps it ([`apply_with`](Self::apply_with) says
    /// otherwise). Packed weights have the type that the module's own had.
    ///
    /// # Errors
    /// If a path or a shape does not fit the module.
    pub fn apply<M: Module>(&self, module: M) -> Result<M, PackModelError> {
        self.apply_with(module, ApplyOptions::default())
    }

    /// Like [`apply`](Self::apply), with what layers do that cannot run on the bits
    /// ([`Unpacking`](crate::Unpacking)), and how all others compute ([`Arithmetic`]).
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_with<M: Module>(
        &self,
        module: M,
        options: impl Into<ApplyOptions>,
    ) -> Result<M, PackModelError> {
        let weights = self.weights.iter();
        let mut weights: BTreeMap<&str, Arc<PreparedWeight>> = weights
            .map(|(path, weight)| (path.as_str(), Arc::new(PreparedWeight::new(weight.clone()))))
            .collect();
        let tensors = self.tensors.iter();
        let mut tensors: BTreeMap<&str, &TensorData> =
            tensors.map(|(path, data)| (path.as_str(), data)).collect();
        // Scales are computed with in f32, however they are stored.
        let scales = products(self).map(|product| product.scale);
        let scales: Vec<(&str, TensorData)> = scales
            .map(|(path, data)| (path, data.clone().convert::<f32>()))
            .collect();
        tensors.extend(scales.iter().map(|(path, data)| (*path, data)));
        for (path, first) in &self.tied {
            let first = first.as_str();
            if let Some(weight) = weights.get(first).cloned() {
                weights.insert(path, weight);
            } else if let Some(&data) = tensors.get(first) {
                tensors.insert(path, data);
            }
        }
        // A fresh module draws its random weights when they are first needed, if ever.
        let module = module.apply_reparameterization(Forget { weights: &weights });
        let module = module.valid().materialize();
        let options = options.into();
        let mut attach = Attach {
            weights: &weights,
            tensors: &tensors,
            is_kept: options.unpacking == Unpacking::Once,
            error: None,
        };
        let module = module.apply_reparameterization(&mut attach);
        if let Some(error) = attach.error {
            return Err(error);
        }
        let mut state = Apply {
            axes: walk(&module)
                .into_iter()
                .filter_map(|found| Some((found.path, table::packed_axis_of(&found.container)?)))
                .collect(),
            weights,
            model: self,
            used: BTreeSet::new(),
            options,
            error: None,
        };
        let module = module.apply_reparameterization(&mut state);
        let Apply {
            weights,
            used,
            error,
            ..
        } = state;
        if let Some(error) = error {
            return Err(error);
        }
        let mut load = Replacement::default();
        for found in walk(&module) {
            if used.contains(&found.path) || found.is_product() {
                continue;
            }
            let Some(data) = tensors.remove(found.path.as_str()) else {
                return Err(PackModelError::Missing { path: found.path });
            };
            if data.shape().to_vec() != found.shape {
                return Err(PackModelError::Shape {
                    path: found.path,
                    packed: data.shape().to_vec(),
                    module: found.shape,
                });
            }
            load.data.insert(found.id, data);
        }
        let unused = weights.keys().chain(tensors.keys()).min();
        match unused {
            Some(&path) => Err(PackModelError::Unused { path: path.into() }),
            None => Ok(module.map(&mut load)),
        }
    }

    /// Average bitwidth `I_W = Σ n·I / Σ n` over all packed weights.
    pub fn average_bits(&self) -> f64 {
        let numbers = |w: &PackedWeight| w.shape().iter().product::<usize>();
        let (mut bits, mut weights) = (0.0, 0);
        for (_, w) in &self.weights {
            bits += w.average_bits() * numbers(w) as f64;
            weights += numbers(w);
        }
        for product in products(self) {
            weights -= numbers(product.first.1) + numbers(product.second.1);
            weights += product.inputs() * product.outputs();
        }
        bits / weights.max(1) as f64
    }
}

/// What a parameter is in a packed model.
pub(crate) enum Packable {
    /// Nothing: its factors, which follow it, are all of it.
    Product,
    /// A tensor as it is.
    Float(TensorData),
    /// Bits, and the arithmetic of their layer where it is said.
    Weight(PackedWeight, Option<Arithmetic>),
}

/// Packs one parameter, named by a path.
pub(crate) fn pack(found: &Found, path: &str) -> Result<Packable, PackModelError> {
    check_carried(found, path)?;
    let path = || path.to_string();
    if found.is_product() {
        let own = found.read();
        return match own.iter::<f32>().take(1).all(f32::is_nan) {
            true => Ok(Packable::Product),
            false => Err(PackModelError::Given { path: path() }),
        };
    }
    let Some(state) = &found.state else {
        return Ok(Packable::Float(found.read()));
    };
    let data = MultiBitData::from_module(state, &found.shape);
    let data = data.map_err(|source| PackModelError::Grouping {
        path: path(),
        source,
    })?;
    let packed = data.pack().map_err(|source| PackModelError::Weight {
        path: path(),
        source,
    })?;
    drop(data);
    check_value(&path(), found.read(), &packed)?;
    Ok(Packable::Weight(packed, state.arithmetic()))
}

/// Refuses what cannot be packed beside a weight's bits, or was packed already.
fn check_carried(found: &Found, path: &str) -> Result<(), PackModelError> {
    let path = || path.to_string();
    if let Some(by) = &found.dropped {
        let (path, by) = (path(), by.clone());
        return Err(PackModelError::Adapter { path, by });
    }
    match found.carries.as_deref() == Some(Packed::NAME) {
        true => Err(PackModelError::Packed { path: path() }),
        false => Ok(()),
    }
}

/// Whether the value of a weight is that of its bits, but for rounding: a device may add in another
/// order, and the value may have a narrower type.
fn check_value(path: &str, value: TensorData, packed: &PackedWeight) -> Result<(), PackModelError> {
    let dtype = value.dtype();
    let value: Vec<f32> = value
        .try_into_vec_as()
        .expect("numbers of a float become f32");
    let (shape, grouping) = (packed.shape(), packed.grouping());
    let mut grouped = alloc::vec![0.0; value.len()];
    grouping.gather(shape, &value, &mut grouped);
    // Less memory than both in the weight's order.
    drop(value);
    let (value, bits) = (grouped, packed.unpack_grouped());
    let pairs = value.iter().zip(&bits);
    let difference = largest(pairs.map(|(value, bit)| (value - bit).abs()));
    // At most eight coordinates are added.
    if difference <= 8.0 * epsilon(dtype) * largest(bits.iter().map(|bit| bit.abs())) {
        return Ok(());
    }
    Err(PackModelError::Moved {
        path: path.to_string(),
        difference,
        largest: largest(value.iter().map(|value| value.abs())),
    })
}

/// The largest of some magnitudes, or NaN if one is: as integers they have the same order, with NaN last.
fn largest(magnitudes: impl Iterator<Item = f32>) -> f32 {
    f32::from_bits(magnitudes.map(f32::to_bits).fold(0, u32::max))
}

/// Puts packed weights into their parameters.
struct Apply<'a> {
    /// Those of which the module has not had a parameter yet.
    weights: BTreeMap<&'a str, Arc<PreparedWeight>>,
    model: &'a PackedModel,
    /// Paths that have their weights.
    used: BTreeSet<String>,
    /// The output axes that layers with packed arithmetic expect, by the path of their weight.
    axes: BTreeMap<String, usize>,
    options: ApplyOptions,
    error: Option<PackModelError>,
}

impl Reparameterizer for &mut Apply<'_> {
    type Reparam = Packed;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Packed>) {
        let Some(weight) = self.weights.remove(path) else {
            return (param, None);
        };
        let shape = value_shape(&param);
        if shape.as_slice() != weight.shape() {
            self.error.get_or_insert(PackModelError::Shape {
                path: path.to_string(),
                packed: weight.shape().to_vec(),
                module: shape.to_vec(),
            });
            return (param, None);
        }
        let axis = self.axes.get(path).copied();
        let fits = axis.map_or(Ok(()), |axis| weight.check_output_axis(axis));
        let first = self.model.tied.get(path);
        // A tied weight is cut for the layer of its first place; others may have to unpack it.
        if let (Err(source), None) = (fits, first) {
            let path = path.to_string();
            self.error
                .get_or_insert(PackModelError::Kernel { path, source });
            return (param, None);
        }
        self.used.insert(path.to_string());
        let ApplyOptions {
            unpacking,
            arithmetic,
        } = self.options;
        let said = self
            .model
            .arithmetic
            .get(first.map_or(path, String::as_str));
        let arithmetic = arithmetic.or(said.copied());
        let (param, packed) = Packed::attach(path, param, weight, arithmetic, unpacking);
        (param, Some(packed))
    }
}

/// Takes from weights that will be replaced what they were to be initialized with.
struct Forget<'a> {
    weights: &'a BTreeMap<&'a str, Arc<PreparedWeight>>,
}

impl Reparameterizer for Forget<'_> {
    type Reparam = Packed;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Packed>) {
        let first = Product::path_of(path, Product::FIELDS[0]);
        let is_replaced = |path: &str| self.weights.contains_key(path);
        if !param.is_initialized() && (is_replaced(path) || is_replaced(&first)) {
            return (hollow(param), None);
        }
        (param, None)
    }
}
