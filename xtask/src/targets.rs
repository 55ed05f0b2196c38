//! Targets that are not this machine's: their tests, in an emulator, and what compiles for them.

use std::path::Path;
use std::process::Command;

use crate::{cargo, step};

/// A target whose tests of the kernels' crate run here.
struct Emulated {
    name: &'static str,
    triple: &'static str,
    /// Further flags of rustc.
    flags: &'static str,
    linker: Option<&'static str>,
    /// Programs that it takes, and Debian's packages that have them.
    programs: &'static [(&'static str, &'static str)],
    /// Runs a program; `{root}` is the repository.
    runner: &'static str,
    /// Arguments of `cargo test`.
    tests: &'static [&'static str],
}

const EMULATED: [Emulated; 4] = [
    Emulated {
        name: "aarch64",
        triple: "aarch64-unknown-linux-gnu",
        flags: "",
        linker: Some("aarch64-linux-gnu-gcc"),
        programs: &[
            ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
            ("qemu-aarch64", "qemu-user"),
        ],
        runner: "qemu-aarch64 -L /usr/aarch64-linux-gnu",
        tests: &[],
    },
    Emulated {
        name: "armv7",
        triple: "armv7-unknown-linux-gnueabihf",
        flags: "",
        linker: Some("arm-linux-gnueabihf-gcc"),
        programs: &[
            ("arm-linux-gnueabihf-gcc", "gcc-arm-linux-gnueabihf"),
            ("qemu-arm", "qemu-user"),
        ],
        runner: "qemu-arm -L /usr/arm-linux-gnueabihf",
        // It has no instructions of its own: what may differ is the size of a word.
        tests: &[
            "--features",
            "runtime,deflate",
            "--test",
            "runtime",
            "--test",
            "file",
            "--test",
            "packed",
        ],
    },
    Emulated {
        name: "wasm32",
        triple: "wasm32-wasip1",
        flags: "",
        linker: None,
        programs: &[("node", "nodejs")],
        runner: "node --no-warnings {root}/xtask/src/wasi.mjs",
        tests: &["--tests", "--features", "runtime,deflate"],
    },
    Emulated {
        name: "wasm32-simd128",
        triple: "wasm32-wasip1",
        flags: "-Ctarget-feature=+simd128",
        linker: None,
        programs: &[("node", "nodejs")],
        runner: "node --no-warnings {root}/xtask/src/wasi.mjs",
        tests: &["--tests", "--features", "runtime,deflate"],
    },
];

/// Has a `cargo test` run the tests of the kernels' crate on a target; its arguments.
pub fn emulate(
    root: &Path,
    name: Option<&str>,
    command: &mut Command,
) -> Result<Vec<&'static str>, String> {
    let Some(target) = EMULATED.iter().find(|target| Some(target.name) == name) else {
        let names = EMULATED.map(|target| target.name).join(", ");
        return Err(format!("--target: there are {names}, not {name:?}"));
    };
    for (program, package) in target.programs {
        if Command::new(program).arg("--version").output().is_err() {
            return Err(format!(
                "{program} is missing; Debian's package {package} has it"
            ));
        }
    }
    let variable = |of: &str| {
        let triple = target.triple.replace('-', "_").to_uppercase();
        format!("CARGO_TARGET_{triple}_{of}")
    };
    command.env(variable("RUSTFLAGS"), target.flags);
    if let Some(linker) = target.linker {
        command.env(variable("LINKER"), linker);
    }
    // Where a panic ends the program, the harness would keep what it says.
    command.env("RUST_TEST_NOCAPTURE", "1");
    let root = root.display().to_string();
    command.env(variable("RUNNER"), target.runner.replace("{root}", &root));
    let package = ["--package", "multibit", "--target", target.triple];
    Ok(package.iter().chain(target.tests).copied().collect())
}

/// Targets with an operating system: std is there, and random numbers come from the system.
fn has_system(target: &str) -> bool {
    matches!(
        target,
        "armv7-unknown-linux-gnueabihf" | "aarch64-linux-android" | "aarch64-apple-ios"
    )
}

/// Features of burn-alq that a target has: the browser with std and without. A target that is not known is
/// taken to have no std.
fn features(target: &str) -> &'static [&'static str] {
    match target {
        "wasm32-unknown-unknown" => &["flex", "std,flex"],
        target if has_system(target) => &["std,flex"],
        _ => &["flex"],
    }
}

/// Compiles what runs packed models for a target, without linking it.
pub fn check(root: &Path, args: &[String]) -> Result<(), String> {
    let [flag, target] = args else {
        return Err("check needs --target TRIPLE".into());
    };
    if flag != "--target" {
        return Err(format!("check: no argument {flag}; there is --target"));
    }
    let kernels = ["", "runtime"].map(|features| ("multibit", features));
    let burn = features(target)
        .iter()
        .map(|&features| ("burn-alq", features));
    for (package, features) in kernels.into_iter().chain(burn) {
        let mut command = cargo();
        command.args(["check", "--release", "--package", package]);
        command.arg("--no-default-features");
        command.args(["--features", features, "--target", target]);
        // What only training uses must not be there. Where random numbers come from without a system is a
        // program's choice, which a library must not make.
        let triple = target.replace('-', "_").to_uppercase();
        let flags = match has_system(target) {
            true => "-Dwarnings",
            false => r#"-Dwarnings --cfg getrandom_backend="custom""#,
        };
        command.env(format!("CARGO_TARGET_{triple}_RUSTFLAGS"), flags);
        step(root, &mut command)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_target_is_refused() {
        for name in [None, Some("mips")] {
            let error = emulate(Path::new("/"), name, &mut Command::new("cargo")).unwrap_err();
            assert!(error.contains("aarch64, armv7, wasm32"), "{error}");
        }
    }
}
