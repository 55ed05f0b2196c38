//! Activations, which layers apply to their outputs and which can be applied alone.

use super::Isa;
use super::generic::Activate;
#[cfg(feature = "chain")]
use super::simd::LANES;
use super::threads::{self, Shared};

/// A function of each value; as Burn's of the same name.
///
/// Computed in f32, with the largest error against f64 given for processors with a fused
/// multiply-add (others: twice that). NaN stays NaN; infinities give the limits, so that −∞ gives
/// 0 where Burn's formulas give NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Activation {
    /// `x`.
    #[default]
    Identity,
    /// `max(0, x)`.
    Relu,
    /// `min(max(0, x), 6)`.
    Relu6,
    /// `x·min(max(0, x/6 + ½), 1)`, wrong by at most 2·10⁻⁷ of `|x|`.
    HardSwish,
    /// `x·σ(x)`, wrong by at most 4·10⁻⁷ of the result.
    Silu,
    /// `x·½(1 + erf(x/√2))`, wrong by at most 10⁻⁷ of `max(1, |x|)`.
    Gelu,
    /// `x·½(1 + tanh(√(2/π)(x + 0.044715·x³)))`, wrong by at most 4·10⁻⁷ of `max(1, |x|)`.
    GeluApproximate,
    /// `σ(x) = 1/(1 + e⁻ˣ)`, wrong by at most 3·10⁻⁷ of the result.
    Sigmoid,
    /// `tanh x`, wrong by at most 3·10⁻⁷ of the result.
    Tanh,
}

/// Values that a task takes: they stay in the first cache.
const PART: usize = 4096;

/// Applies an activation to each value, in place.
pub fn activate(isa: Isa, activation: Activation, values: &mut [f32]) {
    if activation == Activation::Identity {
        return;
    }
    let len = values.len();
    let values = Shared::new(values);
    threads::for_each(len.div_ceil(PART), 2 * len, |task| {
        let first = task * PART;
        isa.run(Activate {
            activation,
            // SAFETY: each task has values of its own.
            values: unsafe { values.part(first, PART.min(len - first)) },
        });
    });
}

/// Applies an activation to each value, given as its bits, in place, with the bits of
/// [`Isa::PORTABLE`] and without threads.
#[cfg(feature = "chain")]
pub(crate) fn activate_bits(activation: Activation, values: &mut [u32]) {
    for words in values.chunks_mut(LANES) {
        let mut line = [0.0; LANES];
        for (x, &mut word) in line.iter_mut().zip(&mut *words) {
            *x = f32::from_bits(word);
        }
        Isa::PLAIN.run(Activate {
            activation,
            values: &mut line,
        });
        for (word, x) in words.iter_mut().zip(line) {
            *word = x.to_bits();
        }
    }
}
