//! Which four inputs an instruction of int8 mode takes at once.
//!
//! A *quad* lies along a row of the kernel, or along the channels at one place of it. Places of a quad
//! that hold no weight of the group have weight 0, and whatever input lies there counts nothing; of
//! the two ways the one with fewer quads is taken. A 3×3 kernel fills three of four places along its
//! rows; four channels in one group fill all.

use alloc::vec;
use alloc::vec::Vec;

use crate::bits::bit;
use crate::packed::PackedWeight;

/// Inputs of a quad.
pub(super) const QUAD: usize = 4;

/// Where the four of a quad lie.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Along {
    /// Next to each other in a row of the kernel.
    Row,
    /// They are at one place of four channels.
    Channels,
}

impl Along {
    /// The quad of a weight, and its place there.
    fn quad(self, [channel, row, column]: [usize; 3]) -> ([usize; 3], usize) {
        match self {
            Self::Row => ([channel, row, column / QUAD * QUAD], column % QUAD),
            Self::Channels => ([channel / QUAD * QUAD, row, column], channel % QUAD),
        }
    }

    /// The quads of each group of weights, and the place of each weight of a patch among those of
    /// its group.
    fn quads(self, patch: &[[usize; 3]], len: usize) -> (Vec<Vec<[usize; 3]>>, Vec<usize>) {
        let mut quads = Vec::new();
        let mut places = Vec::with_capacity(patch.len());
        for group in patch.chunks_exact(len) {
            let mut seen: Vec<[usize; 3]> = group.iter().map(|&place| self.quad(place).0).collect();
            seen.sort_unstable();
            seen.dedup();
            for &weight in group {
                let (quad, place) = self.quad(weight);
                let index = seen.binary_search(&quad).expect("collected above");
                places.push(QUAD * index + place);
            }
            quads.push(seen);
        }
        (quads, places)
    }
}

/// The quads of a weight, and its bits in their order.
pub(super) struct Quads {
    pub along: Along,
    /// `[channel, kernel row, kernel column]` of the first of each quad of each group.
    pub groups: Vec<Vec<[usize; 3]>>,
    /// The rows of bits in the order of the quads; none where that is the packed weight's own.
    words: Option<Vec<u32>>,
    /// Words of a row.
    row_words: usize,
    /// Which places of each group hold a weight, 64 a word; none if no other holds an input.
    valid: Option<Vec<u64>>,
}

impl Quads {
    pub(super) fn new(weight: &PackedWeight, patch: &[[usize; 3]]) -> Self {
        let len = weight.grouping().len();
        let cuts = [Along::Channels, Along::Row].map(|along| (along, along.quads(patch, len)));
        let count = |quads: &[Vec<_>]| quads.iter().map(Vec::len).sum::<usize>();
        let (along, (groups, places)) = cuts
            .into_iter()
            .min_by_key(|(_, (quads, _))| count(quads))
            .expect("two ways");
        let widest = groups.iter().map(Vec::len).max().unwrap_or(0);
        let row_words = (QUAD * widest).div_ceil(32);
        let in_order = |places: &[usize]| places.iter().copied().eq(0..places.len());
        let in_order = places.chunks_exact(len).all(in_order);
        let channels = weight.shape()[1];
        // Of the places without weight, only those behind the last channel surely hold no input.
        let all_channels = groups
            .iter()
            .zip(patch.chunks_exact(len))
            .all(|(quads, patch)| {
                let inputs = quads.iter().map(|quad| QUAD.min(channels - quad[0]));
                along == Along::Channels && inputs.sum::<usize>() == patch.len()
            });
        let filled = groups.iter().all(|quads| QUAD * quads.len() == len);
        Self {
            along,
            words: (!in_order).then(|| in_places(weight, &places, row_words)),
            valid: (!filled && !all_channels).then(|| {
                let words = match in_order {
                    true => weight.row_words(),
                    false => row_words,
                };
                let words = words.div_ceil(2);
                let mut valid = vec![0; groups.len() * words];
                for (i, place) in places.iter().enumerate() {
                    valid[i / len * words + place / 64] |= 1 << (place % 64);
                }
                valid
            }),
            row_words,
            groups,
        }
    }

    /// The rows of bits in the order of the quads, the words of each, and which places hold a
    /// weight.
    pub(super) fn rows<'a>(
        &'a self,
        weight: &'a PackedWeight,
    ) -> (&'a [u32], usize, Option<&'a [u64]>) {
        let valid = self.valid.as_deref();
        match &self.words {
            None => (weight.words(), weight.row_words(), valid),
            Some(words) => (words, self.row_words, valid),
        }
    }
}

/// All rows of bits, each bit at its place.
fn in_places(weight: &PackedWeight, places: &[usize], row_words: usize) -> Vec<u32> {
    let len = weight.grouping().len();
    let groups = weight.grouping().groups_per_output(weight.shape());
    let rows = weight.coordinates().len();
    let mut words = vec![0; rows * row_words];
    let widths = weight.widths().iter().enumerate();
    let of_rows = widths.flat_map(|(i, &width)| (0..width).map(move |_| i % groups));
    for ((row, group), words) in of_rows.enumerate().zip(words.chunks_exact_mut(row_words)) {
        let signs = weight.row(row);
        for (j, place) in places[group * len..][..len].iter().enumerate() {
            words[place / 32] |= bit(signs, j) << (place % 32);
        }
    }
    words
}
