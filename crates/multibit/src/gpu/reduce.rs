//! Sums over the lanes of a group, through shared memory: on every device alike.

use cubecl::prelude::*;

/// Values that are summed at a time, for which there is room in shared memory.
const TOGETHER: usize = 8;

/// Shared memory for [`sum_lanes`] with so many units in a cube.
#[cube]
pub(super) fn scratch(#[comptime] units: usize) -> Shared<[f32]> {
    Shared::<[f32]>::new_slice(comptime!(TOGETHER * units))
}

/// Replaces each of the first `count` values by its sum over the unit's row of lanes.
///
/// All units of the cube take part. The order is fixed: the same input gives the same bits.
#[cube]
pub(super) fn sum_lanes(
    values: &mut Array<f32>,
    scratch: &mut Shared<[f32]>,
    #[comptime] count: usize,
    #[comptime] lanes: usize,
    #[comptime] units: usize,
) {
    let unit = UNIT_POS as usize;
    let lane = UNIT_POS_X as usize;
    #[unroll]
    for part in 0..comptime!(count.div_ceil(TOGETHER)) {
        let first = comptime!(part * TOGETHER);
        let many = comptime!(if count - first < TOGETHER {
            count - first
        } else {
            TOGETHER
        });
        #[unroll]
        for i in 0..many {
            scratch[i * units + unit] = values[comptime!(first + i)];
        }
        sync_cube();
        #[unroll]
        for halving in 0..comptime!(lanes.ilog2()) {
            let half = comptime!(lanes >> (halving + 1));
            if lane < half {
                #[unroll]
                for i in 0..many {
                    let place = i * units + unit;
                    scratch[place] += scratch[place + half];
                }
            }
            sync_cube();
        }
        #[unroll]
        for i in 0..many {
            values[comptime!(first + i)] = scratch[i * units + unit - lane];
        }
        sync_cube();
    }
}
