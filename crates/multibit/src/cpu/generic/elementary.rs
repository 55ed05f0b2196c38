//! Elementary functions, sixteen values at a time, by polynomials and quotients of them.
//!
//! Largest errors against f64, over all exponents (`tests/activation.rs`), with a fused `a·b + c`;
//! without one they are about twice as large:
//!
//! | function | error |
//! |---|---|
//! | [`exp`] | 1.2·10⁻⁷ of the result; results below 10⁻³⁸ are 0 or denormal |
//! | [`sigmoid`], [`tanh`] | 3·10⁻⁷ of the result |
//! | [`normal_tail`] | 4·10⁻⁸ after multiplication with its argument |

use crate::cpu::simd::Simd;

/// `Σ coefficients[i]·xⁱ`.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::F, coefficients: [f32; N]) -> S::F {
    let mut sum = simd.f_splat(coefficients[N - 1]);
    for &coefficient in coefficients[..N - 1].iter().rev() {
        sum = simd.f_fma(sum, x, simd.f_splat(coefficient));
    }
    sum
}

/// `x`, limited to `low..=high`; NaN stays.
#[inline(always)]
fn clamp<S: Simd>(simd: S, x: S::F, low: f32, high: f32) -> S::F {
    simd.f_min(simd.f_splat(high), simd.f_max(simd.f_splat(low), x))
}

/// `eˣ`: `2ⁿ·eʳ` with `|r| ≤ ln 2 / 2`.
///
/// The polynomial is the minimax one of `eʳ` with `1 + r` given, wrong by 3·10⁻⁹.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::F) -> S::F {
    // Beyond these the result is 0 or infinite.
    let x = clamp(simd, x, -104.0, 89.0);
    // Adding 3·2²² rounds to an integer.
    let shift = simd.f_splat(12_582_912.0);
    let n = simd.f_fma(x, simd.f_splat(core::f32::consts::LOG2_E), shift);
    let n = simd.f_sub(n, shift);
    // ln 2 in two parts, of which the first has so few bits that `n` times it is exact.
    let r = simd.f_fma(n, simd.f_splat(-0.693_359_4), x);
    let r = simd.f_fma(n, simd.f_splat(2.121_944_4e-4), r);
    let coefficients = [
        1.0,
        1.0,
        0.499_999_94,
        0.166_665_2,
        0.041_668_393,
        0.008_368_781,
        0.001_381_446_8,
    ];
    simd.f_scale(polynomial(simd, r, coefficients), n)
}

/// `1 / (1 + e⁻ˣ)`.
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(simd: S, x: S::F) -> S::F {
    let one = simd.f_splat(1.0);
    let e = exp(simd, simd.f_sub(simd.f_splat(0.0), x));
    simd.f_div(one, simd.f_add(one, e))
}

/// `tanh x`: an odd polynomial over an even one, as in Eigen.
#[inline(always)]
pub(super) fn tanh<S: Simd>(simd: S, x: S::F) -> S::F {
    // Beyond these the result rounds to ±1.
    let x = clamp(simd, x, -7.905_311, 7.905_311);
    let square = simd.f_mul(x, x);
    let odd = [
        4.893_524_6e-3,
        6.372_619_3e-4,
        1.485_722_4e-5,
        5.122_297_1e-8,
        -8.604_672e-11,
        2.000_188e-13,
        -2.760_768_5e-16,
    ];
    let even = [4.893_525e-3, 2.268_434_6e-3, 1.185_347_1e-4, 1.198_258_4e-6];
    let odd = simd.f_mul(x, polynomial(simd, square, odd));
    let quotient = simd.f_div(odd, polynomial(simd, square, even));
    clamp(simd, quotient, -1.0, 1.0)
}

/// The probability that a normal variable is above `t ≥ 0`, `½·erfc(t/√2)`, up to a small absolute
/// error of `t` times it.
///
/// `e^(−ln 2 − t·P(t))`. `P` is the minimax polynomial under the weight of that error over 0 to 6;
/// above, the power is below 10⁻⁸ and falls.
#[inline(always)]
fn normal_tail<S: Simd>(simd: S, t: S::F) -> S::F {
    let coefficients = [
        0.797_889_35,
        0.318_266_96,
        0.036_478_68,
        -0.005_022_144,
        0.000_188_589_01,
        9.113_012_5e-5,
        -1.944_755_8e-5,
        1.318_409_2e-6,
    ];
    let p = polynomial(simd, t, coefficients);
    let minus_t = simd.f_sub(simd.f_splat(0.0), t);
    exp(
        simd,
        simd.f_fma(minus_t, p, simd.f_splat(-core::f32::consts::LN_2)),
    )
}

/// `x·Φ(x)`, `Φ` being the distribution function of the normal distribution:
/// `max(x, 0) − |x|·(1 − Φ(|x|))`, which has no cancellation for negative `x`.
#[inline(always)]
pub(super) fn gelu<S: Simd>(simd: S, x: S::F) -> S::F {
    let zero = simd.f_splat(0.0);
    let positive = simd.f_max(zero, x);
    // Behind 14 there is nothing left, and an infinity would make it NaN.
    let t = simd.f_max(x, simd.f_sub(zero, x));
    let t = simd.f_min(simd.f_splat(14.0), t);
    let tail = simd.f_mul(t, normal_tail(simd, t));
    simd.f_sub(positive, tail)
}
