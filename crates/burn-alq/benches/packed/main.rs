//! Packed layers and networks against Burn Flex in f32.
//!
//! Each case is proven against the definition, then timed in turns with the same case in f32. The
//! speed of a process depends on where its memory happens to lie, so the program starts itself
//! several times and reports medians.

mod cases;
mod report;
#[path = "../shared/mod.rs"]
mod shared;
mod sweep;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use criterion::{Criterion, SamplingMode};

use cases::SWEEP;
use report::{Measured, Samples, Start};
use shared::case::Case;
use shared::output;

/// For both sides: the system's returns large tensors to the kernel and takes them again each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times packed layers and networks against Burn Flex in f32, and fitting against Adam.
#[derive(Parser, Clone)]
struct Args {
    /// Kinds of cases: linear, conv, net, fit, and sweep, the layers of six networks in all
    /// arithmetics [default: all but sweep; all with --only]
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
    /// Where the user is: cargo runs a benchmark in the folder of its package.
    #[arg(long, hide = true, default_value = ".")]
    from: std::path::PathBuf,
    /// The other devices have a benchmark of their own.
    #[arg(long, hide = true, value_parser = ["flex"], default_value = "flex")]
    device: String,
    /// What cargo bench passes.
    #[arg(long, hide = true)]
    bench: bool,
    /// One start: print what was measured as JSON.
    #[arg(long, hide = true)]
    one: bool,
    /// Run our side of the cases alone, five seconds each: for a profiler.
    #[arg(long, hide = true)]
    profile: bool,
}

/// About what one case takes in one start, both sides together.
const BUDGET: Duration = Duration::from_millis(900);

/// The same of a case of the sweep, which has hundreds.
const SWEEP_BUDGET: Duration = Duration::from_millis(150);

fn main() -> ExitCode {
    let args = Args::parse();
    let result = if args.one {
        one_start(&args)
    } else {
        all_starts(&args)
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
    let json = args.json.as_ref().map(|file| args.from.join(file));
    if let Some(file) = &json {
        output::check_folder(file)?;
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
    let mut report = report::merge(&starts, args.threads);
    if args.kinds.iter().any(|kind| kind == SWEEP) {
        report.worst_first(sweep::worst());
    }
    println!("{}", report.to_markdown());
    if let Some(path) = &json {
        output::write(&report, path)?;
    }
    Ok(())
}

/// One start, on a thread of the pool that both sides use: a thread outside of it would have to be
/// woken after each layer.
fn one_start(args: &Args) -> Result<(), String> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads);
    let pool = pool.build().map_err(|error| error.to_string())?;
    pool.install(|| measure(args))
}

fn measure(args: &Args) -> Result<(), String> {
    let mut measured = Vec::new();
    for (name, kind, make) in cases::all() {
        let wanted = match args.kinds.is_empty() {
            true => kind != SWEEP || !args.only.is_empty(),
            false => args.kinds.iter().any(|wanted| wanted == kind),
        };
        if wanted && name.contains(&args.only) {
            eprintln!("  {name}");
            let mut case = make();
            let first = (case.ours)();
            case.verify().map_err(|error| format!("{name}: {error}"))?;
            if args.profile {
                let end = Instant::now() + Duration::from_secs(5);
                while Instant::now() < end {
                    (case.ours)();
                }
                continue;
            }
            let budget = if kind == SWEEP { SWEEP_BUDGET } else { BUDGET };
            measured.push(time(&name, &mut case, first, budget));
        }
    }
    let start = Start { cases: measured };
    let line = serde_json::to_string(&start).map_err(|error| error.to_string())?;
    println!("{line}");
    Ok(())
}

/// Both sides in turns, in blocks of some runs, by criterion's clock for ours. The first run of a
/// block finds caches full of the other side's data: it is reported apart, as is the first of all.
fn time(name: &str, case: &mut Case, first: Duration, budget: Duration) -> Measured {
    // Warms up, and says how long a run takes.
    let [ours, other] = [&mut case.ours, &mut case.other].map(|run| run().min(run()).min(run()));
    let [ours_runs, other_runs] = [ours, other].map(runs_of_a_block);
    let mut samples = Samples {
        first,
        ..Samples::default()
    };
    let share = (ours * ours_runs).as_secs_f64();
    let share = share / (share + (other * other_runs).as_secs_f64());
    Criterion::default()
        .without_plots()
        .with_output_color(false)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50).mul_f64(share))
        .measurement_time(budget.mul_f64(share / f64::from(ours_runs)))
        .benchmark_group("packed")
        .sampling_mode(SamplingMode::Flat)
        .bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    samples.cold.push((case.ours)());
                    let warm = (1..ours_runs).map(|_| (case.ours)());
                    let start = samples.ours.len();
                    samples.ours.extend(warm);
                    total += samples.ours[start..].iter().sum::<Duration>() / (ours_runs - 1);
                    (case.other)();
                    samples
                        .other
                        .extend((1..other_runs).map(|_| (case.other)()));
                }
                total
            });
        });
    Measured::new(name, case, &samples)
}

/// As many as take some milliseconds, so that the caches are the side's own.
fn runs_of_a_block(one: Duration) -> u32 {
    let runs = 4e-3 / one.as_secs_f64();
    2 + runs.min(40.0) as u32
}
