//! The coordinate step: bases fixed, AMSGrad on the coordinates.

use super::basis::set_positive;
use super::moments::Rates;
use super::normal::project_group;
use super::{Moments, StateMut, StepParams};
use crate::MAX_BITS;
use crate::bits::Codebook;

/// One coordinate step: AMSGrad on `g_α = Bᵀg` in the domain of the coordinates.
///
/// `α ← α − p_α/h_α`, with the coordinates' own moments. The moments of the weights advance with
/// `g` too. A coordinate that becomes negative is negated together with its basis and its first
/// moment, which is the same weight and the same trajectory; one below the smallest normal number
/// is raised to it. Absent slots stay 0.
///
/// The optimization of coordinates of Qu et al., CVPR 2020.
///
/// # Shapes
/// - `grad`, `out`: `[groups, len]`; `out` is the new `ŵ`
///
/// # Panics
/// If a slice has another length or a number in `params` is out of range.
pub fn coordinate(w: &mut StateMut<'_>, grad: &[f32], params: &StepParams, out: &mut [f32]) {
    w.check_weights("out", out.len());
    let rates = Rates::new(params);
    advance(w, grad, &rates);
    let mut codebook = Codebook::new();
    for group in 0..w.groups() {
        let (span, live) = (w.span(group), w.live(group));
        let codes = &mut w.state.codes[span.clone()];
        let coordinates = &mut w.state.coordinates[live.clone()];
        let m = &mut w.state.alpha.m[live.clone()];
        let v_max = &w.state.alpha.v_max[live];
        let mut alpha = [0.0; MAX_BITS];
        for (i, alpha) in alpha[..coordinates.len()].iter_mut().enumerate() {
            let (p, h) = rates.model(m[i], v_max[i]);
            let old = coordinates[i];
            let new = old - p / h;
            // Only a moment that is not finite can do this; the coordinate stays valid.
            *alpha = f64::from(if new.is_finite() { new } else { old });
        }
        let negative = set_positive(&alpha[..coordinates.len()], coordinates);
        if negative != 0 {
            for (i, m) in m.iter_mut().enumerate() {
                if negative >> i & 1 == 1 {
                    *m = -*m;
                }
            }
            for code in codes.iter_mut() {
                *code ^= negative;
            }
        }
        codebook.build(coordinates);
        codebook.values(codes, &mut out[span]);
    }
}

/// Updates the moments of both domains with a gradient of the weights; moves nothing.
pub(super) fn advance(w: &mut StateMut<'_>, grad: &[f32], rates: &Rates) {
    w.check();
    w.check_weights("grad", grad.len());
    rates.update(w.state.weight.part(0..grad.len()), grad);
    for group in 0..w.groups() {
        let (span, live) = (w.span(group), w.live(group));
        let g =
            project_group(&w.state.codes[span.clone()], live.len(), &grad[span]).map(|g| g as f32);
        rates.update(w.state.alpha.part(live), &g);
        for slot in w.absent(group) {
            w.state.alpha.set(slot, Moments::default());
        }
    }
}
