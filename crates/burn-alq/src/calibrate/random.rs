//! Random numbers that depend on a seed alone, whatever else a program draws.

use std::vec::Vec;

use burn_core::tensor::{Tensor, TensorData};

/// SplitMix64.
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Signs of the shape of a tensor, where it is.
    pub fn signs_like<const D: usize>(&mut self, tensor: &Tensor<D>) -> Tensor<D> {
        let len = tensor.shape().num_elements();
        let mut signs = Vec::with_capacity(len.next_multiple_of(64));
        while signs.len() < len {
            let bits = self.next();
            let sign = |bit: u32| if (bits >> bit) & 1 == 0 { 1.0 } else { -1.0f32 };
            signs.extend((0..64).map(sign));
        }
        signs.truncate(len);
        let options = (&tensor.device(), tensor.dtype());
        Tensor::from_data(TensorData::new(signs, tensor.dims()), options)
    }

    /// Fisher-Yates.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            values.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}
