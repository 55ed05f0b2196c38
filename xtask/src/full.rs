//! The slow checks: every feature alone, the oldest compiler, the packages, ONNX, the advisories.

use std::path::Path;
use std::process::Command;

use crate::validate::read;
use crate::{cargo, onnx, step};

const CRATES: [&str; 3] = ["multibit", "multibit-cli", "burn-alq"];

/// Features whose dependencies download LLVM when they are built, unless they are told that it is for
/// documentation only. A check needs none of it.
const WITHOUT_LLVM: [&str; 3] = ["cuda", "rocm", "cpu"];

/// Parts of other features, without which Burn does not compile with them.
const PARTS: [(&str, &str); 1] = [("burn-alq", "cube")];

/// Runs all of them; stops at the first that fails.
pub fn validate(root: &Path) -> Result<(), String> {
    for name in CRATES {
        let manifest = read(&root.join("crates").join(name).join("Cargo.toml"))?;
        let mut features = features(&manifest);
        features.retain(|feature| !PARTS.contains(&(name, feature)));
        for feature in std::iter::once("").chain(features) {
            let mut command = cargo();
            command.args(["check", "--package", name, "--no-default-features"]);
            if !feature.is_empty() {
                command.args(["--features", feature]);
            }
            if WITHOUT_LLVM.contains(&feature) {
                command.env("DOCS_RS", "1");
            }
            step(root, &mut command)?;
        }
    }
    oldest_compiler(root)?;
    let mut command = cargo();
    command.arg("package");
    for name in CRATES {
        command.args(["--package", name]);
    }
    step(root, &mut command)?;
    onnx(root)?;
    let mut command = cargo();
    if step(root, command.args(["deny", "fetch", "db"])).is_err() {
        println!("advisories: not checked, there is no database at hand");
        return Ok(());
    }
    let mut command = cargo();
    step(root, command.args(["deny", "check", "advisories"]))
}

/// The files that each package would have.
pub fn check_packages(root: &Path) -> Result<(), String> {
    for name in CRATES {
        let mut command = cargo();
        command.current_dir(root);
        command.args(["package", "--list", "--allow-dirty", "--package", name]);
        let output = command
            .output()
            .map_err(|error| format!("cargo: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let files = String::from_utf8_lossy(&output.stdout).into_owned();
        check_package(name, &files)?;
    }
    Ok(())
}

fn check_package(name: &str, files: &str) -> Result<(), String> {
    let files: Vec<&str> = files.lines().collect();
    for needed in [
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "CHANGELOG.md",
        "SECURITY.md",
    ] {
        if !files.contains(&needed) {
            return Err(format!("the package of {name} lacks {needed}"));
        }
    }
    let kinds = [
        ".rs", ".md", ".toml", ".orig", ".lock", ".json", ".bpk", "APACHE", "MIT",
    ];
    let strange =
        |file: &&&str| file.starts_with("fuzz/") || !kinds.iter().any(|kind| file.ends_with(kind));
    match files.iter().find(strange) {
        Some(file) => Err(format!(
            "the package of {name} has {file}; exclude it in its manifest"
        )),
        None => Ok(()),
    }
}

/// The compiler that the manifest names compiles the project.
fn oldest_compiler(root: &Path) -> Result<(), String> {
    let manifest = read(&root.join("Cargo.toml"))?;
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .ok_or("Cargo.toml has no rust-version")?
        .trim_matches('"')
        .to_string();
    let toolchain = format!("{version}.0");
    let mut command = Command::new("rustup");
    command.args(["run", &toolchain, "cargo", "check"]);
    command.args(["--package", "burn-alq", "--features", "flex,learner"]);
    step(root, &mut command)
        .map_err(|error| format!("{error}; is it there? rustup toolchain install {toolchain}"))
}

/// The names in a manifest's table of features.
fn features(manifest: &str) -> Vec<&str> {
    let lines = manifest.lines().skip_while(|line| *line != "[features]");
    let lines = lines.skip(1).take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once(" = "));
    let names = names.map(|(name, _)| name.trim());
    names
        .filter(|name| !name.starts_with('#') && *name != "default")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_found() {
        let manifest = "[package]\nname = \"x\"\n\n[features]\n# none\ndefault = []\n\
                        a = [\"b\"]\n# why\nb = []\n\n[dependencies]\nc = \"1\"\n";
        assert_eq!(features(manifest), ["a", "b"]);
    }

    #[test]
    fn a_package_has_what_is_needed_and_nothing_else() {
        let good = "Cargo.toml\nLICENSE-APACHE\nLICENSE-MIT\nCHANGELOG.md\nSECURITY.md\nsrc/lib.rs";
        assert_eq!(check_package("x", good), Ok(()));
        assert!(
            check_package("x", "src/lib.rs")
                .unwrap_err()
                .contains("LICENSE")
        );
        for bad in ["fuzz/targets/a.rs", "data.bin"] {
            let error = check_package("x", &format!("{good}\n{bad}")).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
    }
}
