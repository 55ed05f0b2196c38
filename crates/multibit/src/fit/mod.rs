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
//! | [`sketch`] | float weights → training form |
//! | [`basis`] | bases to the nearest levels, then coordinates by least squares |
//! | [`ste`] | the same around a full-precision weight that is kept and moved |
//! | [`coordinate`] | coordinates alone, by AMSGrad on `Bᵀg` |
//! | [`importance`], [`drop_coordinates`] | nothing; what is pruned |
//!
//! A gradient that is not finite, or whose square is not (above 1.8e19), spoils the moments of its
//! group for good: bases and coordinates no longer move there, but stay valid. Other groups do not
//! see it.

mod basis;
mod coordinate;
mod levels;
mod local_model;
mod moments;
mod normal;
mod prune;
mod sketch;
mod solve;

use core::ops::Range;

use crate::MAX_BITS;

pub use basis::{basis, ste};
pub use coordinate::coordinate;
pub use levels::{LevelTable, Levels};
pub use local_model::local_model;
#[cfg(feature = "cube")]
pub(crate) use moments::Rates;
pub use prune::{drop_coordinates, importance};
pub use sketch::{Sketch, SketchError, sketch};
pub use solve::{NotPositiveDefinite, solve_spd};

/// One weight in training form, `groups` groups of `len`.
///
/// Invariants that every step keeps: bits of a code from its group's width on are 0; the first
/// `width` coordinates of a group are positive, the others 0.
#[derive(Debug)]
pub struct GroupsMut<'a> {
    /// Weights of a group.
    pub len: usize,
    /// Slots of a group, 1 to [`MAX_BITS`].
    pub max_bits: usize,
    /// `[groups, len]`; bit `i` set where basis `i` is −1.
    pub codes: &'a mut [u8],
    /// `[groups, max_bits]`.
    pub coordinates: &'a mut [f32],
    /// `[groups]`.
    pub widths: &'a mut [u8],
}

/// AMSGrad's moments of one weight, in the domain of the weights and in that of the coordinates.
///
/// Both advance at every step of any kind; absent slots hold 0.
#[derive(Debug)]
pub struct MomentsMut<'a> {
    /// First moment of the weights, `[groups, len]`.
    pub m: &'a mut [f32],
    /// Second moment of the weights, `[groups, len]`.
    pub v: &'a mut [f32],
    /// Largest second moment so far of the weights, `[groups, len]`.
    pub v_max: &'a mut [f32],
    /// First moment of the coordinates, `[groups, max_bits]`.
    pub m_alpha: &'a mut [f32],
    /// Second moment of the coordinates, `[groups, max_bits]`.
    pub v_alpha: &'a mut [f32],
    /// Largest second moment so far of the coordinates, `[groups, max_bits]`.
    pub v_max_alpha: &'a mut [f32],
}

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

impl GroupsMut<'_> {
    fn groups(&self) -> usize {
        self.widths.len()
    }

    /// Where a group's weights lie.
    fn span(&self, group: usize) -> Range<usize> {
        group * self.len..(group + 1) * self.len
    }

    /// Where a group's live slots lie.
    fn live(&self, group: usize) -> Range<usize> {
        let first = group * self.max_bits;
        first..first + usize::from(self.widths[group])
    }

    /// Where a group's absent slots lie.
    fn absent(&self, group: usize) -> Range<usize> {
        self.live(group).end..(group + 1) * self.max_bits
    }

    fn check(&self) {
        check_weight(
            self.codes,
            self.coordinates,
            self.widths,
            self.len,
            self.max_bits,
        );
    }

    fn check_weights(&self, name: &str, found: usize) {
        check_len(name, found, self.groups(), self.len);
    }

    fn check_slots(&self, name: &str, found: usize) {
        check_len(name, found, self.groups(), self.max_bits);
    }
}

impl MomentsMut<'_> {
    fn check(&self, w: &GroupsMut<'_>) {
        w.check_weights("m", self.m.len());
        w.check_weights("v", self.v.len());
        w.check_weights("v_max", self.v_max.len());
        w.check_slots("m_alpha", self.m_alpha.len());
        w.check_slots("v_alpha", self.v_alpha.len());
        w.check_slots("v_max_alpha", self.v_max_alpha.len());
    }
}

fn check_len(name: &str, found: usize, groups: usize, each: usize) {
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
    let mut table = LevelTable::new();
    let slots = coordinates.chunks_exact(max_bits);
    let groups = codes.chunks_exact(len).zip(slots).zip(widths);
    for (((codes, slots), &width), out) in groups.zip(out.chunks_exact_mut(len)) {
        table.build(&slots[..usize::from(width)]);
        table.values(codes, out);
    }
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
