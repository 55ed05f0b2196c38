//! One float weight → the product of two multi-bit weights.

use alloc::string::ToString;

use burn_core::module::{Module, Param, ParamId, Reparameterization};
use burn_core::tensor::{Tensor, TensorData};
use multibit::fit::{self, Hessian};
use multibit::{CoordinateType, Grouping, GroupingRule, Layout, MAX_BITS};

use super::super::walk::{Attach, trains};
use super::super::{
    MultiBitData, Product, ProductError, QuantizeError, Size, hollow_value, read_f32,
    restore_autodiff,
};
use super::{Known, Plan, Sketched, State, relative_error, target};

impl Plan {
    /// A product of so many bits a weight, all that is stored counted.
    ///
    /// # Errors
    /// If the weight cannot be one, or not of so few bits.
    pub fn product(
        path: &str,
        shape: &[usize],
        layout: Layout,
        bits: f64,
        coordinate_type: CoordinateType,
    ) -> Result<Self, QuantizeError> {
        let wrong = |source| QuantizeError::Product {
            path: path.to_string(),
            source,
        };
        if !(bits > 0.0 && bits <= MAX_BITS as f64) {
            return Err(wrong(ProductError::Bits { bits }));
        }
        if layout != Layout::Direct {
            return Err(wrong(ProductError::Layout));
        }
        let plan = Self::of_rank(path, shape, 1)?;
        let [inputs, outputs] = Product::dims(shape).map(|dim| dim as f64);
        // A scale of each input; a coordinate and a bit of width of each output and each rank.
        let scale = 8.0 * coordinate_type.bytes() as f64;
        let fixed = scale * inputs + (scale + 1.0) * outputs;
        let each = inputs + outputs + scale + 1.0;
        let rank = libm::floor((bits * inputs * outputs - fixed) / each);
        if rank < 1.0 {
            let least = (fixed + each) / (inputs * outputs);
            return Err(wrong(ProductError::TooFew { bits, least }));
        }
        Ok(Self {
            rank: Some(rank as usize),
            coordinate_type,
            ..plan
        })
    }

    /// A product of a rank, with coordinates in f32.
    ///
    /// # Errors
    /// If the shape has no outputs of several inputs.
    pub fn of_rank(path: &str, shape: &[usize], rank: usize) -> Result<Self, QuantizeError> {
        let plan = Self::new(path, shape, GroupingRule::Channelwise, Layout::Direct, 1)?;
        let rank = Some(rank);
        Ok(Self { rank, ..plan })
    }

    /// The factors of a product of a shape, without bits.
    fn factors(&self, shape: &[usize]) -> [MultiBitData; 2] {
        let rank = self.rank.expect("it is planned as a product");
        let [inputs, outputs] = Product::dims(shape);
        [[inputs, rank], [rank, outputs]].map(|shape| {
            let grouping = Grouping::subchannelwise(&shape, 1);
            let grouping = grouping.expect("no axis of a planned product is empty");
            MultiBitData {
                shape: shape.to_vec(),
                codes: alloc::vec![0; shape[0] * shape[1]],
                coordinates: alloc::vec![0.0; shape[1]],
                widths: alloc::vec![0; shape[1]],
                max_bits: 1,
                arithmetic: self.arithmetic,
                grouping,
            }
        })
    }
}

/// The state of a product from its factors, where a parameter is and in its type.
fn product_of<const D: usize>(
    param: &Param<Tensor<D>>,
    factors: &[MultiBitData; 2],
    scale: &[f32],
) -> Product {
    let base = param.base();
    let (device, dtype) = (base.device(), base.dtype());
    let trains = trains(param);
    let factor = |data: &MultiBitData| {
        let value = TensorData::new(data.reconstruct(), data.shape.clone());
        let value = Tensor::<2>::from_data(value, (&device, dtype));
        let factor = Param::initialized(ParamId::new(), value).set_require_grad(trains);
        factor.apply_reparameterization(Attach(Some(data.to_device(&device))))
    };
    let [first, second] = factors.each_ref().map(factor);
    let scale = Tensor::from_data(TensorData::from(scale), (&device, dtype));
    let scale = Param::initialized(ParamId::new(), scale).set_require_grad(trains);
    Product::new(first, second, scale, false)
}

impl State for Product {
    fn is_planned(plan: &Plan) -> bool {
        plan.rank.is_some()
    }

    fn sketch<const D: usize>(
        plan: &Plan,
        path: &str,
        param: Param<Tensor<D>>,
        known: Option<&Known>,
    ) -> Result<Sketched<D, Self>, QuantizeError> {
        let (value, shape) = (param.val(), param.dims());
        let float = read_f32(value.clone());
        let grouped = plan.gather(&shape, &float);
        let alike = || Hessian::diagonal(&alloc::vec![1.0f32; plan.grouping.len()], 0.0);
        let alike = alike().expect("ones are a diagonal");
        let hessian = known.map_or(&alike, |known| &known.hessian);
        let mut factors = plan.factors(&shape);
        let rank = factors[1].shape[0];
        let sketch = fit::product(
            &target(&grouped, known),
            hessian,
            rank,
            plan.coordinate_type,
        );
        let sketch =
            sketch.map_err(|source| QuantizeError::of_sketch(path, &shape, &float, source))?;
        for (data, sketch) in factors.iter_mut().zip([sketch.first, sketch.second]) {
            data.codes = sketch.codes;
            data.coordinates = sketch.coordinates;
            data.widths = sketch.widths;
        }
        let state = product_of(&param, &factors, &sketch.scale);
        let hollow = |old: Tensor<D>| {
            let device = old.device().without_autodiff();
            let hollow = hollow_value(old.shape(), old.dtype(), &device);
            restore_autodiff(&old, hollow, param.id)
        };
        let plain = value.without_autodiff();
        let reconstructed = read_f32(state.valid().apply(plain));
        let sizes = factors.each_ref();
        let sizes = sizes.map(|data| Size::new(&data.grouping, &data.widths));
        let weights = float.len() as f64;
        let base_bits: usize = sizes.iter().map(Size::base_bits).sum();
        let bytes: usize = sizes
            .iter()
            .map(|size| size.bytes(plan.coordinate_type))
            .sum();
        let bytes = bytes + sketch.scale.len() * plan.coordinate_type.bytes();
        Ok(Sketched {
            state,
            average_bits: base_bits as f64 / weights,
            effective_bits: 8.0 * bytes as f64 / weights,
            relative_error: relative_error(&float, &reconstructed),
            offset: Plan::offset([&grouped, &plan.gather(&shape, &reconstructed)], known),
            param: param.clone().map(hollow),
        })
    }

    fn hollow<const D: usize>(plan: &Plan, param: &Param<Tensor<D>>) -> Self {
        let factors = plan.factors(&param.dims());
        let inputs = factors[0].shape[0];
        product_of(param, &factors, &alloc::vec![1.0; inputs])
    }
}
