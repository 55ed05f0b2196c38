//! Models whose layers come from one crate or the other.

use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::support::Random;

/// The size of a model, of its heads, and of a vocabulary.
pub const D: usize = 24;
pub const HEADS: usize = 4;
const WORDS: usize = 11;

/// What a model gives, by the layer that it comes from.
pub type Outputs = Vec<(&'static str, TensorData)>;

/// Numbers near 1, always the same.
pub fn numbers<const R: usize>(shape: [usize; R], device: &Device) -> Tensor<R> {
    let count = shape.iter().product();
    let numbers = Random::new(7).normals(count, 0.7).into_iter();
    let numbers: Vec<f32> = numbers.map(|x| x as f32).collect();
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

/// The last two of five places are padding, in the first sequence of two.
fn padding(device: &Device) -> Tensor<2, Bool> {
    let no = [false; 5];
    Tensor::from_data([[false, false, false, true, true], no], device)
}

/// A model, with its layers from one crate.
macro_rules! model {
    ($name:ident from $crate_of:ident) => {
        pub mod $name {
            use $crate_of::nn::activation::{Activation, ActivationConfig, PReluConfig};
            use $crate_of::nn::attention::{
                CrossAttention, CrossAttentionCache, CrossAttentionConfig, MhaCache, MhaInput,
                MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask,
            };
            use $crate_of::nn::conv::{
                Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3dConfig, ConvTranspose1d,
                ConvTranspose1dConfig, ConvTranspose2d, ConvTranspose2dConfig,
            };
            use $crate_of::nn::gru::{BiGru, BiGruConfig};
            use $crate_of::nn::modules::lstm::{BiLstm, LstmState};
            use $crate_of::nn::transformer::*;
            use $crate_of::nn::{
                BatchNorm, BatchNormConfig, BiLstmConfig, BiRnn, BiRnnConfig, Embedding,
                EmbeddingConfig, Gru, GruConfig, Linear, LinearConfig, LinearLayout, Lstm,
                LstmConfig, PaddingConfig1d, PaddingConfig2d, Relu, Rnn, RnnConfig, RnnState,
                SwiGlu, SwiGluConfig, loss, pool,
            };

            use super::*;

            #[derive(Module, Debug)]
            pub struct Vision {
                conv1d: Conv1d,
                conv2d: Conv2d,
                norm: BatchNorm,
                depthwise: Conv2d,
                up1d: ConvTranspose1d,
                up2d: ConvTranspose2d,
                pool: pool::MaxPool2d,
                head: Linear,
                columns: Linear,
                activation: Activation,
                relu: Relu,
            }

            impl Vision {
                pub fn new(device: &Device) -> Self {
                    Self {
                        conv1d: Conv1dConfig::new(4, 8, 3)
                            .with_padding(PaddingConfig1d::Same)
                            .with_groups(2)
                            .init(device),
                        conv2d: Conv2dConfig::new([3, 8], [3, 3])
                            .with_stride([2, 2])
                            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                            .init(device),
                        norm: BatchNormConfig::new(8).init(device),
                        depthwise: Conv2dConfig::new([8, 8], [3, 3])
                            .with_groups(8)
                            .with_padding(PaddingConfig2d::Same)
                            .with_bias(false)
                            .init(device),
                        up1d: ConvTranspose1dConfig::new([4, 8], 3)
                            .with_stride(2)
                            .with_padding_out(1)
                            .init(device),
                        up2d: ConvTranspose2dConfig::new([8, 4], [2, 2])
                            .with_groups(2)
                            .with_stride([2, 2])
                            .init(device),
                        pool: pool::MaxPool2dConfig::new([2, 2]).init(),
                        head: LinearConfig::new(4 * 4 * 4, 5).init(device),
                        columns: LinearConfig::new(5, 3)
                            .with_layout(LinearLayout::Col)
                            .with_bias(false)
                            .init(device),
                        activation: ActivationConfig::PRelu(PReluConfig::new()).init(device),
                        relu: Relu::new(),
                    }
                }

                /// Ranks that only the result says are those of the layers' inputs.
                fn classify(&self, x: Tensor<4>) -> Tensor<2> {
                    let x = self.relu.forward(self.norm.forward(self.conv2d.forward(x)));
                    let x = self.pool.forward(self.depthwise.forward(x));
                    let x = self.up2d.forward(x);
                    let x = self.head.forward(x.flatten(1, 3));
                    self.activation.forward(self.columns.forward(x))
                }

                pub fn outputs(&self, device: &Device) -> Outputs {
                    let signal = numbers([2, 4, 9], device);
                    let image = numbers([2, 3, 8, 8], device);
                    let classes = self.classify(image.clone());
                    let targets = Tensor::<1, Int>::from_data([1, 2], device);
                    let loss = loss::CrossEntropyLossConfig::new().init(device);
                    let entropy = loss.forward(classes.clone(), targets);
                    vec![
                        ("conv1d", self.conv1d.forward(signal.clone()).into_data()),
                        ("up1d", self.up1d.forward(signal).into_data()),
                        ("conv2d", self.conv2d.forward(image).into_data()),
                        ("classes", classes.into_data()),
                        ("entropy", entropy.into_data()),
                    ]
                }
            }

            #[derive(Module, Debug)]
            pub struct Language {
                table: Embedding,
                pub encoder: TransformerEncoder,
                pub decoder: TransformerDecoder,
                pub attention: MultiHeadAttention,
                pub cross: CrossAttention,
                gated: SwiGlu,
                lstm: Lstm,
                bi_lstm: BiLstm,
                gru: Gru,
                bi_gru: BiGru,
                rnn: Rnn,
                bi_rnn: BiRnn,
                head: Linear,
            }

            impl Language {
                pub fn new(device: &Device, norm_first: bool) -> Self {
                    Self {
                        table: EmbeddingConfig::new(WORDS, D).init(device),
                        encoder: TransformerEncoderConfig::new(D, 2 * D, HEADS, 2)
                            .with_dropout(0.0)
                            .with_norm_first(norm_first)
                            .init(device),
                        decoder: TransformerDecoderConfig::new(D, 2 * D, HEADS, 2)
                            .with_dropout(0.0)
                            .with_norm_first(norm_first)
                            .with_quiet_softmax(true)
                            .with_activation(ActivationConfig::Relu)
                            .init(device),
                        attention: MultiHeadAttentionConfig::new(D, HEADS)
                            .with_dropout(0.0)
                            .with_quiet_softmax(norm_first)
                            .with_key_bias(false)
                            .init(device),
                        cross: CrossAttentionConfig::new(D, D, HEADS, 2, 3)
                            .with_dropout(0.0)
                            .init(device),
                        gated: SwiGluConfig::new(D, D).init(device),
                        lstm: LstmConfig::new(D, D, true)
                            .with_input_forget(norm_first)
                            .with_reverse(true)
                            .init(device),
                        bi_lstm: BiLstmConfig::new(D, D, true)
                            .with_batch_first(norm_first)
                            .with_clip(Some(0.9))
                            .init(device),
                        gru: GruConfig::new(D, D, true)
                            .with_reset_after(norm_first)
                            .init(device),
                        bi_gru: BiGruConfig::new(D, D, false)
                            .with_batch_first(norm_first)
                            .init(device),
                        rnn: RnnConfig::new(D, D, true)
                            .with_clip(Some(0.5))
                            .with_reverse(norm_first)
                            .init(device),
                        bi_rnn: BiRnnConfig::new(D, D, true).init(device),
                        head: LinearConfig::new(D, WORDS).init(device),
                    }
                }

                pub fn embedded(&self, device: &Device) -> Tensor<3> {
                    let words = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 10]];
                    self.table
                        .forward(Tensor::<2, Int>::from_data(words, device))
                }

                pub fn outputs(&self, device: &Device) -> Outputs {
                    let x = self.embedded(device);
                    let causal = || generate_autoregressive_mask(2, 5, device);
                    let encoded = self.encoder.forward(
                        TransformerEncoderInput::new(x.clone())
                            .mask_pad(padding(device))
                            .mask_attn(causal()),
                    );
                    let decoded = self.decoder.forward(
                        TransformerDecoderInput::new(x.clone(), encoded.clone())
                            .target_mask_attn(causal())
                            .memory_mask_pad(padding(device)),
                    );
                    let memory = numbers([2, 5, D], device);
                    let input = MhaInput::new(x.clone(), memory.clone(), memory.clone() * 0.5);
                    let attended = self.attention.forward(input.mask_pad(padding(device)));
                    let mask = Some(padding(device));
                    let crossed = self.cross.forward(x.clone(), memory, mask);
                    let state = numbers([2, D], device);
                    let states = numbers([2, 5, D], device);
                    let cells = LstmState::new(state.clone(), state.clone());
                    let (lstm, last) = self.lstm.forward(x.clone(), Some(cells));
                    let cells = LstmState::new(states.clone(), states.clone());
                    let (bi_lstm, bi_last) = self
                        .bi_lstm
                        .forward(numbers([5, 5, D], device), Some(cells));
                    let (bi_gru, gru_last) = self
                        .bi_gru
                        .forward(numbers([5, 5, D], device), Some(states.clone()));
                    let (rnn, _) = self.rnn.forward(x.clone(), Some(RnnState::new(state)));
                    let (bi_rnn, rnn_last) = self
                        .bi_rnn
                        .forward(numbers([5, 3, D], device), Some(RnnState::new(states)));
                    vec![
                        ("table", x.clone().into_data()),
                        ("encoder", encoded.into_data()),
                        ("decoder", self.head.forward(decoded).into_data()),
                        ("attention", attended.context.into_data()),
                        ("attention's weights", attended.weights.into_data()),
                        ("cross", crossed.into_data()),
                        ("gated", self.gated.forward(x.clone()).into_data()),
                        ("lstm", lstm.into_data()),
                        ("lstm's cell", last.cell.into_data()),
                        ("bi_lstm", bi_lstm.into_data()),
                        ("bi_lstm's cell", bi_last.cell.into_data()),
                        ("gru", self.gru.forward(x, None).into_data()),
                        ("bi_gru", bi_gru.into_data()),
                        ("bi_gru's state", gru_last.into_data()),
                        ("rnn", rnn.into_data()),
                        ("bi_rnn", bi_rnn.into_data()),
                        ("bi_rnn's state", rnn_last.hidden.into_data()),
                    ]
                }

                /// Encoder and decoder token by token, and what they give at once.
                pub fn decoded_twice(&self, device: &Device) -> [Outputs; 2] {
                    let x = self.embedded(device);
                    let memory = numbers([2, 4, D], device);
                    let causal = |length| generate_autoregressive_mask(2, length, device);
                    let encode =
                        |x, length| TransformerEncoderInput::new(x).mask_attn(causal(length));
                    let decode = |x, length| {
                        TransformerDecoderInput::new(x, memory.clone())
                            .target_mask_attn(causal(length))
                    };
                    let attend = |x, length| MhaInput::self_attn(x).mask_attn(causal(length));
                    let mut encoder = self.encoder.new_autoregressive_cache();
                    let mut decoder = self.decoder.new_autoregressive_cache();
                    let mut attention = MhaCache::autoregressive();
                    let mut cross = CrossAttentionCache::new();
                    let mut steps = Vec::new();
                    for length in 1..=5 {
                        let x = x.clone().narrow(1, 0, length);
                        let (mine, theirs) = (encode(x.clone(), length), decode(x.clone(), length));
                        let context = self
                            .attention
                            .forward_cache(attend(x.clone(), length), &mut attention);
                        steps = vec![
                            (
                                "encoder",
                                self.encoder
                                    .forward_autoregressive_inference(mine, &mut encoder)
                                    .into_data(),
                            ),
                            (
                                "decoder",
                                self.decoder
                                    .forward_autoregressive_inference(theirs, &mut decoder)
                                    .into_data(),
                            ),
                            ("attention", context.context.into_data()),
                            (
                                "cross",
                                self.cross
                                    .forward_cache(x, memory.clone(), None, &mut cross)
                                    .into_data(),
                            ),
                        ];
                    }
                    let context = self.attention.forward(attend(x.clone(), 5)).context;
                    let whole = vec![
                        (
                            "encoder",
                            self.encoder.forward(encode(x.clone(), 5)).into_data(),
                        ),
                        (
                            "decoder",
                            self.decoder.forward(decode(x.clone(), 5)).into_data(),
                        ),
                        ("attention", context.into_data()),
                        (
                            "cross",
                            self.cross.forward(x, memory.clone(), None).into_data(),
                        ),
                    ];
                    [steps, whole]
                }
            }

            /// Configurations as they are saved.
            pub fn configs() -> Vec<String> {
                vec![
                    LinearConfig::new(3, 4).to_string(),
                    EmbeddingConfig::new(3, 4).to_string(),
                    Conv1dConfig::new(3, 4, 5).to_string(),
                    Conv2dConfig::new([3, 4], [5, 6]).to_string(),
                    Conv3dConfig::new([3, 4], [5, 6, 7]).to_string(),
                    ConvTranspose1dConfig::new([3, 4], 5).to_string(),
                    ConvTranspose2dConfig::new([3, 4], [5, 6]).to_string(),
                    MultiHeadAttentionConfig::new(6, 2).to_string(),
                    CrossAttentionConfig::new(6, 5, 2, 1, 3).to_string(),
                    PositionWiseFeedForwardConfig::new(6, 8).to_string(),
                    TransformerEncoderConfig::new(6, 8, 2, 1).to_string(),
                    TransformerDecoderConfig::new(6, 8, 2, 1).to_string(),
                    SwiGluConfig::new(3, 4).to_string(),
                    LstmConfig::new(3, 4, true).to_string(),
                    BiLstmConfig::new(3, 4, true).to_string(),
                    GruConfig::new(3, 4, true).to_string(),
                    BiGruConfig::new(3, 4, true).to_string(),
                    RnnConfig::new(3, 4, true).to_string(),
                    BiRnnConfig::new(3, 4, true).to_string(),
                ]
            }
        }
    };
}

model!(burns from burn);
model!(ours from burn_alq);
