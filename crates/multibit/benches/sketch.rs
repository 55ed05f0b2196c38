//! Times sketches of normal weights, refined and greedy, in groups of several lengths. On one thread
//! unless `RAYON_NUM_THREADS` says more:
//! `RAYON_NUM_THREADS=1 cargo bench -p multibit --features rayon --bench sketch`.

// The random weights of the tests.
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use multibit::CoordinateType::F32;
use multibit::fit::{Sketch, greedy, reconstruct, sketch};
use support::Random;

const WEIGHTS: usize = 1 << 20;

fn main() {
    println!(
        "| weights in a group | bits | greedy, ns a weight | refined | left of the weights, greedy | refined |"
    );
    println!("|---|---|---|---|---|---|");
    for len in [9, 64, 512, 4608, WEIGHTS] {
        let weights = Random::new(1).normals(WEIGHTS / len * len, 0.1);
        for bits in [2, 4, 6, 8] {
            let (plain, plain_time) = time(|| greedy(&weights, len, bits).unwrap());
            let (refined, time) = time(|| sketch(&weights, len, bits, F32).unwrap());
            let [plain, refined] = [plain, refined].map(|sketch| left(&weights, &sketch));
            assert!(refined <= plain, "a refined sketch is never worse");
            let [plain_time, time] = [plain_time, time].map(|time| time / weights.len() as f64);
            println!(
                "| {len} | {bits} | {plain_time:.0} | {time:.0} | {plain:.4} | {refined:.4} |"
            );
        }
    }
}

/// The result, and the nanoseconds of the fastest of three runs.
fn time(run: impl Fn() -> Sketch) -> (Sketch, f64) {
    let mut fastest = f64::INFINITY;
    for _ in 0..2 {
        let start = Instant::now();
        std::hint::black_box(run());
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    let sketch = run();
    (sketch, 1e9 * fastest.min(start.elapsed().as_secs_f64()))
}

/// `‖w − ŵ‖ / ‖w‖`.
fn left(weights: &[f32], sketch: &Sketch) -> f64 {
    let mut values = vec![0.0; weights.len()];
    let (codes, coordinates, widths) = (&sketch.codes, &sketch.coordinates, &sketch.widths);
    reconstruct(
        codes,
        coordinates,
        widths,
        sketch.len,
        sketch.max_bits,
        &mut values,
    );
    let square = |x: f64| x * x;
    let pairs = weights.iter().zip(&values);
    let error: f64 = pairs
        .map(|(&w, &v)| square(f64::from(w) - f64::from(v)))
        .sum();
    let norm: f64 = weights.iter().map(|&w| square(f64::from(w))).sum();
    (error / norm).sqrt()
}
