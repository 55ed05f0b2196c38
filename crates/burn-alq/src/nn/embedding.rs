use burn_core as burn;
use burn_core::backend::Dispatch;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn_core::tensor::module::embedding;
use burn_core::tensor::{Device, Int, Tensor};
use burn_nn::Initializer;

use super::{add_bits, describe, dims, packed, same_device};
use crate::ops::AlqOps;
use crate::weight::{GroupingRule, QuantizeError, attach};

/// Configuration to create an [`Embedding`] layer with [`init`](Self::init).
#[derive(Config, Debug)]
pub struct EmbeddingConfig {
    /// The number of embedding vectors.
    pub n_embedding: usize,
    /// The size of each vector.
    pub d_model: usize,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::Normal{mean:0.0, std:1.0}")]
    pub initializer: Initializer,
}

/// Burn's lookup table ([`Embedding`](burn_nn::Embedding)), which looks up in the bits once packed, as
/// [`MultiBitEmbedding`] does.
///
/// Should be created with [`EmbeddingConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Embedding {
    /// The weights, of shape `[n_embedding, d_model]`.
    pub weight: Param<Tensor<2>>,
}

drop_in!(Embedding, EmbeddingConfig of burn_nn::Embedding, burn_nn::EmbeddingConfig {
    n_embedding, d_model, initializer
} => { weight });

impl Embedding {
    /// Looks vectors up.
    ///
    /// # Shapes
    /// - `input`: `[batch, seq_length]`
    /// - result: `[batch, seq_length, d_model]`
    ///
    /// # Panics
    /// As [`MultiBitEmbedding::forward`].
    pub fn forward(&self, input: Tensor<2, Int>) -> Tensor<3> {
        look_up("Embedding", &self.weight, input)
    }
}

/// Configuration to create a [`MultiBitEmbedding`] layer with [`init`](Self::init), or from a
/// trained [`Embedding`](burn_nn::Embedding) with [`quantize`](Self::quantize).
#[derive(Config, Debug)]
pub struct MultiBitEmbeddingConfig {
    /// The number of embedding vectors.
    pub n_embedding: usize,
    /// The size of each vector.
    pub d_model: usize,
    /// How the weight is cut into groups that share coordinates.
    #[config(default = "GroupingRule::Channelwise")]
    pub grouping: GroupingRule,
    /// Bases of a group before pruning, 1 to 8.
    #[config(default = 6)]
    pub max_bits: usize,
    /// The type of function used to initialize the weight before it is sketched.
    #[config(default = "Initializer::Normal{mean:0.0, std:1.0}")]
    pub initializer: Initializer,
}

/// A lookup table of multi-bit vectors.
///
/// Packed, only the vectors that are looked up are unpacked: on CubeCL devices where they are, for
/// others on the host.
///
/// Should be created with [`MultiBitEmbeddingConfig`].
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct MultiBitEmbedding {
    /// The reconstructed weight `[n_embedding, d_model]`, with its [`MultiBit`](crate::MultiBit)
    /// state attached while training, or its bits once packed.
    pub weight: Param<Tensor<2>>,
}

impl MultiBitEmbeddingConfig {
    fn float(&self, device: &Device) -> burn_nn::Embedding {
        burn_nn::EmbeddingConfig::new(self.n_embedding, self.d_model)
            .with_initializer(self.initializer.clone())
            .init(device)
    }

    fn wrap(&self, embedding: burn_nn::Embedding) -> MultiBitEmbedding {
        MultiBitEmbedding {
            weight: embedding.weight,
        }
    }
}

constructors!(MultiBitEmbedding, MultiBitEmbeddingConfig from burn_nn::Embedding, default |_| MultiBitEmbeddingConfig::new(1, 1));

impl MultiBitEmbedding {
    /// Looks vectors up.
    ///
    /// # Shapes
    /// - `input`: `[batch, seq_length]`
    /// - result: `[batch, seq_length, d_model]`
    ///
    /// # Panics
    /// Packed, if an index is not below `n_embedding`; on CubeCL devices, which do not read indices
    /// back, such a vector is NaN instead.
    pub fn forward(&self, input: Tensor<2, Int>) -> Tensor<3> {
        look_up("MultiBitEmbedding", &self.weight, input)
    }
}

fn look_up(layer: &str, weight: &Param<Tensor<2>>, input: Tensor<2, Int>) -> Tensor<3> {
    let device = input.device();
    same_device(layer, weight, &device);
    let Some(packed) = packed(weight, 0) else {
        return embedding(weight.val(), input);
    };
    let [batch, length] = input.dims();
    let [_, d_model] = dims(weight);
    let (shape, dtype) = ([batch, length, d_model], packed.dtype(weight));
    if batch * length == 0 {
        return Tensor::zeros(shape, (&device, dtype));
    }
    let rows = <Dispatch as AlqOps>::alq_lookup(input.into_dispatch(), packed.weight.clone());
    Tensor::<2>::from_dispatch(rows).reshape(shape).cast(dtype)
}

impl ModuleDisplay for Embedding {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [n_embedding, d_model] = dims(&self.weight);
        let content = content
            .add("n_embedding", &n_embedding)
            .add("d_model", &d_model);
        add_bits(content, &self.weight).optional()
    }
}

impl ModuleDisplay for MultiBitEmbedding {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [n_embedding, d_model] = dims(&self.weight);
        content
            .add("n_embedding", &n_embedding)
            .add("d_model", &d_model)
            .add("bits", &describe(&self.weight))
            .optional()
    }
}
