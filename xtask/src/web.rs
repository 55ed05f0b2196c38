//! Builds the page of `examples/web`, and tests what was built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::validate::entries;
use crate::{cargo, root, step};

const TARGET: &str = "wasm32-unknown-unknown";

/// The model and the digits that the page fetches, and where they come from.
const DATA: [(&str, &str); 2] = [
    ("model.bpk", "tests/golden/lenet5/model.bpk"),
    ("digits.idx", "examples/web/digits.idx"),
];

/// What rustc takes WebAssembly to have, and all browsers of 2022 and later do.
const FEATURES: [&str; 6] = [
    "bulk-memory",
    "multivalue",
    "mutable-globals",
    "nontrapping-float-to-int",
    "reference-types",
    "sign-ext",
];

/// What may be fetched before a first answer, gzipped: the program, and it with its model. A little
/// more than there is without `wasm-opt`, so that growth is seen.
const MOST: [usize; 2] = [79_000, 87_000];

/// `cargo xtask web [--out DIR] [--test]`.
pub fn web(args: &[String]) -> Result<(), String> {
    let (mut out, mut test) = (target().join("web-page"), false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--out" => out = args.next().ok_or("--out needs a folder")?.into(),
            "--test" => test = true,
            other => return Err(format!("web: no argument {other}; there are --out, --test")),
        }
    }
    let failed = |error: std::io::Error| format!("{}: {error}", out.display());
    fs::create_dir_all(&out).map_err(failed)?;
    let out = fs::canonicalize(&out).map_err(failed)?;
    build(&out)?;
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

/// The program, what the page shows it with, and its data, in one folder.
fn build(out: &Path) -> Result<(), String> {
    let mut command = cargo();
    command.args(["build", "--profile", "web", "--package", "web"]);
    step(&root(), command.args(["--target", TARGET]))?;
    let built = target().join(TARGET).join("web/web.wasm");
    let program = out.join("multibit.wasm");
    // Binaryen's, if it is there, makes it a little smaller.
    let optimized = Command::new("wasm-opt").arg("--version").output().is_ok();
    if optimized {
        let mut command = Command::new("wasm-opt");
        let features = FEATURES.map(|name| format!("--enable-{name}"));
        command.arg("-Oz").args(features).arg(&built);
        step(&root(), command.arg("-o").arg(&program))?;
    } else {
        copy(&built, &program)?;
    }
    for file in entries(&root().join("examples/web/page"))? {
        copy(&file, &out.join(file.file_name().unwrap_or_default()))?;
    }
    for (name, source) in DATA {
        copy(&root().join(source), &out.join(name))?;
    }
    Ok(())
}

/// Prints bytes of each file, and refuses more than there may be.
fn weigh(out: &Path) -> Result<(), String> {
    let mut fetched = [0; 2];
    println!("{:<16} {:>8} {:>8}", out.display(), "bytes", "gzipped");
    for file in entries(out)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let gzipped = gzipped(&bytes);
        println!("{name:<16} {:>8} {gzipped:>8}", bytes.len());
        match &*name {
            "multibit.wasm" => fetched = fetched.map(|bytes| bytes + gzipped),
            "model.bpk" => fetched[1] += gzipped,
            _ => {}
        }
    }
    for (found, most) in fetched.into_iter().zip(MOST) {
        if found > most {
            return Err(format!("{found} bytes gzipped, at most {most}"));
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
