//! All cases.

use burn::tensor::Device;
use burn_alq::Phase;

use crate::shared::case::Case;
use crate::shared::fit::{self, PhaseOf};
use crate::shared::layers::{self, Inputs};
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
    let width = if quick { 512 } else { 4096 };
    for (inputs, suffix, subchannels) in [
        (Inputs::Exact, "w2-exact", width / 256),
        (Inputs::Bits(2), "w2a2", 1),
    ] {
        for rows in [1, 16, 128] {
            add(
                format!("linear-{width}-m{rows}-{suffix}"),
                Box::new(move |device| {
                    layers::linear(device, width, rows, 2.0, subchannels, inputs)
                }),
            );
        }
    }
    let convs = [(64, 56), (128, 28), (256, 14), (512, 7)];
    for (channels, size) in if quick { &[(32, 14)][..] } else { &convs[..] } {
        let (channels, size) = (*channels, *size);
        for (inputs, suffix) in [(Inputs::Exact, "w1-exact"), (Inputs::Bits(2), "w1a2")] {
            add(
                format!("conv-{channels}x{size}-{suffix}"),
                Box::new(move |device| layers::conv(device, channels, size, inputs)),
            );
        }
    }
    cases
}
