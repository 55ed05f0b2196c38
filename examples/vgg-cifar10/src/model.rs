//! The network.

use burn::module::Module;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use burn_alq::file::Chain;
use burn_alq::{
    Arithmetic, MultiBitActivation, MultiBitConv2d, MultiBitConv2dConfig, MultiBitLinear,
    MultiBitLinearConfig, Quantized,
};
use example_common::network::{act_bits, arithmetic, scaled, width};
use example_common::{Config, Failure, Network};

/// Classes of CIFAR-10 and Fashion-MNIST.
const CLASSES: usize = 10;

/// `2×128C3, MP2, 2×256C3, MP2, 2×512C3, MP2, 2×1024FC, 10` for images `[batch, 3, 32, 32]`, with
/// batch norm after every layer but the last (Qu et al., CVPR 2020).
#[derive(Module, Debug)]
pub struct VggSmall {
    convs: Vec<MultiBitConv2d>,
    conv_norms: Vec<BatchNorm>,
    fc: Vec<MultiBitLinear>,
    fc_norms: Vec<BatchNorm>,
    pool: MaxPool2d,
    /// ReLUs, until the conversion switches them on.
    activations: Vec<MultiBitActivation>,
}

impl Network for VggSmall {
    const NAME: &'static str = "vgg-small";
    const TITLE: &'static str = "VGG-small";
    const IMAGE: [usize; 3] = [3, 32, 32];
    const EVAL_BATCH: usize = 100;
    const BATCH_NORM: bool = true;

    fn from_config(config: &Config, device: &Device) -> Result<Self, Failure> {
        let width = width(config)?;
        let act_bits = act_bits(config)?;
        // Even, so that two subchannels divide them.
        let scaled = |channels: usize| scaled(channels / 2, width) * 2;
        let channels = [128, 128, 256, 256, 512, 512].map(scaled);
        let hidden = scaled(1024);
        let mut input = 3;
        let convs = channels.map(|output| {
            let arithmetic = match input {
                3 => Arithmetic::Exact,
                _ => arithmetic(act_bits),
            };
            let conv = MultiBitConv2dConfig::new([input, output], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                // The batch norm behind it has one.
                .with_bias(false)
                .with_arithmetic(arithmetic)
                .init_float(device);
            input = output;
            conv
        });
        let linear = |d_in, d_out, bias| {
            MultiBitLinearConfig::new(d_in, d_out)
                .with_bias(bias)
                .with_arithmetic(arithmetic(act_bits))
                .init_float(device)
        };
        let norm = |features| BatchNormConfig::new(features).init(device);
        Ok(Self {
            convs: convs.into(),
            conv_norms: channels.map(norm).into(),
            fc: vec![
                linear(16 * channels[5], hidden, false),
                linear(hidden, hidden, false),
                linear(hidden, CLASSES, true),
            ],
            fc_norms: vec![norm(hidden), norm(hidden)],
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            activations: (0..8).map(|_| MultiBitActivation::off(device)).collect(),
        })
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x: Quantized<4> = images.into();
        let convs = self.convs.iter().zip(&self.conv_norms);
        for (layer, (conv, norm)) in convs.enumerate() {
            let y = conv.forward_norm(x, norm);
            let y = match layer % 2 {
                1 => Quantized::from(y).max_pool2d(&self.pool).into_tensor(),
                _ => y,
            };
            x = self.activations[layer].forward(y);
        }
        let mut x = x.map(|x| x.flatten::<2>(1, 3));
        let (last, hidden) = self.fc.split_last().expect("three layers");
        for ((fc, norm), activation) in hidden
            .iter()
            .zip(&self.fc_norms)
            .zip(&self.activations[self.convs.len()..])
        {
            x = activation.forward(fc.forward_norm(x, norm));
        }
        last.forward(x)
    }

    fn chain(&self) -> Chain {
        let mut chain = Chain::new();
        let mut activations = self.activations.iter().enumerate();
        let mut activate = |chain: Chain| {
            let (index, activation) = activations.next().expect("one behind each layer");
            chain.activation(&format!("activations.{index}"), activation)
        };
        for (layer, (conv, norm)) in self.convs.iter().zip(&self.conv_norms).enumerate() {
            chain = chain
                .layer(&format!("convs.{layer}"), conv)
                .norm(&format!("conv_norms.{layer}"), norm);
            if layer % 2 == 1 {
                chain = chain.max_pool2d(&self.pool);
            }
            chain = activate(chain);
        }
        chain = chain.flatten();
        for (layer, (fc, norm)) in self.fc.iter().zip(&self.fc_norms).enumerate() {
            chain = chain
                .layer(&format!("fc.{layer}"), fc)
                .norm(&format!("fc_norms.{layer}"), norm);
            chain = activate(chain);
        }
        chain.layer("fc.2", &self.fc[2])
    }
}

/// The packed file alone gives the same scores.
#[cfg(test)]
mod tests {
    use example_common::agreement::chain_agrees;

    use super::*;

    #[test]
    fn the_chain_in_a_file_gives_the_same_scores() {
        let small = [("width", "0.125"), ("act_bits", "2")];
        chain_agrees::<VggSmall>(&small[..1], VggSmall::IMAGE, None);
        chain_agrees::<VggSmall>(&small[..1], VggSmall::IMAGE, Some(Arithmetic::Int8));
        chain_agrees::<VggSmall>(&small, VggSmall::IMAGE, None);
    }
}
