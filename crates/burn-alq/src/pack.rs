//! Multi-bit → packed: a whole model's weights as bits, and back into a module that runs on them.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use burn_core as burn;
use burn_core::module::{
    Module, ModuleMapper, ModuleVisitor, Param, Reparameterization, Reparameterizer,
};
#[cfg(feature = "train")]
use burn_core::store::{ModuleRecord, RecordError};
use burn_core::tensor::{Bool, DType, Device, Int, Shape, Tensor, TensorData};
use multibit::cpu::KernelError;
use multibit::{CoordinateType, GroupingError, PackError, PackedWeight};
use std::collections::HashMap;

use crate::activation::MultiBitActivation;
use crate::multibit::{MultiBit, MultiBitData, quantized};
use crate::prepared::PreparedWeight;

/// Why a model could not be packed, or a packed model not put into a module.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PackModelError {
    /// The module has no multi-bit weights.
    NoWeights,
    /// The grouping recorded with a weight does not fit it.
    Grouping {
        /// Path of the weight.
        path: String,
        /// What does not fit.
        source: GroupingError,
    },
    /// A weight breaks an invariant of the packed form.
    Weight {
        /// Path of the weight.
        path: String,
        /// Which.
        source: PackError,
    },
    /// A weight is grouped in a way that no kernel can run.
    Kernel {
        /// Path of the weight.
        path: String,
        /// Why not.
        source: KernelError,
    },
    /// A number of a tensor is beyond the range of the type that it is to be rounded to.
    Range {
        /// Path of the tensor.
        path: String,
        /// The number.
        value: f32,
        /// The type.
        float_type: CoordinateType,
    },
    /// A tensor has another shape in the module than in the packed model.
    Shape {
        /// Path of the tensor.
        path: String,
        /// In the packed model.
        packed: Vec<usize>,
        /// In the module.
        module: Vec<usize>,
    },
    /// The module has a parameter that the packed model lacks.
    Missing {
        /// Path of the parameter.
        path: String,
    },
    /// The packed model has a tensor that the module lacks.
    Unused {
        /// Path of the tensor.
        path: String,
    },
}

impl fmt::Display for PackModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWeights => write!(f, "the model has no multi-bit weights"),
            Self::Grouping { path, source } => write!(f, "{path}: {source}"),
            Self::Weight { path, source } => write!(f, "{path}: {source}"),
            Self::Kernel { path, source } => write!(f, "{path}: {source}"),
            Self::Range {
                path,
                value,
                float_type,
            } => write!(
                f,
                "{path} holds {value}, which is beyond the range of {float_type}"
            ),
            Self::Shape {
                path,
                packed,
                module,
            } => write!(
                f,
                "{path} has shape {packed:?} in the packed model, but {module:?} in the module"
            ),
            Self::Missing { path } => write!(f, "the packed model has no tensor {path}"),
            Self::Unused { path } => write!(f, "the module has no parameter {path}"),
        }
    }
}

impl core::error::Error for PackModelError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Grouping { source, .. } => Some(source),
            Self::Weight { source, .. } => Some(source),
            Self::Kernel { source, .. } => Some(source),
            _ => None,
        }
    }
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
    /// Free text that travels with the model.
    pub config: alloc::collections::BTreeMap<String, String>,
}

impl PackedModel {
    /// Packs a model's multi-bit weights into bits.
    ///
    /// # Errors
    /// If the model has no multi-bit weights, or one of them holds something that cannot be
    /// packed, for example a coordinate that is NaN.
    pub fn pack<M: Module>(model: &M) -> Result<Self, PackModelError> {
        // Running statistics keep their last update aside; validation mode takes it in.
        let model = model.valid();
        let mut weights = Vec::new();
        for weight in quantized(&model) {
            let path = weight.path;
            let data =
                MultiBitData::from_module(&weight.state, &weight.shape).map_err(|source| {
                    PackModelError::Grouping {
                        path: path.clone(),
                        source,
                    }
                })?;
            let packed = data.pack().map_err(|source| PackModelError::Weight {
                path: path.clone(),
                source,
            })?;
            weights.push((path, Arc::new(packed)));
        }
        if weights.is_empty() {
            return Err(PackModelError::NoWeights);
        }
        let mut rest = CollectRest {
            weights: &weights,
            path: Vec::new(),
            tensors: Vec::new(),
        };
        model.visit(&mut rest);
        let tensors = rest.tensors;
        Ok(Self {
            weights,
            tensors,
            config: Default::default(),
        })
    }

    /// The same model with coordinates of another type in its file. Nothing is rounded here:
    /// [`ScheduleConfig::coordinate_type`](crate::ScheduleConfig::coordinate_type) trains them so.
    ///
    /// # Errors
    /// If the type does not hold a coordinate as it is.
    pub fn with_coordinate_type(
        mut self,
        coordinate_type: CoordinateType,
    ) -> Result<Self, PackModelError> {
        for (path, weight) in &mut self.weights {
            let stored = Arc::unwrap_or_clone(weight.clone()).with_coordinate_type(coordinate_type);
            *weight = Arc::new(stored.map_err(|source| PackModelError::Weight {
                path: path.clone(),
                source,
            })?);
        }
        Ok(self)
    }

    /// The same model with its other f32 tensors (biases, norms and their statistics) rounded to the
    /// nearest numbers of a type, so that a file with [`Coding::Deflate`](crate::file::Coding) holds
    /// them in two bytes. They stay f32. The levels of multi-bit activations are left as they are.
    ///
    /// Nothing was trained for this rounding: compare the accuracy.
    ///
    /// # Errors
    /// If a finite number is beyond the type's range.
    pub fn with_float_type(mut self, float_type: CoordinateType) -> Result<Self, PackModelError> {
        for (path, tensor) in &mut self.tensors {
            let name = path.rsplit('.').next();
            if tensor.dtype() != DType::F32 || name == Some(MultiBitActivation::STATE) {
                continue;
            }
            let round = |value: f32| match float_type.nearest(value) {
                rounded if rounded.is_infinite() && value.is_finite() => {
                    Err(PackModelError::Range {
                        path: path.clone(),
                        value,
                        float_type,
                    })
                }
                rounded => Ok(rounded),
            };
            let rounded: Result<Vec<f32>, _> = tensor.iter::<f32>().map(round).collect();
            *tensor = TensorData::new(rounded?, tensor.shape());
        }
        Ok(self)
    }

    /// Puts the packed weights and the other tensors into a module of the same structure, on a
    /// plain (not autodiff) device.
    ///
    /// The module may be fresh, float or multi-bit; its own weights are dropped. Multi-bit layers
    /// then run on the bits; any other layer unpacks its weight at each use
    /// ([`Module::materialize`] unpacks once instead).
    ///
    /// # Errors
    /// If a path or a shape does not fit the module.
    pub fn apply<M: Module>(&self, module: M) -> Result<M, PackModelError> {
        let mut state = Apply {
            weights: self
                .weights
                .iter()
                .map(|(path, weight)| (path.clone(), weight.clone()))
                .collect(),
            axes: HashMap::new(),
            error: None,
        };
        module.visit(&mut OutputAxes {
            path: Vec::new(),
            axes: &mut state.axes,
        });
        // A fresh module draws its random weights when they are first needed, if ever.
        let module = module.apply_reparameterization(Forget {
            weights: &state.weights,
        });
        let module = module.valid().materialize();
        let module = module.apply_reparameterization(&mut state);
        let Apply { weights, error, .. } = state;
        let mut load = LoadRest {
            weights: &self.weights,
            path: Vec::new(),
            tensors: self.tensors.iter().cloned().collect(),
            error,
        };
        let module = module.map(&mut load);
        if let Some(error) = load.error {
            return Err(error);
        }
        let unused = weights.into_keys().chain(load.tensors.into_keys()).min();
        match unused {
            Some(path) => Err(PackModelError::Unused { path }),
            None => Ok(module),
        }
    }

    /// Average bitwidth `I_W = Σ n·I / Σ n` over all packed weights.
    pub fn average_bits(&self) -> f64 {
        let (bits, weights) = self.weights.iter().fold((0.0, 0), |(bits, count), (_, w)| {
            let weights: usize = w.shape().iter().product();
            (bits + w.average_bits() * weights as f64, count + weights)
        });
        bits / weights.max(1) as f64
    }
}

/// Whether a path leads into the state of a multi-bit weight.
fn in_state(path: &[String]) -> bool {
    path.iter()
        .rev()
        .nth(1)
        .is_some_and(|name| name == MultiBit::NAME)
}

struct CollectRest<'a> {
    weights: &'a [(String, Arc<PackedWeight>)],
    path: Vec<String>,
    tensors: Vec<(String, TensorData)>,
}

impl CollectRest<'_> {
    fn push(&mut self, data: impl FnOnce() -> TensorData) {
        let path = self.path.join(".");
        if !in_state(&self.path) && self.weights.iter().all(|(weight, _)| *weight != path) {
            self.tensors.push((path, data()));
        }
    }
}

impl ModuleVisitor for CollectRest<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.push(|| param.val().into_data());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.push(|| param.val().into_data());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.push(|| param.val().into_data());
    }
}

/// The packed form of a weight, attached to its parameter.
///
/// The parameter's own value is an expanded zero (it takes no memory); its effective value is
/// unpacked at each use, unless the layer knows how to run on the bits.
#[derive(Module, Debug)]
pub struct Packed {
    /// The bits, on the host.
    #[module(skip)]
    pub weight: Arc<PreparedWeight>,
}

impl Reparameterization for Packed {
    const NAME: &'static str = "packed";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let data = TensorData::new(self.weight.unpack(), self.weight.shape().to_vec());
        Tensor::from_data(data, &base.device())
    }
}

/// The output axes that layers with packed arithmetic expect, by the path of their weight.
struct OutputAxes<'a> {
    path: Vec<String>,
    axes: &'a mut HashMap<String, usize>,
}

impl ModuleVisitor for OutputAxes<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push(name.to_string());
        let axis = match container_type {
            "Struct:MultiBitLinear" | "Struct:MultiBitConvTranspose2d" => 1,
            "Struct:MultiBitConv1d" | "Struct:MultiBitConv2d" | "Struct:MultiBitEmbedding" => 0,
            _ => return,
        };
        self.axes.insert(self.path.join("."), axis);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

struct Apply {
    weights: HashMap<String, Arc<PackedWeight>>,
    axes: HashMap<String, usize>,
    error: Option<PackModelError>,
}

impl Reparameterizer for &mut Apply {
    type Reparam = Packed;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Packed>) {
        let Some(weight) = self.weights.remove(path) else {
            return (param, None);
        };
        let shape = param.lazy_shape();
        if shape.as_slice() != weight.shape() {
            self.error.get_or_insert(PackModelError::Shape {
                path: path.to_string(),
                packed: weight.shape().to_vec(),
                module: shape.to_vec(),
            });
            return (param, None);
        }
        let weight = Arc::new(PreparedWeight::new(weight));
        let axis = self.axes.get(path).copied();
        if let Some(Err(source)) = axis.map(|axis| weight.check_output_axis(axis)) {
            let path = path.to_string();
            self.error
                .get_or_insert(PackModelError::Kernel { path, source });
            return (param, None);
        }
        (without_memory(&param), Some(Packed { weight }))
    }
}

/// The same parameter with an expanded zero as its value, on a plain device.
fn without_memory<const D: usize>(param: &Param<Tensor<D>>) -> Param<Tensor<D>> {
    let device = param.lazy_device().without_autodiff();
    let zero = Tensor::<D>::zeros([1; D], &device).expand(param.lazy_shape());
    Param::initialized(param.id, zero)
}

/// Takes from weights that will be replaced what they were to be initialized with.
struct Forget<'a> {
    weights: &'a HashMap<String, Arc<PackedWeight>>,
}

impl Reparameterizer for Forget<'_> {
    type Reparam = Packed;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Packed>) {
        if !param.is_initialized() && self.weights.contains_key(path) {
            return (without_memory(&param), None);
        }
        (param, None)
    }
}

struct LoadRest<'a> {
    weights: &'a [(String, Arc<PackedWeight>)],
    path: Vec<String>,
    tensors: HashMap<String, TensorData>,
    error: Option<PackModelError>,
}

impl LoadRest<'_> {
    /// The tensor for the current parameter, checked; none for a packed weight.
    fn take(&mut self, shape: Shape) -> Option<TensorData> {
        let path = self.path.join(".");
        if self.weights.iter().any(|(weight, _)| *weight == path) {
            return None;
        }
        let found = self.tensors.remove(&path);
        let error = match &found {
            None => PackModelError::Missing { path },
            Some(data) if data.shape() != &shape => PackModelError::Shape {
                path,
                packed: data.shape().to_vec(),
                module: shape.to_vec(),
            },
            Some(_) => return found,
        };
        self.error.get_or_insert(error);
        None
    }
}

impl ModuleMapper for LoadRest<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let device = param.lazy_device();
        match self.take(param.lazy_shape()) {
            Some(data) => param.map(|_| on(data, &device)),
            None => param,
        }
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let device = param.lazy_device();
        match self.take(param.lazy_shape()) {
            Some(data) => param.map(|_| on(data, &device)),
            None => param,
        }
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        let device = param.lazy_device();
        match self.take(param.lazy_shape()) {
            Some(data) => param.map(|_| on(data, &device)),
            None => param,
        }
    }
}

fn on<const D: usize, K: burn_core::tensor::kind::Basic>(
    data: TensorData,
    device: &Device,
) -> Tensor<D, K> {
    let dtype = data.dtype();
    Tensor::from_data(data, (device, dtype))
}

/// Whether a record fits a module and its multi-bit weights are whole; no clone of the module changes.
#[cfg(feature = "train")]
pub(crate) fn check_record<M: Module>(
    module: &M,
    record: &ModuleRecord,
) -> Result<(), RecordError> {
    // A training module shares its running statistics with its clones, and loading writes into them.
    let loaded = module.valid().try_load_record(record.clone())?;
    match PackedModel::pack(&loaded) {
        Ok(_) | Err(PackModelError::NoWeights) => Ok(()),
        Err(error) => Err(RecordError::Validation(error.to_string())),
    }
}
