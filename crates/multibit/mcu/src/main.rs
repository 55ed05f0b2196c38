//! LeNet5 on a Cortex-M: the firmware, and for the machine that builds it a program that runs the
//! firmware in qemu and compares every score with its own.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg_attr(
    not(target_os = "none"),
    expect(dead_code, reason = "the host only asks what a file that cannot be read gives")
)]
mod codes;
#[cfg(target_os = "none")]
mod firmware;
#[cfg(not(target_os = "none"))]
mod host;

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    host::main()
}
