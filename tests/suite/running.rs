//! What users do with a packed model: records, moves, types, empty inputs, adapters, Burn's layers.

use burn::module::{Lora, Module, ModuleMapper, Param, ParamGroup};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, Linear, LinearConfig, LinearLayout,
};
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_alq::{
    GroupingRule, MultiBitActivation, MultiBitConv1d, MultiBitConv1dConfig, MultiBitConv2d,
    MultiBitConv2dConfig, MultiBitConvTranspose2d, MultiBitConvTranspose2dConfig,
    MultiBitEmbedding, MultiBitEmbeddingConfig, MultiBitLinear, MultiBitLinearConfig, PackedModel,
    PathPattern, Quantizer, Unpacking,
};
use burn_core::store::{ModuleRecord, RecordError};
use multibit::cpu::Levels;

use crate::MEMORY;
use crate::devices::{device, device_name};
use crate::support::{Random, alone, assert_says, panic_of};

/// Every kind of layer, ours and Burn's.
#[derive(Module, Debug)]
pub struct Zoo {
    pub linear: MultiBitLinear,
    pub conv1d: MultiBitConv1d,
    pub conv2d: MultiBitConv2d,
    pub up: MultiBitConvTranspose2d,
    pub table: MultiBitEmbedding,
    pub norm: BatchNorm,
    pub plain: Linear,
    pub column: Linear,
    pub plain_conv: Conv2d,
    pub plain_table: Embedding,
}

pub const D: usize = 12;
const TOKENS: usize = 9;

impl Zoo {
    pub fn new(device: &Device) -> Self {
        Self {
            linear: MultiBitLinearConfig::new(D, 5).init_float(device),
            conv1d: MultiBitConv1dConfig::new(D, 5, 3).init_float(device),
            conv2d: MultiBitConv2dConfig::new([D, 5], [3, 3]).init_float(device),
            up: MultiBitConvTranspose2dConfig::new([D, 5], [2, 2]).init_float(device),
            table: MultiBitEmbeddingConfig::new(TOKENS, D).init_float(device),
            norm: BatchNormConfig::new(5).init(device),
            plain: LinearConfig::new(D, 5).init(device),
            // Square: Burn loads no other into a layer of columns that has its weight.
            column: LinearConfig::new(D, D)
                .with_layout(LinearLayout::Col)
                .init(device),
            plain_conv: Conv2dConfig::new([D, 5], [3, 3]).init(device),
            plain_table: EmbeddingConfig::new(TOKENS, D).init(device),
        }
    }

    /// What each layer gives for the same numbers.
    pub fn outputs(&self, input: &Inputs) -> Vec<(&'static str, TensorData)> {
        let Inputs { x2, x3, x4, tokens } = input.clone();
        vec![
            (
                "linear",
                self.linear.forward(x3.clone().swap_dims(1, 2)).into_data(),
            ),
            (
                "norm",
                self.linear.forward_norm(x2.clone(), &self.norm).into_data(),
            ),
            ("conv1d", self.conv1d.forward(x3).into_data()),
            ("conv2d", self.conv2d.forward(x4.clone()).into_data()),
            (
                "conv2d, norm",
                self.conv2d.forward_norm(x4.clone(), &self.norm).into_data(),
            ),
            ("up", self.up.forward(x4.clone()).into_data()),
            ("table", self.table.forward(tokens.clone()).into_data()),
            ("plain", self.plain.forward(x2.clone()).into_data()),
            ("column", self.column.forward(x2).into_data()),
            ("plain_conv", self.plain_conv.forward(x4).into_data()),
            ("plain_table", self.plain_table.forward(tokens).into_data()),
        ]
    }
}

#[derive(Clone)]
pub struct Inputs {
    pub x2: Tensor<2>,
    pub x3: Tensor<3>,
    pub x4: Tensor<4>,
    pub tokens: Tensor<2, Int>,
}

impl Inputs {
    pub fn new(device: &Device) -> Self {
        let mut random = Random::new(23);
        let mut values = |count: usize| -> Vec<f32> {
            random
                .normals(count, 1.0)
                .iter()
                .map(|&x| x as f32)
                .collect()
        };
        Self {
            x2: Tensor::from_data(TensorData::new(values(2 * D), [2, D]), device),
            x3: Tensor::from_data(TensorData::new(values(2 * D * 7), [2, D, 7]), device),
            x4: Tensor::from_data(TensorData::new(values(2 * D * 20), [2, D, 4, 5]), device),
            tokens: Tensor::from_ints([[0, 8, 3], [3, 1, 0]], device),
        }
    }

    pub fn cast(self, dtype: DType) -> Self {
        Self {
            x2: self.x2.cast(dtype),
            x3: self.x3.cast(dtype),
            x4: self.x4.cast(dtype),
            tokens: self.tokens,
        }
    }
}

pub fn quantizer() -> Quantizer {
    Quantizer::new(2).rule(PathPattern::glob("**weight"), GroupingRule::Channelwise)
}

pub fn zoo_packed(device: &Device) -> PackedModel {
    PackedModel::pack(&quantizer().quantize(Zoo::new(device)).unwrap().0).unwrap()
}

/// # Panics
/// If some output is another one.
pub fn assert_same(found: Vec<(&str, TensorData)>, expected: Vec<(&str, TensorData)>, room: f64) {
    for ((layer, found), (_, expected)) in found.into_iter().zip(expected) {
        assert_eq!(found.shape(), expected.shape(), "{layer}");
        for (found, expected) in found.iter::<f64>().zip(expected.iter::<f64>()) {
            let close = (found - expected).abs() <= room * (1.0 + expected.abs());
            assert!(close, "{layer}: {found} is not {expected}");
        }
    }
}

fn reread(record: ModuleRecord) -> ModuleRecord {
    ModuleRecord::from_bytes(record.into_bytes().unwrap()).unwrap()
}

fn refused<M>(result: Result<M, RecordError>) -> String {
    match result {
        Ok(_) => panic!("the record was taken"),
        Err(error) => error.to_string(),
    }
}

/// Burn's record of a packed model, into each kind of model.
#[test]
fn a_record_of_a_packed_model_is_that_model_or_refused() {
    let device = device();
    let inputs = Inputs::new(&device);
    let bits = zoo_packed(&device);
    let packed = bits.apply(Zoo::new(&device)).unwrap();
    let expected = packed.outputs(&inputs);
    let record = || reread(packed.clone().into_record());

    let again = bits.apply(Zoo::new(&device)).unwrap();
    let again = again.try_load_record(record()).unwrap();
    assert_same(again.outputs(&inputs), expected.clone(), 0.0);

    let error = refused(Zoo::new(&device).try_load_record(record()));
    assert_says(&error, &["Unused", "linear.weight.packed.bits"]);
    // Whoever waves the bits through has the weights that they stand for.
    let float = Zoo::new(&device).load_record(record().allow_unused(true));
    assert_same(float.outputs(&inputs), expected, 1e-4);

    let multi_bit = quantizer().quantize(Zoo::new(&device)).unwrap().0;
    let error = refused(multi_bit.try_load_record(record()));
    assert_says(&error, &["Missing", "linear.weight.multi_bit.codes"]);

    let other = zoo_packed(&device).apply(Zoo::new(&device)).unwrap();
    let other = other.try_load_record(record()).unwrap();
    let said = panic_of(|| other.linear.forward(inputs.x2.clone()));
    assert_says(&said, &["linear.weight", "PackedModel::apply"]);
    let said = panic_of(|| other.plain.forward(inputs.x2.clone()));
    assert_says(&said, &["plain.weight", "PackedModel::apply"]);
}

/// Records of other models, into a packed one.
#[test]
fn a_packed_model_takes_no_other_record() {
    let device = device();
    let inputs = Inputs::new(&device);
    let packed = zoo_packed(&device).apply(Zoo::new(&device)).unwrap();
    let float = Zoo::new(&device);
    let multi_bit = quantizer().quantize(Zoo::new(&device)).unwrap().0;

    let error = refused(packed.clone().try_load_record(float.clone().into_record()));
    assert_says(&error, &["Missing", "linear.weight.packed.bits"]);
    let error = refused(
        packed
            .clone()
            .try_load_record(multi_bit.clone().into_record()),
    );
    assert_says(&error, &["linear.weight.packed.bits"]);

    let records = [float.into_record(), multi_bit.into_record()];
    for record in records {
        let record = record.allow_partial(true).allow_unused(true);
        let loaded = packed.clone().try_load_record(record).unwrap();
        let layers: [(&str, &dyn Fn()); 5] = [
            ("linear.weight", &|| {
                drop(loaded.linear.forward(inputs.x2.clone()))
            }),
            ("conv2d.weight", &|| {
                drop(loaded.conv2d.forward(inputs.x4.clone()))
            }),
            ("up.weight", &|| drop(loaded.up.forward(inputs.x4.clone()))),
            ("table.weight", &|| {
                drop(loaded.table.forward(inputs.tokens.clone()))
            }),
            ("plain.weight", &|| {
                drop(loaded.plain.forward(inputs.x2.clone()))
            }),
        ];
        for (path, forward) in layers {
            assert_says(&panic_of(forward), &[path, "PackedModel::apply"]);
        }
    }
    // Of the model that was cloned nothing has changed.
    packed.outputs(&inputs);
}

#[test]
fn a_packed_model_is_saved_and_loaded_by_burn() {
    let device = device();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zoo.bpk");
    let inputs = Inputs::new(&device);
    let bits = zoo_packed(&device);
    let mut packed = bits.apply(Zoo::new(&device)).unwrap();
    packed.linear.bias = Some(Param::from_tensor(Tensor::ones([5], &device)));
    packed.clone().save_file(&file).unwrap();
    let loaded = bits.apply(Zoo::new(&device)).unwrap().load_file(&file);
    assert_same(loaded.outputs(&inputs), packed.outputs(&inputs), 0.0);
}

#[test]
fn what_modules_do_keeps_a_packed_model() {
    let device = device();
    let inputs = Inputs::new(&device);
    for unpacking in [Unpacking::Once, Unpacking::EachUse] {
        let packed = zoo_packed(&device);
        let packed = packed.apply_with(Zoo::new(&device), unpacking).unwrap();
        let expected = packed.outputs(&inputs);
        let same = |zoo: Zoo, room: f64| assert_same(zoo.outputs(&inputs), expected.clone(), room);
        same(packed.clone(), 0.0);
        same(packed.clone().to_device(&device), 0.0);
        same(packed.clone().fork(&device), 0.0);
        same(packed.valid(), 0.0);
        same(packed.clone().train().valid(), 0.0);
        same(packed.clone().no_grad(), 0.0);
        same(packed.clone().freeze().unfreeze().valid(), 0.0);

        let training = packed.clone().train();
        let autodiff = device.clone().autodiff();
        let norm = training.norm.clone();
        assert_same(
            Zoo { norm, ..training }.valid().outputs(&inputs),
            expected.clone(),
            0.0,
        );
        let x = Tensor::<2>::ones([2, D], &autodiff).require_grad();
        let grads = packed
            .clone()
            .train()
            .plain
            .forward(x.clone())
            .sum()
            .backward();
        assert!(
            x.grad(&grads).is_some(),
            "gradients pass through the dense weight"
        );

        let dense = packed.clone().materialize();
        assert!(
            dense
                .linear
                .weight
                .reparameterization::<burn_alq::Packed>()
                .is_none()
        );
        same(dense.clone(), 1e-4);
        // What was materialized is a float model again: what is put into it is what it records.
        let float = Zoo::new(&device);
        let dense = dense.load_record(float.clone().into_record());
        assert_same(dense.outputs(&inputs), float.outputs(&inputs), 0.0);
        let dense = Zoo::new(&device).load_record(reread(dense.into_record()));
        assert_same(dense.outputs(&inputs), float.outputs(&inputs), 0.0);
    }
}

/// What is over a parameter's value is seen by nobody: it is refused.
#[test]
fn another_value_of_a_packed_weight_is_refused() {
    /// Draws new weights.
    struct Fill;

    impl ModuleMapper for Fill {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value.ones_like())
        }
    }

    let device = device();
    let packed = zoo_packed(&device).apply(Zoo::new(&device)).unwrap();
    let filled = packed.map(&mut Fill);
    let said = panic_of(|| filled.linear.forward(Tensor::<2>::ones([1, D], &device)));
    assert_says(&said, &["linear.weight", "another value"]);
    let said = panic_of(|| filled.plain.forward(Tensor::<2>::ones([1, D], &device)));
    assert_says(&said, &["plain.weight", "another value"]);

    // Burn's own quantization has nothing to quantize there; other devices refuse these layers' shapes.
    if device_name() != "flex" {
        return;
    }
    let scheme = device.settings().quantization.scheme;
    let scheme = scheme.with_value(QuantValue::Q8S);
    let mut quantizer = burn::module::Quantizer::new(Calibration::MinMax, scheme);
    let packed = zoo_packed(&device).apply(Zoo::new(&device)).unwrap();
    let weights = ParamGroup::from_predicate("weight");
    let quantized = packed.quantize_weights_group(&mut quantizer, weights);
    let said = panic_of(|| quantized.linear.forward(Tensor::<2>::ones([1, D], &device)));
    assert_says(&said, &["linear.weight", "another value"]);
}

/// Burn drops an adapter on a weight that carries something already.
#[test]
fn an_adapter_on_a_packed_weight_is_refused() {
    let device = device();
    let packed = zoo_packed(&device).apply(Zoo::new(&device)).unwrap();
    let id = packed.linear.weight.id;
    let groups = [
        ParamGroup::all(),
        ParamGroup::from_predicate("linear"),
        ParamGroup::from_ids(vec![id]),
        ParamGroup::from_regex("linear.*").unwrap(),
    ];
    for group in groups {
        let lora = Lora::new(2, 4.0).set_param_group(group);
        let said = panic_of(|| packed.clone().apply_lora(lora));
        assert_says(&said, &["linear.weight", "lora", "ParamGroup"]);
    }

    // Beside packed weights, and on what they were.
    let quantizer = quantizer().keep_float(PathPattern::exact("plain.weight"));
    let bits = PackedModel::pack(&quantizer.quantize(Zoo::new(&device)).unwrap().0).unwrap();
    let packed = bits.apply(Zoo::new(&device)).unwrap();
    let inputs = Inputs::new(&device);
    let lora = Lora::new(2, 4.0).set_param_group(ParamGroup::from_predicate("plain.weight"));
    let adapted = packed.clone().apply_lora(lora);
    assert_same(adapted.outputs(&inputs), packed.outputs(&inputs), 1e-6);
    assert!(adapted.plain.weight.adapter().is_some());
    assert!(
        adapted
            .linear
            .weight
            .reparameterization::<burn_alq::Packed>()
            .is_some()
    );
    let dense = packed.materialize().apply_lora(Lora::new(2, 4.0));
    assert!(dense.linear.weight.adapter().is_some());
}

/// The same on a multi-bit weight, whose own state would carry what was meant for it; and what is packed
/// is not packed again.
#[test]
fn adapters_on_bits_and_packed_weights_are_not_packed() {
    let device = device();
    let multi_bit = quantizer().quantize(Zoo::new(&device)).unwrap().0;
    let adapted = multi_bit.clone().apply_lora(Lora::new(2, 4.0));
    let error = PackedModel::pack(&adapted).unwrap_err().to_string();
    assert_says(&error, &["linear.weight", "lora", "materialize"]);
    let packed = PackedModel::pack(&multi_bit)
        .unwrap()
        .apply(multi_bit)
        .unwrap();
    let error = PackedModel::pack(&packed).unwrap_err().to_string();
    assert_says(&error, &["linear.weight", "packed already"]);
}

/// Inputs without elements give what Burn's layers give, or would if they did not crash.
#[test]
fn empty_inputs_give_empty_outputs() {
    let device = device();
    let packed = zoo_packed(&device).apply(Zoo::new(&device)).unwrap();
    let dense = packed.clone().materialize();
    let zeros = |shape: [usize; 3]| Tensor::<3>::zeros(shape, &device);
    for shape in [[1, 0, D], [2, 0, D], [0, 2, D], [0, 0, D]] {
        let y = packed.linear.forward(zeros(shape));
        assert_eq!(y.dims(), [shape[0], shape[1], 5]);
        assert!(!y.device().is_autodiff());
    }
    let y = packed
        .linear
        .forward(Tensor::<4>::zeros([3, 1, 0, D], &device));
    assert_eq!(y.dims(), [3, 1, 0, 5]);
    let y = packed
        .linear
        .forward_norm(Tensor::<2>::zeros([0, D], &device), &packed.norm);
    assert_eq!(y.dims(), [0, 5]);
    for shape in [[1, 0], [0, 3], [0, 0]] {
        let tokens = Tensor::<2, Int>::zeros(shape, &device);
        let y = packed.table.forward(tokens.clone());
        assert_eq!(y.dims(), [shape[0], shape[1], D]);
        let y = packed.plain_table.forward(tokens.clone());
        assert_eq!(y.dims(), dense.plain_table.forward(tokens).dims());
    }
    let y = packed.conv1d.forward(zeros([0, D, 7]));
    assert_eq!(y.dims(), [0, 5, 5]);
    let images = || Tensor::<4>::zeros([0, D, 4, 5], &device);
    assert_eq!(packed.conv2d.forward(images()).dims(), [0, 5, 2, 3]);
    let y = packed.conv2d.forward_norm(images(), &packed.norm);
    assert_eq!(y.dims(), [0, 5, 2, 3]);
    let levels = Levels::new(0.7, &[0.5, 0.25]).unwrap();
    let activation = MultiBitActivation::with_levels(&levels, &device);
    let y = activation.forward(images());
    assert_eq!(y.clone().into_tensor().dims(), [0, D, 4, 5]);
    assert_eq!(y.pack().into_tensor().dims(), [0, D, 4, 5]);
    let y = packed
        .conv2d
        .forward_act(images(), Some(&packed.norm), None, &activation);
    assert_eq!(y.into_tensor().dims(), [0, 5, 2, 3]);
}

/// A device beside the suite's, where there is one.
fn another_device() -> Option<Device> {
    if device_name() != "flex" {
        return Some(Device::flex());
    }
    #[cfg(feature = "ndarray")]
    #[expect(deprecated, reason = "it is tested as long as Burn has it")]
    return Some(Device::ndarray());
    #[cfg(not(feature = "ndarray"))]
    None
}

#[test]
fn inputs_from_another_device_are_refused_and_models_move() {
    let Some(there) = another_device() else {
        println!("this build has one device");
        return;
    };
    let here = device();
    let packed = zoo_packed(&here).apply(Zoo::new(&here)).unwrap();
    let inputs = Inputs::new(&there);
    let layers: [(&str, &dyn Fn()); 5] = [
        ("MultiBitLinear", &|| {
            drop(packed.linear.forward(inputs.x2.clone()))
        }),
        ("MultiBitConv1d", &|| {
            drop(packed.conv1d.forward(inputs.x3.clone()))
        }),
        ("MultiBitConv2d", &|| {
            drop(packed.conv2d.forward(inputs.x4.clone()))
        }),
        ("MultiBitConvTranspose2d", &|| {
            drop(packed.up.forward(inputs.x4.clone()))
        }),
        ("MultiBitEmbedding", &|| {
            drop(packed.table.forward(inputs.tokens.clone()))
        }),
    ];
    for (layer, forward) in layers {
        assert_says(
            &panic_of(forward),
            &[layer, "the input is on", "the layer on"],
        );
    }
    let expected = packed.outputs(&Inputs::new(&here));
    let moved = packed.clone().to_device(&there);
    assert_same(moved.outputs(&inputs), expected.clone(), 1e-4);
    let back = moved.to_device(&here);
    assert_same(back.outputs(&Inputs::new(&here)), expected, 0.0);
}

/// Layers on bits make no dense weight; Burn's layers make one, once, or at each use.
#[test]
fn dense_weights_are_made_where_they_are_said_to_be() {
    /// Bytes of each weight in f32.
    const DENSE: usize = 4 << 20;

    #[derive(Module, Debug)]
    struct Two {
        bits: MultiBitLinear,
        dense: Linear,
    }

    if device_name() != "flex"
        || !alone("running::dense_weights_are_made_where_they_are_said_to_be")
    {
        return;
    }
    let device = Device::flex();
    let [d_in, d_out] = [512, DENSE / 4 / 512];
    let new = || Two {
        bits: MultiBitLinearConfig::new(d_in, d_out).init_float(&device),
        dense: LinearConfig::new(d_in, d_out).init(&device),
    };
    let bits = PackedModel::pack(&quantizer().quantize(new()).unwrap().0).unwrap();
    let x = Tensor::<2>::ones([1, d_in], &device);
    let peak = |call: &dyn Fn()| {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        call();
        (
            MEMORY.peak_usage() - before,
            MEMORY.current_usage().saturating_sub(before),
        )
    };
    for (unpacking, later) in [(Unpacking::Once, 0), (Unpacking::EachUse, 1)] {
        let two = bits.apply_with(new(), unpacking).unwrap();
        // With the kernel's own layout of the bits, of a 32th of the floats each.
        let (made, kept) = peak(&|| drop(two.bits.forward(x.clone())));
        assert!(
            made < DENSE / 2 && kept < DENSE / 4,
            "{unpacking:?}: {made}, {kept}"
        );
        let (made, kept) = peak(&|| drop(two.dense.forward(x.clone())));
        assert!(made >= DENSE, "{unpacking:?}: {made}");
        assert_eq!(
            kept >= DENSE,
            unpacking == Unpacking::Once,
            "{unpacking:?}: {kept}"
        );
        let (made, _) = peak(&|| drop(two.dense.forward(x.clone())));
        assert_eq!(
            made >= DENSE,
            later == 1,
            "{unpacking:?}: {made} at the second call"
        );
        // Clones and moves share what was made.
        let (made, _) = peak(&|| {
            let moved = two.clone().to_device(&device);
            drop(moved.bits.forward(x.clone()));
        });
        assert!(made < DENSE / 2, "{unpacking:?}: {made} for a move");
    }
    let (made, _) = peak(&|| drop(bits.apply(new()).unwrap()));
    assert!(made < DENSE / 2, "{made} to put the bits into a module");
}
