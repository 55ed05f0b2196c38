//! What a packed model says of its use: checked when it is said, and the same when it is read.

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2dConfig, AvgPool2dConfig, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_alq::file::{Chain, Coding, Input, Order, PackModelError, PlanError, StepError};
use burn_alq::{
    Activation, Arithmetic, MultiBitConv2d, MultiBitConv2dConfig, MultiBitLinear,
    MultiBitLinearConfig, PackedModel,
};
use multibit::cpu::Isa;
use multibit::file::PackedFile;
use multibit::runtime::{Plan, Prepared, RunError};

use crate::file::{load, packed};

#[derive(Module, Debug)]
struct Small {
    conv: MultiBitConv2d,
    norm: BatchNorm,
    depthwise: MultiBitConv2d,
    fc: MultiBitLinear,
}

impl Small {
    fn new(device: &Device) -> Self {
        Self {
            conv: MultiBitConv2dConfig::new([2, 6], [3, 3])
                .with_padding(PaddingConfig2d::Same)
                .with_bias(false)
                .init(device),
            norm: BatchNormConfig::new(6).init(device),
            depthwise: MultiBitConv2dConfig::new([6, 6], [3, 3])
                .with_groups(6)
                .with_stride([2, 1])
                .with_arithmetic(Arithmetic::Int8)
                .init(device),
            fc: MultiBitLinearConfig::new(24, 5).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.conv.forward_norm(images, &self.norm));
        let y = self.depthwise.forward(x);
        let pool = AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init();
        self.fc.forward(pool.forward(y).flatten::<2>(1, 3))
    }

    fn chain(&self) -> Chain {
        Chain::new()
            .layer("conv", &self.conv)
            .norm("norm", &self.norm)
            .function(Activation::Relu)
            .layer("depthwise", &self.depthwise)
            .avg_pool2d(&AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init())
            .flatten()
            .layer("fc", &self.fc)
    }
}

fn input() -> Input {
    Input {
        divisor: 255.0,
        mean: vec![0.5, 0.25],
        deviation: vec![0.25, 0.5],
        order: Order::ChannelsLast,
        ..Input::new([2, 9, 6])
    }
}

fn small() -> (Small, PackedModel) {
    let net = Small::new(&Device::flex());
    let packed = PackedModel::pack(&net).unwrap();
    (net, packed)
}

#[test]
fn what_is_said_comes_back() {
    let (net, packed) = small();
    let bare = packed.clone();
    let packed = packed.with_name("small").with_input(input()).unwrap();
    let packed = packed.with_chain(net.chain()).unwrap();
    let packed = packed.with_labels(["a", "b", "c", "d", "é"]).unwrap();
    assert_eq!(packed.chain.len(), net.chain().value());
    for coding in [Coding::Plain, Coding::Deflate] {
        let bytes = packed.to_bytes_with(coding).unwrap();
        assert_eq!(load(&bytes).unwrap(), packed);
        assert!(bytes.len() > bare.to_bytes_with(coding).unwrap().len());
    }
    let device = Device::flex();
    let images = Tensor::<4>::random(
        [2, 2, 9, 6],
        burn::tensor::Distribution::Normal(0.0, 1.0),
        &device,
    );
    let values: Vec<f32> = images.clone().into_data().try_into_vec().unwrap();
    let network = packed.apply(Small::new(&device)).unwrap();
    let burns: Vec<f32> = network.forward(images).into_data().try_into_vec().unwrap();
    let bytes = packed.to_bytes().unwrap();
    let file = PackedFile::read(&bytes).unwrap();
    let plan = Plan::new(&file).unwrap();
    let mut scores = vec![0.0; 10];
    let prepared = Prepared::new(&plan, Isa::best());
    prepared.run(&values, 2, &mut scores).unwrap();
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&scores), bits(&burns));
    let error = prepared.run(&values, 1, &mut scores).unwrap_err();
    assert!(
        matches!(
            error,
            RunError::Input {
                expected: 108,
                found: 216
            }
        ),
        "{error}"
    );
}

/// Each error names what does not fit.
#[test]
fn what_does_not_fit_is_refused() {
    let (net, packed) = small();
    let says = |error: PackModelError, expected: &str| {
        let text = error.to_string();
        assert!(text.contains(expected), "{text} does not say {expected}");
    };
    let error = packed.clone().with_chain(net.chain()).unwrap_err();
    assert_eq!(error, PackModelError::Plan(PlanError::NoInput));
    for wrong in [
        Input::new([]),
        Input::new([2, 0, 6]),
        Input {
            divisor: 0.0,
            ..input()
        },
        Input {
            mean: vec![0.0; 3],
            ..input()
        },
        Input {
            deviation: vec![1.0, 0.0],
            ..input()
        },
    ] {
        let error = packed.clone().with_input(wrong).unwrap_err();
        assert!(matches!(error, PackModelError::Input(_)), "{error}");
    }
    let packed = packed.with_input(input()).unwrap();
    let whole = packed.clone().with_chain(net.chain()).unwrap();
    says(
        whole.clone().with_labels(["a"]).unwrap_err(),
        "1 labels for 5 outputs",
    );
    says(
        whole.clone().with_input(Input::new([2, 9, 9])).unwrap_err(),
        "step 6 of the chain, linear: the input has",
    );
    says(
        whole.with_input(Input::new([3, 9, 6])).unwrap_err(),
        "step 1 of the chain, conv2d: the input has 3 channels, but the step takes 2",
    );
    let chains = [
        (
            Chain::new().layer("other", &net.conv),
            "no tensor other.weight",
        ),
        (
            Chain::new().layer("fc", &net.fc),
            "the input must be [features]",
        ),
        (Chain::new().norm("norm", &net.norm), "batch norm follows"),
        (
            Chain::new().layer("conv", &net.conv).norm("fc", &net.norm),
            "no tensor fc.gamma",
        ),
        (
            Chain::new().layer("depthwise", &net.depthwise),
            "the input has 2 channels, but the step takes 6",
        ),
        (
            Chain::new().max_pool2d(&MaxPool2dConfig::new([2, 2]).with_ceil_mode(true).init()),
            "ceil_mode",
        ),
        (
            Chain::new().max_pool2d(&MaxPool2dConfig::new([20, 2]).init()),
            "the window does not fit the height",
        ),
        (
            Chain::new().adaptive_avg_pool2d(&AdaptiveAvgPool2dConfig::new([2, 1]).init()),
            "one place",
        ),
        (Chain::new().flatten().plus(0), "no sum"),
        (
            Chain::new().flatten().plus(7),
            "a value that is not there yet",
        ),
    ];
    for (chain, expected) in chains {
        says(packed.clone().with_chain(chain).unwrap_err(), expected);
    }
    let mut bitwise = packed.clone();
    bitwise
        .arithmetic
        .insert("conv.weight".into(), Arithmetic::Bitwise);
    let error = bitwise.with_chain(net.chain()).unwrap_err();
    let no_levels = |error: &PackModelError| {
        matches!(
            error,
            PackModelError::Plan(PlanError::Step {
                source: StepError::NoLevels,
                ..
            })
        )
    };
    assert!(no_levels(&error), "{error}");
}

/// A float layer has no bits to run on.
#[test]
fn a_float_layer_is_refused_by_name() {
    let (net, packed) = small();
    let mut packed = packed.with_input(input()).unwrap();
    let (path, weight) = packed.weights.remove(0);
    let dense = burn::tensor::TensorData::new(weight.unpack(), weight.shape().to_vec());
    packed.tensors.insert(0, (path, dense));
    let error = packed.with_chain(net.chain()).unwrap_err();
    let path = "conv.weight".to_string();
    assert_eq!(error, PackModelError::Float { path });
}

/// A model that says nothing has no chain to run.
#[test]
fn a_file_without_a_chain_has_no_plan() {
    let bytes = packed().to_bytes().unwrap();
    let file = PackedFile::read(&bytes).unwrap();
    assert_eq!(Plan::new(&file).unwrap_err(), PlanError::NoChain);
}
