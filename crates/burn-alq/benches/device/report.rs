//! What was measured, and how far from the card's limits it is.

use burn::tensor::Device;
use burn_alq::report::table;
use serde::Serialize;

use crate::identity;
use crate::shared::case::{Case, Side, Work};

/// One case: ours, then the other side.
#[derive(Serialize)]
pub struct Row {
    name: String,
    against: &'static str,
    ms: [f64; 2],
    /// How many times as fast.
    ratio: f64,
    gigabytes_per_second: [f64; 2],
    /// None where operations are not counted.
    gigaflops: Option<[f64; 2]>,
    verified: bool,
}

impl Row {
    /// From medians.
    pub fn new(name: &str, case: &Case, seconds: [f64; 2]) -> Self {
        let Work { bytes, operations } = case.work;
        Self {
            name: name.into(),
            against: match case.side {
                Side::BurnF32 => "Burn f32",
                Side::Adam => "Adam",
            },
            ms: seconds.map(|seconds| 1e3 * seconds),
            ratio: seconds[1] / seconds[0],
            gigabytes_per_second: [0, 1].map(|side| bytes[side] / seconds[side] / 1e9),
            gigaflops: (operations > 0.0).then(|| seconds.map(|s| operations / s / 1e9)),
            verified: true,
        }
    }

    fn cells(&self, bandwidth: Option<f64>) -> [String; 9] {
        let flops = |side: usize| {
            self.gigaflops
                .map_or(String::new(), |flops| format!("{:.1}", flops[side]))
        };
        let memory = |side: usize| {
            let rate = self.gigabytes_per_second[side];
            match bandwidth {
                Some(limit) => format!("{rate:.2} ({:.0} %)", 100.0 * rate / limit),
                None => format!("{rate:.2}"),
            }
        };
        let [ours, other] = self.ms.map(|ms| format!("{ms:.3}"));
        [
            self.name.clone(),
            ours,
            memory(0),
            flops(0),
            self.against.into(),
            other,
            memory(1),
            flops(1),
            format!("{:.2}", self.ratio),
        ]
    }
}

/// The result.
#[derive(Serialize)]
pub struct Report {
    device: String,
    name: String,
    /// No card: its timings mean nothing.
    software: bool,
    bandwidth: Option<f64>,
    pub cases: Vec<Row>,
}

impl Report {
    pub fn new(device: &str, opened: &Device, bandwidth: Option<f64>) -> Self {
        let (name, software) = identity(opened);
        Self {
            device: device.into(),
            name,
            software,
            bandwidth,
            cases: Vec::new(),
        }
    }

    /// A table to read.
    pub fn to_markdown(&self) -> String {
        let notice = if self.software {
            "\nThis is no card but a device in software: that cases are right means something, \
             their times do not.\n"
        } else {
            ""
        };
        let head = [
            "case", "ms", "GB/s", "GFLOP/s", "against", "ms", "GB/s", "GFLOP/s", "ratio",
        ];
        let head = std::iter::once(head.map(String::from));
        let rows = self.cases.iter().map(|row| row.cells(self.bandwidth));
        let rows: Vec<_> = head.chain(rows).collect();
        format!(
            "{}: {}\n{notice}\nGB/s: what a case must read and write at least. GFLOP/s: operations \
             of the dense product, also where bits stand for it.\n\n{}",
            self.device,
            self.name,
            table(&rows)
        )
    }
}
