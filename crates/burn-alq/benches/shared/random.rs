//! Seeded test data.

use multibit::{Grouping, PackedWeight};

/// Steps in the mean coordinate, or up to twice as many.
const STEPS: f32 = 8.0;

/// xorshift64*: small, seeded, the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in `[−1, 1)`.
    pub fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| 2.0 * self.unit() - 1.0).collect()
    }

    /// A weight whose groups have the whole part of `bits`, or one more as often as the rest says.
    /// The coordinates keep the variance of a layer's outputs near that of its inputs. They are
    /// multiples of a power of two, as are the levels of activations: then sums are exact in any
    /// order, and no activation falls on the other side of a threshold for rounding alone. Int8
    /// arithmetic holds up to three of a group exactly.
    pub fn weight(&mut self, shape: &[usize], grouping: Grouping, bits: f64) -> PackedWeight {
        const MAX: usize = 4;
        let (groups, len) = (grouping.groups(shape), grouping.len());
        let inputs = (grouping.groups_per_output(shape) * len) as f32;
        let coordinate = (inputs * bits as f32).sqrt().recip();
        let step = (coordinate / STEPS).log2().floor().exp2();
        let widths: Vec<u8> = (0..groups)
            .map(|_| bits as u8 + u8::from(f64::from(self.unit()) < bits.fract()))
            .collect();
        let mut codes = vec![0; groups * len];
        let mut coordinates = vec![0.0; groups * MAX];
        for (group, &width) in widths.iter().enumerate() {
            for code in &mut codes[group * len..][..len] {
                *code = (self.next() >> 33) as u8 & ((1 << width) - 1);
            }
            for alpha in &mut coordinates[group * MAX..][..usize::from(width)] {
                *alpha = (coordinate * (0.8 + 0.4 * self.unit()) / step).ceil() * step;
            }
        }
        PackedWeight::pack(shape, grouping, MAX, &codes, &coordinates, &widths)
            .expect("a state that keeps all rules")
    }
}
