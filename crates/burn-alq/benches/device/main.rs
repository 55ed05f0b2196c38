//! Training steps and packed layers on a GPU, against Burn's f32 on the same GPU.
//!
//! Each case is proven first, then timed in turns with the other side, to the end of what the
//! device does. What a case must read, write and compute at least is counted, so that its distance
//! to the card's limits can be seen.

mod cases;
#[path = "../../../../examples/common/src/device.rs"]
mod device;
mod report;
#[path = "../shared/mod.rs"]
mod shared;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use clap::Parser;

use report::{Report, Row};
use shared::case::Case;
use shared::output;

/// Times training steps and packed layers on a GPU against Burn's f32 on it.
#[derive(Parser)]
struct Args {
    /// Burn device to compute on.
    #[arg(long, value_name = "NAME")]
    device: String,
    /// Small cases, few runs: whether it works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// What the card's memory can do, in GB/s: cases then also show their share of it.
    #[arg(long, value_name = "GB/S")]
    bandwidth: Option<f64>,
    /// Also write the result here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the user is: cargo runs a benchmark in the folder of its package.
    #[arg(long, hide = true, default_value = ".")]
    from: PathBuf,
    /// What cargo bench passes.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<(), String> {
    let json = args.json.as_ref().map(|file| args.from.join(file));
    if let Some(file) = &json {
        output::check_folder(file)?;
    }
    let name = &args.device;
    let device = device::open(name).map_err(|reason| format!("--device {name}: {reason}"))?;
    let mut report = Report::new(name, &device, args.bandwidth);
    for (name, make) in cases::all(&device, args.quick) {
        if name.contains(&args.only) {
            eprintln!("  {name}");
            let mut case = make();
            case.verify().map_err(|error| format!("{name}: {error}"))?;
            report.cases.push(time(&name, &mut case, args.quick));
        }
    }
    println!("{}", report.to_markdown());
    match &json {
        Some(file) => output::write(&report, file),
        None => Ok(()),
    }
}

/// Medians of both sides, in turns.
fn time(name: &str, case: &mut Case, quick: bool) -> Row {
    let (least, budget) = if quick {
        (3, Duration::ZERO)
    } else {
        (15, Duration::from_secs(2))
    };
    // Compiles kernels, and lets CubeCL and Burn try which of them is the fastest here.
    for _ in 0..3 {
        (case.ours)();
        (case.other)();
    }
    let [mut ours, mut other] = [Vec::new(), Vec::new()];
    let start = Instant::now();
    while ours.len() < least || start.elapsed() < budget {
        ours.push((case.ours)().as_secs_f64());
        other.push((case.other)().as_secs_f64());
    }
    let seconds = [ours, other].map(|runs| output::median(runs.into_iter()));
    Row::new(name, case, seconds)
}

/// What the device calls itself, and whether it is no card: a CPU, or a software rasterizer such as
/// lavapipe.
fn identity(device: &Device) -> (String, bool) {
    match device.identity() {
        Some(identity) => (identity.name, identity.physical.is_none()),
        None => ("without a name".into(), true),
    }
}
