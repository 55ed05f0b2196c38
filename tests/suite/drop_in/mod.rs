//! One model compiled twice: with the layers of `burn::nn`, and with ours in their place.

mod models;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Int, Tensor, TensorData};
use burn_alq::file::Coding;
use burn_alq::quantize::{Action, load_float};
use burn_alq::{
    AlqOptimizerConfig, Arithmetic, GroupingRule, Layout, MultiBitActivation, MultiBitLinearConfig,
    PackedModel, PathPattern, Phase, Quantizer, sizes,
};
use multibit::cpu::Levels;

use self::models::{D, HEADS, Outputs, burns, numbers, ours};
use crate::any_model::everything;
use crate::devices::device;
use crate::reader;
use crate::support::{assert_near, panic_of, values};

/// Compares two models' outputs, all within a room.
fn assert_outputs(found: Outputs, expected: Outputs, room: f32, what: &str) {
    assert_eq!(found.len(), expected.len());
    for ((name, found), (_, expected)) in found.into_iter().zip(expected) {
        println!("{what}: {name}");
        assert_eq!(found.shape(), expected.shape(), "{what}: {name}");
        let [found, expected] = [found, expected].map(|data| data.try_into_vec::<f32>().unwrap());
        assert_near(&found, &expected, room);
    }
}

/// A quantizer of everything, which says an arithmetic too.
fn said(arithmetic: Arithmetic) -> Quantizer {
    Quantizer::new(3)
        .rule(PathPattern::glob("**"), GroupingRule::Channelwise)
        .arithmetic(arithmetic)
}

#[test]
fn a_changed_use_line_changes_nothing_else() {
    let device = device();
    for (ours, burns) in ours::configs().into_iter().zip(burns::configs()) {
        assert_eq!(ours, burns);
    }
    for norm_first in [false, true] {
        let burns = burns::Language::new(&device, norm_first);
        let expected = burns.outputs(&device);
        let record = burns.clone().into_record();
        let ours = ours::Language::new(&device, norm_first).load_record(record);
        assert_eq!(ours.to_string(), burns.to_string());
        assert_outputs(ours.outputs(&device), expected.clone(), 0.0, "loaded");
        let fresh = burns::Language::new(&device, norm_first);
        let back = fresh.load_record(ours.into_record());
        assert_outputs(back.outputs(&device), expected, 0.0, "and back");
    }
    let burns = burns::Vision::new(&device);
    let record = burns.clone().into_record();
    let ours = ours::Vision::new(&device).load_record(record);
    let expected = burns.outputs(&device);
    assert_eq!(ours.to_string(), burns.to_string());
    assert_outputs(ours.outputs(&device), expected.clone(), 0.0, "loaded");
    let back = burns::Vision::new(&device).load_record(ours.into_record());
    assert_outputs(back.outputs(&device), expected, 0.0, "and back");
}

/// The largest difference of two models' outputs, by layer.
fn differences(left: Outputs, right: Outputs) -> Vec<(&'static str, f32)> {
    let pairs = left.into_iter().zip(right);
    let difference = |(left, right): (TensorData, TensorData)| {
        let pairs = left.iter::<f32>().zip(right.iter::<f32>());
        pairs.fold(0.0_f32, |most, (left, right)| {
            most.max((left - right).abs())
        })
    };
    pairs
        .map(|((name, left), (_, right))| (name, difference((left, right))))
        .collect()
}

/// What `model` gives on its bits is what it gives on the unpacked weights, in the place of Burn's layers
/// and in Burn's.
macro_rules! packed_is_unpacked {
    ($model:expr, $fresh:expr, $burns:expr, $unpacked:expr) => {{
        let device = device();
        let (model, _) = said(Arithmetic::Int8).quantize($model).unwrap();
        let packed = PackedModel::pack(&model).unwrap();
        let expected = model.materialize().outputs(&device);
        // Sums in another order, through at most four layers of a transformer.
        let exact = packed.apply_with($fresh, Arithmetic::Exact).unwrap();
        assert_outputs(exact.outputs(&device), expected.clone(), 1e-4, "exact");
        let burns = packed.apply($burns).unwrap();
        assert_outputs(burns.outputs(&device), expected.clone(), 1e-5, "Burn's");
        // Inputs of each layer are rounded to 1/254 of their largest.
        let int8 = packed.apply($fresh).unwrap().outputs(&device);
        assert_outputs(int8.clone(), expected.clone(), 0.15, "int8");
        // Which shows that it was the bits that were computed on.
        for (name, difference) in differences(int8, expected) {
            assert_eq!(difference == 0.0, $unpacked.contains(&name), "{name}");
        }
    }};
}

#[test]
fn packed_they_run_on_the_bits() {
    let device = device();
    let language = || ours::Language::new(&device, false);
    packed_is_unpacked!(
        language(),
        language(),
        burns::Language::new(&device, false),
        ["table"]
    );
    let vision = || ours::Vision::new(&device);
    packed_is_unpacked!(vision(), vision(), burns::Vision::new(&device), ["up1d"]);
}

#[test]
fn decoding_token_by_token_gives_the_same() {
    let device = device();
    for norm_first in [false, true] {
        let burns = burns::Language::new(&device, norm_first);
        let ours = ours::Language::new(&device, norm_first);
        let ours = ours.load_record(burns.clone().into_record());
        let [steps, _] = burns.decoded_twice(&device);
        let [found, whole] = ours.decoded_twice(&device);
        assert_outputs(found.clone(), steps, 0.0, "Burn's steps");
        // Sums in another order, through two layers of a transformer.
        assert_outputs(found, whole, 1e-4, "at once");
        let (model, _) = everything().quantize(ours).unwrap();
        let packed = PackedModel::pack(&model).unwrap();
        let packed = packed.apply(ours::Language::new(&device, norm_first));
        let [found, whole] = packed.unwrap().decoded_twice(&device);
        assert_outputs(found, whole, 1e-4, "packed");
    }
}

#[test]
fn they_train_by_alq() {
    let device = device();
    let training = device.clone().autodiff();
    let model = ours::Language::new(&training, true);
    let (mut model, report) = everything().quantize(model).unwrap();
    // Two linear layers for each gate of the recurrent layers, four for each attention, and so on.
    let gates = 2 * (3 + 8 + 3 + 6 + 1 + 2);
    assert_eq!(
        report.quantized().count(),
        1 + 2 * 6 + 2 * 10 + 4 + 4 + 2 + gates + 1
    );
    let mut optimizer = AlqOptimizerConfig::new().init();
    let loss = |model: &ours::Language| {
        let input =
            burn_alq::nn::transformer::TransformerEncoderInput::new(model.embedded(&training));
        let output = model.encoder.forward(input);
        (output.clone() - numbers([2, 5, D], &training))
            .powi_scalar(2)
            .mean()
    };
    let first = loss(&model).into_scalar::<f32>();
    for phase in [Phase::Basis, Phase::Coordinate] {
        optimizer.set_phase(phase);
        for _ in 0..3 {
            let gradients = loss(&model).backward();
            let gradients = GradientsParams::from_grads(gradients, &model);
            model = optimizer.step(1e-3, model, gradients);
        }
    }
    let last = loss(&model).into_scalar::<f32>();
    assert!(last < first, "{last} is not below {first}");
    assert!(sizes(&model).len() > gates);
    let packed = PackedModel::pack(&model).unwrap();
    let expected = model.valid().materialize().outputs(&device);
    let packed = packed.apply(ours::Language::new(&device, true)).unwrap();
    assert_outputs(packed.outputs(&device), expected, 1e-4, "trained");
}

#[test]
fn the_file_holds_the_arithmetic() {
    let device = device();
    let rules = r#"
        [[weights]]
        glob = "**"
        grouping = "channelwise"
        arithmetic = "int8"

        [[weights]]
        glob = "head.**"
        grouping = "channelwise"
    "#;
    let rules: burn_alq::Rules = toml::from_str(rules).unwrap();
    let again: burn_alq::Rules = toml::from_str(&toml::to_string(&rules).unwrap()).unwrap();
    assert_eq!(again, rules);
    let (model, _) = Quantizer::from(rules)
        .quantize(ours::Language::new(&device, true))
        .unwrap();
    // It survives what a training does.
    let model = model.fork(&device.clone().autodiff()).train().valid();
    let fresh = Quantizer::from(again).quantize(ours::Language::new(&device, true));
    let model = fresh.unwrap().0.load_record(model.into_record());
    let float = model.clone().materialize().into_record();
    let (model, _) = load_float(model, float).unwrap();
    let packed = PackedModel::pack(&model).unwrap();
    let query = packed.arithmetic.get("cross.query.weight");
    assert_eq!(query, Some(&Arithmetic::Int8));
    assert_eq!(packed.arithmetic.get("head.weight"), None);
    for coding in [Coding::Plain, Coding::Deflate] {
        let bytes = packed.to_bytes_with(coding).unwrap();
        let read = PackedModel::from_bytes(bytes.clone(), "memory").unwrap();
        assert_eq!(read, packed);
        for weight in reader::read(&bytes).unwrap().weights {
            let said = if weight.path == "head.weight" {
                None
            } else {
                Some(1)
            };
            assert_eq!(weight.arithmetic, said, "{}", weight.path);
        }
    }
    let int8 = packed.apply(ours::Language::new(&device, true)).unwrap();
    let shown = int8.to_string();
    assert!(shown.contains("packed, arithmetic: Int8"), "{shown}");
    let exact = packed.apply_with(ours::Language::new(&device, true), Arithmetic::Exact);
    let exact = exact.unwrap().outputs(&device);
    for (name, difference) in differences(int8.outputs(&device), exact) {
        assert_eq!(difference == 0.0, name == "table", "{name}");
    }
    let wrong = "[[weights]]\nglob = '**'\ngrouping = 'channelwise'\narithmetic = 'int4'";
    let error = toml::from_str::<burn_alq::Rules>(wrong)
        .unwrap_err()
        .to_string();
    assert!(error.contains("unknown arithmetic `int4`"), "{error}");
}

/// What a rule says of a weight comes before what its layer was made with.
#[test]
fn a_rule_comes_before_a_layers_own_arithmetic() {
    let device = device();
    let layer = || MultiBitLinearConfig::new(D, 5).init_float(&device);
    let (layer, _) = said(Arithmetic::Int8).quantize(layer()).unwrap();
    let packed = PackedModel::pack(&layer).unwrap();
    let rounded = packed.apply(layer.clone()).unwrap();
    assert!(
        rounded.to_string().contains("arithmetic: Int8"),
        "{rounded}"
    );
    let exact = packed.apply_with(layer, Arithmetic::Exact).unwrap();
    let x = numbers([3, D], &device);
    assert_ne!(values(rounded.forward(x.clone())), values(exact.forward(x)));
}

/// A weight that is cut across outputs cannot be run on; its layer unpacks it.
#[test]
fn a_weight_cut_across_outputs_is_unpacked() {
    use burn_alq::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};

    #[derive(Module, Debug)]
    struct Net {
        table: Embedding,
        linear: Linear,
    }

    let device = device();
    let new = || Net {
        table: EmbeddingConfig::new(6, D).init(&device),
        linear: LinearConfig::new(D, 5).init(&device),
    };
    let across = |path, layout| {
        let action = Action::Quantize {
            grouping: GroupingRule::Channelwise,
            max_bits: None,
            layout: Some(layout),
            or_float: false,
            arithmetic: Some(Arithmetic::Int8),
        };
        (PathPattern::exact(path), action)
    };
    let (path, action) = across("table.weight", Layout::Direct);
    let quantizer = Quantizer::new(3).with(path, action);
    let (path, action) = across("linear.weight", Layout::Transposed);
    let (net, _) = quantizer.with(path, action).quantize(new()).unwrap();
    let packed = PackedModel::pack(&net).unwrap().apply(new()).unwrap();
    let forward = |net: &Net| {
        let words = Tensor::<2, Int>::from_data([[1, 5, 0]], &device);
        values(net.linear.forward(net.table.forward(words)))
    };
    // Rounding to int8 would change more.
    assert_near(&forward(&packed), &forward(&net), 1e-5);
}

/// Bitwise arithmetic takes what an activation gives, and names the layer that was given anything else.
#[test]
fn bitwise_takes_bits() {
    use burn_alq::nn::{Linear, LinearConfig};
    let device = device();
    let layer = || LinearConfig::new(D, 5).init(&device);
    let (layer, packed) = {
        let (layer, _) = said(Arithmetic::Bitwise).quantize(layer()).unwrap();
        (layer.clone(), PackedModel::pack(&layer).unwrap())
    };
    let packed: Linear = packed.apply(LinearConfig::new(D, 5).init(&device)).unwrap();
    let levels = Levels::new(0.4, &[0.5, 0.25]).unwrap();
    let input = MultiBitActivation::with_levels(&levels, &device).forward(numbers([3, D], &device));
    let expected = layer.forward(input.clone()).into_data();
    let found = packed.forward(input).into_data();
    let [found, expected] = [found, expected].map(|data| data.try_into_vec::<f32>().unwrap());
    // A sum of a few dozen products near 1 in another order.
    assert_near(&found, &expected, 1e-5);
    let plain = numbers([3, D], &device);
    let message = panic_of(move || drop(packed.forward(plain)));
    assert!(
        message.starts_with("Linear: bitwise arithmetic needs"),
        "{message}"
    );
}

#[test]
fn what_does_not_fit_is_named() {
    use burn_alq::nn::attention::{MhaInput, MultiHeadAttentionConfig};
    use burn_alq::nn::transformer::{TransformerEncoderConfig, TransformerEncoderInput};
    let device = device();
    let attention = MultiHeadAttentionConfig::new(D, HEADS).init(&device);
    let x = numbers([2, 5, D], &device);
    let input = || MhaInput::self_attn(x.clone());
    let attend = |input: MhaInput| panic_of(|| drop(attention.forward(input)));
    let pad = |shape| Tensor::<2>::zeros(shape, &device).bool();
    let attn = |shape| Tensor::<3>::zeros(shape, &device).bool();
    assert_eq!(
        attend(input().mask_pad(pad([2, 4]))),
        "MultiHeadAttention: axis 1 of mask_pad (seq_length_2) must be 5, or 1, not 4"
    );
    assert_eq!(
        attend(input().mask_attn(attn([3, 5, 5]))),
        "MultiHeadAttention: axis 0 of mask_attn (batch) must be 2, or 1, not 3"
    );
    assert_eq!(
        attend(input().mask_attn(attn([2, 6, 5]))),
        "MultiHeadAttention: axis 1 of mask_attn (seq_length_1) must be 5, or 1, not 6"
    );
    let message = attend(MhaInput::self_attn(numbers([2, 5, D + 1], &device)));
    assert!(message.contains("axis 2 expected 24, got 25"), "{message}");
    let message = panic_of(|| drop(MultiHeadAttentionConfig::new(D, 5).init(&device)));
    assert!(
        message.contains("a `d_model` of 24 does not fall into 5 `n_heads`"),
        "{message}"
    );

    let encoder = |layers| TransformerEncoderConfig::new(D, D, HEADS, layers).init(&device);
    let (one, two) = (encoder(1), encoder(2));
    let mut cache = two.new_autoregressive_cache();
    let input = TransformerEncoderInput::new(x.clone());
    let message = panic_of(|| drop(one.forward_autoregressive_inference(input, &mut cache)));
    assert!(message.contains("another number of layers"), "{message}");

    let wide = TransformerEncoderConfig::new(2 * D, D, HEADS, 1).init(&device);
    let error = wide
        .clone()
        .try_load_record(one.clone().into_record())
        .unwrap_err();
    assert!(error.to_string().contains("layers.0"), "{error}");
    let (one, _) = everything().quantize(one).unwrap();
    let error = PackedModel::pack(&one).unwrap().apply(wide).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("layers.0.mha.query.weight has shape [24, 24]"),
        "{text}"
    );
}
