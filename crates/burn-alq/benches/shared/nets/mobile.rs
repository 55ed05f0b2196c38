//! MobileNetV2 for images of 224×224, its batch norms folded into the convolutions on both sides.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::activation::relu6;
use burn::tensor::{Device, Tensor};
use burn_alq::{Activation, Arithmetic, Epilogue, GroupingRule, MultiBitConv2dConfig};

use super::{Conv, Full, Kind, Maker, Net, Nets, same_as_dense};
use crate::shared::case::{Case, Side, Work, timed};

impl Maker {
    /// A convolution with "same" padding and a bias.
    fn folded(&self, channels: [usize; 2], kernel: usize, stride: usize, groups: usize) -> Conv {
        let half = kernel / 2;
        let padding = PaddingConfig2d::Explicit(half, half, half, half);
        match self.kind {
            Kind::Float => Conv::Float(
                Conv2dConfig::new(channels, [kernel; 2])
                    .with_stride([stride; 2])
                    .with_padding(padding)
                    .with_groups(groups)
                    .init(&self.device),
            ),
            Kind::MultiBit { sketched, .. } => Conv::MultiBit({
                let config = MultiBitConv2dConfig::new(channels, [kernel; 2])
                    .with_stride([stride; 2])
                    .with_padding(padding)
                    .with_groups(groups)
                    .with_grouping(GroupingRule::Channelwise)
                    .with_max_bits(1);
                if sketched {
                    config.init(&self.device)
                } else {
                    config.init_float(&self.device)
                }
            }),
        }
    }
}

impl Conv {
    fn forward_relu6(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Float(conv) => relu6(conv.forward(x)),
            Self::MultiBit(conv) => conv.forward_then(x, Activation::Relu6),
        }
    }

    fn forward_add(&self, x: Tensor<4>, residual: Option<Tensor<4>>) -> Tensor<4> {
        match (self, residual) {
            (Self::Float(conv), Some(residual)) => conv.forward(x) + residual,
            (Self::Float(conv), None) => conv.forward(x),
            (Self::MultiBit(conv), residual) => conv.forward_then(
                x,
                Epilogue {
                    residual,
                    ..Epilogue::default()
                },
            ),
        }
    }
}

/// Wide, depthwise, narrow.
#[derive(Module, Debug)]
struct Block {
    expand: Option<Conv>,
    depthwise: Conv,
    project: Conv,
    is_residual: bool,
}

impl Block {
    fn new(maker: &Maker, [input, output]: [usize; 2], stride: usize, wider: usize) -> Self {
        let wide = wider * input;
        Self {
            expand: (wider > 1).then(|| maker.folded([input, wide], 1, 1, 1)),
            depthwise: maker.folded([wide; 2], 3, stride, wide),
            project: maker.folded([wide, output], 1, 1, 1),
            is_residual: stride == 1 && input == output,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let residual = self.is_residual.then(|| x.clone());
        let x = match &self.expand {
            Some(expand) => expand.forward_relu6(x),
            None => x,
        };
        self.project
            .forward_add(self.depthwise.forward_relu6(x), residual)
    }
}

#[derive(Module, Debug)]
struct MobileNetV2 {
    stem: Conv,
    blocks: Vec<Block>,
    last: Conv,
    full: Full,
}

impl Net for MobileNetV2 {
    fn new(maker: &Maker) -> Self {
        let mut blocks = Vec::new();
        let mut input = 32;
        for (wider, output, count, stride) in [
            (1, 16, 1, 1),
            (6, 24, 2, 2),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        ] {
            for number in 0..count {
                let stride = if number == 0 { stride } else { 1 };
                blocks.push(Block::new(maker, [input, output], stride, wider));
                input = output;
            }
        }
        Self {
            stem: maker.folded([3, 32], 3, 2, 1),
            blocks,
            last: maker.folded([320, 1280], 1, 1, 1),
            full: maker.full([1280, 1000], 2, false),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.stem.forward_relu6(x);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.last.forward_relu6(x);
        let x = x.mean_dim(3).mean_dim(2).flatten::<2>(1, 3);
        self.full.forward(x.into())
    }
}

/// One image, in exact or int8 arithmetic.
pub fn mobile_net_v2(bits: f64, arithmetic: Arithmetic) -> Case {
    let nets = Nets::<MobileNetV2>::new([1, 3, 224, 224], bits, 0);
    let device: Device = nets.fresh.device.clone();
    let net = MobileNetV2::new(&nets.fresh);
    let packed = nets.model.apply_with(net, arithmetic).expect("it fits");
    let Nets { float, x, .. } = nets;
    // Half a step of 1/127 of an image's largest input in each of 53 layers.
    let room = if arithmetic == Arithmetic::Int8 {
        0.1
    } else {
        1e-4
    };
    let check = same_as_dense(packed.clone(), x.clone(), room);
    let ours = x.clone();
    Case {
        ours: timed(&device, move || packed.forward(ours.clone())),
        other: timed(&device, move || float.forward(x.clone())),
        side: Side::BurnF32,
        work: Work::default(),
        check: Box::new(check),
    }
}
