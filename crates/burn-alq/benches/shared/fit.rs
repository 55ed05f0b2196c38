//! Steps of the optimizer against Burn's Adam on the same weights.

use std::time::Instant;

use burn::module::{Module, Param};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use burn_alq::optim::prune::Budget;
use burn_alq::optim::sizes;
use burn_alq::optim::{Cost, total};
use burn_alq::{AlqOptimizerConfig, GroupingRule, PathPattern, Phase, Quantizer};

use super::case::{Case, Side, Work, same, values, wait};

/// Makes a case on a device.
pub type Make = fn(&Device) -> Case;

/// Weights, and nothing that computes with them.
#[derive(Module, Debug)]
pub struct Weights {
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

    /// Gradients as a loss would give them, drawn on another device, which may draw other numbers.
    fn gradients(&self, device: &Device, drawn_on: &Device) -> GradientsParams {
        let normal = Distribution::Normal(0.0, 0.01);
        let convs = self.convs.iter().map(|weight| {
            let slope = Tensor::<4>::random(weight.dims(), normal, drawn_on);
            (weight.val() * slope.to_device(device)).sum()
        });
        let linears = self.linears.iter().map(|weight| {
            let slope = Tensor::<2>::random(weight.dims(), normal, drawn_on);
            (weight.val() * slope.to_device(device)).sum()
        });
        let loss: Vec<Tensor<1>> = convs.chain(linears).collect();
        GradientsParams::from_grads(Tensor::cat(loss, 0).sum().backward(), self)
    }

    fn count(&self) -> usize {
        self.num_params()
    }
}

/// The phase of the next step, which may depend on what is left.
pub type PhaseOf = fn(&Weights) -> Phase;

/// Drops half a percent of the coordinates.
pub fn prune(weights: &Weights) -> Phase {
    Phase::Prune(Budget {
        cost: Cost::Coordinates,
        at_most: 0.995 * total(&sizes(weights), Cost::Coordinates) as f64,
        top_k: 0.5,
        loss_share: 1.0,
        floor: 0.0,
    })
}

/// LeNet5 at 6 bits.
pub fn lenet5(device: &Device, phase: PhaseOf) -> Case {
    let convs = [[20, 1, 5, 5], [50, 20, 5, 5]];
    let linears = [[800, 500], [500, 10]];
    case(device, &convs, &linears, GroupingRule::Kernelwise, 6, phase)
}

/// The widest layers of VGG-small at 4 bits.
pub fn vgg_small(device: &Device, phase: PhaseOf) -> Case {
    let convs = [[256, 128, 3, 3], [512, 256, 3, 3], [512, 512, 3, 3]];
    let linears = [[8192, 1024], [1024, 1024]];
    case(device, &convs, &linears, GroupingRule::Kernelwise, 4, phase)
}

/// The blocks of ResNet18 at 2 bits, pixelwise.
pub fn resnet18(device: &Device) -> Case {
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
    let linears = [[512, 1000]];
    let basis = |_: &Weights| Phase::Basis;
    case(device, &convs, &linears, GroupingRule::Pixelwise, 2, basis)
}

fn case(
    device: &Device,
    convs: &[[usize; 4]],
    linears: &[[usize; 2]],
    grouping: GroupingRule,
    bits: usize,
    phase: PhaseOf,
) -> Case {
    let host = Device::flex().autodiff();
    host.clone().without_autodiff().seed(4);
    let device = device.clone().autodiff();
    let float = Weights::new(convs, linears, &host);
    let mut quantizer = Quantizer::new(bits);
    for layer in 0..convs.len() {
        let path = PathPattern::exact(format!("convs.{layer}"));
        quantizer = quantizer.rule(path, grouping);
    }
    for layer in 0..linears.len() {
        let path = PathPattern::exact(format!("linears.{layer}"));
        quantizer = quantizer.rule(path, GroupingRule::Subchannelwise(2));
    }
    // On the device itself: devices keep codes in integers of different sizes.
    let quantize = {
        let float = float.clone();
        move |device: &Device| {
            let float = float.clone().fork(device);
            quantizer.quantize(float).expect("groupings that fit").0
        }
    };
    let mut optimizer = AlqOptimizerConfig::new().init();
    let mut quantized = Some(quantize(&device));
    let check = {
        let device = device.clone();
        move || {
            let step = |device: &Device| {
                host.clone().without_autodiff().seed(5);
                let mut optimizer = AlqOptimizerConfig::new().init();
                let model = quantize(device);
                optimizer.set_phase(phase(&model));
                let gradients = model.gradients(device, &host);
                let model = optimizer.step(1e-3, model, gradients);
                values(model.linears[0].val().into_data())
            };
            let before = values(quantize(&host).linears[0].val().into_data());
            let found = step(&device);
            if found == before {
                return Err("the step moved nothing".into());
            }
            // A weight half way between two levels may take the other one for rounding alone.
            same(&found, &step(&host), 1e-2)
        }
    };
    let weights = float.count() as f64;
    let mut adam = AdamConfig::new().with_amsgrad(true).init();
    let mut plain = Some(float.fork(&device));
    let adam_device = device.clone();
    Case {
        ours: Box::new(move || {
            let model = quantized.take().expect("put back below");
            let gradients = model.gradients(&device, &device);
            optimizer.set_phase(phase(&model));
            wait(&device);
            let start = Instant::now();
            quantized = Some(optimizer.step(1e-3, model, gradients));
            wait(&device);
            start.elapsed()
        }),
        other: Box::new(move || {
            let model = plain.take().expect("put back below");
            let gradients = model.gradients(&adam_device, &adam_device);
            wait(&adam_device);
            let start = Instant::now();
            plain = Some(adam.step(1e-3, model, gradients));
            wait(&adam_device);
            start.elapsed()
        }),
        side: Side::Adam,
        // The gradient, three moments and the weight, of which all but the gradient are written
        // too; ours reads a byte of signs in the weight's place, and writes both.
        work: Work {
            bytes: [34.0 * weights, 36.0 * weights],
            operations: 0.0,
        },
        check: Box::new(check),
    }
}
