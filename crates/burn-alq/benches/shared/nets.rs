//! Whole networks: packed with random weights, and the same in f32 with ReLU.

pub mod encoder;
pub mod mobile;

use std::sync::Arc;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::{
    Arithmetic, GroupingRule, MultiBitActivation, MultiBitConv2d, MultiBitConv2dConfig,
    MultiBitLinear, MultiBitLinearConfig, PackedModel, Quantized,
};

use super::case::{Case, Side, Work, same, timed, values};
use super::layers::activation;
use super::random::Random;

/// What a network is made of.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Burn's layers and ReLU.
    Float,
    /// Multi-bit layers; activations with as many bits, 0 for ReLU.
    ///
    /// Sketched from random weights, or waiting for packed ones.
    MultiBit { act_bits: usize, sketched: bool },
}

#[derive(Module, Debug)]
enum Conv {
    Float(Conv2d),
    MultiBit(MultiBitConv2d),
}

/// A convolution and, where there is one, batch norm.
#[derive(Module, Debug)]
struct ConvNorm {
    conv: Conv,
    norm: Option<BatchNorm>,
}

impl ConvNorm {
    fn forward(&self, x: Quantized<4>) -> Tensor<4> {
        match (&self.conv, &self.norm) {
            (Conv::MultiBit(conv), Some(norm)) => conv.forward_norm(x, norm),
            (Conv::MultiBit(conv), None) => conv.forward(x),
            (Conv::Float(conv), Some(norm)) => norm.forward(conv.forward(x.into_tensor())),
            (Conv::Float(conv), None) => conv.forward(x.into_tensor()),
        }
    }

    /// With what is added, and the activation behind it.
    fn forward_act(
        &self,
        x: Quantized<4>,
        residual: Option<Quantized<4>>,
        act: &Act,
    ) -> Quantized<4> {
        if let (Conv::MultiBit(conv), Some(levels)) = (&self.conv, &act.levels) {
            return conv.forward_act(x, self.norm.as_ref(), residual, levels);
        }
        let y = self.forward(x);
        act.forward(match residual {
            Some(residual) => y + residual.into_tensor(),
            None => y,
        })
    }
}

#[derive(Module, Debug)]
enum Full {
    Float(Linear),
    MultiBit(MultiBitLinear),
}

impl Full {
    fn forward(&self, x: Quantized<2>) -> Tensor<2> {
        match self {
            Self::Float(linear) => linear.forward(x.into_tensor()),
            Self::MultiBit(linear) => linear.forward(x),
        }
    }
}

/// ReLU, or multi-bit levels.
#[derive(Module, Debug)]
struct Act {
    levels: Option<MultiBitActivation>,
}

impl Act {
    fn forward<const D: usize>(&self, x: Tensor<D>) -> Quantized<D> {
        match &self.levels {
            Some(levels) => levels.forward(x),
            None => relu(x).into(),
        }
    }
}

#[derive(Module, Debug)]
enum Pool {
    Float(MaxPool2d),
    MultiBit(MaxPool2d),
}

impl Pool {
    fn forward(&self, x: impl Into<Quantized<4>>) -> Quantized<4> {
        match self {
            Self::Float(pool) => pool.forward(x.into().into_tensor()).into(),
            Self::MultiBit(pool) => x.into().max_pool2d(pool),
        }
    }
}

/// Makes layers of one kind.
pub struct Maker {
    kind: Kind,
    device: Device,
}

impl Maker {
    /// A convolution; `hidden` ones take the output of an activation.
    fn conv(
        &self,
        shape: [usize; 3],
        stride: usize,
        padding: usize,
        norm: bool,
        hidden: bool,
    ) -> ConvNorm {
        let [input, output, kernel] = shape;
        let padding = PaddingConfig2d::Explicit(padding, padding, padding, padding);
        let conv = match self.kind {
            Kind::Float => Conv::Float(
                Conv2dConfig::new([input, output], [kernel; 2])
                    .with_stride([stride; 2])
                    .with_padding(padding)
                    .with_bias(!norm)
                    .init(&self.device),
            ),
            Kind::MultiBit { act_bits, sketched } => Conv::MultiBit({
                let config = MultiBitConv2dConfig::new([input, output], [kernel; 2])
                    .with_stride([stride; 2])
                    .with_padding(padding)
                    .with_bias(!norm)
                    // Those of the paper's networks.
                    .with_grouping(match (act_bits, hidden) {
                        (0, _) => GroupingRule::Kernelwise,
                        (_, false) => GroupingRule::Channelwise,
                        (_, true) => GroupingRule::Pixelwise,
                    })
                    .with_arithmetic(match (act_bits, hidden) {
                        (0, _) => Arithmetic::Exact,
                        // Images are bytes.
                        (_, false) => Arithmetic::Int8,
                        (_, true) => Arithmetic::Bitwise,
                    })
                    .with_max_bits(1);
                if sketched {
                    config.init(&self.device)
                } else {
                    config.init_float(&self.device)
                }
            }),
        };
        ConvNorm {
            conv,
            norm: norm.then(|| BatchNormConfig::new(output).init(&self.device)),
        }
    }

    fn full(&self, shape: [usize; 2], subchannels: usize, hidden: bool) -> Full {
        let [input, output] = shape;
        match self.kind {
            Kind::Float => Full::Float(LinearConfig::new(input, output).init(&self.device)),
            Kind::MultiBit { act_bits, sketched } => Full::MultiBit({
                let config = MultiBitLinearConfig::new(input, output)
                    .with_grouping(GroupingRule::Subchannelwise(subchannels))
                    .with_arithmetic(if hidden && act_bits > 0 {
                        Arithmetic::Bitwise
                    } else {
                        Arithmetic::Exact
                    })
                    .with_max_bits(1);
                if sketched {
                    config.init(&self.device)
                } else {
                    config.init_float(&self.device)
                }
            }),
        }
    }

    fn act(&self) -> Act {
        let levels = match self.kind {
            Kind::MultiBit { act_bits, .. } if act_bits > 0 => {
                Some(activation(act_bits, &self.device))
            }
            _ => None,
        };
        Act { levels }
    }

    fn pool(&self, size: usize, stride: usize, padding: usize) -> Pool {
        let pool = MaxPool2dConfig::new([size; 2])
            .with_strides([stride; 2])
            .with_padding(PaddingConfig2d::Explicit(
                padding, padding, padding, padding,
            ))
            .init();
        match self.kind {
            Kind::Float => Pool::Float(pool),
            Kind::MultiBit { .. } => Pool::MultiBit(pool),
        }
    }
}

/// A network of this benchmark.
pub trait Net: Module + 'static {
    fn new(maker: &Maker) -> Self;
    fn forward(&self, x: Tensor<4>) -> Tensor<2>;
}

/// Caffe's LeNet5.
#[derive(Module, Debug)]
pub struct LeNet5 {
    conv1: ConvNorm,
    conv2: ConvNorm,
    fc1: Full,
    fc2: Full,
    act: Act,
    pool: Pool,
}

impl Net for LeNet5 {
    fn new(maker: &Maker) -> Self {
        Self {
            conv1: maker.conv([1, 20, 5], 1, 0, false, false),
            conv2: maker.conv([20, 50, 5], 1, 0, false, true),
            fc1: maker.full([800, 500], 2, true),
            fc2: maker.full([500, 10], 1, true),
            act: maker.act(),
            pool: maker.pool(2, 2, 0),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(self.conv1.forward(x.into()));
        let x = self.act.forward(x.into_tensor());
        let x = self.pool.forward(self.conv2.forward(x));
        let x = self
            .act
            .forward(x.into_tensor())
            .map(|x| x.flatten::<2>(1, 3));
        self.fc2.forward(self.act.forward(self.fc1.forward(x)))
    }
}

/// `2×128C3, MP2, 2×256C3, MP2, 2×512C3, MP2, 2×1024FC, 10`, with batch norm.
#[derive(Module, Debug)]
pub struct VggSmall {
    convs: Vec<ConvNorm>,
    full: Vec<Full>,
    act: Act,
    pool: Pool,
}

impl Net for VggSmall {
    fn new(maker: &Maker) -> Self {
        let channels = [3, 128, 128, 256, 256, 512, 512];
        let convs = channels
            .windows(2)
            .enumerate()
            .map(|(layer, pair)| maker.conv([pair[0], pair[1], 3], 1, 1, true, layer > 0));
        Self {
            convs: convs.collect(),
            full: vec![
                maker.full([8192, 1024], 16, true),
                maker.full([1024, 1024], 2, true),
                maker.full([1024, 10], 2, true),
            ],
            act: maker.act(),
            pool: maker.pool(2, 2, 0),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let mut x = x.into();
        for (layer, conv) in self.convs.iter().enumerate() {
            x = conv.forward_act(x, None, &self.act);
            if layer % 2 == 1 {
                x = self.pool.forward(x);
            }
        }
        let x = x.map(|x| x.flatten::<2>(1, 3));
        let x = self.act.forward(self.full[0].forward(x));
        let x = self.act.forward(self.full[1].forward(x));
        self.full[2].forward(x)
    }
}

#[derive(Module, Debug)]
struct Block {
    conv1: ConvNorm,
    conv2: ConvNorm,
    shortcut: Option<ConvNorm>,
    act: Act,
}

impl Block {
    fn forward(&self, x: Quantized<4>) -> Quantized<4> {
        let y = self.conv1.forward_act(x.clone(), None, &self.act);
        let x = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x).into(),
            None => x,
        };
        self.conv2.forward_act(y, Some(x), &self.act)
    }
}

/// ResNet18 for images of 224×224.
#[derive(Module, Debug)]
struct ResNet18 {
    stem: ConvNorm,
    act: Act,
    pool: Pool,
    blocks: Vec<Block>,
    full: Full,
}

impl Net for ResNet18 {
    fn new(maker: &Maker) -> Self {
        let mut blocks = Vec::new();
        let mut input = 64;
        for (output, stride) in [(64, 1), (128, 2), (256, 2), (512, 2)] {
            for stride in [stride, 1] {
                let shortcut = input != output;
                blocks.push(Block {
                    conv1: maker.conv([input, output, 3], stride, 1, true, true),
                    conv2: maker.conv([output, output, 3], 1, 1, true, true),
                    shortcut: shortcut
                        .then(|| maker.conv([input, output, 1], stride, 0, true, true)),
                    act: maker.act(),
                });
                input = output;
            }
        }
        Self {
            stem: maker.conv([3, 64, 7], 2, 3, true, false),
            act: maker.act(),
            pool: maker.pool(3, 2, 1),
            blocks,
            full: maker.full([512, 1000], 2, false),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.stem.forward_act(x.into(), None, &self.act);
        let x = self.pool.forward(x);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let x = x.into_tensor().mean_dim(3).mean_dim(2).flatten::<2>(1, 3);
        self.full.forward(x.into())
    }
}

/// Of inputs and weights, for one image.
pub const LENET5_PRODUCTS: usize = 24 * 24 * 25 * 20 + 64 * 500 * 50 + 800 * 500 + 5000;

/// The same.
pub const VGG_SMALL_PRODUCTS: usize = 617_000_000;

/// A network of Burn's own layers.
pub fn float<N: Net>(device: &Device) -> N {
    N::new(&Maker {
        kind: Kind::Float,
        device: device.clone(),
    })
}

/// LeNet5 in exact arithmetic.
pub fn lenet5(batch: usize, bits: f64) -> Case {
    case::<LeNet5>([batch, 1, 28, 28], bits, 0, 1e-4)
}

/// VGG-small for images of 32×32, activations of 2 bits.
pub fn vgg_small(bits: f64) -> Case {
    case::<VggSmall>([1, 3, 32, 32], bits, 2, 1e-4)
}

/// ResNet18, activations of 2 bits.
pub fn resnet18(bits: f64) -> Case {
    case::<ResNet18>([1, 3, 224, 224], bits, 2, 1e-4)
}

/// A network with random weights of `bits` bits against the same in f32. `room` is for the rounding
/// of sums: in the networks with activations of bits, of batch norm alone.
fn case<N: Net>(dims: [usize; 4], bits: f64, act_bits: usize, room: f32) -> Case {
    let nets = Nets::<N>::new(dims, bits, act_bits);
    let packed = nets.model.apply(N::new(&nets.fresh)).expect("it fits");
    let Nets {
        float, x, fresh, ..
    } = nets;
    let check = same_as_dense(packed.clone(), x.clone(), room);
    let ours = x.clone();
    Case {
        ours: timed(&fresh.device, move || packed.forward(ours.clone())),
        other: timed(&fresh.device, move || float.forward(x.clone())),
        side: Side::BurnF32,
        work: Work::default(),
        check: Box::new(check),
    }
}

/// From a file to the first result: read, verified, put into a fresh network, laid out for the
/// kernels. The other side reads its network in f32 from Burn's own file.
pub fn load_resnet18(bits: f64) -> Case {
    let nets = Nets::<ResNet18>::new([1, 3, 224, 224], bits, 2);
    let folder = tempfile::tempdir().expect("a folder for files");
    let [packed, float] = ["packed", "float"].map(|name| folder.path().join(name));
    nets.model.save(&packed).expect("room for a file");
    nets.float.clone().save_file(&float).expect("as above");
    let Nets { fresh, x, .. } = nets;
    let float_maker = Maker {
        kind: Kind::Float,
        device: fresh.device.clone(),
    };
    let ours = {
        let x = x.clone();
        move || {
            let model = PackedModel::load(&packed).expect("written above");
            let net = model.apply(ResNet18::new(&fresh)).expect("it fits");
            let y = net.forward(x.clone());
            (net, y)
        }
    };
    let check = same_as_dense(ours().0, x.clone(), 1e-4);
    Case {
        ours: timed(&float_maker.device.clone(), ours),
        other: timed(&float_maker.device.clone(), move || {
            // The files live as long as their folder.
            let _ = &folder;
            let net = ResNet18::new(&float_maker).load_file(&float);
            net.forward(x.clone())
        }),
        side: Side::BurnF32,
        work: Work::default(),
        check: Box::new(check),
    }
}

/// Compares with the same weights as f32, in Burn's layers.
fn same_as_dense<N: Net>(
    packed: N,
    x: Tensor<4>,
    room: f32,
) -> impl FnOnce() -> Result<(), String> {
    move || {
        let found = values(packed.forward(x.clone()).into_data());
        let dense = packed.materialize();
        same(&found, &values(dense.forward(x).into_data()), room)
    }
}

/// A network in f32, and the same packed with random weights.
struct Nets<N> {
    float: N,
    model: PackedModel,
    /// Makes networks that wait for packed weights.
    fresh: Maker,
    x: Tensor<4>,
}

impl<N: Net> Nets<N> {
    fn new(dims: [usize; 4], bits: f64, act_bits: usize) -> Self {
        let device = Device::flex();
        device.seed(1);
        let mut random = Random::new(3);
        let maker = |kind| Maker {
            kind,
            device: device.clone(),
        };
        let multi_bit = |sketched| maker(Kind::MultiBit { act_bits, sketched });
        let float = N::new(&maker(Kind::Float));
        let net = N::new(&multi_bit(true));
        let mut model = PackedModel::pack(&net).expect("a sketched network");
        for (_, weight) in &mut model.weights {
            let shape = weight.shape().to_vec();
            let random = random.weight(&shape, weight.grouping().clone(), bits);
            *weight = Arc::new(random);
        }
        // Exact in every sum, as the coordinates, and bytes, as those of an image.
        let x = random.values(dims.iter().product()).into_iter();
        let mut x: Vec<f32> = x
            .map(|x| (64.0 * x).round().clamp(-127.0, 127.0) / 64.0)
            .collect();
        x[0] = 127.0 / 64.0;
        let x = Tensor::from_data(TensorData::new(x, dims), &device);
        Self {
            float,
            model,
            fresh: multi_bit(false),
            x,
        }
    }
}
