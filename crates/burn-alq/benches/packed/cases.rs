//! All cases.

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::TensorData;

use crate::{fit, layers, nets};

/// Kinds of cases.
pub const KINDS: [&str; 4] = ["linear", "conv", "net", "fit"];

/// What a case is timed against.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The same computation by Burn Flex in f32.
    FlexF32,
    /// A step of Burn's Adam on the same weights.
    Adam,
}

/// Does some work once, and says how long that took.
pub type Run = Box<dyn FnMut() -> Duration>;

/// A run that is timed whole.
pub fn timed<T>(mut work: impl FnMut() -> T + 'static) -> Run {
    Box::new(move || {
        let start = Instant::now();
        black_box(work());
        start.elapsed()
    })
}

/// Two sides of the same work.
pub struct Case {
    pub ours: Run,
    pub other: Run,
    pub side: Side,
    /// Products of inputs and weights, bits counted one by one.
    pub products: f64,
    /// Which limit of the machine bounds them.
    pub limit: Option<&'static str>,
    /// Proves `ours`.
    pub check: Box<dyn FnOnce() -> Result<(), String>>,
}

impl Case {
    /// Runs the proof.
    pub fn verify(&mut self) -> Result<(), String> {
        std::mem::replace(&mut self.check, Box::new(|| Ok(())))()
    }
}

type Make = Box<dyn FnOnce() -> Case>;

/// Name, kind and maker of each case.
pub fn all() -> Vec<(&'static str, &'static str, Make)> {
    use layers::Inputs::{Bits, Exact, Int8};
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
        let make = move || layers::linear(batch, bits, subchannels, inputs);
        cases.push((name, "linear", Box::new(make)));
    }
    for (name, channels, size) in [
        ("conv-64x56-w1a2", 64, 56),
        ("conv-128x28-w1a2", 128, 28),
        ("conv-256x14-w1a2", 256, 14),
        ("conv-512x7-w1a2", 512, 7),
    ] {
        cases.push((name, "conv", Box::new(move || layers::conv(channels, size))));
    }
    for (name, batch) in [
        ("net-lenet5-b1-w0.4-exact", 1),
        ("net-lenet5-b128-w0.4-exact", 128),
    ] {
        cases.push((name, "net", Box::new(move || nets::lenet5(batch))));
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
    cases.push(("fit-lenet5-basis", "fit", Box::new(|| fit::lenet5(true))));
    cases.push((
        "fit-lenet5-coordinate",
        "fit",
        Box::new(|| fit::lenet5(false)),
    ));
    cases.push(("fit-resnet18-basis", "fit", Box::new(fit::resnet18)));
    cases
}

/// Whether two results are the same up to rounding, by the norm of their difference.
pub fn same(found: &[f32], expected: &[f32], room: f32) -> Result<(), String> {
    let norm = |values: &mut dyn Iterator<Item = f32>| {
        values
            .map(|x| f64::from(x) * f64::from(x))
            .sum::<f64>()
            .sqrt() as f32
    };
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let error = difference / norm(&mut expected.iter().copied());
    match error <= room && found.len() == expected.len() {
        true => Ok(()),
        false => Err(format!("wrong by {error} of the norm, more than {room}")),
    }
}

/// The values of a tensor.
pub fn values(data: TensorData) -> Vec<f32> {
    data.try_into_vec().expect("f32")
}
