//! The network.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig};
use burn::tensor::{Device, Tensor};
use burn_alq::file::Chain;
use burn_alq::{
    Arithmetic, MultiBitActivation, MultiBitConv2d, MultiBitLinear, MultiBitLinearConfig,
};
use example_common::network::{act_bits, number, scaled, width};
use example_common::residual::{Block, Maker};
use example_common::{Config, Failure, Network};

/// Layers with weights on the longest way, in the configuration.
pub const DEPTH: &str = "depth";

/// Depths that there are, `6n + 2`, with the `n` blocks of each layer.
pub const DEPTHS: [(&str, usize); 4] = [("20", 3), ("32", 5), ("44", 7), ("56", 9)];

/// Classes of CIFAR-10 and Fashion-MNIST.
const CLASSES: usize = 10;

/// A ResNet for images `[batch, 3, 32, 32]`: a convolution, three layers of `n` blocks with 16, 32 and 64
/// channels, an average (He et al., CVPR 2016, section 4.2). Where a layer changes the size, the way
/// around its first block is a 1×1 convolution.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: MultiBitConv2d,
    bn1: BatchNorm,
    act: MultiBitActivation,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    avgpool: AdaptiveAvgPool2d,
    fc: MultiBitLinear,
}

impl Network for ResNet {
    const NAME: &'static str = "resnet-cifar";
    const TITLE: &'static str = "ResNet";
    const IMAGE: [usize; 3] = [3, 32, 32];
    const EVAL_BATCH: usize = 100;
    const BATCH_NORM: bool = true;

    fn from_config(config: &Config, device: &Device) -> Result<Self, Failure> {
        let width = width(config)?;
        let depth: String = number(config, DEPTH)?;
        let Some((_, blocks)) = DEPTHS.into_iter().find(|(known, _)| *known == depth) else {
            let known = DEPTHS.map(|(depth, _)| depth).join(", ");
            return Err(format!("{DEPTH} is {depth}; there are {known}").into());
        };
        let maker = Maker {
            act_bits: act_bits(config)?,
            device,
        };
        let [c1, c2, c3] = [16, 32, 64].map(|channels| scaled(channels, width));
        Ok(Self {
            conv1: maker.conv([3, c1], 3, 1, Arithmetic::Exact),
            bn1: maker.norm(c1),
            act: maker.act(),
            layer1: maker.layer([c1, c1], blocks, 1),
            layer2: maker.layer([c1, c2], blocks, 2),
            layer3: maker.layer([c2, c3], blocks, 2),
            avgpool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            // Behind an average: exact.
            fc: MultiBitLinearConfig::new(c3, CLASSES).init_float(device),
        })
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.conv1.forward_norm(images, &self.bn1);
        let x = self.act.forward(x);
        let blocks = [&self.layer1, &self.layer2, &self.layer3].into_iter();
        let x = blocks.flatten().fold(x, |x, block| block.forward(x));
        let x = self.avgpool.forward(x.into_tensor());
        self.fc.forward(x.flatten::<2>(1, 3))
    }

    fn chain(&self) -> Chain {
        let mut chain = Chain::new()
            .layer("conv1", &self.conv1)
            .norm("bn1", &self.bn1)
            .activation("act", &self.act);
        for (layer, blocks) in (1..).zip([&self.layer1, &self.layer2, &self.layer3]) {
            for (block, of) in blocks.iter().enumerate() {
                chain = of.chain(&format!("layer{layer}.{block}"), chain);
            }
        }
        let chain = chain.adaptive_avg_pool2d(&self.avgpool).flatten();
        chain.layer("fc", &self.fc)
    }
}

/// The packed file alone gives the same scores.
#[cfg(test)]
mod tests {
    use example_common::agreement::chain_agrees;
    use example_common::network::WIDTH;

    use super::*;

    #[test]
    fn the_chain_in_a_file_gives_the_same_scores() {
        let small = [(DEPTH, "20"), (WIDTH, "0.5"), ("act_bits", "2")];
        chain_agrees::<ResNet>(&small[..2], ResNet::IMAGE, None);
        chain_agrees::<ResNet>(&small[..2], ResNet::IMAGE, Some(Arithmetic::Int8));
        chain_agrees::<ResNet>(&small, ResNet::IMAGE, None);
    }

    #[test]
    fn other_depths_are_refused() {
        let config = [(DEPTH, "18"), (WIDTH, "1")];
        let config = Config::from(config.map(|(key, value)| (key.into(), value.into())));
        let error = ResNet::from_config(&config, &Device::default()).unwrap_err();
        assert!(
            error.to_string().contains("depth is 18; there are 20"),
            "{error}"
        );
    }
}
