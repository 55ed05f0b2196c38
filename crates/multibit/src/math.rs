//! Square root and rounding, with and without `std`; a small system of equations; products of matrices.

mod matrix;
mod solve;

pub(crate) use matrix::{multiply, transposed};
pub(crate) use solve::{solve_spd, solve_spd_rounded};

/// `√x`, correctly rounded in both builds, so that they agree bit for bit.
#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    return libm::sqrtf(x);
}

/// `x` rounded to the nearest integer, ties to even: as the vector instructions do.
#[inline(always)]
pub(crate) fn round(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.round_ties_even();
    #[cfg(not(feature = "std"))]
    return libm::rintf(x);
}
