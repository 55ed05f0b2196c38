//! The basis step and the STE step: bases move, then coordinates.

use super::moments::{LocalModel, Rates};
use super::nearest::NearestCode;
use super::normal::{Normal, project_group};
use super::{Moments, StateMut, StepParams};
use crate::MAX_BITS;

/// One basis step with speedup: bases to the nearest levels, then coordinates by least squares.
///
/// The moments advance with `grad` (see [`fit`](crate::fit)). Then, in each group, around
/// `ŵ = centre`: every weight takes the level `Σ ±αᵢ` nearest to its target `ŵ − p/h`; with the new
/// `B`, `α = (BᵀHB + λI)⁻¹ Bᵀ(Hŵ − p)`, where `λ` is `ridge` times the mean diagonal of `BᵀHB`; a
/// negative coordinate is negated together with its basis. The moments of the coordinates carry
/// over from those of the weights: `m_α = Bᵀm`, `v_α,i = Σⱼ vⱼ`, `v̂_α,i = Σⱼ v̂ⱼ`.
///
/// The optimization of binary bases with speedup of Qu et al., CVPR 2020.
///
/// Around the present weight, the local model does not rise above its value at the old bases and
/// coordinates, but for rounding and for the ridge, `½λ‖α‖²`. Three cases leave coordinates as
/// they were:
/// - A group of width 0 stays zero; its moments advance.
/// - A group whose `v̂` is zero everywhere has never had a gradient, and keeps its bases too.
/// - Where the system has no finite solution, the old coordinates stay, with the new bases if that
///   lowers the local model, else with the old ones.
///
/// A coordinate that comes out below the smallest normal number is raised to it. Widths never
/// change.
///
/// # Shapes
/// - `grad`, `out` and `centre`: `[groups, len]`
/// - `centre`: the weight that `grad` was taken at, the present `ŵ` if `None`
/// - `out`: the new `ŵ`
///
/// # Panics
/// If a slice has another length or a number in `params` is out of range.
pub fn basis(
    w: &mut StateMut<'_>,
    centre: Option<&[f32]>,
    grad: &[f32],
    params: &StepParams,
    out: &mut [f32],
) {
    let centre = match centre {
        None => Centre::Present,
        Some(centre) => Centre::Given(centre),
    };
    step(w, centre, grad, params, out);
}

/// One STE step: a [`basis`] step around a full-precision weight that is kept, which then moves to
/// its own target.
///
/// Bases and coordinates are refitted with the target `w − p/h` and the quadratic around the old
/// `w`; then `w ← w − p/h`, also in groups of width 0. The network runs on `out`.
///
/// The variant with a straight-through estimator of Qu et al., CVPR 2020.
///
/// # Shapes
/// - `latent`: `w`, `[groups, len]`
/// - otherwise as in [`basis`]
///
/// # Panics
/// If a slice has another length or a number in `params` is out of range.
pub fn ste(
    w: &mut StateMut<'_>,
    latent: &mut [f32],
    grad: &[f32],
    params: &StepParams,
    out: &mut [f32],
) {
    step(w, Centre::Latent(latent), grad, params, out);
}

/// The point that the local model is taken around.
enum Centre<'a> {
    /// The present weight, rebuilt from its codes.
    Present,
    Given(&'a [f32]),
    /// A weight that moves to its target.
    Latent(&'a mut [f32]),
}

fn step(
    w: &mut StateMut<'_>,
    mut centre: Centre<'_>,
    grad: &[f32],
    params: &StepParams,
    out: &mut [f32],
) {
    w.check();
    w.check_weights("grad", grad.len());
    w.check_weights("out", out.len());
    match &centre {
        Centre::Present => {}
        Centre::Given(centre) => w.check_weights("centre", centre.len()),
        Centre::Latent(latent) => w.check_weights("latent", latent.len()),
    }
    let rates = Rates::new(params);
    let mut model = LocalModel::new(w.len);
    let mut refit = Refit::new(w.len, params.ridge);
    for group in 0..w.groups() {
        let (span, live) = (w.span(group), w.live(group));
        let codes = &mut w.state.codes[span.clone()];
        let coordinates = &mut w.state.coordinates[live.clone()];
        let mut moments = w.state.weight.part(span.clone());
        refit.nearest.build(coordinates);
        match &centre {
            Centre::Present => refit.nearest.codebook().values(codes, &mut model.centre),
            Centre::Given(centre) => model.centre.copy_from_slice(&centre[span.clone()]),
            Centre::Latent(latent) => model.centre.copy_from_slice(&latent[span.clone()]),
        }
        model.update(&rates, &mut moments, &grad[span.clone()]);
        if let Centre::Latent(latent) = &mut centre {
            latent[span.clone()].copy_from_slice(&model.target);
        }
        let out = &mut out[span];
        if coordinates.is_empty() {
            out.fill(0.0);
        } else {
            let Moments { m, v, v_max } = moments;
            if v_max.iter().any(|&v_max| v_max > 0.0) {
                refit.group(codes, coordinates, &model);
                refit.nearest.build_codebook(coordinates);
            }
            refit.nearest.codebook().values(codes, out);
            let m = project_group(codes, coordinates.len(), m);
            let (v, v_max) = (sum(v) as f32, sum(v_max) as f32);
            for (slot, m) in live.zip(m) {
                let m = m as f32;
                w.state.alpha.set(slot, Moments { m, v, v_max });
            }
        }
        for slot in w.absent(group) {
            w.state.coordinates[slot] = 0.0;
            w.state.alpha.set(slot, Moments::default());
        }
    }
}

/// New bases and coordinates of a group; buffers reused from group to group.
struct Refit {
    ridge: f64,
    nearest: NearestCode,
    codes: alloc::vec::Vec<u8>,
}

impl Refit {
    fn new(len: usize, ridge: f64) -> Self {
        Self {
            ridge,
            nearest: NearestCode::new(),
            codes: alloc::vec![0; len],
        }
    }

    /// Refits a group of at least one basis, whose levels are built.
    fn group(&mut self, codes: &mut [u8], coordinates: &mut [f32], model: &LocalModel) {
        let width = coordinates.len();
        self.nearest.assign(&model.target, &mut self.codes);
        let normal = |codes: &[u8]| Normal::new(codes, width, &model.h, &model.centre, &model.p);
        let new = normal(&self.codes);
        match new.solve(width, self.ridge, |alpha| alpha) {
            Some(alpha) => {
                let negative = set_positive(&alpha[..width], coordinates);
                for (code, &new) in codes.iter_mut().zip(&self.codes) {
                    *code = new ^ negative;
                }
            }
            None => {
                let mut alpha = [0.0; MAX_BITS];
                for (alpha, &old) in alpha.iter_mut().zip(&*coordinates) {
                    *alpha = f64::from(old);
                }
                if new.model(&alpha) < normal(codes).model(&alpha) {
                    codes.copy_from_slice(&self.codes);
                }
            }
        }
    }
}

/// Stores the magnitudes of `alpha`; returns the bits of those that were negative.
pub(super) fn set_positive(alpha: &[f64], coordinates: &mut [f32]) -> u8 {
    let mut negative = 0;
    for (i, (coordinate, &alpha)) in coordinates.iter_mut().zip(alpha).enumerate() {
        negative |= u8::from(alpha < 0.0) << i;
        *coordinate = (alpha as f32).abs().max(f32::MIN_POSITIVE);
    }
    negative
}

/// `Σ x` in f64: four interleaved sums, then those in order.
fn sum(x: &[f32]) -> f64 {
    let mut lanes = [0.0; 4];
    let chunks = x.chunks_exact(4);
    for (lane, &x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += f64::from(x);
    }
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(x);
        }
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
}
