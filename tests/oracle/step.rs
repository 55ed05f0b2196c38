//! The steps on one group. All groups of a network share the step counter `t`, from 1.

use crate::{Group, combine, dot, solve};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// What is added to the diagonal of `BᵀHB`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ridge {
    /// The same for all groups, as in the authors' program.
    Absolute(f64),
    /// Times the mean diagonal, as here; groups without any gradient so far do not move.
    Relative(f64),
}

/// One AMSGrad update of moments.
pub fn update(m: &mut [f64], v: &mut [f64], v_max: &mut [f64], g: &[f64]) {
    for (i, g) in g.iter().enumerate() {
        m[i] = BETA1 * m[i] + (1.0 - BETA1) * g;
        v[i] = BETA2 * v[i] + (1.0 - BETA2) * g * g;
        v_max[i] = v_max[i].max(v[i]);
    }
}

/// `p = lr/(1−β₁ᵗ) m` and `h = (√v̂ + ε)/√(1−β₂ᵗ)`.
pub fn model(m: &[f64], v_max: &[f64], lr: f64, t: u32) -> (Vec<f64>, Vec<f64>) {
    let t = f64::from(t);
    let p = m.iter().map(|m| lr / (1.0 - BETA1.powf(t)) * m);
    let h = v_max
        .iter()
        .map(|v| (v.sqrt() + EPSILON) / (1.0 - BETA2.powf(t)).sqrt());
    (p.collect(), h.collect())
}

/// `pᵀ(x − w) + ½ (x − w)ᵀ H (x − w)`.
pub fn local_model(w: &[f64], p: &[f64], h: &[f64], x: &[f64]) -> f64 {
    let terms = w.iter().zip(x).zip(p.iter().zip(h));
    terms
        .map(|((w, x), (p, h))| p * (x - w) + 0.5 * h * (x - w) * (x - w))
        .sum()
}

/// For every target the signs of the nearest of all `2^I` levels, as bases.
pub fn nearest(alpha: &[f64], targets: &[f64]) -> Vec<Vec<f64>> {
    let mut bases = vec![Vec::new(); alpha.len()];
    for target in targets {
        let signs = |code: usize| move |i: usize| if code >> i & 1 == 0 { 1.0 } else { -1.0 };
        let distance = |code: usize| {
            let level: f64 = (0..alpha.len()).map(|i| alpha[i] * signs(code)(i)).sum();
            (level - target).abs()
        };
        let best = (0..1 << alpha.len())
            .min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
            .expect("there is at least one level");
        for (i, basis) in bases.iter_mut().enumerate() {
            basis.push(signs(best)(i));
        }
    }
    bases
}

/// `α = (BᵀHB + λI)⁻¹ Bᵀ(H w − p)`, of any sign.
pub fn speedup(bases: &[Vec<f64>], w: &[f64], p: &[f64], h: &[f64], ridge: Ridge) -> Vec<f64> {
    let weighted =
        |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).zip(h).map(|((a, b), h)| a * b * h).sum() };
    let lambda = match ridge {
        Ridge::Absolute(lambda) => lambda,
        Ridge::Relative(share) => share * h.iter().sum::<f64>(),
    };
    let matrix = (0..bases.len()).map(|i| {
        (0..bases.len())
            .map(|k| weighted(&bases[i], &bases[k]) + if i == k { lambda } else { 0.0 })
            .collect()
    });
    let r: Vec<f64> = w
        .iter()
        .zip(p.iter().zip(h))
        .map(|(w, (p, h))| h * w - p)
        .collect();
    solve(matrix.collect(), bases.iter().map(|b| dot(b, &r)).collect())
}

/// Negates negative coordinates with their bases and first moments.
fn make_positive(group: &mut Group) {
    for i in 0..group.alpha.len() {
        if group.alpha[i] < 0.0 {
            group.alpha[i] = -group.alpha[i];
            group.m_alpha[i] = -group.m_alpha[i];
            group.bases[i].iter_mut().for_each(|b| *b = -*b);
        }
    }
}

/// Bases, then coordinates, to the minimum of the local model around `w`; α moments carried over.
fn refit(group: &mut Group, w: &[f64], p: &[f64], h: &[f64], ridge: Ridge) {
    let silent = group.v_max.iter().all(|v| *v == 0.0);
    let stays = silent && matches!(ridge, Ridge::Relative(_));
    if !stays && !group.alpha.is_empty() {
        let target: Vec<f64> = w
            .iter()
            .zip(p.iter().zip(h))
            .map(|(w, (p, h))| w - p / h)
            .collect();
        group.bases = nearest(&group.alpha, &target);
        group.alpha = speedup(&group.bases, w, p, h, ridge);
        make_positive(group);
    }
    group.m_alpha = group.project(&group.m);
    group.v_alpha = vec![group.v.iter().sum(); group.alpha.len()];
    group.v_max_alpha = vec![group.v_max.iter().sum(); group.alpha.len()];
}

/// The basis step with speedup, around `centre` or the reconstruction.
pub fn basis(group: &mut Group, centre: Option<&[f64]>, g: &[f64], lr: f64, t: u32, ridge: Ridge) {
    let centre = centre.map_or_else(|| group.reconstruct(), <[f64]>::to_vec);
    update(&mut group.m, &mut group.v, &mut group.v_max, g);
    let (p, h) = model(&group.m, &group.v_max, lr, t);
    refit(group, &centre, &p, &h, ridge);
}

/// The STE step: the same around the kept weights, which then move.
pub fn ste(group: &mut Group, g: &[f64], lr: f64, t: u32, ridge: Ridge) {
    update(&mut group.m, &mut group.v, &mut group.v_max, g);
    let (p, h) = model(&group.m, &group.v_max, lr, t);
    let latent = group.latent.clone();
    refit(group, &latent, &p, &h, ridge);
    for (w, (p, h)) in group.latent.iter_mut().zip(p.iter().zip(&h)) {
        *w -= p / h;
    }
}

/// All moments take a gradient; returns `p` and `h` of the α domain.
fn advance(group: &mut Group, g: &[f64], lr: f64, t: u32) -> (Vec<f64>, Vec<f64>) {
    update(&mut group.m, &mut group.v, &mut group.v_max, g);
    let g_alpha = group.project(g);
    update(
        &mut group.m_alpha,
        &mut group.v_alpha,
        &mut group.v_max_alpha,
        &g_alpha,
    );
    model(&group.m_alpha, &group.v_max_alpha, lr, t)
}

/// The coordinate step.
pub fn coordinate(group: &mut Group, g: &[f64], lr: f64, t: u32) {
    let (p, h) = advance(group, g, lr, t);
    for (a, (p, h)) in group.alpha.iter_mut().zip(p.iter().zip(&h)) {
        *a -= p / h;
    }
    make_positive(group);
}

/// The first half of the pruning step: `Δ` of every coordinate.
pub fn importance(group: &mut Group, g: &[f64], lr: f64, t: u32) -> Vec<f64> {
    let (p, h) = advance(group, g, lr, t);
    let terms = group.alpha.iter().zip(p.iter().zip(&h));
    terms.map(|(a, (p, h))| -p * a + 0.5 * h * a * a).collect()
}

/// The local model of dropping coordinate `i`, by its definition in the α domain: what `Δ` must be.
pub fn loss_of_dropping(group: &Group, i: usize, lr: f64, t: u32) -> f64 {
    let (p, h) = model(&group.m_alpha, &group.v_max_alpha, lr, t);
    let mut dropped = group.alpha.clone();
    dropped[i] = 0.0;
    local_model(&group.alpha, &p, &h, &dropped)
}

/// The weights without coordinate `i`.
pub fn without(group: &Group, i: usize) -> Vec<f64> {
    let mut alpha = group.alpha.clone();
    alpha[i] = 0.0;
    combine(&group.bases, &alpha, group.m.len())
}
