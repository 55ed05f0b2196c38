//! LeNet5 over several machines: a server of Burn on each, and Burn's Learner on one.

mod data;
mod folder;
mod model;
mod serve;
mod servers;
mod train;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use train::TrainArgs;

// Training allocates and frees the same large tensors at every step; the system allocator hands
// them back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// LeNet5 trained into a multi-bit network over several machines: `serve` runs on each of them, `train` on
/// one
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compute for a training, with Burn's Flex on this machine, for one training after another
    Serve {
        /// Address of this machine to listen at. Who reaches it may compute here: there is no password, and
        /// nothing is encrypted. 0.0.0.0 is all of this machine's addresses
        #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
        host: IpAddr,
        /// Port to listen at; 0 is a free one. The first line of the output is the address with the port
        #[arg(long, default_value_t = 3000)]
        port: u16,
    },
    /// Train on servers, or without any, on this machine
    Train(TrainArgs),
}

fn main() -> ExitCode {
    example_common::exit_code(match Cli::parse().command {
        Command::Serve { host, port } => serve::serve(host, port),
        Command::Train(args) => train::train(args),
    })
}
