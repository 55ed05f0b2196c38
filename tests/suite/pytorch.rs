//! Weights of PyTorch, in its layout.

use burn::module::Module;
use burn::nn::conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig,
};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};
use burn_alq::{
    AsBurnLayers, MultiBitConv1d, MultiBitConv1dConfig, MultiBitConv2d, MultiBitConv2dConfig,
    MultiBitConvTranspose2d, MultiBitConvTranspose2dConfig, MultiBitEmbedding,
    MultiBitEmbeddingConfig, MultiBitLinear, MultiBitLinearConfig,
};
use burn_store::{ModuleSnapshot, PyTorchToBurnAdapter};

use crate::devices::device;
use crate::support::values;

/// A layer of each kind, square wherever a swap of axes would go unnoticed.
macro_rules! zoo {
    ($name:ident, $linear:ty, $conv1d:ty, $conv2d:ty, $up:ty, $embedding:ty) => {
        #[derive(Module, Debug)]
        struct $name {
            linear: $linear,
            conv1d: $conv1d,
            conv2d: $conv2d,
            up: $up,
            embedding: $embedding,
        }

        impl $name {
            fn weights(&self) -> Vec<Vec<f32>> {
                vec![
                    values(self.linear.weight.val()),
                    values(self.conv1d.weight.val()),
                    values(self.conv2d.weight.val()),
                    values(self.up.weight.val()),
                    values(self.embedding.weight.val()),
                ]
            }
        }
    };
}

zoo!(Burns, Linear, Conv1d, Conv2d, ConvTranspose2d, Embedding);
zoo!(
    Ours,
    MultiBitLinear,
    MultiBitConv1d,
    MultiBitConv2d,
    MultiBitConvTranspose2d,
    MultiBitEmbedding
);

#[test]
fn weights_of_pytorch_load_into_square_layers_as_into_burns() {
    let device = device();
    let mut burns = Burns {
        linear: LinearConfig::new(4, 4).init(&device),
        conv1d: Conv1dConfig::new(4, 4, 4).init(&device),
        conv2d: Conv2dConfig::new([4, 4], [4, 4]).init(&device),
        up: ConvTranspose2dConfig::new([4, 4], [4, 4]).init(&device),
        embedding: EmbeddingConfig::new(4, 4).init(&device),
    };
    let mut ours = Ours {
        linear: MultiBitLinearConfig::new(4, 4).init_float(&device),
        conv1d: MultiBitConv1dConfig::new(4, 4, 4).init_float(&device),
        conv2d: MultiBitConv2dConfig::new([4, 4], [4, 4]).init_float(&device),
        up: MultiBitConvTranspose2dConfig::new([4, 4], [4, 4]).init_float(&device),
        embedding: MultiBitEmbeddingConfig::new(4, 4).init_float(&device),
    };
    let record = burns.clone().into_record().into_bytes().unwrap();
    let tensors = || {
        let reader = burn_pack::Reader::from_bytes(record.clone()).unwrap();
        reader.into_tensors().unwrap()
    };
    let plain = burns.apply(tensors(), None, Some(Box::new(PyTorchToBurnAdapter)), true);
    let result = ours.apply(
        tensors(),
        None,
        Some(Box::new(AsBurnLayers(PyTorchToBurnAdapter))),
        true,
    );
    assert!(
        plain.errors.is_empty() && result.errors.is_empty(),
        "{result:?}"
    );
    assert_eq!(ours.weights(), burns.weights());
}
