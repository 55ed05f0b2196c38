//! A packed weight on a device: the words and coordinates as they are.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use cubecl::prelude::*;
use cubecl::server::Handle;

use crate::cpu::reference::patch;
use crate::gpu::buffer;
use crate::gpu::order::{OrderLaunch, order};
use crate::grouping::Grouping;
use crate::packed::PackedWeight;

/// A packed weight in a device's memory: the same words and coordinates as in [`PackedWeight`], and
/// the row that each group starts at.
pub struct DeviceWeight {
    words: Handle,
    coordinates: Handle,
    first_rows: Handle,
    patch: Handle,
    shape: Vec<usize>,
    grouping: Grouping,
    rows: usize,
    outputs: usize,
    groups: usize,
    len: usize,
}

impl DeviceWeight {
    /// Copies a weight, whose groups lie within outputs, to the device of a client.
    pub fn new(client: &Client, weight: &PackedWeight) -> Self {
        let shape = weight.shape();
        let first_rows: Vec<u32> = weight.group_rows().map(|row| row as u32).collect();
        let upload = |values: &[u32]| {
            let values = if values.is_empty() { &[0] } else { values };
            client.create_from_slice(u32::as_bytes(values))
        };
        let coordinates: Vec<u32> = weight.coordinates().iter().map(|x| x.to_bits()).collect();
        Self {
            words: upload(weight.words()),
            coordinates: upload(&coordinates),
            first_rows: upload(&first_rows),
            patch: upload(&places(weight)),
            shape: shape.to_vec(),
            grouping: weight.grouping().clone(),
            rows: weight.coordinates().len(),
            outputs: shape[weight.grouping().axes()[0]],
            groups: weight.grouping().groups_per_output(shape),
            len: weight.grouping().len(),
        }
    }

    /// The shape of the weight.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of outputs.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Weights of an output.
    pub(super) fn inputs(&self) -> usize {
        self.groups * self.len
    }

    /// Weights of a group.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Words of an output that hold weights, per basis.
    pub(super) fn items(&self) -> usize {
        self.groups * self.len.div_ceil(32)
    }

    pub(super) fn bits(&self) -> BitsLaunch {
        BitsLaunch::new(
            buffer(&self.words, (self.rows * self.row_words()).max(1)),
            buffer(&self.coordinates, self.rows.max(1)),
            buffer(&self.first_rows, self.outputs * self.groups + 1),
            self.groups as u32,
            self.len as u32,
            self.outputs as u32,
        )
    }

    /// Where the weights lie in the dense tensor.
    pub(super) fn order(&self) -> OrderLaunch {
        order(&self.grouping, &self.shape)
    }

    fn row_words(&self) -> usize {
        crate::bits::row_words(self.len)
    }

    pub(super) fn patch(&self) -> BufferArg {
        buffer(&self.patch, (2 * self.inputs()).max(1))
    }
}

/// Channel, and row and column of the kernel in one number, of each weight of an output of a
/// convolution, in the order of the grouping.
fn places(weight: &PackedWeight) -> Vec<u32> {
    match weight.shape().len() {
        4 => patch(weight)
            .into_iter()
            .flat_map(|[channel, row, column]| [channel as u32, (row << 16 | column) as u32])
            .collect(),
        _ => vec![0; 2 * weight.weights() / weight.shape()[weight.grouping().axes()[0]]],
    }
}

/// The bits of a weight in a kernel.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Bits {
    words: Box<[u32]>,
    coordinates: Box<[f32]>,
    first_rows: Box<[u32]>,
    /// Groups of an output.
    pub groups: u32,
    /// Weights of a group.
    pub len: u32,
    /// Number of outputs.
    pub outputs: u32,
}

#[cube]
impl Bits {
    /// The first row of a group, or the end of the one before it.
    pub fn row(&self, output: u32, group: u32) -> u32 {
        self.first_rows[(output * self.groups + group) as usize]
    }

    pub fn coordinate(&self, row: u32) -> f32 {
        self.coordinates[row as usize]
    }

    /// A word of a row.
    pub fn word(&self, row: u32, word: u32) -> u32 {
        let row_words = self.len.div_ceil(64u32) * 2u32;
        self.words[(row * row_words + word) as usize]
    }

    /// Words of a group that hold weights.
    pub fn group_words(&self) -> u32 {
        self.len.div_ceil(32u32)
    }

    /// A weight: `Σᵢ ±αᵢ` in ascending order of `i`, as unpacked on CPUs.
    pub fn weight(&self, output: u32, group: u32, j: u32) -> f32 {
        let mut sum = 0.0f32;
        for row in self.row(output, group)..self.row(output, group + 1u32) {
            let negative = (self.word(row, j / 32u32) >> (j % 32u32)) & 1u32;
            sum += crate::gpu::float::signed(self.coordinate(row), negative);
        }
        sum
    }
}
