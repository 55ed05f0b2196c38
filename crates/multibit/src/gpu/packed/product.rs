//! Many positions: the weight is unpacked tile by tile into shared memory and multiplied there.

use cubecl::prelude::*;

use super::affine::Affine;
use super::input::Window;
use super::weight::Bits;

/// Weights of a step, half a word.
pub(super) const DEPTH: usize = 16;

/// Units of a cube along either side of a tile.
pub(super) const SIDE: usize = 16;

/// A tile of the output: so many outputs and positions for each unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    pub outputs: usize,
    pub positions: usize,
}

impl Tile {
    /// The smallest tile that covers a small layer, the largest for large ones.
    pub fn new(outputs: usize, positions: usize) -> Self {
        let each = |size: usize| size.div_ceil(SIDE).next_power_of_two().clamp(1, 4);
        Self {
            outputs: each(outputs),
            positions: each(positions),
        }
    }
}

/// The arithmetic of the products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Rounding {
    /// Inputs as they are.
    None,
    /// Inputs as multiples of their image's scale.
    Int8,
}

#[cube(launch_unchecked)]
#[expect(clippy::too_many_arguments, reason = "what a layer consists of")]
pub(super) fn product(
    input: &[f32],
    bits: &Bits,
    patch: &[u32],
    scales: &[f32],
    affine: &Affine,
    output: &mut [f32],
    window: &Window,
    groups: u32,
    #[comptime] tile: Tile,
    #[comptime] conv: bool,
    #[comptime] rounding: Rounding,
) {
    let unit_x = UNIT_POS_X;
    let unit_y = UNIT_POS_Y;
    let side = comptime!(SIDE as u32);
    let tile_outputs = comptime!((SIDE * tile.outputs) as u32);
    let tile_positions = comptime!((SIDE * tile.positions) as u32);
    let group_out = bits.outputs / groups;
    let output_tiles = group_out.div_ceil(tile_outputs);
    let position_tiles = window.positions.div_ceil(tile_positions);
    let cube = CUBE_POS as u32;
    // A cube beyond the last group has no outputs, but waits with the others.
    let group = cube / (output_tiles * position_tiles);
    let first_output = cube / position_tiles % output_tiles * tile_outputs;
    let first_position = cube % position_tiles * tile_positions;
    let end = select(group < groups, group_out, 0u32);

    // One more in a row, so that columns fall into different banks.
    let weight_row = comptime!(SIDE * tile.outputs + 1);
    let input_row = comptime!(SIDE * tile.positions + 1);
    let mut weights = Shared::<[f32]>::new_slice(comptime!(DEPTH * (SIDE * tile.outputs + 1)));
    let mut inputs = Shared::<[f32]>::new_slice(comptime!(DEPTH * (SIDE * tile.positions + 1)));
    let count = comptime!(tile.outputs * tile.positions);
    let mut sums = Array::<f32>::new(count);
    #[unroll]
    for i in 0..count {
        sums[i] = 0.0f32;
    }

    for weight_group in 0..bits.groups {
        for step in 0..bits.len.div_ceil(comptime!(DEPTH as u32)) {
            let first = step * comptime!(DEPTH as u32);
            // Neighbouring units take neighbouring weights.
            let j = first + unit_x;
            #[unroll]
            for i in 0..comptime!(tile.outputs) {
                let local = unit_y + comptime!((i * SIDE) as u32);
                let o = first_output + local;
                let mut value = 0.0f32;
                if o < end && j < bits.len {
                    value = bits.weight(group * group_out + o, weight_group, j);
                }
                weights[unit_x as usize * weight_row + local as usize] = value;
            }
            // Neighbours in memory: positions of an image, inputs of a row.
            let along = select(comptime!(conv), unit_y, unit_x);
            let across = select(comptime!(conv), unit_x, unit_y);
            let j = first + along;
            #[unroll]
            for i in 0..comptime!(tile.positions) {
                let local = across + comptime!((i * SIDE) as u32);
                let position = first_position + local;
                let mut value = 0.0f32;
                if position < window.positions && j < bits.len && group < groups {
                    let k = weight_group * bits.len + j;
                    let place = window.place(patch, k, position, group, conv);
                    if place.inside {
                        value = input[window.value(&place)];
                        if comptime!(rounding == Rounding::Int8) {
                            let scale = scales[place.image as usize];
                            value =
                                select(scale == 0.0f32, 0.0f32, (value * (1.0f32 / scale)).round());
                        }
                    }
                }
                inputs[along as usize * input_row + local as usize] = value;
            }
            sync_cube();
            for j in 0..comptime!(DEPTH) {
                #[unroll]
                for p in 0..comptime!(tile.positions) {
                    let at = j * input_row + (unit_x + comptime!((p * SIDE) as u32)) as usize;
                    let x = inputs[at];
                    #[unroll]
                    for i in 0..comptime!(tile.outputs) {
                        let at = j * weight_row + (unit_y + comptime!((i * SIDE) as u32)) as usize;
                        let sum = comptime!(i * tile.positions + p);
                        sums[sum] += weights[at] * x;
                    }
                }
            }
            sync_cube();
        }
    }

    #[unroll]
    for p in 0..comptime!(tile.positions) {
        let position = first_position + unit_x + comptime!((p as u32) * (SIDE as u32));
        #[unroll]
        for i in 0..comptime!(tile.outputs) {
            let o = first_output + unit_y + side * comptime!(i as u32);
            if position < window.positions && o < end {
                let o = group * group_out + o;
                let mut y = sums[comptime!(i * tile.positions + p)];
                if comptime!(rounding == Rounding::Int8) {
                    y *= scales[(position / window.pixels) as usize];
                }
                output[window.output(position, o, bits.outputs)] = affine.apply(y, o);
            }
        }
    }
}
