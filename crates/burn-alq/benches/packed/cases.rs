//! All cases.

use burn::tensor::Device;
use burn_alq::Phase;

use crate::shared::case::Case;
use crate::shared::{fit, layers, nets};

/// Kinds of cases.
pub const KINDS: [&str; 4] = ["linear", "conv", "net", "fit"];

type Make = Box<dyn FnOnce() -> Case>;

/// Name, kind and maker of each case.
pub fn all() -> Vec<(&'static str, &'static str, Make)> {
    use layers::Inputs::{Bits, Exact, Int8};
    let flex = Device::flex();
    let mut cases: Vec<(&str, &str, Make)> = Vec::new();
    for (name, batch, bits, subchannels, inputs) in [
        ("linear-4096-m1-w2-int8", 1, 2.0, 16, Int8),
        ("linear-4096-m1-w1-int8", 1, 1.0, 16, Int8),
        ("linear-4096-m1-w0.5-int8", 1, 0.5, 16, Int8),
        ("linear-4096-m1-w2-exact", 1, 2.0, 16, Exact),
        ("linear-4096-m16-w2-int8", 16, 2.0, 16, Int8),
        ("linear-4096-m128-w1a1", 128, 1.0, 1, Bits(1)),
        ("linear-4096-m128-w1a2", 128, 1.0, 1, Bits(2)),
        ("linear-4096-m128-w2a2", 128, 2.0, 1, Bits(2)),
        ("linear-4096-m128-w2-exact", 128, 2.0, 16, Exact),
    ] {
        let device = flex.clone();
        let make = move || layers::linear(&device, 4096, batch, bits, subchannels, inputs);
        cases.push((name, "linear", Box::new(make)));
    }
    for (name, channels, size) in [
        ("conv-64x56-w1a2", 64, 56),
        ("conv-128x28-w1a2", 128, 28),
        ("conv-256x14-w1a2", 256, 14),
        ("conv-512x7-w1a2", 512, 7),
    ] {
        let device = flex.clone();
        let make = move || layers::conv(&device, channels, size, Bits(2));
        cases.push((name, "conv", Box::new(make)));
    }
    for (name, batch, bits) in [
        ("net-lenet5-b1-w0.4-exact", 1, 0.4),
        ("net-lenet5-b128-w0.4-exact", 128, 0.4),
    ] {
        cases.push((name, "net", Box::new(move || nets::lenet5(batch, bits))));
    }
    cases.push((
        "net-vgg-small-b1-w0.66a2",
        "net",
        Box::new(|| nets::vgg_small(0.66)),
    ));
    for (name, bits) in [("net-resnet18-b1-w2a2", 2.0), ("net-resnet18-b1-w1a2", 1.0)] {
        cases.push((name, "net", Box::new(move || nets::resnet18(bits))));
    }
    cases.push((
        "load-resnet18-w2a2",
        "net",
        Box::new(|| nets::load_resnet18(2.0)),
    ));
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
        cases.push((name, "fit", Box::new(move || make(&device))));
    }
    cases
}
