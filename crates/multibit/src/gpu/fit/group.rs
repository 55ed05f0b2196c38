//! What the units of a cube share in work on groups: rows of lanes, a group each.

use cubecl::prelude::*;

use crate::gpu::float::signed;

/// How groups are dealt to the units of a cube.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    /// Columns of the table of coordinates.
    pub slots: usize,
    /// Units that share a group, a power of two.
    pub lanes: usize,
    /// Groups of a cube.
    pub rows: usize,
}

/// Units of a cube, unless its groups' levels fill the shared memory before.
const UNITS: usize = 128;

/// Shared memory for levels, in bytes; with the sums it stays below 16 KiB.
const LEVEL_BYTES: usize = 8 << 10;

impl Plan {
    /// Few weights for each unit, and full cubes.
    pub fn new(len: usize, slots: usize) -> Self {
        let rows = (LEVEL_BYTES / (12 << slots)).next_power_of_two();
        let most = if rows * (12 << slots) > LEVEL_BYTES {
            rows / 2
        } else {
            rows
        };
        let lanes = len
            .div_ceil(4)
            .next_power_of_two()
            .clamp((UNITS / most).max(4), UNITS);
        Self {
            slots,
            lanes,
            rows: UNITS / lanes,
        }
    }

    pub fn units(&self) -> usize {
        self.lanes * self.rows
    }

    /// Levels of a group.
    pub fn levels(&self) -> usize {
        1 << self.slots
    }
}

/// A unit's share of a group.
#[derive(CubeType)]
pub(super) struct Share {
    /// The group; the first one, without weights, where the cube has more rows than are left.
    pub group: usize,
    /// Whether there is a group.
    pub there: bool,
    /// Weights of the group, 0 if there is none.
    pub end: usize,
    /// The group's first weight.
    pub first: usize,
    /// The group's first slot.
    pub slot: usize,
    /// This unit's first weight.
    pub lane: usize,
    /// The row of the group in the cube.
    pub row: usize,
}

#[cube]
impl Share {
    /// The share of this unit of `groups` groups of `len`.
    pub fn new(groups: u32, len: u32, #[comptime] plan: Plan) -> Share {
        let row = UNIT_POS_Y as usize;
        let number = CUBE_POS * comptime!(plan.rows) + row;
        let there = number < groups as usize;
        let group = select(there, number, 0usize);
        Share {
            group,
            there,
            end: select(there, len as usize, 0usize),
            first: group * len as usize,
            slot: group * comptime!(plan.slots),
            lane: UNIT_POS_X as usize,
            row,
        }
    }

    /// The group's bitwidth, at most the slots that there are.
    pub fn width<I: Int>(&self, widths: &[I], #[comptime] plan: Plan) -> u32 {
        let width = u32::cast_from(widths[self.group]);
        let most = comptime!(plan.slots as u32);
        select(width < most, width, most)
    }

    /// The group's coordinates.
    pub fn coordinates(&self, coordinates: &[f32], #[comptime] plan: Plan) -> Array<f32> {
        let mut alpha = Array::<f32>::new(comptime!(plan.slots));
        #[unroll]
        for i in 0..comptime!(plan.slots) {
            alpha[i] = coordinates[self.slot + i];
        }
        alpha
    }
}

/// The level of a code, `Σᵢ ±αᵢ` in ascending order of `i` from 0, as on slices.
#[cube]
pub(super) fn level(alpha: &Array<f32>, code: u32, #[comptime] slots: usize) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for i in 0..slots {
        sum += signed(alpha[i], bit(code, i));
    }
    sum
}

/// The sign of a code on a basis.
#[cube]
pub(super) fn bit(code: u32, #[comptime] basis: usize) -> u32 {
    (code >> comptime!(basis as u32)) & 1u32
}

/// Adds `±x` to the sum of each basis.
#[cube]
pub(super) fn project(sums: &mut Array<f32>, code: u32, x: f32, #[comptime] slots: usize) {
    #[unroll]
    for i in 0..slots {
        sums[i] += signed(x, bit(code, i));
    }
}

#[cube]
pub(super) fn zeros(#[comptime] count: usize) -> Array<f32> {
    let mut values = Array::<f32>::new(count);
    #[unroll]
    for i in 0..count {
        values[i] = 0.0f32;
    }
    values
}

/// The levels of the cube's groups in ascending order, in shared memory.
#[derive(CubeType)]
pub(super) struct Levels {
    sorted: Shared<[f32]>,
    codes: Shared<[u32]>,
    /// Where this unit's group begins.
    first: usize,
    width: u32,
}

#[cube]
impl Levels {
    /// Sorts the levels of each row's group by counting those below; all units take part.
    pub fn new(alpha: &Array<f32>, width: u32, row: usize, #[comptime] plan: Plan) -> Levels {
        let all = comptime!(plan.rows * plan.levels());
        let mut values = Shared::<[f32]>::new_slice(all);
        let mut sorted = Shared::<[f32]>::new_slice(all);
        let mut codes = Shared::<[u32]>::new_slice(all);
        let first = row * comptime!(plan.levels());
        let count = 1u32 << width;
        let mut code = UNIT_POS_X;
        while code < count {
            values[first + code as usize] = level(alpha, code, comptime!(plan.slots));
            code += comptime!(plan.lanes as u32);
        }
        sync_cube();
        code = UNIT_POS_X;
        while code < count {
            let value = values[first + code as usize];
            let mut below = 0u32;
            for other in 0..count {
                let level = values[first + other as usize];
                // Of equal levels the higher code comes first, as on slices.
                let before = level < value || (level == value && other > code);
                below += select(before, 1u32, 0u32);
            }
            sorted[first + below as usize] = value;
            codes[first + below as usize] = code;
            code += comptime!(plan.lanes as u32);
        }
        sync_cube();
        Levels {
            sorted,
            codes,
            first,
            width,
        }
    }

    /// The code of the nearest level; midway between two, the lower one.
    pub fn nearest(&self, target: f32) -> u32 {
        let count = 1u32 << self.width;
        let mut place = 0u32;
        let mut step = count >> 1u32;
        while step > 0u32 {
            let at = self.first + (place + step - 1u32) as usize;
            let middle = 0.5f32 * self.sorted[at] + 0.5f32 * self.sorted[at + 1];
            place += select(target > middle, step, 0u32);
            step >>= 1u32;
        }
        self.codes[self.first + place as usize] & (count - 1u32)
    }
}
