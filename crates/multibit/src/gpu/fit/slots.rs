//! The coordinate step and the two halves of pruning, one launch a weight each.

use cubecl::prelude::*;

use super::group::{Plan, Share, bit, level, project, zeros};
use super::rates::StepRates;
use crate::gpu::float::{finite, larger};
use crate::gpu::order::Order;
use crate::gpu::reduce::{scratch, sum_lanes};

/// Advances the moments of a group's weights and returns `Bᵀg`.
#[cube]
#[expect(clippy::too_many_arguments, reason = "one for each tensor")]
fn advance<I: Int>(
    share: &Share,
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    v_max: &mut [f32],
    codes: &[I],
    order: &Order,
    rates: &StepRates,
    #[comptime] plan: Plan,
) -> Array<f32> {
    let mut scratch = scratch(comptime!(plan.units()));
    let mut sums = zeros(comptime!(plan.slots));
    let mut j = share.lane;
    while j < share.end {
        let q = share.first + j;
        let g = grad[order.place(q)];
        m[q] = rates.first(m[q], g);
        let second = rates.second(v[q], g);
        v[q] = second;
        v_max[q] = larger(v_max[q], second);
        project(
            &mut sums,
            u32::cast_from(codes[q]),
            g,
            comptime!(plan.slots),
        );
        j += comptime!(plan.lanes);
    }
    sum_lanes(
        &mut sums,
        &mut scratch,
        comptime!(plan.slots),
        comptime!(plan.lanes),
        comptime!(plan.units()),
    );
    sums
}

/// AMSGrad's update of one coordinate's moments, absent ones to 0. Returns `p` and `h`.
#[cube]
fn advance_slot(
    slot: usize,
    g: f32,
    live: bool,
    m_alpha: &mut [f32],
    v_alpha: &mut [f32],
    v_max_alpha: &mut [f32],
    rates: &StepRates,
) -> (f32, f32) {
    let first = select(live, rates.first(m_alpha[slot], g), 0.0f32);
    let second = select(live, rates.second(v_alpha[slot], g), 0.0f32);
    let largest = select(live, larger(v_max_alpha[slot], second), 0.0f32);
    m_alpha[slot] = first;
    v_alpha[slot] = second;
    v_max_alpha[slot] = largest;
    (rates.p(first), rates.h(largest))
}

#[cube(launch_unchecked)]
#[expect(clippy::too_many_arguments, reason = "one for each tensor")]
pub(super) fn coordinate<I: Int>(
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    v_max: &mut [f32],
    codes: &[I],
    coordinates: &[f32],
    widths: &[I],
    new_codes: &mut [I],
    new_coordinates: &mut [f32],
    m_alpha: &mut [f32],
    v_alpha: &mut [f32],
    v_max_alpha: &mut [f32],
    weight: &mut [f32],
    order: Order,
    groups: u32,
    len: u32,
    rates: StepRates,
    #[comptime] plan: Plan,
    #[define(I)] _int: ElemType,
) {
    let slots = comptime!(plan.slots);
    let share = Share::new(groups, len, plan);
    let width = share.width::<I>(widths, plan);
    let sums = advance::<I>(&share, grad, m, v, v_max, codes, &order, &rates, plan);

    let mut shared_alpha = Shared::<[f32]>::new_slice(comptime!(plan.rows * plan.slots));
    let mut shared_flips = Shared::<[u32]>::new_slice(comptime!(plan.rows));
    if share.there && share.lane == 0 {
        let mut flips = 0u32;
        #[unroll]
        for i in 0..slots {
            let live = comptime!(i as u32) < width;
            let slot = share.slot + i;
            let (p, h) = advance_slot(slot, sums[i], live, m_alpha, v_alpha, v_max_alpha, &rates);
            let old = coordinates[slot];
            let moved = old - p / h;
            // Only a moment that is not finite can do this; the coordinate stays valid.
            let moved = select(finite(moved), moved, old);
            let negative = live && moved < 0.0f32;
            flips |= select(negative, comptime!(1u32 << i), 0u32);
            m_alpha[slot] = select(negative, -m_alpha[slot], m_alpha[slot]);
            let size = larger(moved.abs(), f32::new(f32::MIN_POSITIVE));
            let new = select(live, size, 0.0f32);
            new_coordinates[slot] = new;
            shared_alpha[share.row * slots + i] = new;
        }
        shared_flips[share.row] = flips;
    }
    sync_cube();
    let mut alpha = Array::<f32>::new(slots);
    #[unroll]
    for i in 0..slots {
        alpha[i] = shared_alpha[share.row * slots + i];
    }
    let flips = shared_flips[share.row];
    let mut j = share.lane;
    while j < share.end {
        let q = share.first + j;
        let code = u32::cast_from(codes[q]) ^ flips;
        new_codes[q] = I::cast_from(code);
        weight[order.place(q)] = level(&alpha, code, slots);
        j += comptime!(plan.lanes);
    }
}

#[cube(launch_unchecked)]
#[expect(clippy::too_many_arguments, reason = "one for each tensor")]
pub(super) fn importance<I: Int>(
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    v_max: &mut [f32],
    codes: &[I],
    coordinates: &[f32],
    widths: &[I],
    m_alpha: &mut [f32],
    v_alpha: &mut [f32],
    v_max_alpha: &mut [f32],
    delta: &mut [f32],
    order: Order,
    groups: u32,
    len: u32,
    rates: StepRates,
    // A number, because shaders have no literal for it.
    infinity: f32,
    #[comptime] plan: Plan,
    #[define(I)] _int: ElemType,
) {
    let slots = comptime!(plan.slots);
    let share = Share::new(groups, len, plan);
    let width = share.width::<I>(widths, plan);
    let sums = advance::<I>(&share, grad, m, v, v_max, codes, &order, &rates, plan);
    if share.there && share.lane == 0 {
        #[unroll]
        for i in 0..slots {
            let live = comptime!(i as u32) < width;
            let slot = share.slot + i;
            let (p, h) = advance_slot(slot, sums[i], live, m_alpha, v_alpha, v_max_alpha, &rates);
            let alpha = coordinates[slot];
            let rise = 0.5f32 * h * alpha * alpha - p * alpha;
            delta[slot] = select(live, rise, infinity);
        }
    }
}

#[cube(launch_unchecked)]
#[expect(clippy::too_many_arguments, reason = "one for each tensor")]
pub(super) fn drop_coordinates<I: Int>(
    drop: &[I],
    codes: &[I],
    coordinates: &[f32],
    widths: &[I],
    new_codes: &mut [I],
    new_coordinates: &mut [f32],
    new_widths: &mut [I],
    m_alpha: &mut [f32],
    v_alpha: &mut [f32],
    v_max_alpha: &mut [f32],
    weight: &mut [f32],
    order: Order,
    groups: u32,
    len: u32,
    #[comptime] plan: Plan,
    #[define(I)] _int: ElemType,
) {
    let slots = comptime!(plan.slots);
    let share = Share::new(groups, len, plan);
    let width = share.width::<I>(widths, plan);
    // Bit i is set where slot i stays; places[i] counts those before it.
    let mut kept = 0u32;
    let mut count = 0u32;
    let mut places = Array::<u32>::new(slots);
    let mut alpha = share.coordinates(coordinates, plan);
    #[unroll]
    for i in 0..slots {
        let stays = comptime!(i as u32) < width && u32::cast_from(drop[share.slot + i]) == 0u32;
        places[i] = count;
        kept |= select(stays, comptime!(1u32 << i), 0u32);
        count += select(stays, 1u32, 0u32);
        alpha[i] = select(stays, alpha[i], 0.0f32);
    }
    let mut j = share.lane;
    while j < share.end {
        let q = share.first + j;
        let code = u32::cast_from(codes[q]);
        let mut moved = 0u32;
        #[unroll]
        for i in 0..slots {
            moved |= (bit(code, i) & bit(kept, i)) << places[i];
        }
        new_codes[q] = I::cast_from(moved);
        weight[order.place(q)] = level(&alpha, code, slots);
        j += comptime!(plan.lanes);
    }
    if share.there && share.lane == 0 {
        new_widths[share.group] = I::cast_from(count);
        // Slots move towards the front only, so each is read before it is overwritten.
        #[unroll]
        for i in 0..slots {
            let slot = share.slot + i;
            let (m, v, v_max) = (m_alpha[slot], v_alpha[slot], v_max_alpha[slot]);
            new_coordinates[slot] = 0.0f32;
            m_alpha[slot] = 0.0f32;
            v_alpha[slot] = 0.0f32;
            v_max_alpha[slot] = 0.0f32;
            if bit(kept, i) == 1u32 {
                let to = share.slot + places[i] as usize;
                new_coordinates[to] = alpha[i];
                m_alpha[to] = m;
                v_alpha[to] = v;
                v_max_alpha[to] = v_max;
            }
        }
    }
}
