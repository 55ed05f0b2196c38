//! The quantizer's arithmetic on slices, at CPU speed.
//!
//! A weight in training form is cut into its groups, `[groups, len]`. Each weight has a *code*: bit
//! `i` is set where basis `i` of its group is −1. Notation and equations follow Qu et al.,
//! *Adaptive Loss-aware Quantization for Multi-bit Networks*, CVPR 2020.

mod levels;
mod refit;
mod sketch;
mod solve;
mod steps;

pub use levels::Levels;
pub use sketch::{Sketch, SketchError, sketch};
pub use solve::{NotPositiveDefinite, solve_spd};
pub use steps::{basis, coordinate, drop_coordinates, importance, ste};

/// One weight in training form.
///
/// # Shapes
/// - codes: `[groups * len]`; bits from the group's width on are 0
/// - coordinates: `[groups * max_bits]`; the first `width` of a group are positive, the rest 0
/// - widths: `[groups]`
#[derive(Debug)]
pub struct GroupsMut<'a> {
    /// Weights of a group.
    pub len: usize,
    /// Slots of a group, at most [`MAX_BITS`](crate::MAX_BITS).
    pub max_bits: usize,
    /// Signs on all bases.
    pub codes: &'a mut [u8],
    /// Coordinates `α`.
    pub coordinates: &'a mut [f32],
    /// Bitwidths `I`.
    pub widths: &'a mut [u8],
}

/// AMSGrad's moments of one weight in both domains.
///
/// # Shapes
/// - m, v, v_max: `[groups * len]`
/// - m_alpha, v_alpha, v_max_alpha: `[groups * max_bits]`
#[derive(Debug)]
pub struct MomentsMut<'a> {
    /// First moment.
    pub m: &'a mut [f32],
    /// Second moment.
    pub v: &'a mut [f32],
    /// Largest second moment so far, `v̂`.
    pub v_max: &'a mut [f32],
    /// First moment in the α domain.
    pub m_alpha: &'a mut [f32],
    /// Second moment in the α domain.
    pub v_alpha: &'a mut [f32],
    /// Largest second moment so far in the α domain.
    pub v_max_alpha: &'a mut [f32],
}

/// The numbers of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepParams {
    /// Learning rate.
    pub lr: f64,
    /// The step's number, from 1.
    pub t: u32,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to `√v̂` before the bias correction.
    pub epsilon: f64,
    /// Ridge of the refit, relative to the mean diagonal of `BᵀHB`.
    pub ridge: f64,
}

impl Default for StepParams {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            t: 1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            ridge: 1e-6,
        }
    }
}

/// The factors of the local model at one step, `p = scale_p · m` and
/// `h = (√v̂ + ε) · scale_h` (section 3 of the method: ε comes before the bias correction).
#[derive(Debug, Clone, Copy)]
struct Model {
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    epsilon: f32,
    scale_p: f32,
    scale_h: f32,
}

impl Model {
    fn new(params: &StepParams) -> Self {
        assert!(params.t > 0, "t: steps are numbered from 1");
        let t = f64::from(params.t);
        Self {
            beta1: params.beta1 as f32,
            beta2: params.beta2 as f32,
            rest1: (1.0 - params.beta1) as f32,
            rest2: (1.0 - params.beta2) as f32,
            epsilon: params.epsilon as f32,
            scale_p: (params.lr / (1.0 - libm::pow(params.beta1, t))) as f32,
            scale_h: (1.0 / libm::sqrt(1.0 - libm::pow(params.beta2, t))) as f32,
        }
    }

    /// Takes a gradient into the moments.
    #[inline]
    fn update(&self, m: &mut f32, v: &mut f32, v_max: &mut f32, g: f32) {
        *m = self.beta1 * *m + self.rest1 * g;
        *v = self.beta2 * *v + self.rest2 * g * g;
        *v_max = v_max.max(*v);
    }

    #[inline]
    fn p(&self, m: f32) -> f32 {
        self.scale_p * m
    }

    #[inline]
    fn h(&self, v_max: f32) -> f32 {
        (sqrt(v_max) + self.epsilon) * self.scale_h
    }
}

/// The square root; rounded correctly, so that both ways give the same bits.
#[inline]
fn sqrt(x: f32) -> f32 {
    // The compiler turns this one into vector instructions.
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    return libm::sqrtf(x);
}

/// The value of a code on some coordinates: `Σ ±α_i`, in ascending order of `i`, from 0.
#[inline]
pub fn value(alpha: &[f32], code: u8) -> f32 {
    alpha.iter().enumerate().fold(
        0.0,
        |sum, (i, &a)| {
            if code >> i & 1 == 0 { sum + a } else { sum - a }
        },
    )
}

/// The dense weight `ŵ = B α` in its groups.
///
/// # Shapes
/// - codes, out: `[groups * len]`
/// - coordinates: `[groups * max_bits]`
/// - widths: `[groups]`
///
/// # Panics
/// If the lengths do not fit each other.
pub fn reconstruct(
    codes: &[u8],
    coordinates: &[f32],
    widths: &[u8],
    len: usize,
    max_bits: usize,
    out: &mut [f32],
) {
    assert_eq!(codes.len(), widths.len() * len, "codes: groups × len");
    assert_eq!(
        coordinates.len(),
        widths.len() * max_bits,
        "coordinates: groups × max_bits"
    );
    assert_eq!(out.len(), codes.len(), "out: as many as codes");
    let groups = codes.chunks_exact(len).zip(out.chunks_exact_mut(len));
    let alphas = coordinates.chunks_exact(max_bits).zip(widths);
    for ((codes, out), (alpha, &width)) in groups.zip(alphas) {
        reconstruct_group(codes, &alpha[..usize::from(width)], out);
    }
}

/// One group of [`reconstruct`], through a table where that is shorter.
fn reconstruct_group(codes: &[u8], alpha: &[f32], out: &mut [f32]) {
    if alpha.is_empty() {
        out.fill(0.0);
    } else if codes.len() >= 1 << alpha.len() {
        let mut table = [0.0; 256];
        for (code, entry) in table[..1 << alpha.len()].iter_mut().enumerate() {
            *entry = value(alpha, code as u8);
        }
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = table[usize::from(code)];
        }
    } else {
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = value(alpha, code);
        }
    }
}

/// The gradient in the α domain, `Bᵀg` for every group; 0 in absent slots.
///
/// # Shapes
/// - codes, grad: `[groups * len]`
/// - widths: `[groups]`
/// - out: `[groups * max_bits]`
///
/// # Panics
/// If the lengths do not fit each other.
pub fn project(
    codes: &[u8],
    widths: &[u8],
    len: usize,
    max_bits: usize,
    grad: &[f32],
    out: &mut [f32],
) {
    assert_eq!(codes.len(), widths.len() * len, "codes: groups × len");
    assert_eq!(grad.len(), codes.len(), "grad: as many as codes");
    assert_eq!(out.len(), widths.len() * max_bits, "out: groups × max_bits");
    let groups = codes.chunks_exact(len).zip(grad.chunks_exact(len));
    for (((codes, grad), &width), out) in groups.zip(widths).zip(out.chunks_exact_mut(max_bits)) {
        let sums = project_group(codes, grad.iter().copied(), usize::from(width));
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum as f32;
        }
    }
}

/// `Bᵀx` of one group, summed in f64; 0 from the width on.
fn project_group(
    codes: &[u8],
    x: impl Iterator<Item = f32>,
    width: usize,
) -> [f64; crate::MAX_BITS] {
    let mut sums = [0.0; crate::MAX_BITS];
    if codes.len() >= 1 << width {
        let mut buckets = [0.0; 256];
        for (&code, x) in codes.iter().zip(x) {
            buckets[usize::from(code)] += f64::from(x);
        }
        refit::walsh_hadamard(&mut buckets[..1 << width]);
        for (i, sum) in sums[..width].iter_mut().enumerate() {
            *sum = buckets[1 << i];
        }
    } else {
        for (&code, x) in codes.iter().zip(x) {
            let x = f64::from(x);
            for (i, sum) in sums[..width].iter_mut().enumerate() {
                *sum += if code >> i & 1 == 0 { x } else { -x };
            }
        }
    }
    sums
}

/// The local model of the loss at `candidate`, relative to `centre`:
/// `Σ p (c − w) + ½ h (c − w)²` in f64.
pub fn local_model(centre: &[f32], p: &[f32], h: &[f32], candidate: &[f32]) -> f64 {
    let model = p.iter().zip(h);
    let moves = centre.iter().zip(candidate);
    moves.zip(model).fold(0.0, |sum, ((&w, &c), (&p, &h))| {
        let d = f64::from(c) - f64::from(w);
        sum + f64::from(p) * d + 0.5 * f64::from(h) * d * d
    })
}
