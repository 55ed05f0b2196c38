//! Residual networks of basic blocks (He et al., CVPR 2016), with the field names of torchvision's.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::Device;
use burn_alq::file::Chain;
use burn_alq::{Arithmetic, MultiBitActivation, MultiBitConv2d, MultiBitConv2dConfig, Quantized};

use crate::network::arithmetic;

/// Two convolutions and what goes around them.
#[derive(Module, Debug)]
pub struct Block {
    conv1: MultiBitConv2d,
    bn1: BatchNorm,
    act1: MultiBitActivation,
    conv2: MultiBitConv2d,
    bn2: BatchNorm,
    downsample: Option<(MultiBitConv2d, BatchNorm)>,
    act2: MultiBitActivation,
}

impl Block {
    /// Its output, `[batch, channels, height, width]`.
    pub fn forward(&self, x: Quantized<4>) -> Quantized<4> {
        let y = self.conv1.forward_norm(x.clone(), &self.bn1);
        let y = self.act1.forward(y);
        let y = self.conv2.forward_norm(y, &self.bn2);
        let x = match &self.downsample {
            Some((conv, norm)) => conv.forward_norm(x, norm),
            None => x.into_tensor(),
        };
        self.act2.forward(y + x)
    }

    /// The same steps, of the block at a path.
    pub fn chain(&self, path: &str, chain: Chain) -> Chain {
        let at = |name: &str| format!("{path}.{name}");
        let mut skip = chain.value();
        let mut chain = chain
            .layer(&at("conv1"), &self.conv1)
            .norm(&at("bn1"), &self.bn1)
            .activation(&at("act1"), &self.act1)
            .layer(&at("conv2"), &self.conv2)
            .norm(&at("bn2"), &self.bn2);
        if let Some((conv, norm)) = &self.downsample {
            let y = chain.value();
            chain = chain
                .from(skip)
                .layer(&at("downsample.0"), conv)
                .norm(&at("downsample.1"), norm);
            skip = chain.value();
            chain = chain.from(y);
        }
        chain.plus(skip).activation(&at("act2"), &self.act2)
    }
}

/// Makes layers on a device.
pub struct Maker<'a> {
    /// Of every activation; 0 for ReLU.
    pub act_bits: usize,
    /// Where the layers are.
    pub device: &'a Device,
}

impl Maker<'_> {
    /// A convolution without bias.
    pub fn conv(
        &self,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        arithmetic: Arithmetic,
    ) -> MultiBitConv2d {
        let padding = kernel / 2;
        MultiBitConv2dConfig::new(channels, [kernel; 2])
            .with_stride([stride; 2])
            .with_padding(PaddingConfig2d::Explicit(
                padding, padding, padding, padding,
            ))
            .with_bias(false)
            .with_arithmetic(arithmetic)
            .init_float(self.device)
    }

    /// A batch norm.
    pub fn norm(&self, channels: usize) -> BatchNorm {
        BatchNormConfig::new(channels).init(self.device)
    }

    /// A ReLU, until the conversion switches it on.
    pub fn act(&self) -> MultiBitActivation {
        MultiBitActivation::off(self.device)
    }

    /// Blocks one after the other, the first with the stride.
    pub fn layer(&self, [input, output]: [usize; 2], blocks: usize, stride: usize) -> Vec<Block> {
        // Behind an activation.
        let hidden = arithmetic(self.act_bits);
        let block = |index| {
            let (input, stride) = match index {
                0 => (input, stride),
                _ => (output, 1),
            };
            let downsample = stride != 1 || input != output;
            Block {
                conv1: self.conv([input, output], 3, stride, hidden),
                bn1: self.norm(output),
                act1: self.act(),
                conv2: self.conv([output, output], 3, 1, hidden),
                bn2: self.norm(output),
                downsample: downsample.then(|| {
                    let conv = self.conv([input, output], 1, stride, hidden);
                    (conv, self.norm(output))
                }),
                act2: self.act(),
            }
        };
        (0..blocks).map(block).collect()
    }
}
