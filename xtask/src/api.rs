//! The public items of both crates, in files that a review sees change.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo;

/// Crates, and the features that docs.rs builds them with beside the default.
const CRATES: [(&str, &str); 2] = [
    ("multibit", "std,rayon,serde,runtime,deflate"),
    ("burn-alq", "learner,flex,store"),
];

/// Set where this program stands in for rustdoc.
const AS_RUSTDOC: &str = "XTASK_AS_RUSTDOC";

/// Whether cargo has called this program as rustdoc; then it becomes rustdoc.
///
/// JSON is unstable in rustdoc. What allows it must not reach the build scripts of dependencies: they
/// would find another compiler, and all would be compiled anew.
pub fn as_rustdoc(args: &[String]) -> Option<Result<(), String>> {
    let rustdoc = std::env::var_os(AS_RUSTDOC)?;
    let mut command = Command::new(rustdoc);
    command.args(args).env("RUSTC_BOOTSTRAP", "1");
    Some(match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("rustdoc: {status}")),
        Err(error) => Err(format!("cannot run rustdoc: {error}")),
    })
}

/// Writes the files anew.
pub fn write(root: &Path) -> Result<(), String> {
    for (name, features) in CRATES {
        let file = listing(root, name);
        let items = items(root, name, features)?;
        std::fs::write(&file, items).map_err(|error| format!("{}: {error}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}

/// Whether the files are those of the code.
pub fn check(root: &Path) -> Result<(), String> {
    for (name, features) in CRATES {
        let file = listing(root, name);
        let listed = std::fs::read_to_string(&file)
            .map_err(|error| format!("{}: {error}; cargo xtask api makes it", file.display()))?;
        let items = items(root, name, features)?;
        let difference = difference(&listed, &items);
        if !difference.is_empty() {
            return Err(format!(
                "the public API of {name} has changed; if it should, cargo xtask api lists it anew:\n{}",
                difference.join("\n")
            ));
        }
    }
    Ok(())
}

fn listing(root: &Path, name: &str) -> PathBuf {
    root.join("crates").join(name).join("PUBLIC_API.txt")
}

/// Lines of only one of two sorted texts.
fn difference(before: &str, after: &str) -> Vec<String> {
    let only = |a: &str, b: &str, sign: char| -> Vec<String> {
        let there: std::collections::HashSet<&str> = b.lines().collect();
        let lines = a.lines().filter(|line| !there.contains(line));
        lines.map(|line| format!("{sign} {line}")).collect()
    };
    let mut lines = only(before, after, '-');
    lines.extend(only(after, before, '+'));
    lines
}

fn items(root: &Path, name: &str, features: &str) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let target = root.join("target");
    let mut command = cargo();
    command
        .current_dir(root)
        .args(["rustdoc", "--quiet", "--release", "--lib"]);
    command.args(["--package", name, "--features", features]);
    command.arg("--target-dir").arg(&target);
    command.args(["--", "-Z", "unstable-options", "--output-format", "json"]);
    let rustdoc = std::env::var_os("RUSTDOC").unwrap_or_else(|| "rustdoc".into());
    command.env(AS_RUSTDOC, rustdoc).env("RUSTDOC", program);
    let status = command
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err(format!("rustdoc of {name} failed"));
    }
    let json = target
        .join("doc")
        .join(name.replace('-', "_"))
        .with_extension("json");
    let api = public_api::Builder::from_rustdoc_json(&json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .map_err(|error| format!("{}: {error}", json.display()))?;
    Ok(api.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_shown() {
        assert!(difference("a\nb\n", "a\nb\n").is_empty());
        assert_eq!(difference("a\nb\n", "b\nc\n"), ["- a", "+ c"]);
    }
}
