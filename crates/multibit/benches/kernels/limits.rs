//! What one core of this machine can do at best.

use std::collections::BTreeMap;
use std::time::Instant;

use multibit::cpu::Isa;
use multibit::cpu::limits::{Operation, Stream};

/// Memory that is read, with the cache that it fits.
const STREAMS: [(&str, usize); 3] = [
    ("stream_l2_gb", 512 << 10),
    ("stream_l3_gb", 8 << 20),
    ("stream_dram_gb", 256 << 20),
];

/// Billions of products, or gigabytes, in a second: the best of many short runs.
pub fn measure(isa: Isa) -> BTreeMap<&'static str, f64> {
    let mut limits = BTreeMap::new();
    for (operation, name) in Operation::ALL {
        limits.insert(name, best(100, || operation.run(isa, 20_000)));
    }
    for (name, bytes) in STREAMS {
        let stream = Stream::new(bytes);
        let runs = (64 << 20) / bytes + 3;
        limits.insert(name, best(runs, || stream.run(isa)));
    }
    limits
}

fn best(runs: usize, mut run: impl FnMut() -> f64) -> f64 {
    let rate = |_| {
        let start = Instant::now();
        let amount = run();
        amount / start.elapsed().as_secs_f64() / 1e9
    };
    (0..runs).map(rate).fold(0.0, f64::max)
}
