//! The firmware of `crates/multibit/mcu`, and the program that runs it in qemu.

use std::path::Path;

use crate::{cargo, step};

const TARGET: &str = "thumbv7em-none-eabihf";

/// Builds the firmware and runs it; other arguments are the program's.
pub fn mcu(root: &Path, args: &[String]) -> Result<(), String> {
    let folder = root.join("crates/multibit/mcu");
    // The firmware's target and this machine's share a folder, whatever the caller has set.
    let target = root.join("target/mcu");
    let (flags, args): (Vec<&String>, Vec<&String>) =
        args.iter().partition(|arg| *arg == "--messages");
    let mut firmware = cargo();
    firmware.args(["build", "--release", "--locked", "--target", TARGET]);
    if !flags.is_empty() {
        firmware.args(["--features", "messages"]);
    }
    step(&folder, firmware.arg("--target-dir").arg(&target))?;
    let mut program = cargo();
    program
        .args(["run", "--locked", "--target-dir"])
        .arg(&target);
    let firmware = target.join(TARGET).join("release/mcu");
    step(&folder, program.arg("--").arg(firmware).args(args))
}
