//! The steps of ALQ on one weight, group by group (paper section 4).

use alloc::vec::Vec;

use super::refit;
use super::{GroupsMut, Levels, Model, MomentsMut, StepParams, project_group, reconstruct_group};
use crate::MAX_BITS;

/// One group's share of all slices.
struct Group<'a> {
    codes: &'a mut [u8],
    /// All slots.
    alpha: &'a mut [f32],
    width: usize,
    m: &'a mut [f32],
    v: &'a mut [f32],
    v_max: &'a mut [f32],
    m_alpha: &'a mut [f32],
    v_alpha: &'a mut [f32],
    v_max_alpha: &'a mut [f32],
    /// The range of its weights.
    weights: core::ops::Range<usize>,
    /// The range of its slots.
    slots: core::ops::Range<usize>,
}

impl Group<'_> {
    /// Takes a gradient into the moments of the weight domain.
    fn update(&mut self, model: &Model, grad: &[f32]) {
        let moments = self
            .m
            .iter_mut()
            .zip(self.v.iter_mut().zip(self.v_max.iter_mut()));
        for ((m, (v, v_max)), &g) in moments.zip(grad) {
            model.update(m, v, v_max, g);
        }
    }

    /// Takes a gradient into the moments of the α domain.
    fn update_alpha(&mut self, model: &Model, grad: &[f32]) {
        let g_alpha = project_group(self.codes, grad.iter().copied(), self.width);
        for (i, &g) in g_alpha[..self.width].iter().enumerate() {
            let (m, v, v_max) = (
                &mut self.m_alpha[i],
                &mut self.v_alpha[i],
                &mut self.v_max_alpha[i],
            );
            model.update(m, v, v_max, g as f32);
        }
    }

    /// Makes `alpha` the coordinates. A negative one is negated together with its basis and its
    /// first moment: the same weight and the same trajectory, with positive coordinates.
    fn set_alpha(&mut self, alpha: &[f32; MAX_BITS]) {
        let mut flips = 0;
        for (i, &a) in alpha[..self.width].iter().enumerate() {
            if a < 0.0 {
                flips |= 1 << i;
                self.m_alpha[i] = -self.m_alpha[i];
            }
            self.alpha[i] = a.abs().max(f32::MIN_POSITIVE);
        }
        if flips != 0 {
            self.codes.iter_mut().for_each(|code| *code ^= flips);
        }
    }

    /// Carries the moments of the weight domain over into the α domain, with the bases as they are.
    fn carry_over(&mut self) {
        let sum = |x: &[f32]| x.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
        let (v, v_max) = (sum(self.v), sum(self.v_max));
        let m = project_group(self.codes, self.m.iter().copied(), self.width);
        for i in 0..self.width {
            self.m_alpha[i] = m[i] as f32;
            self.v_alpha[i] = v;
            self.v_max_alpha[i] = v_max;
        }
    }

    fn reconstruct(&self, out: &mut [f32]) {
        reconstruct_group(self.codes, &self.alpha[..self.width], out);
    }
}

/// Calls `each` for all groups.
fn for_each_group(
    w: &mut GroupsMut<'_>,
    moments: &mut MomentsMut<'_>,
    mut each: impl FnMut(Group<'_>),
) {
    let (len, bits) = (w.len, w.max_bits);
    let groups = w.widths.len();
    assert!(
        len > 0 && (1..=MAX_BITS).contains(&bits),
        "max_bits: 1 to {MAX_BITS}, not {bits}"
    );
    for (name, found, expected) in [
        ("codes", w.codes.len(), groups * len),
        ("coordinates", w.coordinates.len(), groups * bits),
        ("m", moments.m.len(), groups * len),
        ("v", moments.v.len(), groups * len),
        ("v_max", moments.v_max.len(), groups * len),
        ("m_alpha", moments.m_alpha.len(), groups * bits),
        ("v_alpha", moments.v_alpha.len(), groups * bits),
        ("v_max_alpha", moments.v_max_alpha.len(), groups * bits),
    ] {
        assert_eq!(
            found, expected,
            "{name}: {groups} groups of {len} with {bits} slots"
        );
    }
    for group in 0..groups {
        let weights = group * len..(group + 1) * len;
        let slots = group * bits..(group + 1) * bits;
        each(Group {
            codes: &mut w.codes[weights.clone()],
            alpha: &mut w.coordinates[slots.clone()],
            width: usize::from(w.widths[group]),
            m: &mut moments.m[weights.clone()],
            v: &mut moments.v[weights.clone()],
            v_max: &mut moments.v_max[weights.clone()],
            m_alpha: &mut moments.m_alpha[slots.clone()],
            v_alpha: &mut moments.v_alpha[slots.clone()],
            v_max_alpha: &mut moments.v_max_alpha[slots.clone()],
            weights,
            slots,
        });
    }
}

fn check(name: &str, found: usize, expected: usize) {
    assert_eq!(found, expected, "{name}: one element a weight");
}

/// Buffers of one group, made once a step.
struct Scratch {
    levels: Levels,
    centre: Vec<f32>,
    target: Vec<f32>,
    h: Vec<f32>,
    r: Vec<f32>,
    codes: Vec<u8>,
}

impl Scratch {
    fn new(len: usize) -> Self {
        Self {
            levels: Levels::default(),
            centre: alloc::vec![0.0; len],
            target: alloc::vec![0.0; len],
            h: alloc::vec![0.0; len],
            r: alloc::vec![0.0; len],
            codes: alloc::vec![0; len],
        }
    }

    /// Moves the bases of a group to the levels nearest to `centre − p/h`, then its coordinates to
    /// the minimum of the local model around `centre`. Leaves `centre − p/h` in `target`.
    ///
    /// A group stays as it is if its gradients have always been zero, or if the refit has no
    /// finite solution.
    fn refit(&mut self, group: &mut Group<'_>, model: &Model, ridge: f64) {
        let planes = self
            .target
            .iter_mut()
            .zip(self.h.iter_mut().zip(self.r.iter_mut()));
        let moments = group.m.iter().zip(group.v_max.iter());
        let mut largest = 0.0f32;
        for (((target, (h, r)), &centre), (&m, &v_max)) in planes.zip(&self.centre).zip(moments) {
            let p = model.p(m);
            *h = model.h(v_max);
            *target = centre - p / *h;
            *r = *h * centre - p;
            largest = largest.max(v_max);
        }
        if group.width > 0 && largest > 0.0 {
            self.levels.rebuild(&group.alpha[..group.width]);
            self.levels.assign(&self.target, &mut self.codes);
            let alpha = refit::coordinates(&self.codes, group.width, &self.h, &self.r, ridge);
            if let Some(alpha) = alpha {
                group.codes.copy_from_slice(&self.codes);
                group.set_alpha(&alpha);
            }
        }
        group.carry_over();
    }
}

/// The basis step with speedup: `B` moves to the levels nearest to `w − p/h`, with the coordinates
/// as they were; then `α = (BᵀHB + λI)⁻¹ Bᵀ(H w − p)`, and the moments of the α domain are carried
/// over from the weight domain. `w` is `centre`, or `ŵ` if there is none.
///
/// The local model does not rise, up to rounding and the ridge. Widths do not change.
///
/// # Shapes
/// - centre, grad, out: `[groups * len]`; `out` becomes the new `ŵ`
///
/// # Panics
/// If a length does not fit.
pub fn basis(
    w: &mut GroupsMut<'_>,
    moments: &mut MomentsMut<'_>,
    centre: Option<&[f32]>,
    grad: &[f32],
    params: &StepParams,
    out: &mut [f32],
) {
    check("grad", grad.len(), w.codes.len());
    check("out", out.len(), w.codes.len());
    if let Some(centre) = centre {
        check("centre", centre.len(), w.codes.len());
    }
    let model = Model::new(params);
    let mut scratch = Scratch::new(w.len);
    for_each_group(w, moments, |mut group| {
        let weights = group.weights.clone();
        match centre {
            Some(centre) => scratch.centre.copy_from_slice(&centre[weights.clone()]),
            None => group.reconstruct(&mut scratch.centre),
        }
        group.update(&model, &grad[weights.clone()]);
        scratch.refit(&mut group, &model, params.ridge);
        group.reconstruct(&mut out[weights]);
    });
}

/// The step of the STE phase: bases and coordinates follow the kept weight as in [`basis`] around
/// it, then it moves, `w ← w − p/h`.
///
/// # Shapes
/// - latent, grad, out: `[groups * len]`; `out` becomes the new `ŵ`
///
/// # Panics
/// If a length does not fit.
pub fn ste(
    w: &mut GroupsMut<'_>,
    moments: &mut MomentsMut<'_>,
    latent: &mut [f32],
    grad: &[f32],
    params: &StepParams,
    out: &mut [f32],
) {
    check("latent", latent.len(), w.codes.len());
    check("grad", grad.len(), w.codes.len());
    check("out", out.len(), w.codes.len());
    let model = Model::new(params);
    let mut scratch = Scratch::new(w.len);
    for_each_group(w, moments, |mut group| {
        let weights = group.weights.clone();
        scratch.centre.copy_from_slice(&latent[weights.clone()]);
        group.update(&model, &grad[weights.clone()]);
        scratch.refit(&mut group, &model, params.ridge);
        latent[weights.clone()].copy_from_slice(&scratch.target);
        group.reconstruct(&mut out[weights]);
    });
}

/// The coordinate step: AMSGrad on `g_α = Bᵀg` with the moments of the α domain,
/// `α ← α − p_α/h_α`. Bases stay; the moments of the weight domain advance too.
///
/// # Shapes
/// - grad, out: `[groups * len]`; `out` becomes the new `ŵ`
///
/// # Panics
/// If a length does not fit.
pub fn coordinate(
    w: &mut GroupsMut<'_>,
    moments: &mut MomentsMut<'_>,
    grad: &[f32],
    params: &StepParams,
    out: &mut [f32],
) {
    check("grad", grad.len(), w.codes.len());
    check("out", out.len(), w.codes.len());
    let model = Model::new(params);
    for_each_group(w, moments, |mut group| {
        let weights = group.weights.clone();
        group.update(&model, &grad[weights.clone()]);
        group.update_alpha(&model, &grad[weights.clone()]);
        let mut alpha = [0.0; MAX_BITS];
        for (i, alpha) in alpha[..group.width].iter_mut().enumerate() {
            let (p, h) = (model.p(group.m_alpha[i]), model.h(group.v_max_alpha[i]));
            *alpha = group.alpha[i] - p / h;
        }
        group.set_alpha(&alpha);
        group.reconstruct(&mut out[weights]);
    });
}

/// The first half of the pruning step: all moments advance, nothing moves, and `delta` becomes the
/// modelled loss increase of dropping each coordinate, `Δ_i = −p_α,i α_i + ½ h_α,i α_i²`, infinite
/// in absent slots.
///
/// # Shapes
/// - grad: `[groups * len]`
/// - delta: `[groups * max_bits]`
///
/// # Panics
/// If a length does not fit.
pub fn importance(
    w: &mut GroupsMut<'_>,
    moments: &mut MomentsMut<'_>,
    grad: &[f32],
    params: &StepParams,
    delta: &mut [f32],
) {
    check("grad", grad.len(), w.codes.len());
    assert_eq!(
        delta.len(),
        w.coordinates.len(),
        "delta: one element a slot"
    );
    let model = Model::new(params);
    for_each_group(w, moments, |mut group| {
        group.update(&model, &grad[group.weights.clone()]);
        group.update_alpha(&model, &grad[group.weights.clone()]);
        let delta = &mut delta[group.slots.clone()];
        delta.fill(f32::INFINITY);
        for (i, delta) in delta[..group.width].iter_mut().enumerate() {
            let (p, h) = (model.p(group.m_alpha[i]), model.h(group.v_max_alpha[i]));
            let a = group.alpha[i];
            *delta = 0.5 * h * a * a - p * a;
        }
    });
}

/// The second half of the pruning step: drops the marked coordinates with their bases and their
/// moments in the α domain. The others keep their order and move to the front.
///
/// Marks in absent slots are ignored.
///
/// # Shapes
/// - drop: `[groups * max_bits]`
/// - out: `[groups * len]`, becomes the new `ŵ`
///
/// # Panics
/// If a length does not fit.
pub fn drop_coordinates(
    w: &mut GroupsMut<'_>,
    moments: &mut MomentsMut<'_>,
    drop: &[bool],
    out: &mut [f32],
) {
    assert_eq!(drop.len(), w.coordinates.len(), "drop: one element a slot");
    check("out", out.len(), w.codes.len());
    let mut widths = Vec::with_capacity(w.widths.len());
    for_each_group(w, moments, |mut group| {
        let drop = &drop[group.slots.clone()];
        let kept = (0..group.width).filter(|&i| !drop[i]);
        let mut width = 0;
        let mut moves = [0; MAX_BITS];
        for from in kept {
            moves[width] = from;
            for slots in [
                &mut *group.alpha,
                &mut *group.m_alpha,
                &mut *group.v_alpha,
                &mut *group.v_max_alpha,
            ] {
                slots[width] = slots[from];
            }
            width += 1;
        }
        if width < group.width {
            for slots in [
                &mut *group.alpha,
                &mut *group.m_alpha,
                &mut *group.v_alpha,
                &mut *group.v_max_alpha,
            ] {
                slots[width..].fill(0.0);
            }
            for code in group.codes.iter_mut() {
                let signs = *code;
                *code = moves[..width]
                    .iter()
                    .enumerate()
                    .fold(0, |code, (to, &from)| code | (signs >> from & 1) << to);
            }
            group.width = width;
        }
        widths.push(width as u8);
        group.reconstruct(&mut out[group.weights.clone()]);
    });
    w.widths.copy_from_slice(&widths);
}
