//! Activations against f64, over all magnitudes.

mod support;

use multibit::cpu::reference::activation as definition;
use multibit::cpu::{Activation, Isa, activate};
use support::Random;

const ALL: [Activation; 9] = [
    Activation::Identity,
    Activation::Relu,
    Activation::Relu6,
    Activation::HardSwish,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluApproximate,
    Activation::Sigmoid,
    Activation::Tanh,
];

/// The largest error that the docs name, with a fused multiply-add.
fn error(activation: Activation, x: f64, y: f64) -> f64 {
    // Below the smallest normal number, results may be 0.
    let denormal = f64::from(f32::MIN_POSITIVE);
    match activation {
        Activation::Identity | Activation::Relu | Activation::Relu6 => 0.0,
        Activation::HardSwish => 2e-7 * x.abs() + denormal,
        Activation::Silu => 4e-7 * y.abs() + 104.0 * denormal,
        Activation::Gelu => 1e-7 * x.abs().max(1.0),
        Activation::GeluApproximate => 4e-7 * x.abs().max(1.0),
        Activation::Sigmoid | Activation::Tanh => 3e-7 * y.abs() + denormal,
    }
}

/// Both signs, all exponents, and the range where activations bend closely.
fn inputs() -> Vec<f32> {
    let mut random = Random::new(81);
    let mut x: Vec<f32> = (-40_000..=40_000).map(|i| i as f32 * 5e-4).collect();
    x.extend((0..40_000).map(|_| f32::from_bits(random.next() as u32)));
    x.retain(|x| x.is_finite());
    x.extend((-1200..1200).map(|i| i as f32 * 0.1));
    x
}

#[test]
fn activations_equal_their_definition() {
    let x = inputs();
    for isa in Isa::available() {
        let fused = !["portable", "simd128"].contains(&isa.name());
        let room = if fused { 1.0 } else { 2.0 };
        for activation in ALL {
            let mut y = x.clone();
            activate(isa, activation, &mut y);
            for (&x, &y) in x.iter().zip(&y) {
                let expected = definition(activation, f64::from(x));
                let error = room * error(activation, f64::from(x), expected);
                assert!(
                    (f64::from(y) - expected).abs() <= error,
                    "{isa}: {activation:?} of {x:e} is {y:e}, not {expected:e}"
                );
            }
        }
    }
}

#[test]
fn nan_stays_and_infinities_give_limits() {
    for isa in Isa::available() {
        for activation in ALL {
            let inputs = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN];
            let mut y = inputs;
            activate(isa, activation, &mut y);
            assert!(y[0].is_nan() && y[3].is_nan(), "{isa}: {activation:?}");
            for (x, y) in [f64::INFINITY, f64::NEG_INFINITY].into_iter().zip(&y[1..3]) {
                let limit = definition(activation, x);
                let y = f64::from(*y);
                // The hyperbolic tangent is wrong by its usual error there too.
                let close = y == limit || (y - limit).abs() <= error(activation, 0.0, limit);
                assert!(close, "{isa}: {activation:?} of {x} is {y}");
            }
        }
    }
}

#[test]
fn a_value_does_not_depend_on_its_place() {
    let mut random = Random::new(82);
    for isa in Isa::available() {
        for activation in ALL {
            for len in [0, 1, 15, 16, 17, 100, 9000] {
                let x = random.normals(len, 3.0);
                let mut y = x.clone();
                activate(isa, activation, &mut y);
                for (x, y) in x.into_iter().zip(y) {
                    let mut alone = [x];
                    activate(isa, activation, &mut alone);
                    assert_eq!(alone[0], y, "{isa}: {activation:?}, {len} values");
                }
            }
        }
    }
}
