//! How large multi-bit weights are, in what may be counted of them.

#[cfg(feature = "train")]
use alloc::vec::Vec;

#[cfg(feature = "train")]
use burn_core::module::Module;
#[cfg(feature = "train")]
use burn_core::tensor::Tensor;
use multibit::{CoordinateType, EncodedBytes, Grouping};

#[cfg(feature = "train")]
use super::read::read;
#[cfg(feature = "train")]
use super::state::widened;

#[cfg(feature = "train")]
use super::{MultiBitWeight, multi_bit_weights};

/// What a pruning budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Live coordinates.
    Coordinates,
    /// Bits of bases, `Σ n·I`.
    BaseBits,
    /// Bytes of the packed weights: bases, coordinates of this type, widths.
    Bytes(CoordinateType),
}

/// Size of a weight with the given widths, by [`Cost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Groups.
    pub groups: usize,
    /// Weights of a group.
    pub len: usize,
    /// Live coordinates.
    pub coordinates: usize,
    /// The largest width, which decides the bits that a width is stored with.
    pub widest: u8,
    /// Whether the weight cannot train, as its parameter requires no gradient. It is no part of a
    /// target, nor of what pruning may leave.
    pub frozen: bool,
    /// Weights that it is counted as, if not as its own: those of a product are shared among its factors.
    pub stands_for: Option<usize>,
}

impl Size {
    /// The size of a weight cut by `grouping`.
    pub fn new(grouping: &Grouping, widths: &[u8]) -> Self {
        Self {
            groups: widths.len(),
            len: grouping.len(),
            coordinates: widths.iter().map(|&width| usize::from(width)).sum(),
            widest: widths.iter().copied().max().unwrap_or(0),
            frozen: false,
            stands_for: None,
        }
    }

    /// Weights.
    pub fn weights(&self) -> usize {
        self.stands_for.unwrap_or(self.groups * self.len)
    }

    /// Bits of bases.
    pub fn base_bits(&self) -> usize {
        self.coordinates * self.len
    }

    /// Bytes when packed with coordinates of a type.
    pub fn bytes(&self, coordinates: CoordinateType) -> usize {
        let width_bits = EncodedBytes::width_bits(self.widest);
        let bytes = EncodedBytes::new(
            self.groups,
            self.len,
            self.coordinates,
            width_bits,
            coordinates,
        );
        bytes
            .expect("a weight in memory fits the address space")
            .total()
    }

    /// Bits that a weight takes: of its bases, and its part of coordinates of a type and of widths.
    pub fn effective_bits(&self, coordinates: CoordinateType) -> f64 {
        8.0 * self.bytes(coordinates) as f64 / self.weights() as f64
    }

    /// The size in a unit.
    pub fn cost(&self, cost: Cost) -> usize {
        match cost {
            Cost::Coordinates => self.coordinates,
            Cost::BaseBits => self.base_bits(),
            Cost::Bytes(coordinates) => self.bytes(coordinates),
        }
    }
}

/// The total size of several weights in a unit.
#[cfg(feature = "train")]
pub fn total(sizes: &[Size], cost: Cost) -> usize {
    sizes.iter().map(|size| size.cost(cost)).sum()
}

/// Average bitwidth `I_W = Σ n·I / Σ n` over all groups of all weights; 0 without any.
pub fn average_bits(sizes: &[Size]) -> f64 {
    let weights: usize = sizes.iter().map(Size::weights).sum();
    let bits: usize = sizes.iter().map(Size::base_bits).sum();
    bits as f64 / weights.max(1) as f64
}

/// The sizes of all multi-bit weights of a module, in the order of the module tree.
#[cfg(feature = "train")]
pub fn sizes<M: Module>(module: &M) -> Vec<Size> {
    let weights = multi_bit_weights(module);
    weights.iter().map(MultiBitWeight::size).collect()
}

/// Numbers in the multi-bit weights of a module that train. Nothing is read back.
#[cfg(feature = "train")]
pub(crate) fn trained_numbers<M: Module>(module: &M) -> usize {
    let weights = multi_bit_weights(module).into_iter();
    let trained = weights.filter(|weight| weight.trains);
    trained
        .map(|weight| weight.shape.iter().product::<usize>())
        .sum()
}

#[cfg(feature = "train")]
impl MultiBitWeight {
    /// Two numbers are read back: how many coordinates live, and the widest group's.
    pub fn size(&self) -> Size {
        let [groups, len] = self.state.codes.val().dims();
        let widths = self.state.widths.val().without_autodiff();
        let widths = widened(widths);
        let numbers = Tensor::cat(alloc::vec![widths.clone().sum(), widths.max()], 0);
        let numbers: Vec<i64> = read(numbers);
        Size {
            groups,
            len,
            coordinates: numbers[0] as usize,
            widest: numbers[1] as u8,
            frozen: !self.trains,
            stands_for: self.stands_for,
        }
    }
}
