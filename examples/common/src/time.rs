//! The time that a packed file takes for a batch, in turns with other files and the float network.

use std::path::Path;
use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use burn_alq::report::table;

use crate::cli::TimeArgs;
use crate::data::Random;
use crate::network::ACT_BITS;
use crate::packed::load;
use crate::say::say;
use crate::{Failure, Network};

/// Forward passes that are timed together: a clock is read less often than a small network is run.
const TOGETHER: usize = 16;

/// Prints the median time of a forward pass of every file and of its network in f32.
///
/// # Errors
/// If a file cannot be read or holds another network.
pub fn time<N: Network>(args: &TimeArgs) -> Result<(), Failure> {
    let device = args.device.device()?;
    let mut contestants = Vec::new();
    for file in &args.models {
        let (packed, network) = load::<N>(file, &device)?;
        let mut config = packed.config.clone();
        config.remove(ACT_BITS);
        contestants.push(Contestant {
            file,
            bits: packed.average_bits(),
            networks: [network, N::from_config(&config, &device)?],
        });
    }
    let images = images::<N>(args.batch as usize, &device);
    // Read, so that a device that works on its own is waited for.
    let forward = |network: &N| drop(network.forward(images.clone()).into_data());
    let networks = contestants
        .iter()
        .flat_map(|contestant| &contestant.networks);
    let runs: Vec<_> = networks.map(|network| || forward(network)).collect();
    let (medians, turns) = in_turns(&runs, TOGETHER, args.seconds);
    let mut rows = vec![["file", "bits", "ms", "float ms", "ratio"].map(String::from)];
    for (contestant, times) in contestants.iter().zip(medians.chunks_exact(2)) {
        let (packed, float) = (times[0], times[1]);
        rows.push([
            contestant.file.display().to_string(),
            format!("{:.4}", contestant.bits),
            format!("{packed:.4}"),
            format!("{float:.4}"),
            format!("{:.2}", float / packed),
        ]);
    }
    let (title, batch) = (N::TITLE, args.batch);
    say!("{title}, batch {batch}, medians of {turns} turns\n");
    say!("{}", table(&rows));
    Ok(())
}

/// A file that is timed.
struct Contestant<'a, N> {
    file: &'a Path,
    bits: f64,
    /// Packed, and in f32.
    networks: [N; 2],
}

/// The median milliseconds of each run, and the number of turns: the machine's speed changes from second
/// to second, so all run in turns, at least three, until the seconds have passed. In a turn each runs
/// `together` times.
pub fn in_turns(runs: &[impl Fn()], together: usize, seconds: f64) -> (Vec<f64>, usize) {
    let mut times = vec![Vec::new(); runs.len()];
    let start = Instant::now();
    let mut turns = 0;
    while turns < 3 || start.elapsed().as_secs_f64() < seconds {
        for (run, times) in runs.iter().zip(&mut times) {
            let start = Instant::now();
            for _ in 0..together {
                run();
            }
            times.push(start.elapsed().as_secs_f64() * 1e3 / together as f64);
        }
        turns += 1;
    }
    (times.into_iter().map(median).collect(), turns)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Numbers from −1 to 1, the same at every call.
fn images<N: Network>(batch: usize, device: &Device) -> Tensor<4> {
    let [channels, height, width] = N::IMAGE;
    let mut random = Random::new(1, 0);
    let numbers = (0..batch * channels * height * width).map(|_| 2.0 * random.unit() as f32 - 1.0);
    let shape = [batch, channels, height, width];
    Tensor::from_data(
        TensorData::new(numbers.collect::<Vec<f32>>(), shape),
        device,
    )
}
