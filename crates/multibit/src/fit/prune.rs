//! The two halves of a pruning step: what each coordinate is worth, and removing those chosen.

use super::coordinate::advance;
use super::moments::Rates;
use super::{StateMut, StepParams};
use crate::bits::Codebook;

/// The modelled rise of the loss if each coordinate is dropped, `Δᵢ = −p_α,i·αᵢ + ½ h_α,i·αᵢ²`.
///
/// The moments of both domains advance with `grad` as in a
/// [`coordinate`](super::coordinate::coordinate) step, but nothing moves. `Δ` scales with the
/// learning rate through `p` only.
///
/// Pruning in the α domain, Qu et al., CVPR 2020.
///
/// # Shapes
/// - `grad`: `[groups, len]`
/// - `out_delta`: `[groups, max_bits]`, +∞ in absent slots, NaN where the group has had a gradient
///   that was not finite
///
/// # Panics
/// If a slice has another length or a number in `params` is out of range.
pub fn importance(w: &mut StateMut<'_>, grad: &[f32], params: &StepParams, out_delta: &mut [f32]) {
    w.check_slots("out_delta", out_delta.len());
    let rates = Rates::new(params);
    advance(w, grad, &rates);
    out_delta.fill(f32::INFINITY);
    for group in 0..w.groups() {
        for slot in w.live(group) {
            let (p, h) = rates.model(w.state.alpha.m[slot], w.state.alpha.v_max[slot]);
            let alpha = w.state.coordinates[slot];
            out_delta[slot] = 0.5 * h * alpha * alpha - p * alpha;
        }
    }
}

/// Removes the marked coordinates with their bases and moments.
///
/// The remaining ones of a group move to the front in their order, and its width shrinks; it may
/// become 0, which makes the group zero. Marks on absent slots mean nothing.
///
/// # Shapes
/// - `drop`: `[groups, max_bits]`
/// - `out`: the new `ŵ`, `[groups, len]`
///
/// # Panics
/// If a slice has another length.
pub fn drop_coordinates(w: &mut StateMut<'_>, drop: &[bool], out: &mut [f32]) {
    w.check();
    w.check_slots("drop", drop.len());
    w.check_weights("out", out.len());
    let mut codebook = Codebook::new();
    for group in 0..w.groups() {
        let (span, live) = (w.span(group), w.live(group));
        let drop = &drop[live.clone()];
        if drop.contains(&true) {
            let kept = drop.iter().filter(|&&drop| !drop).count();
            compact(&mut w.state.coordinates[live.clone()], drop);
            w.state.alpha.part(live).map(|moment| compact(moment, drop));
            for code in &mut w.state.codes[span.clone()] {
                *code = compact_bits(*code, drop);
            }
            w.state.widths[group] = kept as u8;
        }
        codebook.build(&w.state.coordinates[w.live(group)]);
        codebook.values(&w.state.codes[span.clone()], &mut out[span]);
    }
}

/// Moves the values that stay to the front, zeros behind them.
fn compact(values: &mut [f32], drop: &[bool]) {
    let mut kept = 0;
    for i in 0..values.len() {
        if !drop[i] {
            values[kept] = values[i];
            kept += 1;
        }
    }
    values[kept..].fill(0.0);
}

/// Moves the bits that stay to the lowest places, zeros above them.
fn compact_bits(code: u8, drop: &[bool]) -> u8 {
    let stay = (0..drop.len()).filter(|&i| !drop[i]);
    stay.enumerate()
        .fold(0, |bits, (to, from)| bits | ((code >> from) & 1) << to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_keeps_its_order() {
        let drop = [false, true, false, true, false];
        let mut values = [1.0, 2.0, 3.0, 4.0, 5.0];
        compact(&mut values, &drop);
        assert_eq!(values, [1.0, 3.0, 5.0, 0.0, 0.0]);
        assert_eq!(compact_bits(0b10001, &drop), 0b101);
        assert_eq!(compact_bits(0b01110, &drop), 0b010);
    }
}
