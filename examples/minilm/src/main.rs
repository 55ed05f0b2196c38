//! A sentence encoder: float weights become multi-bit ones without training, and what that changes is
//! measured.

mod checkpoint;
mod encoder;
mod eval;
mod model;
mod packed;
mod quantize;
mod sample;
mod score;
mod search;
mod time;
mod tokens;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use example_common::{Failure, exit_code, inspect};

// A forward pass allocates and frees the same large tensors in every layer; the system allocator hands
// them back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A sentence encoder of BERT's kind, all-MiniLM-L6-v2 for one: its float weights into few bits, packed,
/// compared, searched with.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Turn the float weights into multi-bit ones, pack them, and compare the embeddings.
    Quantize(quantize::Args),
    /// Compare a packed model's embeddings with the float model's.
    Eval(eval::Args),
    /// Find the lines of a text that are nearest in meaning to a query.
    Search(search::Args),
    /// Time a packed model, in turns with the float model.
    Time(time::Args),
    /// Show what a packed model holds.
    Inspect {
        /// The packed model.
        #[arg(long, value_name = "FILE")]
        model: PathBuf,
        /// Print JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    exit_code(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Quantize(args) => quantize::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Search(args) => search::run(args),
        Command::Time(args) => time::run(args),
        Command::Inspect { model, json } => inspect(model, *json),
    }
}
