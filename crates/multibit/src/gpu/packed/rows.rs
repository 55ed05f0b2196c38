//! Few rows: units walk along the words of a row of inputs and of several outputs.

use cubecl::prelude::*;

use super::affine::Affine;
use super::weight::Bits;
use crate::gpu::float::signed;
use crate::gpu::reduce::{scratch, sum_lanes};

/// Units of a cube.
pub(super) const LANES: usize = 128;

/// Outputs of a cube, which share the inputs that it reads.
pub(super) const OUTPUTS: usize = 4;

/// `y = x Ŵ` for each row of inputs, read in vectors of `N`; with `int8`, the signed sums of four
/// inputs are rounded to multiples of the row's scale.
#[cube(launch_unchecked)]
pub(super) fn rows<N: Size>(
    input: &[Vector<f32, N>],
    bits: &Bits,
    scales: &[f32],
    affine: &Affine,
    output: &mut [f32],
    batch: u32,
    #[comptime] int8: bool,
) {
    let vector = N::value().comptime();
    let tiles = bits.outputs.div_ceil(comptime!(OUTPUTS as u32));
    let cube = CUBE_POS as u32;
    let there = cube / tiles < batch;
    let row = select(there, cube / tiles, 0u32);
    let first_output = cube % tiles * comptime!(OUTPUTS as u32);
    let words = bits.group_words();
    let items = bits.groups * words;

    let mut inverse = 0.0f32;
    let mut scale = 0.0f32;
    if comptime!(int8) {
        scale = scales[row as usize];
        inverse = select(scale == 0.0f32, 0.0f32, 1.0f32 / scale);
    }
    let mut sums = Array::<f32>::new(comptime!(OUTPUTS));
    #[unroll]
    for o in 0..comptime!(OUTPUTS) {
        sums[o] = 0.0f32;
    }
    let mut item = UNIT_POS_X;
    while item < items {
        let group = item / words;
        let word = item % words;
        let first = word * 32u32;
        let start = (row * bits.groups + group) * bits.len + first;
        let mut x = Array::<f32>::new(32usize);
        #[unroll]
        for part in 0..comptime!(32 / vector) {
            let at = comptime!(part * vector);
            let mut values = Vector::<f32, N>::new(0.0f32);
            if first + comptime!(at as u32) < bits.len {
                values = input[start as usize / vector + part];
            }
            #[unroll]
            for i in 0..vector {
                x[comptime!(at + i)] = values.extract(i);
            }
        }
        #[unroll]
        for o in 0..comptime!(OUTPUTS) {
            let number = first_output + comptime!(o as u32);
            if number < bits.outputs {
                for row in bits.row(number, group)..bits.row(number, group + 1u32) {
                    let signs = bits.word(row, word);
                    let mut sum = 0.0f32;
                    #[unroll]
                    for four in 0..8usize {
                        let mut part = 0.0f32;
                        #[unroll]
                        for i in 0..4usize {
                            let at = comptime!(4 * four + i);
                            part += signed(x[at], (signs >> comptime!(at as u32)) & 1u32);
                        }
                        if comptime!(int8) {
                            part = (part * inverse).round();
                        }
                        sum += part;
                    }
                    sums[o] += bits.coordinate(row) * sum;
                }
            }
        }
        item += comptime!(LANES as u32);
    }
    let mut scratch = scratch(comptime!(LANES));
    sum_lanes(
        &mut sums,
        &mut scratch,
        comptime!(OUTPUTS),
        comptime!(LANES),
        comptime!(LANES),
    );
    if there && UNIT_POS_X == 0u32 {
        #[unroll]
        for o in 0..comptime!(OUTPUTS) {
            let number = first_output + comptime!(o as u32);
            if number < bits.outputs {
                let mut y = sums[o];
                if comptime!(int8) {
                    y *= scale;
                }
                output[(row * bits.outputs + number) as usize] = affine.apply(y, number);
            }
        }
    }
}

/// The scale of each row of inputs: the largest `Σ|x|` of so many that are rounded together within a
/// group of `len`, divided by 127; not a number if an input is not finite.
#[cube(launch_unchecked)]
pub(super) fn int8_scales(
    input: &[f32],
    scales: &mut [f32],
    rows: u32,
    groups: u32,
    len: u32,
    // A number, because shaders have no literal for it.
    nan: f32,
    #[comptime] together: usize,
) {
    let there = (CUBE_POS as u32) < rows;
    let row = select(there, CUBE_POS as u32, 0u32);
    let parts = len.div_ceil(comptime!(together as u32));
    let mut largest = 0.0f32;
    let mut broken = 0.0f32;
    let mut item = UNIT_POS_X;
    while item < groups * parts {
        let first = item % parts * comptime!(together as u32);
        let start = (row * groups + item / parts) * len + first;
        let mut sum = 0.0f32;
        #[unroll]
        for i in 0..together {
            if first + comptime!(i as u32) < len {
                sum += input[start as usize + i].abs();
            }
        }
        let fine = crate::gpu::float::finite(sum);
        largest = select(fine, crate::gpu::float::larger(largest, sum), largest);
        broken = select(fine, broken, 1.0f32);
        item += comptime!(LANES as u32);
    }
    let mut shared = Shared::<[f32]>::new_slice(comptime!(2 * LANES));
    let lane = UNIT_POS_X as usize;
    shared[lane] = largest;
    shared[comptime!(LANES) + lane] = broken;
    sync_cube();
    #[unroll]
    for halving in 0..comptime!(LANES.ilog2()) {
        let half = comptime!(LANES >> (halving + 1));
        if lane < half {
            shared[lane] = crate::gpu::float::larger(shared[lane], shared[lane + half]);
            let other = comptime!(LANES) + lane;
            shared[other] += shared[other + half];
        }
        sync_cube();
    }
    if there && lane == 0 {
        let scale = shared[0] / 127.0f32;
        scales[row as usize] = select(shared[comptime!(LANES)] > 0.0f32, nan, scale);
    }
}
