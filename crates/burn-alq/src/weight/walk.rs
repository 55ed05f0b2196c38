//! The one walk over a module that finds its parameters, and new values for them.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::any::Any;

use burn_core::module::{
    Module, ModuleMapper, ModuleVisitor, Param, ParamId, Reparameterization, Reparameterizer,
};
use burn_core::tensor::{Bool, DType, Device, Int, Shape, Tensor, TensorData};

use super::product::Product;
use super::state::{MultiBit, small_int};

/// A parameter of a module; running states are parameters too.
pub(crate) struct Found {
    /// Its path, `conv1.weight`.
    pub path: String,
    /// The type of the module that holds it, `Struct:Conv2d`.
    pub container: String,
    /// Its id.
    pub id: ParamId,
    /// The place, in the order of the walk, where the same parameter was met first: tied weights.
    pub tied_to: Option<usize>,
    /// The shape of its value.
    pub shape: Vec<usize>,
    /// Where it is.
    #[cfg(feature = "train")]
    pub device: Device,
    /// Whether it holds floats.
    pub is_float: bool,
    /// The type of its value, of an initialized float.
    #[cfg(feature = "train")]
    pub dtype: Option<DType>,
    /// Whether gradients move it, or will in training mode.
    #[cfg(feature = "train")]
    pub trains: bool,
    /// Name of the reparameterization on it.
    pub carries: Option<String>,
    /// Name of one that was meant for it, beside what it carries: Burn keeps a trace of it, if any,
    /// within the other alone.
    pub dropped: Option<String>,
    /// The state of a multi-bit weight, sharing its tensors with the module.
    pub state: Option<MultiBit>,
    /// The place of the weight that it is a factor of, or its scale.
    #[cfg_attr(not(feature = "train"), expect(dead_code, reason = "training asks"))]
    pub product: Option<usize>,
    read: Box<dyn Fn() -> TensorData>,
}

impl Found {
    /// The effective value on the host.
    pub fn read(&self) -> TensorData {
        (self.read)()
    }

    /// Whether it is a product, and has no value of its own.
    pub fn is_product(&self) -> bool {
        self.carries.as_deref() == Some(Product::NAME)
    }

    /// How many weights a factor of a weight of this shape is counted as.
    #[cfg(feature = "train")]
    fn stands_for(&self, weight: &[usize]) -> Option<usize> {
        let (_, field) = Product::part(&self.path)?;
        let place = Product::FIELDS.iter().position(|name| *name == field);
        Product::shares(Product::dims(weight)).get(place?).copied()
    }
}

/// Every parameter of a module, in the order of the module tree. Nothing is initialized or read.
pub(crate) fn walk<M: Module>(module: &M) -> Vec<Found> {
    let mut walk = Walk::default();
    module.visit(&mut walk);
    walk.found
}

/// Like [`walk`]; parameters are initialized first, all in the order of the module tree, so that what
/// they draw does not depend on what is done with them.
#[cfg(feature = "train")]
pub(crate) fn walk_initialized<M: Module>(module: &M) -> Vec<Found> {
    struct Initialize;

    impl ModuleVisitor for Initialize {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let _ = param.base();
        }
    }

    module.visit(&mut Initialize);
    walk(module)
}

/// A multi-bit weight of a module.
#[cfg(feature = "train")]
#[derive(Debug, Clone)]
pub(crate) struct MultiBitWeight {
    /// The parameter's path, `conv1.weight`.
    pub path: String,
    /// The id of the parameter whose value is the reconstruction.
    pub id: ParamId,
    /// The shape of the weight.
    pub shape: Vec<usize>,
    /// Whether gradients move it, or will in training mode.
    pub trains: bool,
    /// Of a factor, how many weights it is counted as.
    pub stands_for: Option<usize>,
    /// The state, sharing its tensors with the module.
    pub state: MultiBit,
}

/// Every multi-bit weight of a module, in the order of the module tree; one that stands in several
/// places, once.
#[cfg(feature = "train")]
pub(crate) fn multi_bit_weights<M: Module>(module: &M) -> Vec<MultiBitWeight> {
    let all = walk(module);
    let stands_for: Vec<Option<usize>> = all
        .iter()
        .map(|found| found.stands_for(&all[found.product?].shape))
        .collect();
    let places = all.into_iter().zip(stands_for);
    let first = places.filter(|(found, _)| found.tied_to.is_none());
    let weights = first.filter_map(|(found, stands_for)| {
        Some(MultiBitWeight {
            stands_for,
            state: found.state?,
            path: found.path,
            id: found.id,
            shape: found.shape,
            trains: found.trains,
        })
    });
    weights.collect()
}

/// A visitor meets a parameter and its reparameterization one after the other: what is inside of one
/// belongs to the last parameter.
#[derive(Default)]
struct Walk {
    path: Vec<String>,
    containers: Vec<String>,
    /// How many reparameterizations the walk is inside of, products aside: their parts are weights.
    inside: usize,
    /// The place of the product that the walk is inside of.
    product: Option<usize>,
    parts: Parts,
    found: Vec<Found>,
    /// Where each parameter was met first.
    places: BTreeMap<ParamId, usize>,
}

/// What was met so far of a multi-bit weight's state.
#[derive(Default)]
struct Parts {
    codes: Option<Param<Tensor<2, Int>>>,
    coordinates: Option<Param<Tensor<2>>>,
    widths: Option<Param<Tensor<1, Int>>>,
    arithmetic: Option<Param<Tensor<1, Int>>>,
    layout: Option<Param<Tensor<1, Int>>>,
}

impl Parts {
    /// The state, once all of it was met.
    fn take(&mut self) -> Option<MultiBit> {
        self.layout.as_ref()?;
        let parts = core::mem::take(self);
        Some(MultiBit {
            codes: computable(parts.codes?),
            coordinates: parts.coordinates?,
            widths: computable(parts.widths?),
            arithmetic: parts.arithmetic,
            layout: parts.layout?,
        })
    }
}

const REPARAMETERIZATION: &str = "Reparameterization";

impl Walk {
    /// Notes a parameter; what is inside of a reparameterization is none.
    fn push(
        &mut self,
        id: ParamId,
        shape: Shape,
        #[cfg_attr(not(feature = "train"), expect(unused_variables))] device: Device,
        read: impl Fn() -> TensorData + 'static,
    ) -> bool {
        if self.inside == 0 {
            let here = self.found.len();
            let first = *self.places.entry(id).or_insert(here);
            self.found.push(Found {
                path: self.path.join("."),
                container: self.containers.last().cloned().unwrap_or_default(),
                id,
                tied_to: (first != here).then_some(first),
                shape: shape.to_vec(),
                #[cfg(feature = "train")]
                device,
                is_float: false,
                #[cfg(feature = "train")]
                dtype: None,
                #[cfg(feature = "train")]
                trains: false,
                carries: None,
                dropped: None,
                state: None,
                product: self.product,
                read: Box::new(read),
            });
        }
        self.inside == 0
    }

    /// The field of a multi-bit state that is visited now; empty elsewhere.
    fn field(&self) -> &str {
        let [.., state, field] = &self.path[..] else {
            return "";
        };
        if self.inside == 1 && state == MultiBit::NAME {
            field
        } else {
            ""
        }
    }
}

impl ModuleVisitor for Walk {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == REPARAMETERIZATION {
            let is_product = self.inside == 0 && name == Product::NAME;
            if is_product {
                self.product = self.found.len().checked_sub(1);
            }
            self.inside += usize::from(!is_product);
            if let Some(weight) = self.found.last_mut() {
                let name = Some(name.to_owned());
                if self.inside <= 1 {
                    weight.carries = name;
                } else {
                    weight.dropped = name;
                }
            }
        }
        self.path.push(name.to_string());
        self.containers.push(container_type.to_string());
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        if container_type == REPARAMETERIZATION {
            match self.inside {
                0 => self.product = None,
                _ => self.inside -= 1,
            }
        }
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.clone();
        let read = move || value.val().into_data();
        let (shape, device) = (value_shape(param), param.lazy_device());
        if self.push(param.id, shape, device, read) {
            let last = self.found.last_mut().expect("pushed above");
            last.is_float = true;
            #[cfg(feature = "train")]
            {
                last.dtype = param.is_initialized().then(|| param.base().dtype());
                last.trains = trains(param);
            }
        } else if self.field() == "coordinates" {
            self.parts.coordinates = cast(param);
        }
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let value = param.clone();
        let read = move || value.val().into_data();
        let (shape, device) = (param.lazy_shape(), param.lazy_device());
        if self.push(param.id, shape, device, read) {
            return;
        }
        match self.field() {
            "codes" => self.parts.codes = cast(param),
            "widths" => self.parts.widths = cast(param),
            "arithmetic" => self.parts.arithmetic = cast(param),
            "layout" => self.parts.layout = cast(param),
            _ => {}
        }
        if let Some(state) = self.parts.take() {
            let weight = self.found.last_mut();
            weight.expect("a state follows its weight").state = Some(state);
        }
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let value = param.clone();
        let read = move || value.val().into_data();
        let (shape, device) = (param.lazy_shape(), param.lazy_device());
        self.push(param.id, shape, device, read);
    }
}

/// The shape of a parameter's value, which is not initialized for it. A weight that its layer maps when
/// it loads (a [`Linear`](burn_nn::Linear) in columns) reports the shape of its record until then.
pub(crate) fn value_shape<const D: usize>(param: &Param<Tensor<D>>) -> Shape {
    if param.is_initialized() {
        return param.shape();
    }
    let options = (&param.lazy_device(), DType::F32);
    let recorded = one_number(0.0, param.lazy_shape(), options);
    param.clone().transform_for_load(recorded, param.id).shape()
}

/// The same number in every place, in the memory of one.
pub(crate) fn one_number<const D: usize>(
    number: f32,
    shape: Shape,
    options: (&Device, DType),
) -> Tensor<D> {
    if shape.num_elements() == 0 {
        return Tensor::zeros(shape, options);
    }
    Tensor::<D>::full([1; D], number, options).expand(shape)
}

/// Whether gradients move a parameter. A plain device has none; there, what is configured for training
/// mode counts. One that is not initialized yet is none of the weights that are asked about.
#[cfg(feature = "train")]
pub(super) fn trains<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    if !param.is_initialized() {
        return true;
    }
    let base = param.base();
    match base.is_autodiff() {
        true => base.is_require_grad(),
        false => param.clone().train().base().is_require_grad(),
    }
}

/// Integers of a type that their device computes with: what moves from a CPU, or is loaded from its
/// record, comes as bytes. The next step of training leaves them in the other type.
fn computable<const D: usize>(param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
    let tensor = param.val();
    let device = tensor.device();
    if device.supports_dtype(tensor.dtype()) {
        return param;
    }
    param.map(|tensor| {
        let values = tensor.into_data().convert::<i32>();
        Tensor::from_data(values, (&device, small_int(&device)))
    })
}

/// A parameter at the rank that its place in the tree promises.
fn cast<A: Clone + 'static, B: 'static>(value: &A) -> Option<B> {
    let value: Box<dyn Any> = Box::new(value.clone());
    value.downcast().ok().map(|value| *value)
}

/// New values for parameters of any rank, by id; for each place of one that stands in several.
#[derive(Default)]
pub(crate) struct Replacement<'a> {
    /// Float values, flat; they take the shape and the type of the parameter.
    pub floats: BTreeMap<ParamId, Tensor<1>>,
    /// Integer values, flat.
    pub ints: BTreeMap<ParamId, Tensor<1, Int>>,
    /// Values from the host, of the parameter's own shape, in the type that they are.
    pub data: BTreeMap<ParamId, &'a TensorData>,
}

/// A value from the host in the place of a parameter's.
macro_rules! load {
    ($replacement:ident, $param:ident) => {{
        let Some(&data) = $replacement.data.get(&$param.id) else {
            return $param;
        };
        let (device, dtype) = ($param.lazy_device(), data.dtype());
        $param.map(|_| Tensor::from_data(data.clone(), (&device, dtype)))
    }};
}

impl ModuleMapper for Replacement<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let id = param.id;
        let Some(value) = self.floats.get(&id) else {
            return load!(self, param);
        };
        param.map(|old| {
            let value = value.clone().cast(old.dtype()).reshape(old.shape());
            restore_autodiff(&old, value, id)
        })
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        let Some(value) = self.ints.get(&param.id) else {
            return load!(self, param);
        };
        param.map(|old| value.clone().reshape(old.shape()))
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        load!(self, param)
    }
}

/// Puts the autodiff state of `old`, the value of parameter `id`, on a value computed without autodiff:
/// all of it that Burn's own optimizers keep.
#[cfg(feature = "autodiff")]
pub(crate) fn restore_autodiff<const D: usize>(
    old: &Tensor<D>,
    value: Tensor<D>,
    #[cfg_attr(not(feature = "std"), expect(unused_variables))] id: ParamId,
) -> Tensor<D> {
    if !old.is_autodiff() {
        return value;
    }
    let mut value = Tensor::from_inner(value);
    if let Some(strategy) = old.gradient_checkpointing_strategy() {
        value = value.with_gradient_checkpointing_strategy(strategy);
    }
    if old.is_require_grad() {
        value = value.require_grad();
    }
    #[cfg(feature = "std")]
    if old.is_distributed() {
        value = value.set_distributed(id);
    }
    value
}

#[cfg(not(feature = "autodiff"))]
pub(crate) fn restore_autodiff<const D: usize>(
    _: &Tensor<D>,
    value: Tensor<D>,
    _: ParamId,
) -> Tensor<D> {
    value
}

/// Attaches a ready-made reparameterization to one parameter.
pub(crate) struct Attach<R>(pub Option<R>);

impl<R: Reparameterization> Reparameterizer for Attach<R> {
    type Reparam = R;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<R>) {
        (param, self.0.take())
    }
}
