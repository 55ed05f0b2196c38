//! The network, with the field names of torchvision's, and its weights from `.pth` or `.safetensors`.

use std::path::Path;

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use burn_alq::file::Chain;
use burn_alq::{
    Arithmetic, MultiBitActivation, MultiBitConv2d, MultiBitLinear, MultiBitLinearConfig, Quantized,
};
use example_common::network::{act_bits, number, scaled, width};
use example_common::residual::{Block, Maker};
use example_common::{Config, Failure, Network, at, weights};

/// 18 or 34, in the configuration.
pub const DEPTH: &str = "depth";
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
    avgpool: AdaptiveAvgPool2d,
    fc: MultiBitLinear,
}

impl Network for ResNet {
    const NAME: &'static str = "resnet";
    const TITLE: &'static str = "ResNet";
    const IMAGE: [usize; 3] = [3, 224, 224];
    const EVAL_BATCH: usize = 32;
    const BATCH_NORM: bool = true;

    fn from_config(config: &Config, device: &Device) -> Result<Self, Failure> {
        let width = width(config)?;
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
            conv1: maker.conv([3, c1], 7, 2, Arithmetic::Exact),
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
            avgpool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
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
        self.fc.forward(self.avgpool.forward(x).flatten::<2>(1, 3))
    }

    fn chain(&self) -> Chain {
        let mut chain = Chain::new()
            .layer("conv1", &self.conv1)
            .norm("bn1", &self.bn1)
            .max_pool2d(&self.maxpool)
            .activation("act", &self.act);
        let layers = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        for (layer, blocks) in (1..).zip(layers) {
            for (block, of) in blocks.iter().enumerate() {
                chain = of.chain(&format!("layer{layer}.{block}"), chain);
            }
        }
        let chain = chain.adaptive_avg_pool2d(&self.avgpool).flatten();
        chain.layer("fc", &self.fc)
    }
}

/// Puts the weights of a file into a float network.
///
/// # Errors
/// If the file cannot be read, lacks a tensor, or has one of another shape or one too many; names the
/// tensor.
pub fn load_torch(network: ResNet, file: &Path) -> Result<ResNet, Failure> {
    let mut tensors = weights::read(file)?;
    // A counter that PyTorch keeps beside every batch norm.
    tensors.retain(|tensor| !tensor.name.ends_with(".num_batches_tracked"));
    let filled = weights::fill(network, tensors, |layer| {
        // Its levels are fitted in training.
        layer == "Struct:MultiBitActivation"
    });
    filled.map_err(|error| {
        let advice = "check --depth, --width and the number of classes";
        at(file, format!("{error}; {advice}"))
    })
}

/// The network computes what PyTorch computes with the same weights. `tests/fixtures/export.py` made
/// them.
#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use burn::tensor::TensorData;
    use example_common::agreement::chain_agrees;
    use example_common::network::WIDTH;

    use super::*;

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name)
    }

    /// What the fixtures are made for: depth, width and classes.
    const FITTING: [&str; 3] = ["18", "0.0625", "10"];

    fn load([depth, width, classes]: [&str; 3], file: &str) -> Result<ResNet, Failure> {
        let pairs = [(DEPTH, depth), (WIDTH, width), (CLASSES, classes)];
        let config = Config::from(pairs.map(|(key, value)| (key.to_string(), value.to_string())));
        let network = ResNet::from_config(&config, &Device::default()).unwrap();
        load_torch(network, &fixture(file))
    }

    fn values(case: &serde_json::Value, key: &str) -> Vec<f32> {
        let values = case[key].as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap() as f32).collect()
    }

    #[test]
    fn scores_are_those_of_torch() {
        let case = std::fs::read_to_string(fixture("case.json")).unwrap();
        let case: serde_json::Value = serde_json::from_str(&case).unwrap();
        let images = TensorData::new(values(&case, "images"), [2, 3, 48, 48]);
        let expected = values(&case, "scores");
        for file in ["resnet18.pth", "resnet18.safetensors"] {
            let network = load(FITTING, file).unwrap();
            let images = Tensor::from_data(images.clone(), &Device::default());
            let found: Vec<f32> = network.forward(images).into_data().try_into_vec().unwrap();
            assert_eq!(found.len(), expected.len());
            let pairs = found.iter().zip(&expected);
            let errors = pairs.map(|(found, expected)| (found - expected).abs());
            let error = errors.fold(0.0, f32::max);
            assert!(error < 1e-4, "{file}: off by {error}");
        }
    }

    #[test]
    fn a_tensor_that_does_not_fit_is_named() {
        let refuses = |sizes: [&str; 3], file: &str, expected: &str| {
            let error = load(sizes, file).unwrap_err().to_string();
            assert!(
                error.contains(expected) && error.contains(file),
                "{error:?} does not say {expected:?}"
            );
        };
        let missing = "no tensor layer2.0.downsample.0.weight";
        refuses(FITTING, "missing.pth", missing);
        refuses(["18", "0.0625", "11"], "resnet18.pth", "fc.");
        refuses(["18", "0.125", "10"], "resnet18.safetensors", "has shape");
        refuses(["34", "0.0625", "10"], "resnet18.pth", "no tensor layer");
        refuses(FITTING, "case.json", "neither .pth nor");
        refuses(FITTING, "absent.pth", "no such file");
    }

    #[test]
    fn the_chain_in_a_file_gives_the_same_scores() {
        let small = [
            (DEPTH, "18"),
            (WIDTH, "0.125"),
            (CLASSES, "10"),
            ("act_bits", "2"),
        ];
        let image = [3, 40, 48];
        chain_agrees::<ResNet>(&small[..3], image, None);
        chain_agrees::<ResNet>(&small[..3], image, Some(Arithmetic::Int8));
        chain_agrees::<ResNet>(&small, image, None);
    }
}
