//! The layers of networks that people have, in all arithmetics: where is a packed layer slower?

use crate::shared::layers::{Conv, Inputs, Layer, Shape};

/// Bits of weights and activations of most cases.
const BITS: u8 = 2;

/// What a group of a linear layer has, if it divides the inputs.
const GROUP: usize = 128;

const ARITHMETICS: [&str; 3] = ["exact", "int8", "bitwise"];

/// Name and layer of each case.
pub fn all() -> Vec<(String, Layer)> {
    let mut cases = Vec::new();
    for shape in shapes() {
        cases.extend(ARITHMETICS.map(|arithmetic| case(&shape, BITS, arithmetic)));
    }
    for shape in others() {
        for bits in [1, 3, 4] {
            cases.extend(ARITHMETICS.map(|arithmetic| case(&shape, bits, arithmetic)));
        }
    }
    cases
}

/// The row for the worst of an arithmetic, and whether a case is one of those that it is the worst
/// of.
pub fn worst() -> impl Iterator<Item = (String, fn(&str) -> bool)> {
    let of: [fn(&str) -> bool; 3] = [
        |name| name.ends_with("-exact"),
        |name| name.ends_with("-int8"),
        |name| name.ends_with("-bitwise"),
    ];
    let rows = ARITHMETICS.map(|arithmetic| format!("sweep-worst-{arithmetic}"));
    rows.into_iter().zip(of)
}

fn case(shape: &Shape, bits: u8, arithmetic: &str) -> (String, Layer) {
    let inputs = match arithmetic {
        "exact" => Inputs::Exact,
        "int8" => Inputs::Int8,
        _ => Inputs::Bits(bits.into()),
    };
    let layer = Layer::new(shape.clone(), bits.into(), inputs);
    let layer = match shape {
        Shape::Linear([d_in, _], _) if d_in.is_multiple_of(GROUP) => layer.groupwise(GROUP),
        _ => layer,
    };
    let activations = match inputs {
        Inputs::Bits(bits) => format!("a{bits}"),
        _ => String::new(),
    };
    let name = format!("{}-w{bits}{activations}-{arithmetic}", name(shape));
    (name, layer)
}

fn name(shape: &Shape) -> String {
    let conv = match shape {
        Shape::Linear([d_in, d_out], rows) => return format!("linear-{d_in}x{d_out}-r{rows}"),
        Shape::Conv(conv) => conv,
    };
    let ([input, output], [height, width]) = (conv.channels, conv.size);
    let size = match height {
        1 => format!("1x{width}"),
        _ => height.to_string(),
    };
    let name = match conv.kernel {
        [_, k] if conv.groups == input => format!("depthwise-{input}-{size}-k{k}"),
        [1, 1] => format!("pointwise-{input}-{output}-{size}"),
        [_, k] => format!("conv-{input}-{output}-{size}-k{k}"),
    };
    match conv.stride {
        1 => name,
        stride => format!("{name}-s{stride}"),
    }
}

fn pointwise(channels: [usize; 2], size: usize) -> Shape {
    Shape::Conv(Conv::square(channels, 1, size))
}

fn depthwise(channels: usize, kernel: usize, size: usize) -> Shape {
    Shape::Conv(Conv::depthwise(channels, kernel, size))
}

fn square(channels: [usize; 2], kernel: usize, size: usize) -> Shape {
    Shape::Conv(Conv::square(channels, kernel, size))
}

fn strided(shape: Shape, stride: usize) -> Shape {
    match shape {
        Shape::Conv(conv) => Shape::Conv(Conv { stride, ..conv }),
        linear => linear,
    }
}

/// A 1-D convolution with a kernel of 3, as 2-D.
fn long(channels: [usize; 2], stride: usize, length: usize) -> Shape {
    Shape::Conv(Conv {
        kernel: [1, 3],
        size: [1, length],
        stride,
        ..Conv::square(channels, 1, 1)
    })
}

/// All layers that differ.
fn shapes() -> Vec<Shape> {
    let linear = |shape, rows: &[usize]| -> Vec<Shape> {
        rows.iter()
            .map(|&rows| Shape::Linear(shape, rows))
            .collect()
    };
    let mut shapes = vec![
        // MobileNetV2.
        strided(square([3, 32], 3, 224), 2),
        depthwise(32, 3, 112),
        pointwise([32, 16], 112),
        pointwise([16, 96], 112),
        strided(depthwise(96, 3, 112), 2),
        depthwise(96, 3, 56),
        pointwise([96, 24], 56),
        pointwise([24, 144], 56),
        depthwise(144, 3, 56),
        strided(depthwise(144, 3, 56), 2),
        pointwise([144, 32], 28),
        pointwise([32, 192], 28),
        depthwise(192, 3, 28),
        pointwise([192, 64], 14),
        pointwise([64, 384], 14),
        depthwise(384, 3, 14),
        pointwise([384, 96], 14),
        pointwise([96, 576], 14),
        strided(depthwise(576, 3, 14), 2),
        pointwise([576, 160], 7),
        pointwise([160, 960], 7),
        depthwise(960, 3, 7),
        pointwise([960, 320], 7),
        pointwise([320, 1280], 7),
        // EfficientNet-Lite.
        strided(depthwise(144, 5, 56), 2),
        depthwise(240, 5, 28),
        depthwise(480, 5, 14),
        depthwise(672, 5, 14),
        strided(depthwise(672, 5, 14), 2),
        depthwise(1152, 5, 7),
        pointwise([40, 240], 28),
        pointwise([112, 672], 14),
        pointwise([672, 192], 7),
        pointwise([192, 1152], 7),
        // ResNet50.
        strided(square([3, 64], 7, 224), 2),
        pointwise([64, 64], 56),
        pointwise([64, 256], 56),
        pointwise([256, 64], 56),
        square([64, 64], 3, 56),
        strided(square([128, 128], 3, 56), 2),
        square([128, 128], 3, 28),
        pointwise([512, 256], 28),
        square([256, 256], 3, 14),
        pointwise([256, 1024], 14),
        square([512, 512], 3, 7),
        pointwise([512, 2048], 7),
        pointwise([2048, 512], 7),
        strided(pointwise([256, 512], 56), 2),
        // Whisper-tiny: 30 seconds of sound, then one token after the other.
        long([80, 384], 1, 3000),
        long([384, 384], 2, 3000),
        // YOLO-nano, for images of 640×640.
        strided(square([3, 16], 3, 640), 2),
        strided(square([16, 32], 3, 320), 2),
        square([16, 16], 3, 160),
        pointwise([48, 32], 160),
        square([32, 32], 3, 80),
        strided(square([64, 128], 3, 80), 2),
        square([64, 64], 3, 40),
        pointwise([128, 128], 40),
        square([64, 80], 3, 80),
        pointwise([256, 256], 20),
    ];
    // The ends of the convolutional networks, and MiniLM and Whisper-tiny.
    shapes.extend(linear([1280, 1000], &[1]));
    shapes.extend(linear([2048, 1000], &[1]));
    for shape in [[384, 384], [384, 1536], [1536, 384]] {
        shapes.extend(linear(shape, &[1, 2, 4, 8, 16, 64, 128, 1024, 1500, 4096]));
    }
    shapes.extend(linear([384, 51_865], &[1]));
    shapes.extend(linear([4096, 4096], &[1, 16, 128, 1024]));
    shapes.extend(linear([64, 10], &[1, 16]));
    shapes
}

/// The layers that are swept over the other bitwidths.
fn others() -> Vec<Shape> {
    vec![
        depthwise(96, 3, 56),
        depthwise(672, 5, 14),
        pointwise([96, 24], 56),
        pointwise([24, 144], 56),
        pointwise([192, 1152], 7),
        square([64, 64], 3, 56),
        square([512, 512], 3, 7),
        long([384, 384], 2, 3000),
        Shape::Linear([384, 1536], 1),
        Shape::Linear([384, 1536], 8),
        Shape::Linear([384, 1536], 16),
        Shape::Linear([1536, 384], 128),
        Shape::Linear([384, 384], 4096),
    ]
}
