//! All cases.

use burn::tensor::Device;
use burn_alq::{Arithmetic, Phase};

use crate::shared::case::Case;
use crate::shared::fit::{self, PhaseOf};
use crate::shared::layers::{Conv, Inputs, Layer, Shape};
use crate::shared::nets::encoder::mini_lm;
use crate::training;

type Make = Box<dyn FnOnce() -> Case>;

const PHASES: [(&str, PhaseOf); 4] = [
    ("basis", |_| Phase::Basis),
    ("coordinate", |_| Phase::Coordinate),
    ("ste", |_| Phase::Ste),
    ("prune", fit::prune),
];

/// Name and maker of each case. Quick ones are small.
pub fn all(device: &Device, quick: bool) -> Vec<(String, Make)> {
    let mut cases: Vec<(String, Make)> = Vec::new();
    let mut add = |name: String, make: Box<dyn FnOnce(&Device) -> Case>| {
        let device = device.clone();
        cases.push((name, Box::new(move || make(&device))));
    };
    let batch = if quick { 16 } else { 128 };
    add(
        format!("step-lenet5-b{batch}"),
        Box::new(move |device| training::lenet5(device, batch)),
    );
    if !quick {
        add(
            format!("step-vgg-small-b{batch}"),
            Box::new(move |device| training::vgg_small(device, batch)),
        );
    }
    for (name, phase) in PHASES {
        add(
            format!("fit-lenet5-{name}"),
            Box::new(move |device| fit::lenet5(device, phase)),
        );
        if !quick {
            add(
                format!("fit-vgg-small-{name}"),
                Box::new(move |device| fit::vgg_small(device, phase)),
            );
        }
    }
    let mut layer = |name: String, shape: Shape, bits, inputs, group: Option<usize>| {
        let layer = Layer::new(shape, bits, inputs);
        let layer = match group {
            Some(group) => layer.groupwise(group),
            None => layer,
        };
        add(name, Box::new(move |device| layer.case(device)));
    };
    let width = if quick { 512 } else { 4096 };
    for (inputs, suffix, group) in [
        (Inputs::Exact, "w2-exact", Some(256)),
        (Inputs::Int8, "w2-int8", Some(256)),
        (Inputs::Bits(2), "w2a2", None),
    ] {
        for rows in [1, 16, 128] {
            let shape = Shape::Linear([width; 2], rows);
            let name = format!("linear-{width}-m{rows}-{suffix}");
            layer(name, shape, 2.0, inputs, group);
        }
    }
    let convs = [(64, 56), (128, 28), (256, 14), (512, 7)];
    for (channels, size) in if quick { &[(32, 14)][..] } else { &convs[..] } {
        for (inputs, suffix) in [(Inputs::Exact, "w1-exact"), (Inputs::Bits(2), "w1a2")] {
            let shape = Shape::Conv(Conv::square([*channels; 2], 3, *size));
            let name = format!("conv-{channels}x{size}-{suffix}");
            layer(name, shape, 1.0, inputs, None);
        }
    }
    let (channels, size) = if quick { (16, 14) } else { (96, 56) };
    for (inputs, suffix) in [(Inputs::Exact, "w2-exact"), (Inputs::Int8, "w2-int8")] {
        let depthwise = Shape::Conv(Conv::depthwise(channels, 3, size));
        let name = format!("depthwise-{channels}-{size}-k3-{suffix}");
        layer(name, depthwise, 2.0, inputs, None);
        let pointwise = Shape::Conv(Conv::square([channels, 24], 1, size));
        let name = format!("pointwise-{channels}-24-{size}-{suffix}");
        layer(name, pointwise, 2.0, inputs, None);
    }
    let sizes = [[1, 16], [1, 128], [16, 64]];
    for [batch, tokens] in if quick { &sizes[..1] } else { &sizes[..] } {
        for (arithmetic, name) in [(Arithmetic::Exact, "exact"), (Arithmetic::Int8, "int8")] {
            let size = [*batch, *tokens];
            add(
                format!("minilm-b{batch}s{tokens}-w2-{name}"),
                Box::new(move |device| mini_lm(device, 2, size, arithmetic)),
            );
        }
    }
    cases
}
