//! Floats by their bits; compilers of shaders may assume that all are finite.

use cubecl::prelude::*;

/// Whether a number is neither infinite nor NaN.
#[cube]
pub(super) fn finite(x: f32) -> bool {
    (u32::reinterpret(x) & 0x7F80_0000u32) != 0x7F80_0000u32
}

/// `x`, negated where the lowest bit of `negative` is set.
#[cube]
pub(super) fn signed(x: f32, negative: u32) -> f32 {
    f32::reinterpret(u32::reinterpret(x) ^ (negative << 31u32))
}

/// The larger, `a` if one is not a number.
#[cube]
pub(super) fn larger(a: f32, b: f32) -> f32 {
    select(b > a, b, a)
}
