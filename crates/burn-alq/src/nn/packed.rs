//! The packed form of a weight in a module, for layers that run on bits and for all others.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use burn_core::backend::Dispatch;
use burn_core::module::{Module, ModuleMapper, ModuleVisitor, Param, Reparameterization};
use burn_core::tensor::{DType, Device, Tensor, TensorData};
use multibit::PackedWeight;
use multibit::cpu::Arithmetic;

use crate::ops::AlqOps;
use crate::weight::{
    Lazy, PreparedWeight, Product, default_dtype, hollow, is_hollow, restore_autodiff,
    without_value,
};

/// What layers that do not run on bits, Burn's own above all, do with the dense weight.
///
/// Layers that run on bits never make one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unpacking {
    /// Unpacked at the first use and kept, once for each device and type that it is used in: as
    /// fast as the float layer from the second call on, for the memory of the float weight beside
    /// the bits.
    #[default]
    Once,
    /// Unpacked at each use and dropped: the memory of one weight at a time, for the time of
    /// unpacking it.
    EachUse,
}

/// What [`PackedModel::apply_with`](crate::PackedModel::apply_with) can be told; an [`Unpacking`] or an
/// [`Arithmetic`] alone is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// What layers do that do not run on bits.
    pub unpacking: Unpacking,
    /// How all others compute, whatever rules and layers say; none leaves it to those.
    pub arithmetic: Option<Arithmetic>,
}

impl From<Unpacking> for ApplyOptions {
    fn from(unpacking: Unpacking) -> Self {
        Self {
            unpacking,
            ..Self::default()
        }
    }
}

impl From<Arithmetic> for ApplyOptions {
    fn from(arithmetic: Arithmetic) -> Self {
        Self {
            arithmetic: Some(arithmetic),
            ..Self::default()
        }
    }
}

/// The packed form of a weight, attached to its parameter.
///
/// The parameter keeps its shape and its type, but its own value is NaN in every place and takes the
/// memory of one number; its effective value ([`Param::val`]) is the unpacked weight, for layers
/// that do not know how to run on the bits ([`Unpacking`]). A record of the module holds the
/// unpacked weight.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The bits, on the host.
    pub weight: Arc<PreparedWeight>,
    /// The average bitwidth, `[1, 1]`. A float, under the weight's id, so that what goes over the
    /// weights of a module meets it: see [`Packed::map`].
    bits: Param<Tensor<2>>,
    path: Arc<str>,
    /// Of the parameter's numbers, while it has no value.
    dtype: DType,
    /// How a layer computes with it, where the weight says so.
    arithmetic: Option<Arithmetic>,
    unpacking: Unpacking,
    /// Whether the dense weight was asked for.
    unpacked: Arc<AtomicBool>,
    /// Made once the parameter's own value was found to be nobody else's.
    untouched: Arc<Lazy<()>>,
}

impl Packed {
    /// The bits as the weight of `param`, at `path`. The parameter keeps its id, shape, type and how it is
    /// recorded; its value is dropped, or never made.
    pub(crate) fn attach<const D: usize>(
        path: &str,
        param: Param<Tensor<D>>,
        weight: Arc<PreparedWeight>,
        arithmetic: Option<Arithmetic>,
        unpacking: Unpacking,
    ) -> (Param<Tensor<D>>, Self) {
        let param = hollow(param);
        let (dtype, device) = (param.base().dtype(), param.lazy_device());
        let average = [[weight.average_bits() as f32]];
        let packed = Self {
            bits: Param::initialized(param.id, Tensor::from_data(average, &device)),
            path: path.into(),
            dtype,
            arithmetic,
            unpacking,
            unpacked: Arc::default(),
            untouched: Arc::default(),
            weight,
        };
        // A parameter that was materialized keeps its mappers: they must not keep the bits.
        let bits = Arc::downgrade(packed.weight.bits());
        let param = without_value(param, move |value: Tensor<D>| match bits.upgrade() {
            Some(bits) if is_hollow(&value) => {
                let dtype = match value.dtype() {
                    changed if changed.is_float() => changed,
                    _ => dtype,
                };
                Tensor::from_data(unpacked(&bits, dtype), (&value.device(), dtype))
            }
            _ => value,
        });
        (param, packed)
    }

    /// The arithmetic of the layer that holds the weight: the weight's own, or else the layer's.
    pub fn arithmetic_or(&self, layers: Arithmetic) -> Arithmetic {
        self.arithmetic.unwrap_or(layers)
    }

    /// The dense weight in the type of some values, where they are.
    fn dense_like<const D: usize>(&self, values: &Tensor<D>) -> Tensor<D> {
        self.unpacked.store(true, Ordering::Relaxed);
        let device = values.device().without_autodiff();
        let dtype = match values.dtype() {
            dtype if dtype.is_float() => dtype,
            // Burn's own quantized values are dequantized to what the device computes with.
            _ => default_dtype(&device),
        };
        let like = || Tensor::<1>::zeros([1], (&device, dtype)).into_dispatch();
        let unpack = || {
            let dense = <Dispatch as AlqOps>::alq_dense(like(), self.weight.clone());
            let dense = Tensor::<D>::from_dispatch(dense);
            let len = dense.shape().num_elements();
            dense.reshape([len])
        };
        let flat = match self.unpacking {
            Unpacking::Once => self.weight.dense(&device, dtype, unpack),
            Unpacking::EachUse => unpack(),
        };
        restore_autodiff(
            &values.clone().detach(),
            flat.reshape(self.shape::<D>()),
            self.bits.id,
        )
    }

    /// The shape of the weight.
    pub(super) fn shape<const D: usize>(&self) -> [usize; D] {
        let shape = self.weight.shape();
        shape
            .try_into()
            .expect("the weight's rank is its parameter's")
    }

    /// The type of the numbers of the parameter that this is attached to.
    pub(super) fn dtype<const D: usize>(&self, param: &Param<Tensor<D>>) -> DType {
        let found = param.is_initialized().then(|| param.base().dtype());
        found.filter(DType::is_float).unwrap_or(self.dtype)
    }

    /// Refuses a parameter with a value of its own, which no layer would see.
    ///
    /// # Panics
    /// If its value is another one than the bits stand for.
    fn check<const D: usize>(&self, own: &Tensor<D>) {
        self.untouched.get_or_init(|| {
            let own = own.clone().without_autodiff();
            if is_hollow(&own) {
                return;
            }
            let dtype = own.dtype();
            let own = own.into_data();
            // A record of this module holds the unpacked weight.
            let same = dtype.is_float()
                && unpacked(&self.weight, dtype).as_bytes() == own.as_bytes();
            assert!(
                same,
                "{}: this weight is packed and runs on its bits, but was given another value, as by \
                 loading a record of another model. Load records into the float or multi-bit model, \
                 or materialize this one first; bits come by PackedModel::apply",
                self.path
            );
        });
    }
}

/// The packed weights of a module that were used unpacked so far, by path: by layers that do not run on
/// bits, or by whoever asked for the value of a parameter. Call it after a forward pass.
pub fn unpacked_weights<M: Module>(module: &M) -> Vec<String> {
    let mut visitor = UnpackedWeights::default();
    module.visit(&mut visitor);
    visitor.found
}

#[derive(Default)]
struct UnpackedWeights {
    path: Vec<String>,
    found: Vec<String>,
}

impl ModuleVisitor for UnpackedWeights {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == USED_UNPACKED
            && let Some((_, weight)) = self.path.split_last()
        {
            self.found.push(weight.join("."));
        }
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

/// A packed weight, with its numbers in a type.
fn unpacked(weight: &PackedWeight, dtype: DType) -> TensorData {
    TensorData::new(weight.unpack(), weight.shape().to_vec()).convert_dtype(dtype)
}

/// The bits of a parameter, once packed, if a layer can run on them whose outputs are on this axis of the
/// weight.
///
/// # Panics
/// If the parameter was given a value that the bits do not stand for.
pub(super) fn packed<const D: usize>(
    param: &Param<Tensor<D>>,
    output_axis: usize,
) -> Option<&Packed> {
    let packed = bits(param)?;
    let fits = packed.weight.check_output_axis(output_axis);
    fits.is_ok().then_some(packed)
}

/// The product that a parameter is, if a linear layer can run on the bits of both factors.
///
/// # Panics
/// If the parameter, or a factor, was given a value that the bits do not stand for.
pub(super) fn product(param: &Param<Tensor<2>>) -> Option<&Product> {
    let product = param.reparameterization::<Product>()?;
    if param.is_initialized() {
        product.check(&param.base());
    }
    let factors = [&product.first, &product.second];
    let on_bits = factors.iter().all(|factor| packed(factor, 1).is_some());
    on_bits.then_some(product)
}

/// The bits of a parameter, once packed.
///
/// # Panics
/// If the parameter was given a value that the bits do not stand for.
fn bits<const D: usize>(param: &Param<Tensor<D>>) -> Option<&Packed> {
    let packed = param.reparameterization::<Packed>()?;
    // What was never made is nobody else's, and stays so: see `attach`.
    if param.is_initialized() {
        packed.check(&param.base());
    }
    Some(packed)
}

/// Weight and bias of a layer that has no kernel on bits, as it computes with an input: once packed,
/// unpacked in the input's type.
///
/// # Panics
/// If the weight was given a value that its bits do not stand for.
pub(super) fn dense<const D: usize>(
    weight: &Param<Tensor<D>>,
    bias: Option<&Param<Tensor<1>>>,
    input: &Tensor<D>,
) -> (Tensor<D>, Option<Tensor<1>>) {
    let bias = bias.map(Param::val);
    let dense = match bits(weight) {
        Some(packed) => packed.dense_like(input),
        None if weight.reparameterization::<Product>().is_some() => {
            weight.val().cast(input.dtype())
        }
        None => return (weight.val(), bias),
    };
    (dense, bias.map(|bias| bias.cast(input.dtype())))
}

impl Reparameterization for Packed {
    const NAME: &'static str = "packed";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        self.check(&base);
        self.dense_like(&base)
    }
}

const BITS: &str = "bits";
const CONTAINER: &str = "Struct:Packed";
/// The same, once it was used unpacked: Burn shows visitors of what a parameter carries nothing but names.
const USED_UNPACKED: &str = "Struct:Packed, used unpacked";

impl Module for Packed {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.bits.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        let bits = self.bits.fork(device);
        Self { bits, ..self }
    }

    fn to_device(self, device: &Device) -> Self {
        let bits = self.bits.to_device(device);
        Self { bits, ..self }
    }

    fn train(self) -> Self {
        let bits = self.bits.train();
        Self { bits, ..self }
    }

    fn valid(&self) -> Self {
        let bits = self.bits.valid();
        Self {
            bits,
            ..self.clone()
        }
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        let container = if self.unpacked.load(Ordering::Relaxed) {
            USED_UNPACKED
        } else {
            CONTAINER
        };
        visitor.enter_module(BITS, container);
        Module::visit(&self.bits, visitor);
        visitor.exit_module(BITS, container);
    }

    /// # Panics
    /// If the mapper attaches something to the weights of a module: a parameter carries one thing,
    /// and this one's bits, so that Burn drops the other without a word.
    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        mapper.enter_module(BITS, CONTAINER);
        let bits = Module::map(self.bits, mapper);
        mapper.exit_module(BITS, CONTAINER);
        let mut carried = Carried(None);
        Module::visit(&bits, &mut carried);
        if let Some(name) = carried.0 {
            let path = &self.path;
            panic!(
                "{path}: this weight is packed and cannot carry {name} beside its bits. Materialize \
                 the module first, or leave the weight out of the group of parameters by \
                 exclude(ParamGroup::from_predicate(\"{path}\"))"
            );
        }
        Self {
            bits,
            // The parameter's own value may have been mapped too.
            untouched: Arc::default(),
            ..self
        }
    }
}

/// The name of what a parameter carries.
struct Carried(Option<String>);

impl ModuleVisitor for Carried {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.0.get_or_insert_with(|| name.to_owned());
    }
}

/// Refuses an input on another device than a layer.
///
/// # Panics
/// If it is.
pub(super) fn same_device<const D: usize>(layer: &str, weight: &Param<Tensor<D>>, input: &Device) {
    let here = weight.lazy_device();
    assert!(
        here == *input,
        "{layer}: the input is on {input:?}, but the layer on {here:?}; move one of them"
    );
}
