//! Whole models by path rules: any module of Burn's, rules as text, what is refused, and what
//! becomes of the converted model.

use burn::module::{Module, Param, ParamGroup, RunningState};
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{Conv1d, Conv1dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, Gru, GruConfig, LayerNorm,
    LayerNormConfig, Linear, LinearConfig, Lstm, LstmConfig,
};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_alq::quantize::{Action, Layout, Outcome, QuantizeError, RuleError, load_float};
use burn_alq::{
    AlqOptimizerConfig, CoordinateType, GroupingRule, MultiBitActivation, MultiBitLinear,
    MultiBitLinearConfig, PackedModel, PathPattern, Phase, Quantizer, Rules,
};

use crate::devices::device;
use crate::support::assert_close;

/// One of each of Burn's layers with weights, untouched.
#[derive(Module, Debug)]
struct Zoo {
    embedding: Embedding,
    attention: MultiHeadAttention,
    norm: LayerNorm,
    lstm: Lstm,
    gru: Gru,
    conv: Conv1d,
    batch_norm: BatchNorm,
    up: ConvTranspose2d,
    head: Linear,
}

impl Zoo {
    fn new(device: &Device) -> Self {
        Self {
            embedding: EmbeddingConfig::new(10, 8).init(device),
            attention: MultiHeadAttentionConfig::new(8, 2)
                .with_dropout(0.0)
                .init(device),
            norm: LayerNormConfig::new(8).init(device),
            lstm: LstmConfig::new(8, 6, true).init(device),
            gru: GruConfig::new(6, 4, true).init(device),
            conv: Conv1dConfig::new(4, 6, 3).init(device),
            batch_norm: BatchNormConfig::new(6).init(device),
            up: ConvTranspose2dConfig::new([6, 2], [2, 2]).init(device),
            head: LinearConfig::new(2 * 2 * 5, 3).init(device),
        }
    }

    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let x = self.embedding.forward(tokens);
        let x = self.attention.forward(MhaInput::self_attn(x)).context;
        let (x, _) = self.lstm.forward(self.norm.forward(x), None);
        let x = self.gru.forward(x, None).swap_dims(1, 2);
        let x = self.batch_norm.forward(self.conv.forward(x));
        let x = self.up.forward(x.unsqueeze_dim(2));
        self.head.forward(x.flatten(1, 3))
    }
}

fn tokens(device: &Device) -> Tensor<2, Int> {
    let indices = [[1, 2, 3, 4, 5, 6], [9, 8, 7, 0, 1, 2], [3, 3, 0, 5, 9, 9]];
    Tensor::from_ints(indices, device)
}

fn rules() -> Rules {
    toml::from_str(
        r#"
        max_bits = 4
        [[weights]]
        glob = "**.weight"
        grouping = "channelwise"
        [[weights]]
        path = "conv.weight"
        grouping = "pixelwise"
        max_bits = 2
        [[weights]]
        regex = '^(lstm|gru)\..*input_transform\.weight$'
        grouping = "subchannelwise"
        subchannels = 2
        [[weights]]
        glob = "he?d.*"
        keep_float = true
        "#,
    )
    .unwrap()
}

#[test]
fn any_module_converts_trains_records_packs_and_materializes() {
    let device = device();
    let train = device.clone().autodiff();
    let (net, report) = Quantizer::from(rules()).quantize(Zoo::new(&train)).unwrap();
    let outcome = |path: &str| {
        let mut found = report.parameters.iter();
        found.find(|(found, ..)| found == path).unwrap().2.clone()
    };
    let Outcome::Quantized(conv) = outcome("conv.weight") else {
        panic!("the convolution is converted");
    };
    assert_eq!((conv.grouping.as_str(), conv.max_bits), ("pixelwise", 2));
    // An embedding's outputs are its rows, a transposed convolution's are its axis 1.
    for (path, grouping, groups) in [
        ("embedding.weight", "subchannelwise(1), transposed", 10),
        ("up.weight", "channelwise, transposed", 2),
        ("attention.query.weight", "subchannelwise(1)", 8),
        (
            "lstm.input_gate.input_transform.weight",
            "subchannelwise(2)",
            12,
        ),
    ] {
        let Outcome::Quantized(converted) = outcome(path) else {
            panic!("{path} is converted");
        };
        assert_eq!(converted.grouping, grouping, "{path}");
        assert_eq!(converted.groups, groups, "{path}");
        assert!(converted.relative_error < 0.5, "{path}: {converted:?}");
    }
    assert!(matches!(outcome("head.weight"), Outcome::KeptFloat { .. }));
    assert_eq!(outcome("norm.gamma"), Outcome::LowRank);
    assert_eq!(outcome("conv.bias"), Outcome::LowRank);
    let table = report.to_markdown();
    assert!(table.contains("| float: rule 4 (glob `he?d.*`)"), "{table}");
    let plain = Zoo::new(&device);
    let count = plain.into_record().len();
    assert_eq!(report.parameters.len(), count, "every parameter is listed");

    // Trains: one step moves the weights, the loss falls over some.
    let mut net = net;
    let mut optimizer = AlqOptimizerConfig::new().init();
    optimizer.set_phase(Phase::Basis);
    let mut losses = Vec::new();
    for _ in 0..6 {
        let error = net.forward(tokens(&train)) - 1.0;
        let loss = (error.clone() * error).mean();
        losses.push(loss.clone().into_scalar::<f32>());
        let grads = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(5e-3, net, grads);
    }
    assert!(losses[5] < losses[0], "{losses:?}");

    // Records, moves, and changes modes with the same output.
    let valid = net.valid();
    let expected = valid.forward(tokens(&device)).into_data();
    let fresh = Quantizer::from(rules())
        .quantize(Zoo::new(&device))
        .unwrap()
        .0;
    let loaded = fresh.load_record(valid.clone().into_record());
    let same = |zoo: &Zoo, what: &str| {
        let found = zoo.forward(tokens(&device)).into_data();
        assert_close(found, expected.clone(), what);
    };
    same(&loaded, "a record");
    same(&valid.clone().train().valid(), "train and valid");
    same(&valid.clone().to_device(&device), "a device");
    same(&valid.clone().materialize(), "a plain model");
    let plain = Zoo::new(&device).load_record(valid.clone().materialize().into_record());
    same(&plain, "a plain model's record");

    let packed = PackedModel::pack(&net).unwrap();
    let packed = PackedModel::from_bytes(packed.to_bytes().unwrap(), "zoo").unwrap();
    let packed = packed.apply(Zoo::new(&device)).unwrap();
    // The same sums over weights that differ by the rounding of their own sums.
    same(&packed, "the bits");
}

#[test]
fn rules_survive_their_file() {
    let text = toml::to_string(&rules()).unwrap();
    assert_eq!(toml::from_str::<Rules>(&text).unwrap(), rules());
    let defaults: Rules = toml::from_str("").unwrap();
    assert_eq!(defaults.max_bits, 6);
    assert_eq!(defaults.coordinate_type, CoordinateType::F32);
    let half: Rules = toml::from_str("coordinate_type = \"f16\"").unwrap();
    assert_eq!(half.coordinate_type, CoordinateType::F16);
    let text = toml::to_string(&half).unwrap();
    assert_eq!(toml::from_str::<Rules>(&text).unwrap(), half);
    let error = toml::from_str::<Rules>("coordinate_type = \"f8\"").unwrap_err();
    assert!(
        error.to_string().contains("`f32`, `f16`, `bf16`"),
        "{error}"
    );
}

/// What is converted without training is fitted to coordinates as they will be stored: nothing is
/// left to round, and hardly anything is lost.
#[test]
fn coordinates_of_two_bytes_need_no_training() {
    let device = device();
    let zoo = Zoo::new(&device);
    let quantizer = Quantizer::from(Rules {
        max_bits: 6,
        ..rules()
    });
    let converted = |kind| {
        let quantizer = quantizer.clone().coordinate_type(kind);
        let (net, report) = quantizer.quantize(zoo.clone()).unwrap();
        let errors = report.parameters.iter().map(|(.., outcome)| match outcome {
            Outcome::Quantized(weight) => weight.relative_error,
            _ => 0.0,
        });
        (PackedModel::pack(&net).unwrap(), errors.sum::<f64>())
    };
    let (float, error) = converted(CoordinateType::F32);
    let bytes = float.to_bytes().unwrap().len();
    for kind in [CoordinateType::F16, CoordinateType::Bf16] {
        float.clone().with_coordinate_type(kind).unwrap_err();
        let (packed, rounded) = converted(kind);
        // bf16 has eight bits of a coordinate.
        assert!(rounded < 1.3 * error, "{kind}: {rounded} after {error}");
        let packed = packed.with_coordinate_type(kind).unwrap();
        let packed = packed.to_bytes().unwrap();
        assert!(packed.len() < bytes, "{kind}");
        let loaded = PackedModel::from_bytes(packed, "zoo").unwrap();
        loaded.apply(Zoo::new(&device)).unwrap();
    }
}

#[test]
fn a_glob_stands_for_names_and_paths() {
    for (glob, path, expected) in [
        ("conv*.weight", "conv1.weight", true),
        ("conv*.weight", "conv1.inner.weight", false),
        ("**.weight", "layer1.0.conv1.weight", true),
        ("**weight", "weight", true),
        ("layer?.*.conv1.weight", "layer1.0.conv1.weight", true),
        ("layer?.*", "layer12.0", false),
        ("a.b", "axb", false),
        ("conv", "conv1", false),
    ] {
        assert_eq!(
            PathPattern::glob(glob).matches(path),
            expected,
            "{glob} {path}"
        );
    }
    let regex = PathPattern::regex(r"conv\d\.").unwrap();
    assert!(regex.matches("layer1.conv2.weight") && !regex.matches("convx.weight"));
    let error = PathPattern::regex("(").unwrap_err();
    assert!(matches!(&error, RuleError::Regex { pattern, .. } if pattern == "("));
}

#[test]
fn a_wrong_rule_file_says_what_is_wrong() {
    for (text, part) in [
        ("bits = 3", "unknown field `bits`"),
        (
            "[[weights]]\npath = 'a'\ngrouping = 'pixelwise'\nmaxbits = 3",
            "unknown field `maxbits`",
        ),
        (
            "[[weights]]\npath = 'a'\ngrouping = 'rowwise'",
            "unknown grouping `rowwise`",
        ),
        ("[[weights]]\ngrouping = 'pixelwise'", "exactly one of"),
        (
            "[[weights]]\npath = 'a'\nglob = 'a'\nkeep_float = true",
            "exactly one of",
        ),
        ("[[weights]]\npath = 'a'", "path `a`: needs one of"),
        (
            "[[weights]]\npath = 'a'\nkeep_float = true\nmax_bits = 2",
            "needs one of",
        ),
        (
            "[[weights]]\npath = 'a'\ngrouping = 'subchannelwise'",
            "go together",
        ),
        (
            "[[weights]]\npath = 'a'\ngrouping = 'pixelwise'\nsubchannels = 2",
            "go together",
        ),
        ("[[weights]]\nregex = '('\nkeep_float = true", "regex `(`"),
        (
            "[[activations]]\npath = 'a'\nbits = 2\nkeep = 1",
            "unknown field `keep`",
        ),
    ] {
        let error = toml::from_str::<Rules>(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_converted_is_named() {
    let device = device();
    let zoo = || Zoo::new(&device);
    let one = |path: &str, rule| Quantizer::new(3).rule(PathPattern::exact(path), rule);
    let good = || one("head.weight", GroupingRule::Channelwise);

    let unmatched = good().rule(PathPattern::glob("fc*"), GroupingRule::Channelwise);
    let error = unmatched.quantize(zoo()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "rule 2 (glob `fc*`) matches no weight of rank 2 or more of a layer; one of no layer is named \
         by its whole path"
    );
    let error = one("head.bias", GroupingRule::Channelwise).quantize(zoo());
    assert!(matches!(
        error.unwrap_err(),
        QuantizeError::Unmatched { .. }
    ));
    assert_eq!(
        Quantizer::new(3).quantize(zoo()).unwrap_err(),
        QuantizeError::Nothing
    );
    let error = one("embedding.weight", GroupingRule::Subchannelwise(3)).quantize(zoo());
    assert_eq!(
        error.unwrap_err().to_string(),
        "embedding.weight: 8 inputs do not fall into 3 equal groups; `groupwise` takes the nearest \
         size that fits"
    );
    let twice = good()
        .quantize(good().quantize(zoo()).unwrap().0)
        .unwrap_err();
    assert_eq!(twice.to_string(), "head.weight is multi-bit already");
    let packed = PackedModel::pack(&good().quantize(zoo()).unwrap().0).unwrap();
    let packed = packed.apply(zoo()).unwrap();
    let error = good().quantize(packed).unwrap_err();
    assert!(matches!(error, QuantizeError::Already { path } if path == "head.weight"));

    #[derive(Module, Debug)]
    struct Stateful {
        fc: Linear,
        state: RunningState<Tensor<2>>,
    }
    let stateful = Stateful {
        fc: LinearConfig::new(4, 4).init(&device),
        state: RunningState::new(Tensor::ones([2, 2], &device)),
    };
    let error = one("state", GroupingRule::Channelwise).quantize(stateful);
    let error = error.unwrap_err();
    assert!(matches!(error, QuantizeError::RunningState { path } if path == "state"));
}

/// A rule says what the axes of a parameter of the user's own mean; a group of Burn's selects it.
#[test]
fn a_parameter_of_ones_own_gets_its_layout_by_rule() {
    #[derive(Module, Debug)]
    struct Own {
        table: Param<Tensor<2>>,
    }
    let device = device();
    let table = Tensor::random([6, 4], Distribution::Normal(0.0, 1.0), &device);
    let own = Own {
        table: Param::from_tensor(table),
    };
    let action = Action::Quantize {
        grouping: GroupingRule::Channelwise,
        max_bits: Some(1),
        layout: Some(Layout::Transposed),
        or_float: false,
        arithmetic: None,
    };
    let quantizer = Quantizer::new(3).with(ParamGroup::from_predicate("table"), action);
    let (_, report) = quantizer.quantize(own).unwrap();
    let (_, _, converted) = report.quantized().next().unwrap();
    assert_eq!((converted.groups, converted.average_bits), (6, 1.0));
}

#[test]
fn a_float_record_loads_into_multi_bit_layers() {
    let device = device();
    let float = LinearConfig::new(12, 5).init(&device);
    let config = MultiBitLinearConfig::new(12, 5).with_grouping(GroupingRule::Subchannelwise(2));
    let expected: MultiBitLinear = config.quantize(float.clone()).unwrap();
    let record = float.clone().into_record();
    let (loaded, report) = load_float(config.init(&device), record.clone()).unwrap();
    assert_eq!(
        loaded.weight.val().into_data(),
        expected.weight.val().into_data()
    );
    let bias = |bias: &Option<Param<Tensor<1>>>| bias.as_ref().unwrap().val().into_data();
    assert_eq!(bias(&loaded.bias), bias(&float.bias));
    assert_eq!(
        report.summary(),
        "60 weights in 1 tensors are multi-bit now, 1 tensors stay float, 0 activations are \
         switched on"
    );
    assert_eq!(PackedModel::pack(&loaded).unwrap().weights.len(), 1);

    let other = MultiBitLinearConfig::new(12, 6).init(&device);
    let error = load_float(other, record.clone()).unwrap_err();
    assert!(matches!(&error, QuantizeError::Record(_)), "{error}");
    assert!(error.to_string().contains("weight"), "{error}");
    let error = load_float(config.init_float(&device), record).unwrap_err();
    assert_eq!(error, QuantizeError::Nothing);
}

#[derive(Module, Debug)]
struct Active {
    fc1: Linear,
    relu1: MultiBitActivation,
    relu2: MultiBitActivation,
}

impl Active {
    fn new(device: &Device) -> Self {
        Self {
            fc1: LinearConfig::new(4, 4).init(device),
            relu1: MultiBitActivation::off(device),
            relu2: MultiBitActivation::off(device),
        }
    }
}

#[test]
fn a_rule_switches_activations_on() {
    let device = device();
    let train = device.clone().autodiff();
    let net = Active::new(&train);
    let x = Tensor::<2>::random([8, 4], Distribution::Normal(0.0, 1.0), &train);
    let relu = burn::tensor::activation::relu(x.clone()).into_data();
    let off = net.relu1.forward(x.clone()).into_tensor().into_data();
    assert_eq!(off, relu, "off is ReLU");

    let rule = |pattern| Quantizer::new(3).activations(pattern, 2);
    let (net, report) = rule(PathPattern::exact("relu1")).quantize(net).unwrap();
    assert_eq!([net.relu1.bits(), net.relu2.bits()], [2, 0]);
    let table = report.to_markdown();
    assert!(
        table.contains("switched on: 2 bits") && table.contains("off: a ReLU"),
        "{table}"
    );
    net.relu1.forward(x.clone());
    let on = net.valid();
    let values = on
        .relu1
        .forward(x.without_autodiff())
        .into_tensor()
        .into_data();
    let mut values: Vec<f32> = values.try_into_vec().unwrap();
    values.sort_by(f32::total_cmp);
    values.dedup();
    assert!(values.len() <= 4, "{values:?}");

    // The record of a model whose activation is on loads into one where it is off.
    let loaded = Active::new(&device).load_record(on.clone().into_record());
    assert_eq!(loaded.relu1.levels(), on.relu1.levels());
    assert_eq!([loaded.relu1.bits(), loaded.relu2.bits()], [2, 0]);

    let error = rule(PathPattern::glob("relu*")).quantize(on).unwrap_err();
    assert_eq!(error.to_string(), "relu1 is multi-bit already");
    let fresh = || Active::new(&device);
    let error = rule(PathPattern::exact("relu3"))
        .quantize(fresh())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "rule path `relu3` matches no MultiBitActivation"
    );
    let none = Quantizer::new(3).activations(PathPattern::exact("relu1"), 0);
    let error = none.quantize(fresh()).unwrap_err();
    assert!(matches!(
        error,
        QuantizeError::ActivationBits { bits: 0, .. }
    ));
}
