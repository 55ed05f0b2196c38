use burn_core as burn;
use burn_core::backend::Dispatch;
use burn_core::config::Config;
use burn_core::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn_core::tensor::module::embedding;
use burn_core::tensor::{Device, Int, Tensor};
use burn_nn::{Embedding, EmbeddingConfig, Initializer};

use super::{describe, dims, packed, same_device};
use crate::ops::AlqOps;
use crate::weight::{GroupingRule, QuantizeError, attach};

/// Configuration to create a [`MultiBitEmbedding`] layer with [`init`](Self::init), or from a
/// trained [`Embedding`] with [`quantize`](Self::quantize).
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
    fn float(&self, device: &Device) -> Embedding {
        EmbeddingConfig::new(self.n_embedding, self.d_model)
            .with_initializer(self.initializer.clone())
            .init(device)
    }

    fn wrap(&self, embedding: Embedding) -> MultiBitEmbedding {
        MultiBitEmbedding {
            weight: embedding.weight,
        }
    }
}

constructors!(MultiBitEmbedding, MultiBitEmbeddingConfig from Embedding, default |_| MultiBitEmbeddingConfig::new(1, 1));

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
        let device = input.device();
        same_device("MultiBitEmbedding", &self.weight, &device);
        let Some(packed) = packed(&self.weight) else {
            return embedding(self.weight.val(), input);
        };
        let [batch, length] = input.dims();
        let [_, d_model] = dims(&self.weight);
        let (shape, dtype) = ([batch, length, d_model], packed.dtype(&self.weight));
        if batch * length == 0 {
            return Tensor::zeros(shape, (&device, dtype));
        }
        let rows = <Dispatch as AlqOps>::alq_lookup(input.into_dispatch(), packed.weight.clone());
        Tensor::<2>::from_dispatch(rows).reshape(shape).cast(dtype)
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
