//! Models in f16 and bf16.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use burn_alq::optim::prune::Budget;
use burn_alq::optim::{Cost, sizes, total};
use burn_alq::{
    AlqOptimizerConfig, MultiBit, MultiBitActivation, MultiBitConv2dConfig, PackedModel, Phase,
};
use multibit::cpu::Levels;

use crate::devices::device;
use crate::running::{D, Inputs, Zoo, assert_same, quantizer};

/// Gives each float parameter another type.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value.cast(self.0))
    }
}

/// The types of half a float that the device computes with, and how exact they are.
fn halves(device: &Device) -> Vec<(DType, f64)> {
    let halves = [
        (DType::F16, FloatDType::F16, 2e-3),
        (DType::BF16, FloatDType::BF16, 2e-2),
    ];
    let supported = |(_, float, _): &(DType, FloatDType, f64)| device.supports_dtype(*float);
    let halves = halves.into_iter().filter(supported);
    halves.map(|(dtype, _, room)| (dtype, room)).collect()
}

#[test]
fn types_stay_when_a_model_is_quantized_and_packed() {
    let device = device();
    let inputs = Inputs::new(&device);
    for (dtype, room) in halves(&device) {
        let zoo = Zoo::new(&device).map(&mut Cast(dtype));
        let multi_bit = quantizer().quantize(zoo.clone()).unwrap().0;
        assert_eq!(multi_bit.linear.weight.val().dtype(), dtype);
        assert_eq!(multi_bit.plain_conv.weight.val().dtype(), dtype);
        let given = inputs.clone().cast(dtype);
        let before = multi_bit.outputs(&given);
        let bits = PackedModel::pack(&multi_bit).unwrap();
        let packed = bits.apply(zoo.clone()).unwrap();
        let after = packed.outputs(&given);
        for (layer, output) in before.iter().chain(&after) {
            assert_eq!(output.dtype(), dtype, "{layer}");
        }
        // Sums of up to 108 products, at half precision before and in f32 after.
        assert_same(before, after.clone(), 8.0 * room);
        // The same in f32, on the numbers that half a float can hold.
        let exact = bits
            .apply(Zoo::new(&device))
            .unwrap()
            .map(&mut Cast(DType::F32));
        let given = given.cast(DType::F32);
        let ours = |outputs: Vec<(&'static str, TensorData)>| -> Vec<_> {
            let burns = |name: &str| name.starts_with("plain") || name == "column" || name == "up";
            outputs
                .into_iter()
                .filter(|(name, _)| !burns(name))
                .collect()
        };
        assert_same(ours(after), ours(exact.outputs(&given)), room);
    }
}

/// An activation's levels, from values and from bits.
#[test]
fn types_stay_between_activations_and_layers() {
    let device = device();
    let levels = Levels::new(0.7, &[0.5, 0.25]).unwrap();
    let activation = MultiBitActivation::with_levels(&levels, &device);
    for (dtype, _) in halves(&device) {
        let x = Inputs::new(&device).cast(dtype).x4;
        let values = activation.forward(x.clone());
        assert_eq!(values.clone().into_tensor().dtype(), dtype);
        assert_eq!(values.pack().into_tensor().dtype(), dtype);
        for arithmetic in [burn_alq::Arithmetic::Int8, burn_alq::Arithmetic::Bitwise] {
            let layer = MultiBitConv2dConfig::new([D, 5], [3, 3])
                .with_max_bits(2)
                .with_arithmetic(arithmetic)
                .init(&device);
            let layer = layer.map(&mut Cast(dtype));
            let layer = PackedModel::pack(&layer).unwrap().apply(layer).unwrap();
            let x = || activation.forward(x.clone());
            assert_eq!(layer.forward(x()).dtype(), dtype);
            assert_eq!(layer.forward(x().pack()).dtype(), dtype);
            let y = layer.forward_act(x(), None, None, &activation);
            assert_eq!(y.into_tensor().dtype(), dtype);
        }
        // In training too, where sums go beyond what half a float holds.
        let x = Tensor::<2>::ones([300, 300], (&device.clone().autodiff(), dtype)) * 2.0;
        let fitting = burn_alq::MultiBitActivationConfig::new(1).init(&device);
        let y = fitting.forward(x).into_tensor();
        assert_eq!(y.dtype(), dtype);
        let levels = fitting.valid().levels().expect("fitted");
        assert!(
            levels.values().iter().all(|level| level.is_finite()),
            "{levels:?}"
        );
    }
}

#[test]
fn a_model_of_half_floats_trains() {
    let device = device();
    for (dtype, room) in halves(&device) {
        // Cast before it trains, so that its parameters are leaves.
        let zoo = Zoo::new(&device).map(&mut Cast(dtype)).train();
        let mut zoo = quantizer().quantize(zoo).unwrap().0;
        let mut optimizer = AlqOptimizerConfig::new().init_with(SgdConfig::new().init());
        let x = Inputs::new(&device.clone().autodiff()).cast(dtype).x2;
        let x = x.detach();
        let loss =
            |zoo: &Zoo| (zoo.plain.forward(x.clone()) + zoo.linear.forward(x.clone())).mean();
        let before = zoo.linear.weight.val().into_data();
        let prune = Phase::Prune(Budget {
            cost: Cost::Coordinates,
            at_most: total(&sizes(&zoo), Cost::Coordinates) as f64 - 1.0,
            top_k: 1.0,
            loss_share: 1.0,
            floor: 0.0,
        });
        for phase in [Phase::Basis, Phase::Coordinate, prune, Phase::Ste] {
            optimizer.set_phase(phase);
            let grads = GradientsParams::from_grads(loss(&zoo).backward(), &zoo);
            zoo = optimizer.step(1e-2, zoo, grads);
            let weight = &zoo.linear.weight;
            assert_eq!(weight.val().dtype(), dtype, "{phase:?}");
            // The value is what the state stands for, in the model's type.
            let state = weight.reparameterization::<MultiBit>().expect("a state");
            let state = burn_alq::MultiBitData::from_module(state, &[D, 5]).unwrap();
            let value: Vec<f32> = weight.val().into_data().iter().collect();
            for (found, expected) in value.iter().zip(state.reconstruct()) {
                let close = f64::from(found - expected).abs() <= room * f64::from(expected.abs());
                assert!(close, "{phase:?}: {found} is not {expected}");
            }
        }
        assert_ne!(zoo.linear.weight.val().into_data(), before);
    }
}
