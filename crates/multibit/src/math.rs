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
    #[cfg(all(not(feature = "std"), target_arch = "arm", target_abi = "eabihf"))]
    {
        let mut bits = x.to_bits();
        // SAFETY: processors whose calls pass floats in registers have the instruction; it changes what
        // is said here. `libm` does not use it, but 500 bytes of code.
        unsafe {
            core::arch::asm!(
                "vmov s0, {bits}",
                "vsqrt.f32 s0, s0",
                "vmov {bits}, s0",
                bits = inout(reg) bits,
                out("s0") _,
                options(pure, nomem, nostack),
            );
        }
        f32::from_bits(bits)
    }
    #[cfg(not(any(feature = "std", all(target_arch = "arm", target_abi = "eabihf"))))]
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
