//! Checks of the whole tree, the cheapest first.

use std::path::{Path, PathBuf};

use crate::words::words;
use crate::{api, cargo, full, rooms, step, top, tree};

const MAX_FILE_LINES: usize = 600;

/// Folders with sources of the project.
const SOURCES: [&str; 4] = ["crates", "examples", "tests", "xtask"];

/// In the release profile, whose build scripts and macros the tests use too.
const CARGO: [(&[&str], &str); 5] = [
    (&["fmt", "--all", "--check"], ""),
    (
        &[
            "check",
            "--release",
            "--package",
            "multibit",
            "--no-default-features",
        ],
        "",
    ),
    (
        &[
            "clippy",
            "--release",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        "",
    ),
    // The kernels for GPUs need CubeCL alone; what calls them is compiled by the suite on wgpu.
    (
        &[
            "clippy",
            "--release",
            "--package",
            "multibit",
            "--features",
            "cube",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        "",
    ),
    (
        &["doc", "--release", "--workspace", "--no-deps"],
        "-D warnings",
    ),
];

/// Runs all checks; stops at the first that fails.
pub fn validate(root: &Path) -> Result<(), String> {
    println!("the top folder");
    top::check(root)?;
    println!("rooms");
    rooms::check(root)?;
    println!("file sizes and unsafe");
    let mut files = Vec::new();
    for folder in SOURCES {
        rust_files(&root.join(folder), &mut files)?;
    }
    for file in &files {
        check_file(root, file)?;
    }
    println!("packages");
    full::check_packages(root)?;
    println!("licences, sources");
    deny(root)?;
    println!("dependencies");
    tree::check_inference(root)?;
    tree::check_shared(root)?;
    for (args, rustdocflags) in CARGO {
        let mut command = cargo();
        command.args(args);
        if !rustdocflags.is_empty() {
            command.env("RUSTDOCFLAGS", rustdocflags);
        }
        step(root, &mut command)?;
    }
    println!("public items");
    api::check(root)?;
    println!("valid: {} files", files.len());
    Ok(())
}

/// What the project may depend on, by `deny.toml`.
fn deny(root: &Path) -> Result<(), String> {
    let mut command = cargo();
    command.current_dir(root);
    let there = command.args(["deny", "--version"]).output();
    if !there.is_ok_and(|output| output.status.success()) {
        return Err("cargo-deny is missing: cargo install cargo-deny --locked".into());
    }
    let mut command = cargo();
    command.current_dir(root);
    command.args(["deny", "check", "--hide-inclusion-graph"]);
    let output = command.args(["licenses", "bans", "sources"]).output();
    let output = output.map_err(|error| format!("cannot run cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let duplicates = text.matches("warning[duplicate]").count();
    println!("{duplicates} crates in several versions");
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("cargo deny failed:\n{text}"))
    }
}

/// The text of a file.
pub fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// What lies in a folder, in order.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Adds the files of Rust in a folder and below it.
pub fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    for path in entries(folder)? {
        // Fuzzing builds in a folder of its own, with generated files.
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn check_file(root: &Path, file: &Path) -> Result<(), String> {
    let text = read(file)?;
    let name = file.strip_prefix(root).unwrap_or(file);
    let lines = text.lines().count();
    if lines > MAX_FILE_LINES {
        return Err(format!(
            "{}: {lines} lines, at most {MAX_FILE_LINES}; two ideas in one file?",
            name.display()
        ));
    }
    let words = words(&text);
    let mut pairs = words.windows(2);
    let is_unsafe = pairs.find(|pair| {
        pair[0].text == "unsafe" && ["{", "fn", "impl", "extern"].contains(&pair[1].text)
    });
    if let Some(pair) = is_unsafe
        && !name.starts_with("crates/multibit")
    {
        return Err(format!(
            "{}:{}: unsafe code belongs in crates/multibit",
            name.display(),
            pair[0].line
        ));
    }
    Ok(())
}
