//! Test data from a small generator, and plain f64 arithmetic to compare with.
// Every test binary uses its own part of this module.
#![allow(dead_code)]

#[cfg(all(feature = "runtime", feature = "deflate"))]
pub mod chain;

use multibit::cpu::{Affine, Conv2dOptions, Isa, Levels, Mode};
use std::ops::{Deref, DerefMut};

use multibit::fit::{self, Moments, StateMut, StepParams, reconstruct, sketch};
use multibit::{CoordinateType, Grouping, PackedWeight};

/// xorshift64*: small, seeded, the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// About normal: the sum of twelve uniforms.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }

    pub fn normals(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| self.normal() * scale).collect()
    }
}

/// Levels of one to four bits.
pub fn levels() -> Vec<Levels> {
    let levels = |reference, gammas: &[f32]| Levels::new(reference, gammas).unwrap();
    vec![
        levels(0.3, &[0.5]),
        levels(0.9, &[0.6, 0.3]),
        // The order of the levels is not that of the codes.
        levels(-0.1, &[0.2, 0.21, 0.22]),
        levels(0.0, &[0.8, 0.4, 0.2, 0.1]),
    ]
}

/// All arithmetics.
pub fn modes() -> Vec<Mode> {
    let bitwise = levels().into_iter().map(Mode::Bitwise);
    [Mode::Exact, Mode::Int8]
        .into_iter()
        .chain(bitwise)
        .collect()
}

/// Nothing, and everything, at the end of a layer.
pub fn affines<'a>(scale: &'a [f32], offset: &'a [f32]) -> [Affine<'a>; 2] {
    let all = Affine {
        scale: Some(scale),
        offset: Some(offset),
        ..Affine::default()
    };
    [Affine::default(), all]
}

pub fn conv_options() -> Vec<Conv2dOptions> {
    let default = Conv2dOptions::default();
    vec![
        default,
        Conv2dOptions {
            stride: [2, 3],
            ..default
        },
        Conv2dOptions {
            padding: [(1, 2), (3, 0)],
            ..default
        },
        Conv2dOptions {
            stride: [2, 2],
            padding: [(1, 1); 2],
            dilation: [2, 1],
            groups: 1,
        },
        Conv2dOptions {
            groups: 2,
            stride: [1, 2],
            padding: [(0, 1), (2, 1)],
            dilation: [1, 2],
        },
        // The outermost outputs see nothing but padding.
        Conv2dOptions {
            padding: [(4, 4), (0, 4)],
            ..default
        },
    ]
}

/// A packed weight with random groups of up to `widest` bits.
pub fn packed(
    random: &mut Random,
    shape: &[usize],
    grouping: Grouping,
    widest: usize,
) -> PackedWeight {
    let widths: Vec<u8> = (0..grouping.groups(shape))
        .map(|_| random.below(widest + 1) as u8)
        .collect();
    packed_with(random, shape, grouping, &widths)
}

/// A packed weight with random groups of the given widths.
pub fn packed_with(
    random: &mut Random,
    shape: &[usize],
    grouping: Grouping,
    widths: &[u8],
) -> PackedWeight {
    let state = State::random(random, grouping.len(), 8, widths);
    PackedWeight::pack(
        shape,
        grouping,
        8,
        &state.codes,
        &state.coordinates,
        &state.widths,
    )
    .unwrap()
}

/// A weight in training form with its moments, owned.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub len: usize,
    pub max_bits: usize,
    pub state: fit::State<Vec<u8>, Vec<f32>>,
}

impl Deref for State {
    type Target = fit::State<Vec<u8>, Vec<f32>>;

    fn deref(&self) -> &Self::Target {
        &self.state
    }
}

impl DerefMut for State {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.state
    }
}

impl State {
    /// Random groups of the given widths.
    pub fn random(random: &mut Random, len: usize, max_bits: usize, widths: &[u8]) -> Self {
        let mut state = Self::empty(len, max_bits, widths.len());
        state.widths = widths.to_vec();
        for (group, &width) in widths.iter().enumerate() {
            for code in &mut state.codes[group * len..][..len] {
                *code = random.below(1 << width) as u8;
            }
            for alpha in &mut state.coordinates[group * max_bits..][..usize::from(width)] {
                *alpha = 0.02 + 0.2 * random.unit();
            }
        }
        state
    }

    /// A sketch of the given weights.
    pub fn sketched(weights: &[f32], len: usize, max_bits: usize) -> Self {
        Self::from_sketch(sketch(weights, len, max_bits, CoordinateType::F32).unwrap())
    }

    pub fn from_sketch(sketch: fit::Sketch) -> Self {
        let (len, max_bits) = (sketch.len, sketch.max_bits);
        let mut state = Self::empty(len, max_bits, sketch.widths.len());
        state.codes = sketch.codes;
        state.coordinates = sketch.coordinates;
        state.widths = sketch.widths;
        state
    }

    fn empty(len: usize, max_bits: usize, groups: usize) -> Self {
        let moments = |each| Moments::default().map(|()| vec![0.0; groups * each]);
        Self {
            len,
            max_bits,
            state: fit::State {
                codes: vec![0; groups * len],
                coordinates: vec![0.0; groups * max_bits],
                widths: vec![0; groups],
                weight: moments(len),
                alpha: moments(max_bits),
            },
        }
    }

    pub fn groups(&self) -> usize {
        self.widths.len()
    }

    pub fn weights(&self) -> usize {
        self.codes.len()
    }

    pub fn parts(&mut self) -> StateMut<'_> {
        StateMut {
            len: self.len,
            max_bits: self.max_bits,
            state: self.state.as_mut().map(
                |codes| &mut codes[..],
                |widths| &mut widths[..],
                |floats| &mut floats[..],
            ),
        }
    }

    pub fn reconstruct(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.weights()];
        reconstruct(
            &self.codes,
            &self.coordinates,
            &self.widths,
            self.len,
            self.max_bits,
            &mut out,
        );
        out
    }

    /// The sign of basis `i` on a weight.
    pub fn sign(&self, weight: usize, i: usize) -> f64 {
        if self.codes[weight] >> i & 1 == 1 {
            -1.0
        } else {
            1.0
        }
    }

    /// `Bᵀx` of slot `i` of a group, in f64.
    pub fn project(&self, group: usize, i: usize, x: impl Fn(usize) -> f64) -> f64 {
        let span = group * self.len..(group + 1) * self.len;
        span.map(|j| self.sign(j, i) * x(j)).sum()
    }

    /// What every step must keep.
    pub fn assert_invariants(&self, what: &str) {
        for group in 0..self.groups() {
            let width = usize::from(self.widths[group]);
            for slot in 0..self.max_bits {
                let at = group * self.max_bits + slot;
                let alpha = self.coordinates[at];
                if slot < width {
                    assert!(
                        alpha > 0.0 && alpha.is_finite(),
                        "{what}: coordinate {slot} of group {group} is {alpha}"
                    );
                } else {
                    let absent = [
                        alpha,
                        self.alpha.m[at],
                        self.alpha.v[at],
                        self.alpha.v_max[at],
                    ];
                    assert_eq!(absent, [0.0; 4], "{what}: slot {slot} of group {group}");
                }
            }
            for &code in &self.codes[group * self.len..][..self.len] {
                assert_eq!(u32::from(code) >> width, 0, "{what}: stray bits in {group}");
            }
        }
    }
}

/// `p` and `h` of the local model, in f64, from moments after their update.
pub fn model(params: &StepParams, m: f32, v_max: f32) -> (f64, f64) {
    let t = params.t as i32;
    let p = params.lr / (1.0 - params.beta1.powi(t)) * f64::from(m);
    let h = (f64::from(v_max).sqrt() + params.epsilon) / (1.0 - params.beta2.powi(t)).sqrt();
    (p, h)
}

/// What a call panics with.
pub fn panic_message(call: impl FnOnce()) -> String {
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_err();
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().unwrap().to_string(),
    }
}

/// Those to prove. Portable code is the same everywhere, and takes minutes on an emulated Arm.
pub fn isas() -> Vec<Isa> {
    let all = Isa::available().into_iter();
    let portable = cfg!(not(target_arch = "aarch64"));
    all.filter(|&isa| portable || isa != Isa::PORTABLE)
        .collect()
}
