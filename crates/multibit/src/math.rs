//! The square root, with and without `std`.

/// `√x`, correctly rounded in both builds, so that they agree bit for bit.
#[inline(always)]
pub(crate) fn sqrt(x: f32) -> f32 {
    #[cfg(feature = "std")]
    return x.sqrt();
    #[cfg(not(feature = "std"))]
    return libm::sqrtf(x);
}
