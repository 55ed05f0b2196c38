//! Steps of the optimizer against Burn's Adam on the same weights.

use std::time::Instant;

use burn::module::{Module, Param, ParamGroup};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use burn_alq::optim::sizes;
use burn_alq::{AlqOptimizerConfig, GroupingRule, Phase, Quantizer};

use crate::cases::{Case, Side};

/// Weights, and nothing that computes with them.
#[derive(Module, Debug)]
struct Weights {
    convs: Vec<Param<Tensor<4>>>,
    linears: Vec<Param<Tensor<2>>>,
}

impl Weights {
    fn new(convs: &[[usize; 4]], linears: &[[usize; 2]], device: &Device) -> Self {
        let normal = Distribution::Normal(0.0, 0.1);
        Self {
            convs: convs
                .iter()
                .map(|&shape| Param::from_tensor(Tensor::random(shape, normal, device)))
                .collect(),
            linears: linears
                .iter()
                .map(|&shape| Param::from_tensor(Tensor::random(shape, normal, device)))
                .collect(),
        }
    }

    /// Gradients as a loss would give them.
    fn gradients(&self, device: &Device) -> GradientsParams {
        let normal = Distribution::Normal(0.0, 0.01);
        let convs = self.convs.iter().map(|weight| {
            let slope = Tensor::<4>::random(weight.dims(), normal, device);
            (weight.val() * slope).sum()
        });
        let linears = self.linears.iter().map(|weight| {
            let slope = Tensor::<2>::random(weight.dims(), normal, device);
            (weight.val() * slope).sum()
        });
        let loss: Vec<Tensor<1>> = convs.chain(linears).collect();
        GradientsParams::from_grads(Tensor::cat(loss, 0).sum().backward(), self)
    }
}

/// LeNet5 at 6 bits.
pub fn lenet5(basis: bool) -> Case {
    let convs = [[20, 1, 5, 5], [50, 20, 5, 5]];
    let phase = if basis {
        Phase::Basis
    } else {
        Phase::Coordinate
    };
    case(
        &convs,
        &[[800, 500], [500, 10]],
        GroupingRule::Kernelwise,
        6,
        phase,
    )
}

/// The blocks of ResNet18 at 2 bits, pixelwise.
pub fn resnet18() -> Case {
    let mut convs = Vec::new();
    let mut input = 64;
    for output in [64, 128, 256, 512] {
        convs.push([output, input, 3, 3]);
        convs.extend([[output, output, 3, 3]; 3]);
        if input != output {
            convs.push([output, input, 1, 1]);
        }
        input = output;
    }
    case(
        &convs,
        &[[512, 1000]],
        GroupingRule::Pixelwise,
        2,
        Phase::Basis,
    )
}

fn case(
    convs: &[[usize; 4]],
    linears: &[[usize; 2]],
    grouping: GroupingRule,
    bits: usize,
    phase: Phase,
) -> Case {
    let device = Device::flex().autodiff();
    device.clone().without_autodiff().seed(4);
    let float = Weights::new(convs, linears, &device);
    let mut quantizer = Quantizer::new(bits);
    for layer in 0..convs.len() {
        let path = ParamGroup::from_path(format!("convs.{layer}"));
        quantizer = quantizer.rule(path, grouping);
    }
    for layer in 0..linears.len() {
        let path = ParamGroup::from_path(format!("linears.{layer}"));
        quantizer = quantizer.rule(path, GroupingRule::Subchannelwise(2));
    }
    let mut quantized = Some(quantizer.apply(float.clone()).expect("groupings that fit"));
    let mut optimizer = AlqOptimizerConfig::new().init();
    optimizer.set_phase(phase);
    let check = {
        let (mut optimizer, model) = (optimizer.clone(), quantized.clone());
        let device = device.clone();
        move || {
            let model = model.expect("put in above");
            let before = sizes(&model);
            let old = model.linears[0].val().into_data();
            let gradients = model.gradients(&device);
            let model = optimizer.step(1e-3, model, gradients);
            match sizes(&model) == before && model.linears[0].val().into_data() != old {
                true => Ok(()),
                false => Err("a step must move the weights and keep their widths".into()),
            }
        }
    };
    let mut adam = AdamConfig::new().with_amsgrad(true).init();
    let mut plain = Some(float);
    let adam_device = device.clone();
    Case {
        ours: Box::new(move || {
            let model = quantized.take().expect("put back below");
            let gradients = model.gradients(&device);
            let start = Instant::now();
            quantized = Some(optimizer.step(1e-3, model, gradients));
            start.elapsed()
        }),
        other: Box::new(move || {
            let model = plain.take().expect("put back below");
            let gradients = model.gradients(&adam_device);
            let start = Instant::now();
            plain = Some(adam.step(1e-3, model, gradients));
            start.elapsed()
        }),
        side: Side::Adam,
        products: 0.0,
        limit: None,
        check: Box::new(check),
    }
}
