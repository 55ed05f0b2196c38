//! The network, from a configuration with the names of a checkpoint's `config.json`.

use std::ops::RangeInclusive;

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_alq::nn::activation::ActivationConfig;
use burn_alq::nn::transformer::{
    TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput,
};
use burn_alq::nn::{Embedding, EmbeddingConfig};
use example_common::network::number;
use example_common::{Config, Failure};

/// Its name in the configuration of a packed model.
pub const NAME: &str = "bert";

const D_MODEL: &str = "hidden_size";
const D_FF: &str = "intermediate_size";
const HEADS: &str = "num_attention_heads";
const LAYERS: &str = "num_hidden_layers";
const TYPES: &str = "type_vocab_size";
const ACTIVATION: &str = "hidden_act";
const EPSILON: &str = "layer_norm_eps";
/// Tokens that have an embedding.
pub const VOCABULARY: &str = "vocab_size";
/// The longest text, in tokens.
pub const POSITIONS: &str = "max_position_embeddings";

/// What the network is built from.
pub const KEYS: [&str; 9] = [
    D_MODEL, D_FF, HEADS, LAYERS, VOCABULARY, POSITIONS, TYPES, ACTIVATION, EPSILON,
];

/// BERT (Devlin et al., NAACL 2019) with mean pooling, a sentence encoder (Reimers and Gurevych, EMNLP
/// 2019).
#[derive(Module, Debug)]
pub struct Bert {
    embeddings: Embeddings,
    encoder: TransformerEncoder,
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    norm: LayerNorm,
}

impl Embeddings {
    /// `[batch, length]` → `[batch, length, d_model]`; all tokens are of the first type.
    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let device = tokens.device();
        let [_, length] = tokens.dims();
        let places = Tensor::<1, Int>::arange(0..length as i64, &device).unsqueeze();
        let places = self.position_embeddings.forward(places);
        let kind = Tensor::<2, Int>::zeros([1, 1], &device);
        let kind = self.token_type_embeddings.forward(kind);
        let words = self.word_embeddings.forward(tokens);
        self.norm.forward(words + (places + kind))
    }
}

impl Bert {
    /// A network with random weights.
    ///
    /// # Errors
    /// If a value of the configuration is missing or out of range.
    pub fn from_config(config: &Config, device: &Device) -> Result<Self, Failure> {
        let size = |key| in_range(config, key, 1..=1 << 20);
        let (d_model, heads) = (size(D_MODEL)?, size(HEADS)?);
        if !d_model.is_multiple_of(heads) {
            return Err(format!("{HEADS} is {heads}, which does not divide {d_model}").into());
        }
        let epsilon: f64 = number(config, EPSILON)?;
        if !(0.0..1.0).contains(&epsilon) {
            return Err(format!("{EPSILON} is {epsilon}").into());
        }
        let activation = match number::<String>(config, ACTIVATION)?.as_str() {
            "gelu" => ActivationConfig::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => ActivationConfig::GeluApproximate,
            "relu" => ActivationConfig::Relu,
            other => return Err(format!("{ACTIVATION} is {other:?}, not gelu or relu").into()),
        };
        let layers = in_range(config, LAYERS, 1..=1 << 10)?;
        let table = |count| EmbeddingConfig::new(count, d_model).init(device);
        Ok(Self {
            embeddings: Embeddings {
                word_embeddings: table(size(VOCABULARY)?),
                position_embeddings: table(size(POSITIONS)?),
                token_type_embeddings: table(size(TYPES)?),
                norm: LayerNormConfig::new(d_model)
                    .with_epsilon(epsilon)
                    .init(device),
            },
            encoder: TransformerEncoderConfig::new(d_model, size(D_FF)?, heads, layers)
                .with_dropout(0.0)
                .with_layer_norm_eps(epsilon)
                .with_activation(activation)
                .init(device),
        })
    }

    /// Embeddings of unit length, `[batch, d_model]`, of texts `[batch, length]`. `padding` is true where
    /// a shorter text has no token; none if there is no such place.
    pub fn forward(&self, tokens: Tensor<2, Int>, padding: Option<Tensor<2, Bool>>) -> Tensor<2> {
        let mut input = TransformerEncoderInput::new(self.embeddings.forward(tokens));
        if let Some(padding) = &padding {
            input = input.mask_pad(padding.clone());
        }
        let x = self.encoder.forward(input);
        let mean = match padding {
            None => x.mean_dim(1),
            Some(padding) => {
                let kept = padding.bool_not().float().unsqueeze_dim::<3>(2);
                (x * kept.clone()).sum_dim(1) / kept.sum_dim(1)
            }
        };
        let mean = mean.squeeze_dim::<2>(1);
        let length = mean.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
        mean / length
    }
}

fn in_range(config: &Config, key: &str, range: RangeInclusive<usize>) -> Result<usize, Failure> {
    let found = number(config, key)?;
    if range.contains(&found) {
        return Ok(found);
    }
    let (start, end) = range.into_inner();
    Err(format!("{key} is {found}, not {start} to {end}").into())
}
