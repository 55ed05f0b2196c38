//! The command `multibit`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::ffi::OsStr;
use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _, stderr, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use multibit::cpu::{Arithmetic, Isa};
use multibit_cli::{
    Difference, Error, File, Format, Inspection, Model, Ranked, Sizes, Verdict, samples, shown,
};
use serde::Serialize;

/// What packed models of burn-alq hold, whether they are whole, what differs, and what they say of an
/// input: of any packed file, without Burn.
#[derive(Parser)]
#[command(version, name = "multibit", after_help = CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const CODES: &str = "Exit code: 0; 1 if a file is not whole (verify) or two differ (diff); 2 if \
                     there is no answer, and an error says why.";

#[derive(Subcommand)]
enum Command {
    /// Show what a packed model holds: its use, its layers, weights and tensors.
    Inspect(One),
    /// Say whether a file is whole, part by part, and what it takes to load and run it.
    Verify(One),
    /// Say which layers of two files differ, in bits and in values.
    Diff {
        /// A packed model.
        #[arg(value_name = "FILE")]
        first: PathBuf,
        /// Another one.
        #[arg(value_name = "FILE")]
        second: PathBuf,
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
    /// Say where bits and bytes of a packed model go, layer by layer and in total.
    Report(One),
    /// Feed inputs to a packed model that holds its chain of layers; print the best scores.
    Run(RunArgs),
}

#[derive(Args)]
struct One {
    /// The packed model.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RunArgs {
    /// The packed model.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Inputs, one after the other, without a head; - is the standard input.
    #[arg(long, value_name = "RAW")]
    input: PathBuf,
    /// What a value of an input is.
    #[arg(long, value_enum, default_value_t = Values::U8)]
    format: Values,
    /// Compute all layers in this arithmetic [default: what the file says, or exact]
    #[arg(long, value_enum)]
    arithmetic: Option<In>,
    /// Compute by the kernels of this instruction set, which is faster [default: in place, in the plan's
    /// memory alone, to the same bits on every machine]
    #[arg(long, value_name = "ISA", value_parser = isas())]
    isa: Option<String>,
    /// Scores to print of each input.
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
    /// Print JSON, with all scores.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Values {
    /// Bytes, that become values as the file says: pixels.
    U8,
    /// Values in f32, little-endian, in the order of the input's shape.
    F32,
}

#[derive(Clone, Copy, ValueEnum)]
enum In {
    /// f32
    Exact,
    /// Inputs of layers rounded to int8.
    Int8,
    /// Inputs of layers as bits, of multi-bit activations.
    Bitwise,
}

/// The instruction sets of this machine.
fn isas() -> PossibleValuesParser {
    let names = Isa::available().into_iter().map(Isa::name);
    names.map(PossibleValue::new).collect::<Vec<_>>().into()
}

fn main() -> ExitCode {
    match answer(&Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let error = shown(&error.to_string());
            let _ = writeln!(stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints a command's answer; whether it is a good one.
fn answer(command: &Command) -> Result<bool, Error> {
    match command {
        Command::Inspect(One { file, json }) => {
            let inspection = Inspection::of(&File::read(file)?)?;
            print(*json, &inspection, Inspection::to_text)?;
            Ok(true)
        }
        Command::Verify(One { file, json }) => {
            let verdict = Verdict::of(&File::read(file)?);
            print(*json, &verdict, Verdict::to_text)?;
            Ok(verdict.whole)
        }
        Command::Diff {
            first,
            second,
            json,
        } => {
            let difference = Difference::of(&File::read(first)?, &File::read(second)?)?;
            print(*json, &difference, Difference::to_text)?;
            Ok(difference.is_none())
        }
        Command::Report(One { file, json }) => {
            let sizes = Sizes::of(&File::read(file)?)?;
            print(*json, &sizes, Sizes::to_text)?;
            Ok(true)
        }
        Command::Run(args) => {
            let outcome = run(args)?;
            print(args.json, &outcome, |outcome| outcome.to_text())?;
            Ok(true)
        }
    }
}

/// Prints an answer; whoever reads it may go away.
fn print<T: Serialize>(json: bool, answer: &T, text: impl Fn(&T) -> String) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Io {
        file: "standard output".into(),
        source,
    };
    let text = match json {
        true => serde_json::to_string_pretty(answer).map_err(|error| failed(error.into()))? + "\n",
        false => text(answer),
    };
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(failed(error)),
        _ => Ok(()),
    }
}

/// What a model says of some inputs.
#[derive(Serialize)]
struct Outcome {
    inputs: Vec<Scored>,
}

#[derive(Serialize)]
struct Scored {
    best: Vec<Ranked>,
    /// Of all outputs; null is not finite.
    scores: Vec<f32>,
}

impl Outcome {
    /// A block of lines for each input, the best output first.
    fn to_text(&self) -> String {
        let mut text = String::new();
        for (number, input) in (1..).zip(&self.inputs) {
            text += &format!("input {number}\n");
            let names = input.best.iter().map(|ranked| match &ranked.label {
                Some(label) => shown(label),
                None => format!("output {}", ranked.output),
            });
            let names: Vec<String> = names.collect();
            let widest = names.iter().map(|name| name.chars().count()).max();
            let width = widest.unwrap_or(0);
            for (name, Ranked { score, .. }) in names.iter().zip(&input.best) {
                text += &format!("  {name:width$}  {score}\n");
            }
        }
        text
    }
}

fn run(args: &RunArgs) -> Result<Outcome, Error> {
    let file = File::read(&args.file)?;
    let packed = file.packed()?;
    let packed = match args.arithmetic {
        None => packed,
        Some(In::Exact) => packed.with_arithmetic(Arithmetic::Exact),
        Some(In::Int8) => packed.with_arithmetic(Arithmetic::Int8),
        Some(In::Bitwise) => packed.with_arithmetic(Arithmetic::Bitwise),
    };
    let isa = args.isa.as_deref().and_then(Isa::named);
    let mut model = Model::new(&file, &packed, isa)?;
    let format = match args.format {
        Values::U8 => Format::U8,
        Values::F32 => Format::F32,
    };
    let (source, bytes) = inputs(&args.input)?;
    let samples = samples(&bytes, format, model.input(), [&source, file.name()])?;
    let mut progress = Progress::new(samples.len());
    let mut inputs = Vec::with_capacity(samples.len());
    for sample in &samples {
        let scores = model.scores(sample)?.to_vec();
        let best = model.best(&scores, args.top);
        inputs.push(Scored { best, scores });
        progress.done(inputs.len());
    }
    progress.clear();
    Ok(Outcome { inputs })
}

/// The bytes of inputs, and what to call them.
fn inputs(path: &Path) -> Result<(String, Vec<u8>), Error> {
    let name = path.display().to_string();
    let read = if path.as_os_str() == OsStr::new("-") {
        let mut bytes = Vec::new();
        let read = io::stdin().lock().read_to_end(&mut bytes);
        (String::from("standard input"), read.map(|_| bytes))
    } else {
        (name, std::fs::read(path))
    };
    match read {
        (name, Ok(bytes)) => Ok((name, bytes)),
        (file, Err(source)) => Err(Error::Io { file, source }),
    }
}

/// How far a long run is, for whoever sits at a terminal.
struct Progress {
    of: usize,
    last: Option<Instant>,
    shown: bool,
}

impl Progress {
    fn new(of: usize) -> Self {
        let last = stderr().is_terminal().then(Instant::now);
        let shown = false;
        Self { of, last, shown }
    }

    fn done(&mut self, inputs: usize) {
        let Some(last) = &mut self.last else {
            return;
        };
        if last.elapsed() > Duration::from_millis(200) {
            *last = Instant::now();
            self.shown = true;
            let of = self.of;
            let _ = write!(stderr(), "\r{inputs} of {of} inputs");
        }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
