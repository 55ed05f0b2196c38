//! A small model in training, and its files.

use burn::module::{Module, ParamGroup};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn_alq::train::learner::Alq;
use burn_alq::train::{Run, Task};
use burn_alq::{AlqOptimizerConfig, GroupingRule, MultiBitLinear, MultiBitLinearConfig};
use burn_alq::{Quantizer, Schedule, ScheduleConfig, Target};

/// A multi-bit layer and a float layer.
#[derive(Module, Debug)]
pub struct Net {
    hidden: MultiBitLinear,
    last: Linear,
}

impl Net {
    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        self.last.forward(self.hidden.forward(input))
    }
}

/// A quantized model without autodiff, the same at every call.
pub fn net(device: &Device) -> Net {
    device.seed(1);
    let net = Net {
        hidden: MultiBitLinearConfig::new(4, 6).init_float(device),
        last: LinearConfig::new(6, 2).init(device),
    };
    let quantizer = Quantizer::new(2).rule(
        ParamGroup::from_path("hidden.weight"),
        GroupingRule::Subchannelwise(1),
    );
    quantizer.quantize(net).expect("the rule fits").0
}

fn schedule(net: &Net) -> Schedule {
    let config = ScheduleConfig::new(Target::Bits(0.8)).with_rounds(1);
    let config = config.with_basis_epochs(1).with_coordinate_epochs(1);
    let sizes = burn_alq::optim::sizes(net);
    config.init(&sizes).expect("a target within reach")
}

/// A run at its start.
pub fn run() -> Run<Net> {
    let net = net(&Device::flex().autodiff());
    let schedule = schedule(&net);
    Run::new(net, AlqOptimizerConfig::new().init(), schedule, "fuzz")
}

/// A model in Burn's Learner at its start.
pub fn learner() -> Alq<Net> {
    let net = net(&Device::flex().autodiff());
    let schedule = schedule(&net);
    Alq::new(net, schedule, 2)
}

/// Two batches of ones.
pub struct Ones;

impl Task for Ones {
    type Model = Net;

    fn batches(&self) -> usize {
        2
    }

    fn loss(&self, net: &Net, _epoch: usize, batch: usize, _shard: usize) -> Tensor<1> {
        let device = Device::flex().autodiff();
        let output = net.forward(Tensor::ones([3, 4], &device) * (batch as f32 + 0.5));
        (output.clone() * output).mean()
    }

    fn evaluate(&self, _net: &Net) -> f64 {
        0.0
    }
}
