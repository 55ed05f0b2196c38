//! Weights that are unpacked: rows of a table, or all of them.

use cubecl::prelude::*;

use super::weight::Bits;
use crate::gpu::UNITS;
use crate::gpu::order::Order;

/// The weights of some outputs, in the grouping's order; of an output that is not there, not a
/// number.
#[cube(launch_unchecked)]
pub(super) fn lookup<I: Int>(
    indices: &[I],
    bits: &Bits,
    output: &mut [f32],
    count: u32,
    // A number, because shaders have no literal for it.
    nan: f32,
    #[define(I)] _int: ElemType,
) {
    let unit = CUBE_POS as u32 * comptime!(UNITS as u32) + UNIT_POS_X;
    let columns = bits.groups * bits.len;
    if unit < count * columns {
        let index = u32::cast_from(indices[(unit / columns) as usize]);
        let k = unit % columns;
        let mut value = nan;
        // A negative index is a huge one.
        if index < bits.outputs {
            value = bits.weight(index, k / bits.len, k % bits.len);
        }
        output[unit as usize] = value;
    }
}

/// All weights, each at its place in the dense tensor.
#[cube(launch_unchecked)]
pub(super) fn unpack(bits: &Bits, output: &mut [f32], order: &Order) {
    let unit = CUBE_POS as u32 * comptime!(UNITS as u32) + UNIT_POS_X;
    let columns = bits.groups * bits.len;
    if unit < bits.outputs * columns {
        let k = unit % columns;
        output[order.place(unit as usize)] =
            bits.weight(unit / columns, k / bits.len, k % bits.len);
    }
}
