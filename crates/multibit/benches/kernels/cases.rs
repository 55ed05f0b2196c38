//! Single layers: what they compute, and the definition that they are proven against.

use std::sync::Arc;

use multibit::cpu::{
    Affine, Conv2dKernel, Conv2dOptions, Isa, Levels, LinearKernel, Mode, reference,
};
use multibit::{Grouping, PackedWeight};

use crate::support::{Random, packed_with};

/// Rows of a linear layer that are proven at its beginning and at its end.
const PROVEN_ROWS: usize = 16;

/// A layer, before it is made.
#[derive(Clone, Copy)]
pub struct Plan {
    pub name: &'static str,
    shape: Shape,
    /// Average bits of a weight.
    bits: f64,
    inputs: Inputs,
}

#[derive(Clone, Copy)]
enum Shape {
    Linear {
        /// `[d_in, d_out]`.
        widths: [usize; 2],
        batch: usize,
        subchannels: usize,
    },
    /// A channelwise convolution of one image, padded by half of the kernel.
    Conv {
        /// In and out.
        channels: [usize; 2],
        size: usize,
        kernel: usize,
        stride: usize,
    },
    /// A kernelwise depthwise convolution of one image, padded by half of the kernel.
    Depthwise {
        channels: usize,
        size: usize,
        kernel: usize,
    },
}

/// What a layer takes.
#[derive(Clone, Copy)]
enum Inputs {
    Exact,
    Int8,
    /// Activations of so many bits, whose packing counts too.
    Bits(usize),
}

impl Inputs {
    fn mode(self) -> Mode {
        match self {
            Self::Exact => Mode::Exact,
            Self::Int8 => Mode::Int8,
            Self::Bits(bits) => Mode::Bitwise(Levels::uniform(bits, 0.9).expect("1 to 4 bits")),
        }
    }
}

/// All cases.
pub fn all() -> impl Iterator<Item = Plan> {
    use Inputs::{Bits, Exact, Int8};
    let linear = [
        ("linear-4096-m1-w2-int8", 1, 2.0, 16, Int8),
        ("linear-4096-m1-w1-int8", 1, 1.0, 16, Int8),
        ("linear-4096-m1-w0.5-int8", 1, 0.5, 16, Int8),
        ("linear-4096-m1-w2-exact", 1, 2.0, 16, Exact),
        ("linear-4096-m16-w2-int8", 16, 2.0, 16, Int8),
        ("linear-4096-m128-w1a1", 128, 1.0, 1, Bits(1)),
        ("linear-4096-m128-w1a2", 128, 1.0, 1, Bits(2)),
        ("linear-4096-m128-w2a2", 128, 2.0, 1, Bits(2)),
        ("linear-4096-m128-w2-exact", 128, 2.0, 16, Exact),
    ];
    let linear = linear.map(|(name, batch, bits, subchannels, inputs)| Plan {
        name,
        shape: Shape::Linear {
            widths: [4096; 2],
            batch,
            subchannels,
        },
        bits,
        inputs,
    });
    let transformer = [
        ("linear-384x1536-r16-w2-int8", [384, 1536], 16, Int8),
        ("linear-384x1536-r128-w2-int8", [384, 1536], 128, Int8),
        ("linear-384x1536-r1024-w2-int8", [384, 1536], 1024, Int8),
        ("linear-1536x384-r16-w2-int8", [1536, 384], 16, Int8),
        ("linear-1536x384-r128-w2-int8", [1536, 384], 128, Int8),
        ("linear-1536x384-r1024-w2-int8", [1536, 384], 1024, Int8),
        ("linear-384x1536-r16-w2-exact", [384, 1536], 16, Exact),
        ("linear-384x1536-r128-w2-exact", [384, 1536], 128, Exact),
        ("linear-384x1536-r1024-w2-exact", [384, 1536], 1024, Exact),
        ("linear-1536x384-r17-w2-exact", [1536, 384], 17, Exact),
        ("linear-1536x384-r128-w2-exact", [1536, 384], 128, Exact),
        ("linear-4096x4096-r128-w2-int8", [4096, 4096], 128, Int8),
        ("linear-4096x4096-r1024-w2-int8", [4096, 4096], 1024, Int8),
    ];
    let transformer = transformer.map(|(name, widths, batch, inputs)| Plan {
        name,
        shape: Shape::Linear {
            widths,
            batch,
            // Groups of 128 weights.
            subchannels: widths[0] / 128,
        },
        bits: 2.0,
        inputs,
    });
    let rows = [
        ("linear-384x1536-r1-w2-exact", [384, 1536], 1, 3),
        ("linear-384x1536-r2-w2-exact", [384, 1536], 2, 3),
        ("linear-384x1536-r4-w2-exact", [384, 1536], 4, 3),
        ("linear-384x1536-r8-w2-exact", [384, 1536], 8, 3),
        ("linear-1536x384-r8-w2-exact", [1536, 384], 8, 12),
        ("linear-384x384-r8-w2-exact", [384, 384], 8, 3),
        ("linear-1024x1024-r8-w2-exact", [1024, 1024], 8, 8),
        ("linear-4096x4096-r8-w2-exact", [4096, 4096], 8, 32),
        ("linear-64x64-r1-w2-exact", [64, 64], 1, 1),
    ];
    let rows = rows.map(|(name, widths, batch, subchannels)| Plan {
        name,
        shape: Shape::Linear {
            widths,
            batch,
            subchannels,
        },
        bits: 2.0,
        inputs: Exact,
    });
    let depthwise = [
        ("depthwise-96-56-k3-w2-exact", 96, 56, 3, Exact),
        ("depthwise-96-56-k3-w2-int8", 96, 56, 3, Int8),
        ("depthwise-96-56-k3-w2a2", 96, 56, 3, Bits(2)),
        ("depthwise-240-28-k5-w2-exact", 240, 28, 5, Exact),
        ("depthwise-240-28-k5-w2-int8", 240, 28, 5, Int8),
        ("depthwise-672-14-k5-w2-exact", 672, 14, 5, Exact),
        ("depthwise-672-14-k5-w2-int8", 672, 14, 5, Int8),
    ];
    let depthwise = depthwise.map(|(name, channels, size, kernel, inputs)| Plan {
        name,
        shape: Shape::Depthwise {
            channels,
            size,
            kernel,
        },
        bits: 2.0,
        inputs,
    });
    let conv = [
        ("conv-64x56-w1a2", 64, 56, Bits(2)),
        ("conv-128x28-w1a2", 128, 28, Bits(2)),
        ("conv-256x14-w1a2", 256, 14, Bits(2)),
        ("conv-512x7-w1a2", 512, 7, Bits(2)),
        ("conv-128x28-w1-int8", 128, 28, Int8),
        ("conv-128x28-w1-exact", 128, 28, Exact),
    ];
    let conv = conv.map(|(name, channels, size, inputs)| Plan {
        name,
        shape: Shape::Conv {
            channels: [channels; 2],
            size,
            kernel: 3,
            stride: 1,
        },
        bits: 1.0,
        inputs,
    });
    let wider = [
        ("pointwise-96-24-56-w2-int8", [96, 24], 56, [1, 1], Int8),
        ("pointwise-24-144-56-w2-int8", [24, 144], 56, [1, 1], Int8),
        ("pointwise-672-192-7-w2-int8", [672, 192], 7, [1, 1], Int8),
        ("pointwise-192-1152-7-w2-int8", [192, 1152], 7, [1, 1], Int8),
        ("pointwise-96-24-56-w2-exact", [96, 24], 56, [1, 1], Exact),
        ("pointwise-24-144-56-w2-exact", [24, 144], 56, [1, 1], Exact),
        ("pointwise-672-192-7-w2-exact", [672, 192], 7, [1, 1], Exact),
        (
            "pointwise-192-1152-7-w2-exact",
            [192, 1152],
            7,
            [1, 1],
            Exact,
        ),
        ("conv-64x56-w2-int8", [64, 64], 56, [3, 1], Int8),
        ("conv-128x28-w2-int8", [128, 128], 28, [3, 1], Int8),
        ("conv-512x7-w2-int8", [512, 512], 7, [3, 1], Int8),
        ("conv-64x56-w2-exact", [64, 64], 56, [3, 1], Exact),
        ("conv-128x28-w2-exact", [128, 128], 28, [3, 1], Exact),
        ("conv-512x7-w2-exact", [512, 512], 7, [3, 1], Exact),
        ("stem-3-64-224-w2-int8", [3, 64], 224, [7, 2], Int8),
        ("stem-3-64-224-w2-exact", [3, 64], 224, [7, 2], Exact),
    ];
    let wider = wider.map(|(name, channels, size, [kernel, stride], inputs)| Plan {
        name,
        shape: Shape::Conv {
            channels,
            size,
            kernel,
            stride,
        },
        bits: 2.0,
        inputs,
    });
    linear
        .into_iter()
        .chain(transformer)
        .chain(rows)
        .chain(depthwise)
        .chain(conv)
        .chain(wider)
}

/// A layer with random weights and inputs.
pub struct Case {
    pub name: &'static str,
    /// Products of inputs and weights, bits counted one by one.
    pub products: f64,
    /// Which limit of the machine bounds them.
    pub limit: &'static str,
    shape: Shape,
    weight: Arc<PackedWeight>,
    input: Vec<f32>,
    mode: Mode,
}

/// A kernel that writes the whole output.
type Forward<'a> = Box<dyn Fn(&mut [f32]) + 'a>;

/// A part of the output that is proven: where it begins, and its values.
type Part = (usize, Vec<f32>);

impl Plan {
    /// Makes the weight and the inputs.
    pub fn make(self) -> Case {
        let mut random = Random::new(1);
        let (dims, grouping, inputs) = match self.shape {
            Shape::Linear {
                widths,
                batch,
                subchannels,
            } => {
                let grouping = Grouping::subchannelwise(&widths, subchannels);
                (widths.to_vec(), grouping, batch * widths[0])
            }
            Shape::Conv {
                channels: [channels_in, channels_out],
                size,
                kernel,
                ..
            } => {
                let dims = vec![channels_out, channels_in, kernel, kernel];
                let grouping = Grouping::channelwise(&dims);
                (dims, grouping, channels_in * size * size)
            }
            Shape::Depthwise {
                channels,
                size,
                kernel,
            } => {
                let dims = vec![channels, 1, kernel, kernel];
                let grouping = Grouping::kernelwise(&dims);
                (dims, grouping, channels * size * size)
            }
        };
        let grouping = grouping.expect("shapes that fit");
        // The whole part of the bits, or one more as often as the rest says.
        let widths: Vec<u8> = (0..grouping.groups(&dims))
            .map(|_| self.bits as u8 + u8::from(f64::from(random.unit()) < self.bits.fract()))
            .collect();
        let weight = packed_with(&mut random, &dims, grouping, &widths);
        let (factor, limit) = self.limit();
        let positions = match self.shape {
            Shape::Linear { batch, .. } => batch,
            Shape::Conv { size, stride, .. } => size.div_ceil(stride).pow(2),
            Shape::Depthwise { size, .. } => size * size,
        };
        Case {
            name: self.name,
            products: factor * (weight.weights() * positions) as f64,
            limit,
            shape: self.shape,
            weight: Arc::new(weight),
            input: (0..inputs).map(|_| 2.0 * random.unit() - 1.0).collect(),
            mode: self.inputs.mode(),
        }
    }

    /// Products for each weight and input, and what bounds them. Products of weights that are
    /// unpacked take all bases at once.
    fn limit(&self) -> (f64, &'static str) {
        match (self.inputs, self.shape) {
            (_, Shape::Depthwise { .. }) => (1.0, "f32_fma"),
            (Inputs::Exact, Shape::Linear { batch: 1..=3, .. }) => (self.bits, "f32_lookup"),
            (Inputs::Exact, Shape::Linear { .. }) => (1.0, "f32_fma"),
            (Inputs::Exact, Shape::Conv { .. }) => (1.0, "f32_fma"),
            (Inputs::Int8, Shape::Linear { batch: 1..=7, .. }) => (self.bits, "int8_lookup"),
            (Inputs::Int8, _) => (1.0, "int8_dot"),
            (Inputs::Bits(planes), _) => (self.bits * planes as f64, "xor_popcount"),
        }
    }
}

impl Case {
    /// Values of the output.
    pub fn outputs(&self) -> usize {
        match self.shape {
            Shape::Linear { widths, batch, .. } => batch * widths[1],
            Shape::Conv {
                channels,
                size,
                stride,
                ..
            } => channels[1] * size.div_ceil(stride).pow(2),
            // As many as inputs.
            Shape::Depthwise { .. } => self.input.len(),
        }
    }

    /// The shape of the input and the options of a convolution.
    fn conv(&self) -> ([usize; 4], Conv2dOptions) {
        let (channels, size, kernel, stride, groups) = match self.shape {
            Shape::Conv {
                channels,
                size,
                kernel,
                stride,
            } => (channels[0], size, kernel, stride, 1),
            Shape::Depthwise {
                channels,
                size,
                kernel,
            } => (channels, size, kernel, 1, channels),
            Shape::Linear { .. } => unreachable!("a linear layer is no convolution"),
        };
        let options = Conv2dOptions {
            stride: [stride; 2],
            padding: [(kernel / 2, kernel / 2); 2],
            groups,
            ..Conv2dOptions::default()
        };
        ([1, channels, size, size], options)
    }

    /// The layer laid out anew for an instruction set.
    pub fn kernel(&self, isa: Isa) -> Forward<'_> {
        let (mode, input, affine) = (&self.mode, &self.input, Affine::default());
        let arithmetic = mode.arithmetic();
        match self.shape {
            Shape::Linear { batch, .. } => {
                let kernel = LinearKernel::new(&self.weight, arithmetic);
                let kernel = kernel.expect("a linear weight").on(isa);
                Box::new(move |output| kernel.forward(mode, input, batch, &affine, output))
            }
            Shape::Conv { .. } | Shape::Depthwise { .. } => {
                let (dims, options) = self.conv();
                let kernel = Conv2dKernel::new(self.weight.clone(), options.groups, arithmetic);
                let kernel = kernel.expect("a weight of a convolution").on(isa);
                Box::new(move |output| {
                    kernel.forward(mode, input, dims, &affine, &options, output);
                })
            }
        }
    }

    /// The definition; it is slow: of a linear layer the first and the last rows alone, as many as
    /// are computed in the way of all.
    pub fn definition(&self) -> Vec<Part> {
        let affine = Affine::default();
        match self.shape {
            Shape::Linear {
                widths: [d_in, d_out],
                batch,
                ..
            } => {
                let rows = batch.min(PROVEN_ROWS);
                let parts = [0, batch - rows].map(|row| {
                    let mut y = vec![0.0; rows * d_out];
                    let x = &self.input[row * d_in..][..rows * d_in];
                    reference::linear(x, rows, &self.weight, &self.mode, &affine, &mut y);
                    (row * d_out, y)
                });
                parts.into()
            }
            Shape::Conv { .. } | Shape::Depthwise { .. } => {
                let (dims, options) = self.conv();
                let mut y = vec![0.0; self.outputs()];
                let (weight, mode) = (&self.weight, &self.mode);
                reference::conv2d(&self.input, dims, weight, mode, &affine, &options, &mut y);
                vec![(0, y)]
            }
        }
    }

    /// Whether the kernel computes the definition, up to the order of sums, by the norm of the
    /// difference.
    pub fn verify(&self, isa: Isa, definition: &[Part]) -> Result<(), String> {
        const ROOM: f64 = 1e-5;
        let mut output = vec![f32::NAN; self.outputs()];
        self.kernel(isa)(&mut output);
        for (first, expected) in definition {
            let found = &output[*first..][..expected.len()];
            let pairs = found.iter().zip(expected);
            let difference = norm(pairs.map(|(a, b)| a - b));
            let error = difference / norm(expected.iter().copied());
            if error.is_nan() || error > ROOM {
                return Err(format!("wrong by {error} of the norm, more than {ROOM}"));
            }
        }
        Ok(())
    }
}

fn norm(values: impl Iterator<Item = f32>) -> f64 {
    values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}
