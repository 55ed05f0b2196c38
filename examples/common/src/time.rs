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
/// The machine's speed changes from second to second, so all are measured in turns.
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
            times: Default::default(),
        });
    }
    let images = images::<N>(args.batch as usize, &device);
    let start = Instant::now();
    let mut turns = 0;
    while turns < 3 || start.elapsed().as_secs_f64() < args.seconds {
        for contestant in &mut contestants {
            for (network, times) in contestant.networks.iter().zip(&mut contestant.times) {
                times.push(milliseconds(network, &images));
            }
        }
        turns += 1;
    }
    let mut rows = vec![["file", "bits", "ms", "float ms", "ratio"].map(String::from)];
    for contestant in contestants {
        let [packed, float] = contestant.times.map(median);
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
    times: [Vec<f64>; 2],
}

/// The time of a forward pass.
fn milliseconds<N: Network>(network: &N, images: &Tensor<4>) -> f64 {
    let start = Instant::now();
    for _ in 0..TOGETHER {
        // Read, so that a device that works on its own is waited for.
        let _ = network.forward(images.clone()).into_data();
    }
    start.elapsed().as_secs_f64() * 1e3 / TOGETHER as f64
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
