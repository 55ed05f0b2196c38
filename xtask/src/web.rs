//! Builds the page of `examples/web`, and tests what was built.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::validate::entries;
use crate::{cargo, root, step};

const TARGET: &str = "wasm32-unknown-unknown";

/// The model and the digits that the page fetches, and where they come from.
const DATA: [(&str, &str); 2] = [
    ("model.bpk", "tests/golden/lenet5/model.bpk"),
    ("digits.idx", "examples/web/digits.idx"),
];

/// A program of the page.
struct Program {
    file: &'static str,
    /// Flags of rustc.
    flags: &'static str,
    /// What may be fetched before a first answer, gzipped: it and its model. A little more than there is, so
    /// that growth is seen.
    most: usize,
}

/// In SIMD128 where the browser has it, else in scalars.
const PROGRAMS: [Program; 2] = [
    Program {
        file: "multibit.wasm",
        flags: "",
        most: 69_000,
    },
    Program {
        file: "multibit-simd128.wasm",
        flags: "-Ctarget-feature=+simd128",
        most: 69_000,
    },
];

/// `cargo xtask web [--out DIR] [--test]`, `cargo xtask web --flex [--test]`.
pub fn web(args: &[String]) -> Result<(), String> {
    let (mut out, mut flex, mut test) = (target().join("web-page"), false, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--out" => out = args.next().ok_or("--out needs a folder")?.into(),
            "--flex" => flex = true,
            "--test" => test = true,
            other => {
                let known = "--out, --flex, --test";
                return Err(format!("web: no argument {other}; there are {known}"));
            }
        }
    }
    if flex {
        return with_burn(test);
    }
    let failed = |error: std::io::Error| format!("{}: {error}", out.display());
    fs::create_dir_all(&out).map_err(failed)?;
    let out = fs::canonicalize(&out).map_err(failed)?;
    for program in &PROGRAMS {
        let built = build("web", program.flags)?;
        copy(&built, &out.join(program.file))?;
    }
    for file in entries(&root().join("examples/web/page"))? {
        copy(&file, &out.join(file.file_name().unwrap_or_default()))?;
    }
    for (name, source) in DATA {
        copy(&root().join(source), &out.join(name))?;
    }
    weigh(&out)?;
    if test {
        let mut command = cargo();
        command.args(["test", "--package", "web", "--test", "page"]);
        command.env("BURN_ALQ_WEB", &out);
        step(&root(), command.args(["--", "--ignored", "--nocapture"]))?;
    }
    Ok(())
}

/// Where cargo puts what it builds.
fn target() -> PathBuf {
    let variable = std::env::var_os("CARGO_TARGET_DIR");
    variable.map_or_else(|| root().join("target"), PathBuf::from)
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = fs::copy(from, to);
    copied.map_err(|error| format!("{}: {error}", from.display()))?;
    Ok(())
}

/// What a program with Burn may weigh, gzipped.
const MOST_WITH_BURN: usize = 600_000;

/// Builds and weighs the program of `examples/web-flex`, and tests it.
fn with_burn(test: bool) -> Result<(), String> {
    let built = build("web-flex", "")?;
    let bytes = fs::read(&built).map_err(|error| format!("{}: {error}", built.display()))?;
    let gzipped = gzipped(&bytes);
    println!("web-flex: {} bytes, {gzipped} gzipped", bytes.len());
    if gzipped > MOST_WITH_BURN {
        return Err(format!("web-flex: at most {MOST_WITH_BURN} bytes gzipped"));
    }
    if test {
        let mut command = cargo();
        // With the features of the whole workspace, whose Burn is compiled already.
        command.args(["test", "--release", "--test", "flex"]);
        command.env("BURN_ALQ_WEB", &built);
        step(&root(), command.args(["--", "--ignored", "--nocapture"]))?;
    }
    Ok(())
}

/// Compiles a package for a page, with flags of rustc; its program.
fn build(package: &str, flags: &str) -> Result<PathBuf, String> {
    let mut command = cargo();
    command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags);
    command.args(["build", "--profile", "web", "--package", package]);
    step(&root(), command.args(["--target", TARGET]))?;
    let name = package.replace('-', "_");
    Ok(target().join(TARGET).join(format!("web/{name}.wasm")))
}

/// Prints bytes of each file, and refuses more than there may be.
fn weigh(out: &Path) -> Result<(), String> {
    let mut fetched = BTreeMap::new();
    println!("{:<24} {:>8} {:>8}", out.display(), "bytes", "gzipped");
    for file in entries(out)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let gzipped = gzipped(&bytes);
        println!("{name:<24} {:>8} {gzipped:>8}", bytes.len());
        fetched.insert(name.into_owned(), gzipped);
    }
    for Program { file, most, .. } in &PROGRAMS {
        let found = fetched[*file] + fetched["model.bpk"];
        if found > *most {
            return Err(format!(
                "{file} and model.bpk: {found} bytes gzipped, at most {most}"
            ));
        }
    }
    Ok(())
}

/// Bytes of a gzip file of some bytes: head, stream, tail.
fn gzipped(bytes: &[u8]) -> usize {
    10 + miniz_oxide::deflate::compress_to_vec(bytes, 9).len() + 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_arguments_are_refused() {
        for (args, expected) in [(&["--out"][..], "--out needs"), (&["--tests"], "--tests")] {
            let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
            assert!(web(&args).unwrap_err().contains(expected));
        }
    }

    #[test]
    fn repetition_weighs_little() {
        assert!(gzipped(&[7; 100_000]) < 300);
        assert!(gzipped(&[]) > 18);
    }
}
