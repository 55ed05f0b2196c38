//! Times the kernels of packed layers, without a framework, on the instruction sets of this machine.
//!
//! Each case is proven against the definition on each instruction set, then timed; the result says
//! what share it reaches of what the machine can do at best.

mod args;
mod cases;
mod limits;
mod report;
// The random weights of the tests.
#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use multibit::cpu::Isa;

use args::Args;
use cases::Case;
use report::{Report, Row, median};

/// About how long a case is timed on an instruction set.
const BUDGET: Duration = Duration::from_millis(900);

/// Speed depends on where a kernel's memory happens to lie: so many are laid out.
const LAYOUTS: u32 = 3;

fn main() -> ExitCode {
    match Args::parse(std::env::args().skip(1)).and_then(|args| args.map_or(Ok(()), run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures on a thread of the pool that the kernels use: one outside of it would have to be woken
/// after each layer.
fn run(args: Args) -> Result<(), String> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(args.threads);
    let pool = pool.build().map_err(|error| error.to_string())?;
    let report = pool.install(|| measure(&args))?;
    println!("{}", report.to_markdown());
    match &args.json {
        Some(file) => report.write(file),
        None => Ok(()),
    }
}

fn measure(args: &Args) -> Result<Report, String> {
    let mut report = Report::new(args.threads);
    for &isa in &args.isas {
        report.limits.insert(isa.name(), limits::measure(isa));
    }
    for plan in cases::all().filter(|plan| plan.name.contains(&args.only)) {
        let case = plan.make();
        let definition = case.definition();
        for &isa in &args.isas {
            eprintln!("{} on {isa}", case.name);
            let proven = case.verify(isa, &definition);
            proven.map_err(|error| format!("{} on {isa}: {error}", case.name))?;
            report.add(Row {
                name: case.name,
                isa: isa.name(),
                ms: time(&case, isa),
                products: case.products,
                limit: case.limit,
            });
        }
    }
    Ok(report)
}

/// The median of many runs, in milliseconds.
fn time(case: &Case, isa: Isa) -> f64 {
    let mut runs = Vec::new();
    let mut output = vec![0.0; case.outputs()];
    for _ in 0..LAYOUTS {
        let forward = case.kernel(isa);
        for _ in 0..3 {
            forward(&mut output);
        }
        let start = Instant::now();
        while start.elapsed() < BUDGET / LAYOUTS {
            let run = Instant::now();
            forward(std::hint::black_box(&mut output));
            runs.push(1e3 * run.elapsed().as_secs_f64());
        }
    }
    median(runs)
}
