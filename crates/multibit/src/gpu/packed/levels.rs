//! Multi-bit activations: levels as kernel arguments, and values that take them.

use cubecl::prelude::*;

use crate::cpu::Levels;
use crate::gpu::UNITS;

/// The levels of an activation.
#[derive(CubeType, CubeLaunch)]
pub(super) struct ActivationLevels {
    reference: f32,
    gammas: Sequence<f32>,
    thresholds: Sequence<f32>,
    /// Signs that change above each threshold.
    changes: Sequence<u32>,
    /// Signs of the lowest level.
    lowest: u32,
}

impl From<&Levels> for ActivationLevelsLaunch {
    fn from(levels: &Levels) -> Self {
        Self::new(
            levels.reference(),
            levels.coordinates().iter().copied().collect(),
            levels.thresholds().iter().copied().collect(),
            levels
                .changes()
                .map(|(_, signs)| u32::from(signs))
                .collect(),
            u32::from(levels.code(0)),
        )
    }
}

#[cube]
impl ActivationLevels {
    /// The signs of the level that a value takes: half-way the lower one, NaN the lowest.
    pub fn code(&self, x: f32) -> u32 {
        let mut code = self.lowest;
        #[unroll]
        for i in 0..self.thresholds.len() {
            code ^= select(x > self.thresholds[i], self.changes[i], 0u32);
        }
        code
    }

    /// The level of a code, `x_ref + Σ ±γⱼ` in ascending order of `j`, as on CPUs.
    pub fn value(&self, code: u32) -> f32 {
        let mut value = self.reference;
        #[unroll]
        for j in 0..self.gammas.len() {
            let negative = (code >> comptime!(j as u32)) & 1u32;
            value += crate::gpu::float::signed(self.gammas[j], negative);
        }
        value
    }

    /// `Σ ±x̂` over the valid activations of a word, from counts of equal and different signs.
    pub fn sum(&self, signs: u32, planes: &Array<u32>, mask: u32, valid: u32) -> f32 {
        let mut sum = self.reference * difference((signs & mask).count_ones(), valid);
        #[unroll]
        for j in 0..self.gammas.len() {
            let different = ((signs ^ planes[j]) & mask).count_ones();
            sum += self.gammas[j] * difference(different, valid);
        }
        sum
    }
}

/// Equal signs less different ones.
#[cube]
fn difference(different: u32, valid: u32) -> f32 {
    f32::cast_from(valid as i32 - 2i32 * different as i32)
}

/// Each value at its level.
#[cube(launch_unchecked)]
pub(super) fn quantize(input: &[f32], levels: &ActivationLevels, output: &mut [f32], len: u32) {
    let i = CUBE_POS as u32 * comptime!(UNITS as u32) + UNIT_POS_X;
    if i < len {
        output[i as usize] = levels.value(levels.code(input[i as usize]));
    }
}

/// Values `[image, channel, pixel]` to planes `[image, ⌈channels / 32⌉, bits, pixel]`.
#[cube(launch_unchecked)]
pub(super) fn pack(
    input: &[f32],
    levels: &ActivationLevels,
    planes: &mut [u32],
    images: u32,
    channels: u32,
    pixels: u32,
    #[comptime] bits: usize,
) {
    let words = channels.div_ceil(32u32);
    let unit = CUBE_POS as u32 * comptime!(UNITS as u32) + UNIT_POS_X;
    let pixel = unit % pixels;
    let word = unit / pixels % words;
    let image = unit / pixels / words;
    if image < images {
        let first = word * 32u32;
        let many = select(channels - first < 32u32, channels - first, 32u32);
        let mut packed = Array::<u32>::new(bits);
        #[unroll]
        for j in 0..bits {
            packed[j] = 0u32;
        }
        for i in 0..many {
            let at = (image * channels + first + i) * pixels + pixel;
            let code = levels.code(input[at as usize]);
            #[unroll]
            for j in 0..bits {
                packed[j] |= ((code >> comptime!(j as u32)) & 1u32) << i;
            }
        }
        #[unroll]
        for j in 0..bits {
            let plane = (image * words + word) * comptime!(bits as u32) + comptime!(j as u32);
            planes[(plane * pixels + pixel) as usize] = packed[j];
        }
    }
}

/// The levels of planes.
#[cube(launch_unchecked)]
pub(super) fn unpack(
    planes: &[u32],
    levels: &ActivationLevels,
    output: &mut [f32],
    images: u32,
    channels: u32,
    pixels: u32,
    #[comptime] bits: usize,
) {
    let unit = CUBE_POS as u32 * comptime!(UNITS as u32) + UNIT_POS_X;
    let pixel = unit % pixels;
    let channel = unit / pixels % channels;
    let image = unit / pixels / channels;
    if image < images {
        let word = image * channels.div_ceil(32u32) + channel / 32u32;
        let mut code = 0u32;
        #[unroll]
        for j in 0..bits {
            let plane = word * comptime!(bits as u32) + comptime!(j as u32);
            let signs = planes[(plane * pixels + pixel) as usize];
            code |= ((signs >> (channel % 32u32)) & 1u32) << comptime!(j as u32);
        }
        output[unit as usize] = levels.value(code);
    }
}
