//! LeNet5 on MNIST: a float network becomes a multi-bit network below one bit per weight.

mod cli;
mod data;
mod model;
mod training;

use std::process::ExitCode;

use clap::Parser;
use example_common::time::time;
use example_common::{exit, packed, remake_report};

// Training allocates and frees the same large tensors at every step; the system allocator hands
// them back to the kernel each time, which costs a third of the step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit(match cli::Cli::parse().command {
        cli::Command::Demo(args) => training::demo(&args),
        cli::Command::Train(args) => training::train(&args),
        cli::Command::Sweep(args) => training::sweep(&args),
        cli::Command::Sensitivity(args) => training::sensitivity(&args),
        cli::Command::Eval(args) => training::eval(&args),
        cli::Command::Inspect(args) => packed::inspect(&args),
        cli::Command::Time(args) => time::<model::LeNet5>(&args),
        cli::Command::Report(args) => remake_report(&args),
    })
}
