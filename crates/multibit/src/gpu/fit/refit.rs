//! The basis step and the STE step, one launch a weight.

use cubecl::prelude::*;

use super::group::{Levels, Plan, Share, bit, level, project, zeros};
use super::rates::StepRates;
use crate::gpu::float::{finite, larger, signed};
use crate::gpu::order::Order;
use crate::gpu::reduce::{scratch, sum_lanes};

/// Where the sums of the normal equations lie: the lower triangle of `BᵀHB` without its diagonal,
/// `Bᵀ(H·centre − p)`, then `Σh`, `Σv` and `Σv̂`.
fn right_side(slots: usize) -> usize {
    slots * (slots - 1) / 2
}

fn totals(slots: usize) -> usize {
    right_side(slots) + slots
}

#[cube(launch_unchecked)]
#[expect(clippy::too_many_arguments, reason = "one for each tensor")]
pub(super) fn refit<I: Int>(
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    v_max: &mut [f32],
    latent: &mut [f32],
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
    #[comptime] ste: bool,
    #[define(I)] _int: ElemType,
) {
    let slots = comptime!(plan.slots);
    let share = Share::new(groups, len, plan);
    let width = share.width::<I>(widths, plan);
    let mut alpha = share.coordinates(coordinates, plan);
    let levels = Levels::new(&alpha, width, share.row, plan);
    let mut scratch = scratch(comptime!(plan.units()));

    let rhs = comptime!(right_side(slots));
    let total = comptime!(totals(slots));
    let mut sums = zeros(comptime!(total + 3));
    let mut j = share.lane;
    while j < share.end {
        let q = share.first + j;
        let g = grad[order.place(q)];
        let first = rates.first(m[q], g);
        let second = rates.second(v[q], g);
        let largest = larger(v_max[q], second);
        m[q] = first;
        v[q] = second;
        v_max[q] = largest;
        let p = rates.p(first);
        let h = rates.h(largest);
        let centre = if comptime!(ste) {
            latent[q]
        } else {
            level(&alpha, u32::cast_from(codes[q]), slots)
        };
        let target = centre - p / h;
        if comptime!(ste) {
            latent[q] = target;
        }
        let code = levels.nearest(target);
        new_codes[q] = I::cast_from(code);
        let pull = h * centre - p;
        #[unroll]
        for i in 0..slots {
            sums[comptime!(rhs + i)] += signed(pull, bit(code, i));
            #[unroll]
            for k in 0..i {
                let at = comptime!(right_side(i) + k);
                sums[at] += signed(h, bit(code, i) ^ bit(code, k));
            }
        }
        sums[total] += h;
        sums[comptime!(total + 1)] += second;
        sums[comptime!(total + 2)] += largest;
        j += comptime!(plan.lanes);
    }
    let units = comptime!(plan.units());
    sum_lanes(
        &mut sums,
        &mut scratch,
        comptime!(total + 3),
        comptime!(plan.lanes),
        units,
    );

    let mut solution = zeros(slots);
    let mut solved = solve(&sums, &mut solution, width, rates.ridge, slots);
    // A group that has never had a gradient keeps what it has.
    solved = solved && sums[comptime!(total + 2)] > 0.0f32;
    let mut flips = 0u32;
    #[unroll]
    for i in 0..slots {
        let x = solution[i];
        let negative = solved && x < 0.0f32;
        flips |= select(negative, comptime!(1u32 << i), 0u32);
        // A live coordinate stays positive, an absent one 0.
        let size = larger(x.abs(), f32::new(f32::MIN_POSITIVE));
        let present = select(solved, size, alpha[i]);
        alpha[i] = select(comptime!(i as u32) < width, present, 0.0f32);
    }

    let mut sums_m = zeros(slots);
    j = share.lane;
    while j < share.end {
        let q = share.first + j;
        let moved = u32::cast_from(new_codes[q]) ^ flips;
        let code = select(solved, moved, u32::cast_from(codes[q]));
        new_codes[q] = I::cast_from(code);
        weight[order.place(q)] = level(&alpha, code, slots);
        project(&mut sums_m, code, m[q], slots);
        j += comptime!(plan.lanes);
    }
    sum_lanes(
        &mut sums_m,
        &mut scratch,
        slots,
        comptime!(plan.lanes),
        units,
    );
    if share.there && share.lane == 0 {
        #[unroll]
        for i in 0..slots {
            let live = comptime!(i as u32) < width;
            let slot = share.slot + i;
            new_coordinates[slot] = alpha[i];
            m_alpha[slot] = select(live, sums_m[i], 0.0f32);
            v_alpha[slot] = select(live, sums[comptime!(total + 1)], 0.0f32);
            v_max_alpha[slot] = select(live, sums[comptime!(total + 2)], 0.0f32);
        }
    }
}

/// Cholesky's method on `(BᵀHB + λI) α = Bᵀ(H·centre − p)`, divided by `Σh` to keep the numbers
/// near 1; absent slots are rows of the unit matrix. Returns whether there is a finite solution.
#[cube]
fn solve(
    sums: &Array<f32>,
    x: &mut Array<f32>,
    width: u32,
    ridge: f32,
    #[comptime] slots: usize,
) -> bool {
    let scale = 1.0f32 / sums[comptime!(totals(slots))];
    let mut solved = width > 0u32;
    let mut a = Array::<f32>::new(comptime!(slots * slots));
    #[unroll]
    for i in 0..slots {
        let live = comptime!(i as u32) < width;
        #[unroll]
        for j in 0..i {
            let entry = sums[comptime!(right_side(i) + j)] * scale;
            let mut rest = select(live, entry, 0.0f32);
            #[unroll]
            for k in 0..j {
                rest -= a[comptime!(i * slots + k)] * a[comptime!(j * slots + k)];
            }
            a[comptime!(i * slots + j)] = rest / a[comptime!(j * slots + j)];
        }
        let mut pivot = 1.0f32 + ridge;
        #[unroll]
        for k in 0..i {
            pivot -= a[comptime!(i * slots + k)] * a[comptime!(i * slots + k)];
        }
        solved = solved && pivot > 0.0f32;
        a[comptime!(i * slots + i)] = select(pivot > 0.0f32, pivot, 1.0f32).sqrt();
        x[i] = select(live, sums[comptime!(right_side(slots) + i)] * scale, 0.0f32);
    }
    #[unroll]
    for i in 0..slots {
        let mut rest = x[i];
        #[unroll]
        for k in 0..i {
            rest -= a[comptime!(i * slots + k)] * x[k];
        }
        x[i] = rest / a[comptime!(i * slots + i)];
    }
    #[unroll]
    for back in 0..slots {
        let i = comptime!(slots - 1 - back);
        let mut rest = x[i];
        #[unroll]
        for k in comptime!(i + 1)..slots {
            rest -= a[comptime!(k * slots + i)] * x[k];
        }
        x[i] = rest / a[comptime!(i * slots + i)];
        solved = solved && finite(x[i]);
    }
    solved
}
