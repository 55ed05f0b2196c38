//! All cases.

use burn::tensor::Device;
use burn_alq::{Arithmetic, Phase};

use crate::shared::case::Case;
use crate::shared::{fit, layers, nets};
use crate::sweep;

/// Kinds of cases.
pub const KINDS: [&str; 5] = ["linear", "conv", "net", "fit", SWEEP];

/// The kind of which there are hundreds.
pub const SWEEP: &str = "sweep";

/// Makes a case.
pub type Make = Box<dyn FnOnce() -> Case>;

/// Name, kind and maker of each case.
pub fn all() -> Vec<(String, &'static str, Make)> {
    use layers::Inputs::{Bits, Exact, Int8};
    use layers::{Conv, Layer, Shape};
    let flex = Device::flex();
    let mut cases: Vec<(String, &str, Make)> = Vec::new();
    let layer = |name: &str, kind, layer: Layer| {
        let device = flex.clone();
        let make: Make = Box::new(move || layer.case(&device));
        (name.to_string(), kind, make)
    };
    for (name, rows, bits, group, inputs) in [
        ("linear-4096-m1-w2-int8", 1, 2.0, 256, Int8),
        ("linear-4096-m1-w1-int8", 1, 1.0, 256, Int8),
        ("linear-4096-m1-w0.5-int8", 1, 0.5, 256, Int8),
        ("linear-4096-m1-w2-exact", 1, 2.0, 256, Exact),
        ("linear-4096-m16-w2-int8", 16, 2.0, 256, Int8),
        ("linear-4096-m128-w1a1", 128, 1.0, 4096, Bits(1)),
        ("linear-4096-m128-w1a2", 128, 1.0, 4096, Bits(2)),
        ("linear-4096-m128-w2a2", 128, 2.0, 4096, Bits(2)),
        ("linear-4096-m128-w2-exact", 128, 2.0, 256, Exact),
    ] {
        let shape = Shape::Linear([4096; 2], rows);
        let made = Layer::new(shape, bits, inputs).groupwise(group);
        cases.push(layer(name, "linear", made));
    }
    for (name, channels, size) in [
        ("conv-64x56-w1a2", 64, 56),
        ("conv-128x28-w1a2", 128, 28),
        ("conv-256x14-w1a2", 256, 14),
        ("conv-512x7-w1a2", 512, 7),
    ] {
        let shape = Shape::Conv(Conv::square([channels; 2], 3, size));
        cases.push(layer(name, "conv", Layer::new(shape, 1.0, Bits(2))));
    }
    for (name, made) in sweep::all() {
        cases.push(layer(&name, SWEEP, made));
    }
    let mut add = |name: &str, kind, make: Make| cases.push((name.to_string(), kind, make));
    for (name, batch, bits) in [
        ("net-lenet5-b1-w0.4-exact", 1, 0.4),
        ("net-lenet5-b128-w0.4-exact", 128, 0.4),
    ] {
        add(name, "net", Box::new(move || nets::lenet5(batch, bits)));
    }
    add(
        "net-vgg-small-b1-w0.66a2",
        "net",
        Box::new(|| nets::vgg_small(0.66)),
    );
    for (name, bits) in [("net-resnet18-b1-w2a2", 2.0), ("net-resnet18-b1-w1a2", 1.0)] {
        add(name, "net", Box::new(move || nets::resnet18(bits)));
    }
    add(
        "load-resnet18-w2a2",
        "net",
        Box::new(|| nets::load_resnet18(2.0)),
    );
    for (name, arithmetic) in [("exact", Arithmetic::Exact), ("int8", Arithmetic::Int8)] {
        add(
            &format!("net-mobilenetv2-b1-w2-{name}"),
            "net",
            Box::new(move || nets::mobile::mobile_net_v2(2.0, arithmetic)),
        );
        for [batch, tokens] in [[1, 16], [1, 128], [16, 64]] {
            let device = flex.clone();
            add(
                &format!("minilm-b{batch}s{tokens}-w2-{name}"),
                "net",
                Box::new(move || nets::encoder::mini_lm(&device, 2, [batch, tokens], arithmetic)),
            );
        }
    }
    let fits: [(&str, fit::Make); 3] = [
        ("fit-lenet5-basis", |flex| {
            fit::lenet5(flex, |_| Phase::Basis)
        }),
        ("fit-lenet5-coordinate", |flex| {
            fit::lenet5(flex, |_| Phase::Coordinate)
        }),
        ("fit-resnet18-basis", fit::resnet18),
    ];
    for (name, make) in fits {
        let device = flex.clone();
        add(name, "fit", Box::new(move || make(&device)));
    }
    cases
}
