//! Burn's attention layers ([`burn_nn::attention`]), which run on the bits once packed.

mod cross_attention;
mod mha;
mod scores;

pub use burn_nn::attention::*;

pub use self::cross_attention::{CrossAttention, CrossAttentionCache, CrossAttentionConfig};
pub use self::mha::{MhaCache, MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
