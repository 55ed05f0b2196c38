//! A weight that is the product of two multi-bit weights, which stand beside it in the module tree.

use alloc::sync::Arc;
use alloc::vec::Vec;

use burn_core::module::{Module, ModuleMapper, ModuleVisitor, Param, Reparameterization};
use burn_core::tensor::{DType, Device, Tensor};

use super::hollow::is_hollow;
use super::made::{Each, Lazy};

/// What a weight is the product of, attached to its parameter: `Ŵ = diag(c) F S`, `[inputs, outputs]`.
///
/// `F` and `S` are multi-bit weights like any other, of one bit each, and are trained, packed and
/// recorded as such; `c` is a float parameter. The weight itself has no value of its own but NaN in every
/// place, which is what a record of the module holds of it until it is packed; its effective value
/// ([`Param::val`]) is the product, and gradients reach the factors through it. A convolution
/// `[outputs, channels, k…]` is the transposed product, with a kernel's places as inputs.
///
/// Low-rank products of signs: LittleBit (Lee et al., 2025), DBF (Boža and Macko, 2025).
#[derive(Debug, Clone)]
pub struct Product {
    /// `F`, `[inputs, rank]`: of a coordinate for each rank.
    pub first: Param<Tensor<2>>,
    /// `S`, `[rank, outputs]`: of a coordinate for each output.
    pub second: Param<Tensor<2>>,
    /// `c`, `[inputs]`.
    pub scale: Param<Tensor<1>>,
    /// The product, flat, where it is kept.
    kept: Option<Arc<Kept>>,
}

/// What is kept of a product that does not move.
#[derive(Default)]
struct Kept {
    dense: Each<(Device, DType), Tensor<1>>,
    /// Made once the parameter's own value was found to be none.
    untouched: Lazy<()>,
}

impl core::fmt::Debug for Kept {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Kept")
    }
}

impl Product {
    /// The names of the factors and of the scale, below the weight's path.
    pub(crate) const FIELDS: [&str; 3] = ["first", "second", "scale"];

    /// A product that is composed at each use, or kept until something of it is changed.
    pub(crate) fn new(
        first: Param<Tensor<2>>,
        second: Param<Tensor<2>>,
        scale: Param<Tensor<1>>,
        is_kept: bool,
    ) -> Self {
        Self {
            first,
            second,
            scale,
            kept: is_kept.then(Arc::default),
        }
    }

    /// The path of a part, of the weight at `path`.
    pub(crate) fn path_of(path: &str, field: &str) -> alloc::string::String {
        alloc::format!("{path}.{}.{field}", Self::NAME)
    }

    /// The path of the weight that has a part at a path, and the part's name.
    pub(crate) fn part(path: &str) -> Option<(&str, &str)> {
        let (above, field) = path.rsplit_once('.')?;
        let weight = above.strip_suffix(Self::NAME)?.strip_suffix('.')?;
        Self::FIELDS.contains(&field).then_some((weight, field))
    }

    /// Inputs and outputs of a weight of this shape: of a linear layer `[inputs, outputs]` or a convolution
    /// `[outputs, channels, k…]`.
    pub(crate) fn dims(shape: &[usize]) -> [usize; 2] {
        match shape {
            &[inputs, outputs] => [inputs, outputs],
            [outputs, places @ ..] => [places.iter().product(), *outputs],
            [] => [1, 1],
        }
    }

    /// How many of the weights each factor is counted as: in proportion to its own, so that the average
    /// bitwidth of each is that of both.
    #[cfg(feature = "train")]
    pub(crate) fn shares([inputs, outputs]: [usize; 2]) -> [usize; 2] {
        let all = inputs * outputs;
        let first = (all as f64 * inputs as f64 / (inputs + outputs) as f64) as usize;
        [first, all - first]
    }

    /// The product in the shape of a weight, from its factors' values.
    fn compose<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Self::multiply(
            [self.first.val(), self.second.val()],
            self.scale.val(),
            shape,
        )
    }

    /// The product of two factors and the scales of inputs in the shape of a weight.
    pub(crate) fn multiply<const D: usize>(
        [first, second]: [Tensor<2>; 2],
        scale: Tensor<1>,
        shape: [usize; D],
    ) -> Tensor<D> {
        let scale = scale.cast(first.dtype()).unsqueeze_dim::<2>(1);
        let product = (first * scale).matmul(second);
        match D {
            2 => product.reshape(shape),
            _ => product.transpose().reshape(shape),
        }
    }

    /// Refuses a value of its own of the parameter that this is attached to, which no layer would see.
    ///
    /// # Panics
    /// If the product is kept, and the parameter has one.
    pub(crate) fn check<const D: usize>(&self, base: &Tensor<D>) {
        let Some(kept) = &self.kept else {
            return;
        };
        kept.untouched.get_or_init(|| {
            assert!(
                is_hollow(base),
                "a weight that is a product was given a value of its own, which no layer would see, as by \
                 loading a record of another model; load records into the float or multi-bit model, or \
                 materialize this one first"
            );
        });
    }

    fn apply_kept<const D: usize>(&self, kept: &Kept, base: &Tensor<D>) -> Tensor<D> {
        let key = (base.device(), base.dtype());
        let len = base.shape().num_elements();
        let compose = || self.compose(base.dims()).cast(key.1).reshape([len]);
        kept.dense
            .get_or_make(key.clone(), compose)
            .reshape(base.dims())
    }
}

impl Reparameterization for Product {
    const NAME: &'static str = "product";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        self.check(&base);
        match &self.kept {
            Some(kept) if !base.is_autodiff() => self.apply_kept(kept, &base),
            _ => self.compose(base.dims()).cast(base.dtype()),
        }
    }
}

const CONTAINER: &str = "Struct:Product";

impl Module for Product {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        let devices = self.first.collect_devices(devices);
        let devices = self.second.collect_devices(devices);
        self.scale.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self {
            first: self.first.fork(device),
            second: self.second.fork(device),
            scale: self.scale.fork(device),
            ..self
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            first: self.first.to_device(device),
            second: self.second.to_device(device),
            scale: self.scale.to_device(device),
            ..self
        }
    }

    fn train(self) -> Self {
        Self {
            first: Module::train(self.first),
            second: Module::train(self.second),
            scale: Module::train(self.scale),
            ..self
        }
    }

    fn valid(&self) -> Self {
        Self {
            first: self.first.valid(),
            second: self.second.valid(),
            scale: self.scale.valid(),
            kept: self.kept.clone(),
        }
    }

    fn materialize(self) -> Self {
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        let [first, second, scale] = Self::FIELDS;
        visitor.enter_module(first, CONTAINER);
        self.first.visit(visitor);
        visitor.exit_module(first, CONTAINER);
        visitor.enter_module(second, CONTAINER);
        self.second.visit(visitor);
        visitor.exit_module(second, CONTAINER);
        visitor.enter_module(scale, CONTAINER);
        self.scale.visit(visitor);
        visitor.exit_module(scale, CONTAINER);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let [first, second, scale] = Self::FIELDS;
        mapper.enter_module(first, CONTAINER);
        let factor = Module::map(self.first, mapper);
        mapper.exit_module(first, CONTAINER);
        mapper.enter_module(second, CONTAINER);
        let other = Module::map(self.second, mapper);
        mapper.exit_module(second, CONTAINER);
        mapper.enter_module(scale, CONTAINER);
        let scales = Module::map(self.scale, mapper);
        mapper.exit_module(scale, CONTAINER);
        Self::new(factor, other, scales, self.kept.is_some())
    }
}
