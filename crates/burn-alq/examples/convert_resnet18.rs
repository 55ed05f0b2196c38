//! Time and memory of converting all weights of a ResNet18 (11.7 million) with I_max 6, on one
//! thread unless `RAYON_NUM_THREADS` says more:
//! `RAYON_NUM_THREADS=1 cargo run --release -p burn-alq --features flex --example convert_resnet18`.
//!
//! Arguments: the grouping of the convolutions (`pixelwise`), and I_max (6). The packed weights are
//! counted as they would be in a file, without biases and norms.

use std::time::Instant;

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use burn_alq::{GroupingRule, PackedModel, PathPattern, Quantizer};

#[derive(Module, Debug)]
struct Weights {
    conv: Vec<Conv2d>,
    fc: Linear,
}

impl Weights {
    fn resnet18(device: &Device) -> Self {
        let conv = |input, output, kernel| {
            Conv2dConfig::new([input, output], [kernel; 2])
                .with_bias(false)
                .init(device)
        };
        let mut layers = vec![conv(3, 64, 7)];
        let mut input = 64;
        for output in [64, 128, 256, 512] {
            layers.extend([conv(input, output, 3), conv(output, output, 3)]);
            if input != output {
                layers.push(conv(input, output, 1));
            }
            layers.extend([conv(output, output, 3), conv(output, output, 3)]);
            input = output;
        }
        let weights = Self {
            conv: layers,
            fc: LinearConfig::new(512, 1000).init(device),
        };
        // Parameters are drawn when they are first used: now.
        for conv in &weights.conv {
            let _ = Param::val(&conv.weight);
        }
        let _ = weights.fc.weight.val();
        weights
    }
}

/// A line of the process's status, in MB; 0 where the system does not tell.
fn memory(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|text| text.strip_prefix(line));
    let kilobytes = line.and_then(|text| text.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) * 1024.0 / 1e6
}

fn main() {
    let grouping = match std::env::args().nth(1).as_deref() {
        None | Some("pixelwise") => GroupingRule::Pixelwise,
        Some("kernelwise") => GroupingRule::Kernelwise,
        Some("channelwise") => GroupingRule::Channelwise,
        Some(other) => panic!("no grouping {other}"),
    };
    let max_bits = std::env::args().nth(2).map_or(6, |bits| {
        bits.parse()
            .expect("the second argument is a number of bits")
    });
    let before = memory("VmRSS");
    let weights = Weights::resnet18(&Device::flex());
    let float = weights.num_params() as f64 * 4.0 / 1e6;
    let quantizer = Quantizer::new(max_bits)
        .rule(PathPattern::glob("conv.*.weight"), grouping)
        .rule(
            PathPattern::exact("conv.0.weight"),
            GroupingRule::Channelwise,
        )
        .rule(
            PathPattern::exact("fc.weight"),
            GroupingRule::Subchannelwise(1),
        );
    let start = Instant::now();
    let (converted, report) = quantizer.quantize(weights).expect("the rules fit");
    let time = start.elapsed().as_secs_f64();
    let peak = memory("VmHWM") - before;
    println!("{}", report.to_markdown());
    println!("{}", report.summary());
    println!(
        "{time:.2} s; peak {peak:.0} MB above the empty process, {:.2} times the {float:.1} MB of \
         float weights; {:.0} MB stay",
        peak / float,
        memory("VmRSS") - before,
    );
    let packed = PackedModel::pack(&converted).expect("sketched weights");
    let bytes = packed.to_bytes().expect("a file in memory").len();
    println!("packed at {:.2} bits: {bytes} bytes", packed.average_bits());
}
