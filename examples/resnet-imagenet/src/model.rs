//! The network, with the field names of torchvision's.

use burn::module::Module;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use burn_alq::{
    Arithmetic, GroupingRule, MultiBitActivation, MultiBitConv2d, MultiBitConv2dConfig,
    MultiBitLinear, MultiBitLinearConfig, PathPattern, Quantized, Quantizer,
};
use example_common::network::{act_bits, arithmetic, number, parse_width, scaled};
use example_common::{Config, Failure, Network};

/// 18 or 34, in the configuration.
pub const DEPTH: &str = "depth";
/// Factor on the channels, in the configuration.
pub const WIDTH: &str = "width";
/// Outputs, in the configuration.
pub const CLASSES: &str = "classes";

/// A ResNet of basic blocks for images `[batch, 3, height, width]` (He et al., CVPR 2016), as
/// torchvision's `resnet18` and `resnet34`.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: MultiBitConv2d,
    bn1: BatchNorm,
    act: MultiBitActivation,
    maxpool: MaxPool2d,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    fc: MultiBitLinear,
}

/// Two convolutions and what goes around them.
#[derive(Module, Debug)]
struct Block {
    conv1: MultiBitConv2d,
    bn1: BatchNorm,
    act1: MultiBitActivation,
    conv2: MultiBitConv2d,
    bn2: BatchNorm,
    downsample: Option<(MultiBitConv2d, BatchNorm)>,
    act2: MultiBitActivation,
}

impl Block {
    fn forward(&self, x: Quantized<4>) -> Quantized<4> {
        let y = self.conv1.forward_norm(x.clone(), &self.bn1);
        let y = self.act1.forward(y);
        let y = self.conv2.forward_norm(y, &self.bn2);
        let x = match &self.downsample {
            Some((conv, norm)) => conv.forward_norm(x, norm),
            None => x.into_tensor(),
        };
        self.act2.forward(y + x)
    }
}

/// Channelwise in the first layer, pixelwise in the blocks, two subchannels in the last layer.
/// Activations get so many bits, with 0 they stay ReLUs.
pub fn quantizer(max_bits: usize, act_bits: usize) -> Quantizer {
    let glob = |pattern: &str| PathPattern::glob(pattern);
    let quantizer = Quantizer::new(max_bits)
        .rule(glob("conv1.weight"), GroupingRule::Channelwise)
        .rule(glob("layer*.**"), GroupingRule::Pixelwise)
        .rule(glob("fc.weight"), GroupingRule::Subchannelwise(2));
    match act_bits {
        0 => quantizer,
        bits => quantizer.activations(glob("**act*"), bits),
    }
}

/// Makes layers on a device.
struct Maker<'a> {
    act_bits: usize,
    device: &'a Device,
}

impl Maker<'_> {
    /// A convolution without bias; a hidden one takes the output of an activation.
    fn conv(
        &self,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        hidden: bool,
    ) -> MultiBitConv2d {
        let padding = kernel / 2;
        MultiBitConv2dConfig::new(channels, [kernel; 2])
            .with_stride([stride; 2])
            .with_padding(PaddingConfig2d::Explicit(
                padding, padding, padding, padding,
            ))
            .with_bias(false)
            .with_arithmetic(match hidden {
                true => arithmetic(self.act_bits),
                false => Arithmetic::Exact,
            })
            .init_float(self.device)
    }

    fn norm(&self, channels: usize) -> BatchNorm {
        BatchNormConfig::new(channels).init(self.device)
    }

    /// A ReLU, until the conversion switches it on.
    fn act(&self) -> MultiBitActivation {
        MultiBitActivation::off(self.device)
    }

    fn layer(&self, [input, output]: [usize; 2], blocks: usize, stride: usize) -> Vec<Block> {
        let block = |index| {
            let (input, stride) = match index {
                0 => (input, stride),
                _ => (output, 1),
            };
            let downsample = stride != 1 || input != output;
            Block {
                conv1: self.conv([input, output], 3, stride, true),
                bn1: self.norm(output),
                act1: self.act(),
                conv2: self.conv([output, output], 3, 1, true),
                bn2: self.norm(output),
                downsample: downsample.then(|| {
                    let conv = self.conv([input, output], 1, stride, true);
                    (conv, self.norm(output))
                }),
                act2: self.act(),
            }
        };
        (0..blocks).map(block).collect()
    }
}

impl Network for ResNet {
    const NAME: &'static str = "resnet";
    const TITLE: &'static str = "ResNet";
    const IMAGE: [usize; 3] = [3, 224, 224];
    const EVAL_BATCH: usize = 32;
    const BATCH_NORM: bool = true;

    fn from_config(config: &Config, device: &Device) -> Result<Self, Failure> {
        let width: String = number(config, WIDTH)?;
        let width = parse_width(&width)?;
        let blocks = match number(config, DEPTH)? {
            18 => [2, 2, 2, 2],
            34 => [3, 4, 6, 3],
            other => return Err(format!("{DEPTH} is {other}; there are 18 and 34").into()),
        };
        let classes: usize = number(config, CLASSES)?;
        if classes == 0 {
            return Err(format!("{CLASSES} is 0").into());
        }
        let maker = Maker {
            act_bits: act_bits(config)?,
            device,
        };
        // Even, so that two subchannels divide the last layer's inputs.
        let [c1, c2, c3, c4] = [64, 128, 256, 512].map(|c| scaled(c / 2, width) * 2);
        Ok(Self {
            conv1: maker.conv([3, c1], 7, 2, false),
            bn1: maker.norm(c1),
            act: maker.act(),
            maxpool: MaxPool2dConfig::new([3, 3])
                .with_strides([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(),
            layer1: maker.layer([c1, c1], blocks[0], 1),
            layer2: maker.layer([c1, c2], blocks[1], 2),
            layer3: maker.layer([c2, c3], blocks[2], 2),
            layer4: maker.layer([c3, c4], blocks[3], 2),
            // Behind an average: exact.
            fc: MultiBitLinearConfig::new(c4, classes).init_float(device),
        })
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.conv1.forward_norm(images, &self.bn1);
        let x = Quantized::from(x).max_pool2d(&self.maxpool).into_tensor();
        let x = self.act.forward(x);
        let layers = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        let blocks = layers.into_iter().flatten();
        let x = blocks.fold(x, |x, block| block.forward(x)).into_tensor();
        self.fc
            .forward(x.mean_dim(3).mean_dim(2).flatten::<2>(1, 3))
    }
}
