//! The quantizer's arithmetic on slices: sketching, and the optimization steps.
//!
//! A weight is in *training form*, `groups` groups of `len` (see the [crate]): codes, coordinates
//! and widths. Everything stored is f32; sums over a group are f64, in a fixed order, so that the
//! same input gives the same bits.
//!
//! Every step minimizes a quadratic model of the loss around the present weight,
//! `f(ŵ') = pᵀ(ŵ'−ŵ) + ½ (ŵ'−ŵ)ᵀ H (ŵ'−ŵ)` with `H = diag(h)`, where `p` and `h` come from AMSGrad's
//! moments of the gradient (Qu et al., CVPR 2020):
//!
//! ```text
//! m ← β₁m + (1−β₁)g     v ← β₂v + (1−β₂)g²     v̂ ← max(v̂, v)
//! p = lr/(1−β₁ᵗ) · m     h = (√v̂ + ε)/√(1−β₂ᵗ)
//! ```
//!
//! | function | moves |
//! |---|---|
//! | [`greedy`] | float weights → training form, as in the paper |
//! | [`sketch`] | the same, refined |
//! | [`calibrate`] | the same, by what samples of the inputs say ([`Hessian`]) |
//! | [`product`] | the same into a product of two weights of one bit each ([`Product`]) |
//! | [`allocate`] | nothing; bitwidths under a budget |
//! | [`basis`] | bases to the nearest levels, then coordinates by least squares |
//! | [`ste`] | the same around a full-precision weight that is kept and moved |
//! | [`coordinate`] | coordinates alone, by AMSGrad on `Bᵀg` |
//! | [`importance`], [`drop_coordinates`] | nothing; what is pruned |
//!
//! A gradient that is not finite, or whose square is not (above 1.8e19), spoils the moments of its
//! group for good: bases and coordinates no longer move there, but stay valid. Other groups do not
//! see it.

mod allocate;
mod basis;
mod calibrate;
mod coordinate;
mod greedy;
mod hessian;
mod local_model;
mod moments;
mod nearest;
mod normal;
mod product;
mod prune;
mod refine;
mod sketch;
mod sort;
mod state;

use crate::MAX_BITS;
use crate::bits::Codebook;
use crate::parts::{PART, each_part};

pub use allocate::allocate;
pub use basis::{basis, ste};
pub use calibrate::calibrate;
pub use coordinate::coordinate;
pub use hessian::{Hessian, HessianError};
pub use local_model::local_model;
#[cfg(feature = "cube")]
pub(crate) use moments::Rates;
pub use product::{Product, product};
pub use prune::{drop_coordinates, importance};
pub use sketch::{Sketch, SketchError, greedy, sketch};
pub use state::{Moments, State, StateMut};

/// The numbers of one optimization step. A step panics with the name of one that is out of range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepParams {
    /// Learning rate; finite in f32.
    pub lr: f64,
    /// This step's number, from 1.
    pub t: u32,
    /// Decay of the first moment, from 0 to below 1.
    pub beta1: f64,
    /// Decay of the second moment, from 0 to below 1.
    pub beta2: f64,
    /// Added to `√v̂` before the bias correction; positive in f32.
    pub epsilon: f64,
    /// Ridge of the coordinates' least squares, relative to the mean diagonal of `BᵀHB`; not negative.
    pub ridge: f64,
}

impl Default for StepParams {
    /// The paper's: learning rate 1e-3, step 1, decays 0.9 and 0.999, ε 1e-8, ridge 1e-6.
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

fn check_len(name: impl core::fmt::Display, found: usize, groups: usize, each: usize) {
    assert_eq!(
        found,
        groups * each,
        "`{name}` holds {found} values, but {groups} groups of {each} need {}",
        groups * each
    );
}

fn check_weight(codes: &[u8], coordinates: &[f32], widths: &[u8], len: usize, max_bits: usize) {
    check_codes(codes, widths, len, max_bits);
    check_len("coordinates", coordinates.len(), widths.len(), max_bits);
}

fn check_codes(codes: &[u8], widths: &[u8], len: usize, max_bits: usize) {
    assert!(len > 0, "`len` is 0, a group needs at least one weight");
    check_max_bits(max_bits);
    check_len("codes", codes.len(), widths.len(), len);
    if let Some(group) = widths.iter().position(|&w| usize::from(w) > max_bits) {
        panic!(
            "`widths`: group {group} has {} bits, `max_bits` is {max_bits}",
            widths[group]
        );
    }
}

pub(crate) fn check_max_bits(max_bits: usize) {
    assert!(
        (1..=MAX_BITS).contains(&max_bits),
        "`max_bits` is {max_bits}, but must be 1 to {MAX_BITS}"
    );
}

/// The dense weight of a training form, `ŵ = B α` in each group.
///
/// A value is `Σᵢ ±αᵢ` in f32, in ascending order of `i`, starting from 0: the same bits as
/// [`PackedWeight::unpack_grouped`](crate::PackedWeight::unpack_grouped).
///
/// # Shapes
/// - `codes`, `out`: `[groups, len]`
/// - `coordinates`: `[groups, max_bits]`
/// - `widths`: `[groups]`
///
/// # Panics
/// If a slice has another length or a group is wider than `max_bits`.
pub fn reconstruct(
    codes: &[u8],
    coordinates: &[f32],
    widths: &[u8],
    len: usize,
    max_bits: usize,
    out: &mut [f32],
) {
    check_weight(codes, coordinates, widths, len, max_bits);
    check_len("out", out.len(), widths.len(), len);
    let groups = PART.div_ceil(len);
    each_part(out, groups * len, codes.len(), |part, out| {
        let mut codebook = Codebook::new();
        for (group, out) in (part * groups..).zip(out.chunks_exact_mut(len)) {
            let slots = &coordinates[group * max_bits..];
            codebook.build(&slots[..usize::from(widths[group])]);
            codebook.values(&codes[group * len..][..len], out);
        }
    });
}

/// A gradient of the weights as a gradient of the coordinates, `g_α = Bᵀ g` in each group.
///
/// # Shapes
/// - `codes`, `grad`: `[groups, len]`
/// - `widths`: `[groups]`
/// - `out`: `[groups, max_bits]`, 0 in absent slots
///
/// # Panics
/// If a slice has another length or a group is wider than `max_bits`.
pub fn project(
    codes: &[u8],
    widths: &[u8],
    len: usize,
    max_bits: usize,
    grad: &[f32],
    out: &mut [f32],
) {
    check_codes(codes, widths, len, max_bits);
    check_len("grad", grad.len(), widths.len(), len);
    check_len("out", out.len(), widths.len(), max_bits);
    let groups = codes.chunks_exact(len).zip(grad.chunks_exact(len));
    let groups = groups.zip(widths).zip(out.chunks_exact_mut(max_bits));
    for (((codes, grad), &width), out) in groups {
        out.fill(0.0);
        let sums = normal::project_group(codes, usize::from(width), grad);
        for (out, sum) in out.iter_mut().zip(&sums[..usize::from(width)]) {
            *out = *sum as f32;
        }
    }
}
