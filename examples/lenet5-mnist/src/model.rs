//! The network.

use burn::module::Module;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_alq::file::Chain;
use burn_alq::{
    Activation, MultiBitActivation, MultiBitActivationConfig, MultiBitConv2d, MultiBitConv2dConfig,
    MultiBitLinear, MultiBitLinearConfig, Quantized,
};
use example_common::network::{act_bits, arithmetic};
use example_common::{Config, Failure, Network};

/// Classes of MNIST and of every data set in its format that this example takes.
pub const CLASSES: usize = 10;

/// Caffe's LeNet5: 20 and 50 kernels of 5×5, 500 hidden units, 10 classes.
#[derive(Module, Debug)]
pub struct LeNet5 {
    conv1: MultiBitConv2d,
    conv2: MultiBitConv2d,
    fc1: MultiBitLinear,
    fc2: MultiBitLinear,
    pool: MaxPool2d,
    /// What stands in the place of ReLU, one after each layer but the last; empty for ReLU.
    activations: Vec<MultiBitActivation>,
}

impl Network for LeNet5 {
    const NAME: &'static str = "lenet5";
    const TITLE: &'static str = "LeNet5";
    const IMAGE: [usize; 3] = [1, 28, 28];
    const EVAL_BATCH: usize = 250;
    const TOP5: bool = false;
    const BATCH_NORM: bool = false;

    /// With multi-bit activations, packed layers behind them compute bitwise.
    fn from_config(config: &Config, device: &Device) -> Result<Self, Failure> {
        let act_bits = act_bits(config)?;
        let hidden = arithmetic(act_bits);
        let conv = MultiBitConv2dConfig::new;
        let linear = |d_in, d_out| {
            MultiBitLinearConfig::new(d_in, d_out)
                .with_arithmetic(hidden)
                .init_float(device)
        };
        let activations = if act_bits == 0 { 0 } else { 3 };
        Ok(Self {
            conv1: conv([1, 20], [5, 5]).init_float(device),
            conv2: conv([20, 50], [5, 5])
                .with_arithmetic(hidden)
                .init_float(device),
            fc1: linear(800, 500),
            fc2: linear(500, CLASSES),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            activations: (0..activations)
                .map(|_| MultiBitActivationConfig::new(act_bits).init(device))
                .collect(),
        })
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.activate(0, self.pooled(self.conv1.forward(images)));
        let x = self.activate(1, self.pooled(self.conv2.forward(x)));
        let x = self.activate(2, self.fc1.forward(x.map(|x| x.flatten::<2>(1, 3))));
        self.fc2.forward(x)
    }

    fn chain(&self) -> Chain {
        let chain = Chain::new().layer("conv1", &self.conv1);
        let chain = self.chain_activation(0, chain.max_pool2d(&self.pool));
        let chain = chain.layer("conv2", &self.conv2).max_pool2d(&self.pool);
        let chain = self.chain_activation(1, chain).flatten();
        let chain = self.chain_activation(2, chain.layer("fc1", &self.fc1));
        chain.layer("fc2", &self.fc2)
    }
}

impl LeNet5 {
    fn pooled(&self, x: Tensor<4>) -> Tensor<4> {
        Quantized::from(x).max_pool2d(&self.pool).into_tensor()
    }

    fn activate<const D: usize>(&self, layer: usize, x: Tensor<D>) -> Quantized<D> {
        match self.activations.get(layer) {
            Some(activation) => activation.forward(x),
            None => relu(x).into(),
        }
    }

    fn chain_activation(&self, layer: usize, chain: Chain) -> Chain {
        match self.activations.get(layer) {
            Some(activation) => chain.activation(&format!("activations.{layer}"), activation),
            None => chain.function(Activation::Relu),
        }
    }
}

/// The packed file alone gives the same scores.
#[cfg(test)]
mod tests {
    use burn_alq::Arithmetic;
    use example_common::agreement::chain_agrees;

    use super::*;

    #[test]
    fn the_chain_in_a_file_gives_the_same_scores() {
        chain_agrees::<LeNet5>(&[], LeNet5::IMAGE, None);
        chain_agrees::<LeNet5>(&[], LeNet5::IMAGE, Some(Arithmetic::Int8));
        chain_agrees::<LeNet5>(&[("act_bits", "2")], LeNet5::IMAGE, None);
    }
}
