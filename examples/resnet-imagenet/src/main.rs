//! ResNet on ImageNet: a float network becomes a multi-bit network of two bits per weight.

mod cli;
mod training;

use std::process::ExitCode;

use clap::Parser;
use example_common::time::time;
use example_common::{exit, packed, remake_report};

// Training allocates and frees the same large tensors at every step; the system allocator hands
// them back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    exit(match cli::Cli::parse().command {
        cli::Command::Train(args) => training::train(&args),
        cli::Command::Sweep(args) => training::sweep(&args),
        cli::Command::Sensitivity(args) => training::sensitivity(&args),
        cli::Command::Eval(args) => training::eval(&args),
        cli::Command::Inspect(args) => packed::inspect(&args),
        cli::Command::Time(args) => time::<resnet_imagenet::model::ResNet>(&args),
        cli::Command::Report(args) => remake_report(&args),
    })
}
