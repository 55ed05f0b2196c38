//! Packed layers and networks against Burn Flex in f32.
//!
//! Each case is proven against the definition, then timed in turns with the same case in f32. The
//! speed of a process depends on where its memory happens to lie, so the program starts itself
//! several times and reports medians.

mod cases;
mod fit;
mod layers;
mod limits;
mod nets;
mod random;
mod report;

use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use criterion::Criterion;

use cases::Case;
use report::{Measured, Start};

/// Times packed layers and networks against Burn Flex in f32, and fitting against Adam.
#[derive(Parser, Clone)]
struct Args {
    /// Kinds of cases: linear, conv, net, fit [default: all]
    kinds: Vec<String>,
    /// Threads of both sides.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Starts of the program, of which medians are taken.
    #[arg(long, default_value_t = 3)]
    starts: usize,
    /// Also write the result here.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
    /// What cargo bench passes.
    #[arg(long, hide = true)]
    bench: bool,
    /// One start: print what was measured as JSON.
    #[arg(long, hide = true)]
    one: bool,
}

/// About what one case takes in one start, both sides together.
const BUDGET: Duration = Duration::from_millis(900);

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.one {
        true => one_start(&args),
        false => all_starts(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn all_starts(args: &Args) -> Result<(), String> {
    for kind in &args.kinds {
        if !cases::KINDS.contains(&kind.as_str()) {
            return Err(format!(
                "no kind {kind}; there are: {}",
                cases::KINDS.join(", ")
            ));
        }
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut starts = Vec::new();
    for start in 1..=args.starts.max(1) {
        eprintln!("start {start} of {}", args.starts.max(1));
        let output = Command::new(&program)
            .args(std::env::args_os().skip(1))
            .arg("--one")
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        if !output.status.success() {
            return Err(format!("start {start} failed: {}", output.status));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().last().unwrap_or_default();
        starts.push(serde_json::from_str::<Start>(line).map_err(|error| error.to_string())?);
    }
    let report = report::merge(&starts, args.threads);
    println!("{}", report.to_markdown());
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    Ok(())
}

fn one_start(args: &Args) -> Result<(), String> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build_global()
        .map_err(|error| error.to_string())?;
    let limits = limits::measure();
    let mut measured = Vec::new();
    for (name, kind, make) in cases::all() {
        let wanted = args.kinds.is_empty() || args.kinds.iter().any(|wanted| wanted == kind);
        if wanted && name.contains(&args.only) {
            eprintln!("  {name}");
            let mut case = make();
            case.verify().map_err(|error| format!("{name}: {error}"))?;
            measured.push(time(name, &mut case));
        }
    }
    let start = Start {
        limits,
        cases: measured,
    };
    let line = serde_json::to_string(&start).map_err(|error| error.to_string())?;
    println!("{line}");
    Ok(())
}

/// Both sides in turns, by criterion's clock for ours.
fn time(name: &str, case: &mut Case) -> Measured {
    // The first run of each side warms up.
    let ((_, _), (ours, other)) = (
        ((case.ours)(), (case.other)()),
        ((case.ours)(), (case.other)()),
    );
    let share = ours.as_secs_f64() / (ours + other).as_secs_f64();
    let mut pairs = Vec::new();
    Criterion::default()
        .without_plots()
        .with_output_color(false)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50).mul_f64(share))
        .measurement_time(BUDGET.mul_f64(share))
        .bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let (ours, other) = ((case.ours)(), (case.other)());
                    pairs.push((ours.as_secs_f64(), other.as_secs_f64()));
                    total += ours;
                }
                total
            });
        });
    Measured::new(name, case, &pairs)
}
