//! Burn's transformers ([`burn_nn::transformer`]), which run on the bits once packed.

mod block;
mod decoder;
mod encoder;
mod feed_forward;

pub use self::decoder::{
    TransformerDecoder, TransformerDecoderAutoregressiveCache, TransformerDecoderConfig,
    TransformerDecoderInput, TransformerDecoderLayer, TransformerDecoderLayerAutoregressiveCache,
};
pub use self::encoder::{
    TransformerEncoder, TransformerEncoderAutoregressiveCache, TransformerEncoderConfig,
    TransformerEncoderInput, TransformerEncoderLayer, TransformerEncoderLayerAutoregressiveCache,
};
pub use self::feed_forward::{PositionWiseFeedForward, PositionWiseFeedForwardConfig};
