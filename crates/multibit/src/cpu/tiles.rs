//! Weights as the kernels read them: sixteen rows of bits side by side.
//!
//! ```text
//!             one line = 64 bytes, 16 words of 32 bits: word w of 16 rows
//! block 0  │ out 0 · out 1 · … · out 15 │ word 0   ┐
//!          │ out 0 · out 1 · … · out 15 │ word 1   ┘ a step: one basis of one group
//!          │ …                          │ word 0   ┐
//! ```
//!
//! A *block* is 16 outputs; a *step* is one basis of one group in all of them, with 16 coordinates.
//!
//! All outputs of a layer are sums over the same inputs, with signs and coordinates of their own:
//! ```text
//! y = Σ_steps α·(Σⱼ ±xⱼ)
//! ```
//! With outputs in the lanes of a vector, an input is the same in all lanes: what is made of it once
//! (a sum of four, a word of bits, four bytes) serves 16 outputs, one load brings their signs, and no
//! sum is ever taken across lanes.
//!
//! In a block, a group takes as many steps as its widest output has bases, `max I`. A narrower output
//! has bits 0 and coordinate 0 in the steps that it lacks, and `0·Σ xⱼ = 0` for finite inputs; a step
//! that none has is left out. So `Σ_groups Σ_lanes (max I − I)` rows are computed for nothing, none
//! where 16 outputs have equal widths. Sorting the outputs by their widths, the first group first,
//! brings equals together.
//!
//! Steps follow each other by chunk, then block, then group, then basis. A *chunk* is the groups of
//! about 1024 inputs: all blocks run through it before the next, so that its look-up tables, 4 KiB a
//! row of inputs in int8 and 16 KiB in f32, are still in the first cache.

use alloc::boxed::Box;
use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Range;

use super::simd::{LANES, Line};
use super::{Affine, Arithmetic};
use crate::bits::bit;
use crate::packed::PackedWeight;

/// About how many inputs a chunk has.
const CHUNK_INPUTS: usize = 1024;

/// No output: fills the last block.
pub(super) const NONE: u32 = u32::MAX;

/// A weight in tiles.
pub(super) struct Tiles {
    /// Number of outputs.
    pub outputs: usize,
    /// Groups of an output.
    pub groups: usize,
    /// Weights of a group.
    pub len: usize,
    /// Words of a row.
    pub words: usize,
    /// Groups of a chunk; the last may have fewer.
    pub chunk: usize,
    /// The output of each lane of each block, [`NONE`] past the last.
    pub order: Vec<u32>,
    /// First step of each block of each chunk, `[chunks, blocks]`, and the end.
    starts: Vec<usize>,
    /// The group of each step.
    step_groups: Vec<u32>,
    coordinates: Vec<Line<f32>>,
    /// The sum of the signs of each step; for bitwise arithmetic only.
    signs: Vec<Line<f32>>,
    lines: Vec<Line<u32>>,
    /// Where the outputs of each block lie in their word of 32; empty unless they are sorted within
    /// words.
    lane_bits: Vec<LaneBits>,
}

/// How much tiles are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sizes {
    /// Lines of words.
    pub lines: usize,
    /// Steps of all blocks.
    pub steps: usize,
    pub blocks: usize,
}

impl Sizes {
    pub(crate) fn add(self, other: Self) -> Self {
        Self {
            lines: self.lines + other.lines,
            steps: self.steps + other.steps,
            blocks: self.blocks + other.blocks,
        }
    }

    /// Those of the tiles of some outputs with `groups` widths each, without laying them out.
    #[cfg(feature = "chain")]
    pub(crate) fn of(
        widths: &[u8],
        groups: usize,
        outputs: Range<usize>,
        words: usize,
        sort: Sort,
    ) -> Self {
        let mut sizes = Self::default();
        let order = order(widths, groups, &outputs, sort);
        for block in order.chunks_exact(LANES) {
            sizes.blocks += 1;
            for group in 0..groups {
                let outputs = block.iter().filter(|&&output| output != NONE);
                let widths = outputs.map(|&output| widths[output as usize * groups + group]);
                sizes.steps += usize::from(widths.max().unwrap_or(0));
            }
        }
        sizes.lines = sizes.steps * words;
        sizes
    }
}

/// Outputs that are sorted together.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sort {
    All,
    /// 32, so that two blocks are the outputs of a word.
    Words,
}

impl Tiles {
    /// The rows of some outputs. Weight `j` of a group takes bit `places[j]` of a row with `words`
    /// words; without places, bit `j`.
    pub(super) fn new(
        weight: &PackedWeight,
        outputs: Range<usize>,
        words: usize,
        places: &[usize],
        arithmetic: Arithmetic,
        sort: Sort,
    ) -> Self {
        let groups = weight.grouping().groups_per_output(weight.shape());
        let len = weight.grouping().len();
        let first_row: Vec<usize> = weight.group_rows().collect();
        let rows = weight.coordinates().len();
        let order = order(weight.widths(), groups, &outputs, sort);
        let lane_bits = match sort {
            Sort::All => Vec::new(),
            Sort::Words => order
                .chunks_exact(LANES)
                .map(|block| LaneBits::new(block, outputs.start as u32))
                .collect(),
        };
        let blocks = order.len() / LANES;
        let chunk = (CHUNK_INPUTS / len).clamp(1, groups);
        let mut tiles = Self {
            outputs: outputs.len(),
            groups,
            len,
            words,
            chunk,
            order,
            starts: Vec::new(),
            step_groups: Vec::new(),
            coordinates: Vec::new(),
            signs: Vec::new(),
            lines: Vec::with_capacity(words * rows.div_ceil(LANES)),
            lane_bits,
        };
        for chunk in 0..tiles.chunks() {
            for block in 0..blocks {
                tiles.starts.push(tiles.step_groups.len());
                for group in tiles.chunk_groups(chunk) {
                    tiles.push_group(weight, &first_row, places, block, group);
                }
            }
        }
        tiles.starts.push(tiles.step_groups.len());
        if arithmetic == Arithmetic::Bitwise {
            let steps = 0..tiles.coordinates.len();
            tiles.signs = steps.map(|step| tiles.sum_signs(step)).collect();
        }
        tiles
    }

    /// The sum of the signs of a step, `len − 2·popcount`.
    fn sum_signs(&self, step: usize) -> Line<f32> {
        let mut signs = [self.len as i32; LANES];
        for line in self.lines(step) {
            for (sign, word) in signs.iter_mut().zip(line.0) {
                *sign -= 2 * word.count_ones() as i32;
            }
        }
        Line(signs.map(|sign| sign as f32))
    }

    fn push_group(
        &mut self,
        weight: &PackedWeight,
        first_row: &[usize],
        places: &[usize],
        block: usize,
        group: usize,
    ) {
        let mut lanes = [(0, 0); LANES];
        let order = &self.order[block * LANES..][..LANES];
        for (lane, &output) in lanes.iter_mut().zip(order) {
            if output != NONE {
                let index = output as usize * self.groups + group;
                *lane = (first_row[index], usize::from(weight.widths()[index]));
            }
        }
        let widest = lanes.iter().map(|lane| lane.1).max().unwrap_or(0);
        for basis in 0..widest {
            let step = self.lines.len();
            self.lines.resize(step + self.words, Line([0; LANES]));
            let mut coordinates = Line([0.0; LANES]);
            for (lane, &(first, width)) in lanes.iter().enumerate() {
                if basis < width {
                    coordinates.0[lane] = weight.coordinates()[first + basis];
                    let row = weight.row(first + basis);
                    if places.is_empty() {
                        for (line, &word) in self.lines[step..].iter_mut().zip(row) {
                            line.0[lane] = word;
                        }
                    }
                    for (j, &place) in places.iter().enumerate() {
                        let line = &mut self.lines[step + place / 32];
                        line.0[lane] |= bit(row, j) << (place % 32);
                    }
                }
            }
            self.coordinates.push(coordinates);
            self.step_groups.push(group as u32);
        }
    }

    /// Lines of words.
    pub(super) fn size(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            lines: self.lines.len(),
            steps: self.step_groups.len(),
            blocks: self.blocks(),
        }
    }

    pub(super) fn blocks(&self) -> usize {
        self.order.len() / LANES
    }

    pub(super) fn chunks(&self) -> usize {
        self.groups.div_ceil(self.chunk)
    }

    /// The steps of a block in a chunk.
    pub(super) fn steps(&self, chunk: usize, block: usize) -> Range<usize> {
        let at = chunk * self.blocks() + block;
        self.starts[at]..self.starts[at + 1]
    }

    pub(super) fn group(&self, step: usize) -> usize {
        self.step_groups[step] as usize
    }

    pub(super) fn coordinates(&self, step: usize) -> &[f32; LANES] {
        &self.coordinates[step].0
    }

    /// The groups of a chunk.
    pub(super) fn chunk_groups(&self, chunk: usize) -> Range<usize> {
        let first = chunk * self.chunk;
        first..self.groups.min(first + self.chunk)
    }

    /// Where the steps of a group end that some steps may begin with.
    #[inline(always)]
    pub(super) fn group_end(&self, steps: Range<usize>, group: usize) -> usize {
        let mut end = steps.start;
        while end < steps.end && self.group(end) == group {
            end += 1;
        }
        end
    }

    /// The sum of the signs of a step, by lane; in bitwise arithmetic.
    pub(super) fn signs(&self, step: usize) -> &[f32; LANES] {
        &self.signs[step].0
    }

    /// The lines of a step.
    pub(super) fn lines(&self, step: usize) -> &[Line<u32>] {
        &self.lines[step * self.words..][..self.words]
    }

    /// Where a line lies, if there is one; lines of a step follow each other.
    #[inline(always)]
    pub(super) fn line(&self, number: usize) -> *const Line<u32> {
        self.lines.as_ptr().wrapping_add(number)
    }

    /// The outputs of a block, by lane.
    pub(super) fn block_outputs(&self, block: usize) -> &[u32] {
        &self.order[block * LANES..][..LANES]
    }

    /// Where the outputs of a block lie in their word of 32.
    ///
    /// # Panics
    /// If outputs are not sorted within words.
    pub(super) fn lane_bits(&self, block: usize) -> &LaneBits {
        &self.lane_bits[block]
    }

    /// Scale and offset by lane of a block.
    pub(super) fn affine(&self, block: usize, affine: &Affine<'_>) -> [[f32; LANES]; 2] {
        let mut lanes = [[1.0; LANES], [0.0; LANES]];
        if affine.scale.is_none() && affine.offset.is_none() {
            return lanes;
        }
        for (lane, &output) in self.block_outputs(block).iter().enumerate() {
            if output != NONE {
                (lanes[0][lane], lanes[1][lane]) = affine.of(output as usize);
            }
        }
        lanes
    }
}

/// The outputs of the lanes of all blocks.
fn order(widths: &[u8], groups: usize, outputs: &Range<usize>, sort: Sort) -> Vec<u32> {
    match sort {
        Sort::All => sorted(widths, groups, outputs.clone()),
        Sort::Words => {
            let firsts = outputs.clone().step_by(WORD);
            let words = firsts.map(|first| first..outputs.end.min(first + WORD));
            words
                .flat_map(|word| sorted(widths, groups, word))
                .collect()
        }
    }
}

/// Outputs, those with equal widths together, the widest first; filled up to whole blocks.
fn sorted(widths: &[u8], groups: usize, outputs: Range<usize>) -> Vec<u32> {
    let of = |output: u32| &widths[output as usize * groups..][..groups];
    let padding = outputs.len().next_multiple_of(LANES) - outputs.len();
    let keys = outputs.map(|output| (Reverse(of(output as u32)), output as u32));
    // By a heap: the code of a sort by parts takes ten times its bytes.
    let order = BinaryHeap::from_iter(keys).into_sorted_vec();
    let order = order.into_iter().map(|(_, output)| output);
    order.chain(core::iter::repeat_n(NONE, padding)).collect()
}

/// Outputs of a word.
pub(super) const WORD: usize = 32;

/// Where the lanes of a block lie in a word of 32 outputs.
pub(super) enum LaneBits {
    /// Side by side: these lanes, and their distance to their bits.
    Straight { lanes: u32, shift: u32 },
    /// Anywhere.
    Mixed(Box<LaneTables>),
}

/// Bits by whole bytes.
pub(super) struct LaneTables {
    /// The bits of the word for each value of the two bytes of lanes.
    to: [[u32; 256]; 2],
    /// The lanes for each value of the four bytes of the word.
    from: [[u16; 256]; 4],
}

impl LaneBits {
    /// Tables for the outputs of a block; `first`, the first output of all, has bit 0.
    fn new(block: &[u32], first: u32) -> Self {
        let bits: Vec<Option<u32>> = block
            .iter()
            .map(|&output| (output != NONE).then(|| (output - first) % WORD as u32))
            .collect();
        let shift = bits[0].unwrap_or(0);
        let mut outputs = bits.iter().enumerate();
        if outputs.all(|(lane, bit)| bit.is_none_or(|bit| bit == shift + lane as u32)) {
            let lanes = bits.iter().flatten().count();
            let lanes = ((1u64 << lanes) - 1) as u32;
            return Self::Straight { lanes, shift };
        }
        let mut tables = Box::new(LaneTables {
            to: [[0; 256]; 2],
            from: [[0; 256]; 4],
        });
        for (lane, bit) in bits.into_iter().enumerate() {
            let Some(bit) = bit.map(|bit| bit as usize) else {
                continue;
            };
            for byte in 0..256 {
                if byte >> (lane % 8) & 1 == 1 {
                    tables.to[lane / 8][byte] |= 1 << bit;
                }
                if byte >> (bit % 8) & 1 == 1 {
                    tables.from[bit / 8][byte] |= 1 << lane;
                }
            }
        }
        Self::Mixed(tables)
    }

    /// The bits of the lanes in their word.
    #[inline(always)]
    pub(super) fn word_of(&self, bits: u32) -> u32 {
        match self {
            Self::Straight { lanes, shift } => (bits & lanes) << shift,
            Self::Mixed(tables) => {
                let [low, high, ..] = bits.to_le_bytes().map(usize::from);
                tables.to[0][low] | tables.to[1][high]
            }
        }
    }

    /// The bits of a word in their lanes.
    #[inline(always)]
    pub(super) fn lanes_of(&self, word: u32) -> u32 {
        match self {
            Self::Straight { lanes, shift } => word >> shift & lanes,
            Self::Mixed(tables) => {
                let bytes = tables.from.iter().zip(word.to_le_bytes());
                let lanes = bytes.map(|(table, byte)| table[usize::from(byte)]);
                u32::from(lanes.fold(0, |all, lanes| all | lanes))
            }
        }
    }
}
