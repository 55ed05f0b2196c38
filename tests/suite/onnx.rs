//! Models as burn-onnx generates them, their code as it is: with Burn's layers, and with ours by what
//! the README says to put beside the `include!`.
//!
//! `cargo xtask onnx` holds the code against what burn-onnx makes of the ONNX files.

use burn::module::Module;
use burn::tensor::{Bytes, Device, Int, Tensor, TensorData};
use burn_alq::nn::unpacked_weights;
use burn_alq::quantize::Outcome;
use burn_alq::{GroupingRule, PackedModel, PathPattern, Quantizer};

use crate::any_model::{everything, outcome};
use crate::devices::device;
use crate::support::{Random, assert_close};

mod cnn {
    pub mod burns {
        include!("../golden/onnx/cnn.rs");
    }
    pub mod ours {
        mod burn {
            pub use ::burn::*;
            pub use burn_alq::nn;
        }
        include!("../golden/onnx/cnn.rs");
    }
}

mod attention {
    pub mod burns {
        include!("../golden/onnx/attention.rs");
    }
    pub mod ours {
        mod burn {
            pub use ::burn::*;
            pub use burn_alq::nn;
        }
        include!("../golden/onnx/attention.rs");
    }
}

// The generated code leaves the LSTM's final state unused.
#[allow(unused_variables)]
mod recurrent {
    pub mod burns {
        include!("../golden/onnx/recurrent.rs");
    }
    pub mod ours {
        mod burn {
            pub use ::burn::*;
            pub use burn_alq::nn;
        }
        include!("../golden/onnx/recurrent.rs");
    }
}

/// All that burn-onnx 0.22.0 takes from `burn::nn`: its code compiles whatever layers are in a model.
#[allow(unused_imports)]
mod names {
    mod burn {
        pub use ::burn::*;
        pub use burn_alq::nn;
    }
    use burn::nn::activation::ActivationConfig;
    use burn::nn::conv::{
        Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d,
        ConvTranspose1dConfig, ConvTranspose2d, ConvTranspose2dConfig, ConvTranspose3d,
        ConvTranspose3dConfig, DeformConv2d, DeformConv2dConfig,
    };
    use burn::nn::gru::{BiGru, BiGruConfig, Gru, GruConfig};
    use burn::nn::interpolate::{
        Interpolate1d, Interpolate1dConfig, Interpolate2d, Interpolate2dConfig, InterpolateMode,
    };
    use burn::nn::pool::{
        AdaptiveAvgPool1d, AdaptiveAvgPool1dConfig, AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig,
        AvgPool1d, AvgPool1dConfig, AvgPool2d, AvgPool2dConfig, MaxPool1d, MaxPool1dConfig,
        MaxPool2d, MaxPool2dConfig,
    };
    use burn::nn::{
        BatchNorm, BatchNormConfig, BiLstm, BiLstmConfig, BiRnn, BiRnnConfig, GroupNorm,
        GroupNormConfig, HardSigmoidConfig, InstanceNorm, InstanceNormConfig, LayerNorm,
        LayerNormConfig, LeakyReluConfig, Linear, LinearConfig, LocalResponseNormConfig, Lstm,
        LstmConfig, LstmState, PRelu, PReluConfig, PaddingConfig1d, PaddingConfig2d,
        PaddingConfig3d, PixelShuffleConfig, PixelUnshuffleConfig, Rnn, RnnConfig, RnnState,
        SoftplusConfig,
    };
}

/// The generated code on bits that went through a file, with our layers and with Burn's, against what it
/// computes with Burn's layers in float on the same weights; and the weights that each has unpacked.
fn on_bits<B: Module, O: Module>(
    quantizer: &Quantizer,
    (burns, ours): (B, O),
    (run_burns, run_ours): (impl Fn(&B) -> Tensor<2>, impl Fn(&O) -> Tensor<2>),
) -> [Vec<String>; 2] {
    let expected = run_burns(&burns).into_data();
    assert_close(run_ours(&ours).into_data(), expected, "float");

    let (quantized, _) = quantizer.quantize(ours.clone()).unwrap();
    let bytes = PackedModel::pack(&quantized).unwrap().to_bytes().unwrap();
    let packed = PackedModel::from_bytes(bytes, "model").unwrap();
    let (ours, burns) = (packed.apply(ours).unwrap(), packed.apply(burns).unwrap());
    let expected = run_burns(&burns.clone().materialize()).into_data();
    assert_close(run_ours(&ours).into_data(), expected.clone(), "our layers");
    assert_close(run_burns(&burns).into_data(), expected, "Burn's layers");
    [unpacked_weights(&ours), unpacked_weights(&burns)]
}

/// The generated code twice, with Burn's layers and with ours, both with the generated weights.
macro_rules! load {
    ($name:ident, $device:expr) => {{
        let weights = include_bytes!(concat!("../golden/onnx/", stringify!($name), ".bpk"));
        let bytes = || Bytes::from_bytes_vec(weights.to_vec());
        (
            $name::burns::Model::from_bytes(bytes(), $device),
            $name::ours::Model::from_bytes(bytes(), $device),
        )
    }};
}

#[test]
fn a_generated_cnn_runs_on_bits() {
    let device = device();
    let values = Random::new(1).normals(2 * 3 * 16 * 16, 1.0);
    let images = Tensor::from_data(TensorData::new(values, [2, 3, 16, 16]), &device);
    let run = (
        |model: &cnn::burns::Model| model.forward(images.clone()),
        |model: &cnn::ours::Model| model.forward(images.clone()),
    );
    let [ours, burns] = on_bits(&everything(), load!(cnn, &device), run);
    let all = ["conv2d1", "conv2d2", "conv2d3", "conv2d4", "linear1"];
    assert_eq!(burns, all.map(|layer| format!("{layer}.weight")));
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn a_generated_recurrent_network_runs_on_bits() {
    let device = device();
    let values = Random::new(2).normals(5 * 2 * 6, 1.0);
    let series = Tensor::from_data(TensorData::new(values, [5, 2, 6]), &device);
    let run = (
        |model: &recurrent::burns::Model| model.forward(series.clone()),
        |model: &recurrent::ours::Model| model.forward(series.clone()),
    );
    let [ours, burns] = on_bits(&everything(), load!(recurrent, &device), run);
    // An input and a hidden transform for each gate of both directions, and of the GRU.
    assert_eq!(burns.len(), 2 * (2 * 4 + 3) + 1, "{burns:?}");
    assert!(ours.is_empty(), "{ours:?}");
}

fn words(device: &Device) -> Tensor<2, Int> {
    let words: Vec<i32> = (0..16).map(|place| place * 7 % 24).collect();
    Tensor::from_data(TensorData::new(words, [2, 8]), device)
}

#[test]
fn a_generated_encoder_runs_on_bits() {
    let device = device();
    let words = words(&device);
    let run = (
        |model: &attention::burns::Model| model.forward(words.clone()),
        |model: &attention::ours::Model| model.forward(words.clone()),
    );
    let [ours, burns] = on_bits(&everything(), load!(attention, &device), run);
    assert_eq!(burns.len(), 7, "linear layers: {burns:?}");
    assert!(ours.is_empty(), "{ours:?}");
}

/// Tables of embeddings and of positions become parameters of the model's own.
#[test]
fn what_becomes_no_layer_is_named_and_quantized_by_its_name() {
    let device = device();
    let words = words(&device);
    let (_, ours) = load!(attention, &device);
    let (_, report) = everything().quantize(ours).unwrap();
    for path in ["constant1", "constant2"] {
        let outcome = outcome(&report, path);
        let is_named = matches!(outcome, Outcome::NoLayer { .. });
        assert!(is_named, "{path}: {outcome}");
    }

    let table = PathPattern::exact("constant1");
    let quantizer = everything().rule(table, GroupingRule::Channelwise);
    let run = (
        |model: &attention::burns::Model| model.forward(words.clone()),
        |model: &attention::ours::Model| model.forward(words.clone()),
    );
    let [ours, _] = on_bits(&quantizer, load!(attention, &device), run);
    assert_eq!(ours, ["constant1"]);
}
