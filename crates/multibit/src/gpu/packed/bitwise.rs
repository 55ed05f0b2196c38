//! Bitwise arithmetic: activations as bits in the order of the weight's words, then XOR and
//! popcount.
//!
//! Patches are `[group of channels, word, bits + 1, position]`: of each word of a weight's row the
//! activations that its weights meet at a position, a plane after the other, and the mask of those
//! that are no padding.

use cubecl::prelude::*;

use super::affine::Affine;
use super::input::Window;
use super::levels::ActivationLevels;
use super::weight::Bits;
use crate::gpu::UNITS;
use crate::gpu::reduce::{scratch, sum_lanes};

/// Outputs of a unit, which share the activations that it reads.
pub(super) const OUTPUTS: usize = 4;

/// What activations are before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Values,
    Planes,
}

/// Gathers the activations of all patches; a unit does a word at a position. The input that is not
/// the source is not read.
#[cube(launch_unchecked)]
#[expect(clippy::too_many_arguments, reason = "what a layer consists of")]
pub(super) fn gather(
    values: &[f32],
    planes: &[u32],
    levels: &ActivationLevels,
    patch: &[u32],
    patches: &mut [u32],
    window: &Window,
    groups: u32,
    weight_groups: u32,
    len: u32,
    #[comptime] bits: usize,
    #[comptime] source: Source,
    #[comptime] conv: bool,
) {
    let unit = CUBE_POS as u32 * comptime!(UNITS as u32) + UNIT_POS_X;
    let words = len.div_ceil(32u32);
    let items = weight_groups * words;
    let position = unit % window.positions;
    let item = unit / window.positions % items;
    let group = unit / window.positions / items;
    if group < groups {
        let first = item % words * 32u32;
        let many = select(len - first < 32u32, len - first, 32u32);
        let mut gathered = Array::<u32>::new(comptime!(bits + 1));
        #[unroll]
        for j in 0..comptime!(bits + 1) {
            gathered[j] = 0u32;
        }
        for i in 0..many {
            let k = item / words * len + first + i;
            let place = window.place(patch, k, position, group, conv);
            if place.inside {
                let mut code = 0u32;
                if comptime!(source == Source::Values) {
                    code = levels.code(values[window.value(&place)]);
                } else {
                    #[unroll]
                    for j in 0..bits {
                        let plane = comptime!(j as u32);
                        let signs = planes[window.word(&place, plane.runtime(), bits)];
                        code |= ((signs >> (place.channel % 32u32)) & 1u32) << plane;
                    }
                }
                #[unroll]
                for j in 0..bits {
                    gathered[j] |= ((code >> comptime!(j as u32)) & 1u32) << i;
                }
                gathered[bits] |= 1u32 << i;
            }
        }
        let plane = (group * items + item) * comptime!(bits as u32 + 1);
        #[unroll]
        for j in 0..comptime!(bits + 1) {
            let at = (plane + comptime!(j as u32)) * window.positions + position;
            patches[at as usize] = gathered[j];
        }
    }
}

/// The layer on gathered patches. With one lane a unit does a position alone, its neighbours the
/// next ones; with many they share its words.
#[cube(launch_unchecked)]
#[expect(clippy::too_many_arguments, reason = "what a layer consists of")]
pub(super) fn product(
    patches: &[u32],
    bits: &Bits,
    levels: &ActivationLevels,
    affine: &Affine,
    output: &mut [f32],
    window: &Window,
    groups: u32,
    #[comptime] planes: usize,
    #[comptime] lanes: usize,
) {
    let rows = comptime!((UNITS / lanes) as u32);
    let group_out = bits.outputs / groups;
    let tiles = group_out.div_ceil(comptime!(OUTPUTS as u32));
    let position_tiles = window.positions.div_ceil(rows);
    let cube = CUBE_POS as u32;
    let wanted = cube % position_tiles * rows + UNIT_POS_Y;
    let wanted_group = cube / position_tiles / tiles;
    // Units without work wait with the others.
    let there = wanted < window.positions && wanted_group < groups;
    let position = select(there, wanted, 0u32);
    let group = select(there, wanted_group, 0u32);
    let first_output = cube / position_tiles % tiles * comptime!(OUTPUTS as u32);
    let words = bits.group_words();
    let items = select(there, bits.groups * words, 0u32);

    let mut sums = Array::<f32>::new(comptime!(OUTPUTS));
    #[unroll]
    for o in 0..comptime!(OUTPUTS) {
        sums[o] = 0.0f32;
    }
    let mut item = UNIT_POS_X;
    while item < items {
        let plane = (group * items + item) * comptime!(planes as u32 + 1);
        let mut activations = Array::<u32>::new(planes);
        #[unroll]
        for j in 0..planes {
            let at = (plane + comptime!(j as u32)) * window.positions + position;
            activations[j] = patches[at as usize];
        }
        let at = (plane + comptime!(planes as u32)) * window.positions + position;
        let mask = patches[at as usize];
        let valid = mask.count_ones();
        let weight_group = item / words;
        #[unroll]
        for o in 0..comptime!(OUTPUTS) {
            let local = first_output + comptime!(o as u32);
            if local < group_out {
                let number = group * group_out + local;
                for row in bits.row(number, weight_group)..bits.row(number, weight_group + 1u32) {
                    let signs = bits.word(row, item % words);
                    let sum = levels.sum(signs, &activations, mask, valid);
                    sums[o] += bits.coordinate(row) * sum;
                }
            }
        }
        item += comptime!(lanes as u32);
    }
    if comptime!(lanes > 1) {
        let mut scratch = scratch(comptime!(UNITS));
        sum_lanes(
            &mut sums,
            &mut scratch,
            comptime!(OUTPUTS),
            lanes,
            comptime!(UNITS),
        );
    }
    if there && UNIT_POS_X == 0u32 {
        #[unroll]
        for o in 0..comptime!(OUTPUTS) {
            let local = first_output + comptime!(o as u32);
            if local < group_out {
                let number = group * group_out + local;
                output[window.output(position, number, bits.outputs)] =
                    affine.apply(sums[o], number);
            }
        }
    }
}
