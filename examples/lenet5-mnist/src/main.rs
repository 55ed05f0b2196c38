//! LeNet5 on MNIST: a float network becomes a multi-bit network below one bit per weight.

mod cli;
mod data;
mod idx;
mod inspect;
mod model;
mod progress;
mod report;
mod training;

use std::process::ExitCode;

use clap::Parser;

// Training allocates and frees the same large tensors at every step; the system allocator hands
// them back to the kernel each time, which costs a third of the step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What ends the program: a message for the user, its source included.
type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let result = match cli::Cli::parse().command {
        cli::Command::Demo(args) => training::demo(&args),
        cli::Command::Train(args) => training::train(&args),
        cli::Command::Eval(args) => inspect::eval(&args),
        cli::Command::Inspect(args) => inspect::inspect(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            match error.downcast_ref::<training::Interrupted>() {
                Some(_) => ExitCode::from(130),
                None => ExitCode::FAILURE,
            }
        }
    }
}
