//! What the crates depend on, by `cargo tree`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::cargo;

/// Packages that train: a program that only runs packed models has none of them.
const TRAINS: [&str; 3] = ["burn-autodiff", "burn-optim", "burn-train"];

/// Whether the half of `burn-alq` that runs packed models is without what trains.
pub fn check_inference(root: &Path) -> Result<(), String> {
    let mut args = vec!["--package", "burn-alq", "--no-default-features"];
    args.extend(["--features", "std,flex", "--edges", "normal"]);
    let tree = tree(root, &args)?;
    let packages = packages(&tree);
    let found: Vec<&str> = TRAINS
        .into_iter()
        .filter(|name| packages.contains_key(*name))
        .collect();
    if found.is_empty() {
        return Ok(());
    }
    let found = found.join(", ");
    Err(format!("burn-alq without `train` depends on {found}"))
}

/// Whether the examples and the tests are compiled with the same dependencies.
///
/// Cargo adds up the features that the workspace asks of a package, those of `dev-dependencies` only
/// for tests. One more there, and Burn is compiled a second time for the tests.
pub fn check_shared(root: &Path) -> Result<(), String> {
    let programs = tree(root, &["--edges", "normal,build"])?;
    let tests = tree(root, &["--edges", "normal,build,dev"])?;
    let apart = apart(&packages(&programs), &packages(&tests));
    if apart.is_empty() {
        return Ok(());
    }
    Err(format!(
        "tests ask for more features than examples, so that both compile: {}; \
         ask for them in tests/Cargo.toml too",
        apart.join(", ")
    ))
}

/// The lines of `cargo tree`: a package, its version and its features.
fn tree(root: &Path, args: &[&str]) -> Result<String, String> {
    let mut command = cargo();
    command.current_dir(root).args(["tree", "--prefix", "none"]);
    let output = command.args(["--format", "{p}|{f}"]).args(args).output();
    let output = output.map_err(|error| format!("cannot run cargo: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(format!("cargo tree {} failed: {errors}", args.join(" ")))
    }
}

/// What each package is compiled as, in how many ways it may be.
fn packages(tree: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut packages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in tree.lines() {
        // Said of a package whose dependencies were listed before.
        let line = line.trim_end_matches(" (*)");
        let name = line.split(' ').next().unwrap_or_default();
        if !name.is_empty() {
            packages.entry(name).or_default().insert(line);
        }
    }
    packages
}

/// The packages that are compiled in some way for programs and not so for tests.
fn apart<'a>(
    programs: &BTreeMap<&'a str, BTreeSet<&str>>,
    tests: &BTreeMap<&str, BTreeSet<&str>>,
) -> Vec<&'a str> {
    let same = |name: &str, ways: &BTreeSet<&str>| {
        tests.get(name).is_some_and(|tested| ways.is_subset(tested))
    };
    programs
        .iter()
        .filter(|(name, ways)| !same(name, ways))
        .map(|(name, _)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_listed_with_the_features_they_have() {
        let found = packages("a v1|\nb v1.0.0 (proc-macro)|x,y\n\nb v1.0.0 (proc-macro)|x,y (*)\n");
        assert_eq!(found.len(), 2);
        assert_eq!(found["b"], BTreeSet::from(["b v1.0.0 (proc-macro)|x,y"]));
    }

    #[test]
    fn a_feature_more_for_tests_is_found() {
        let programs = packages("a v1|std\nb v1|\n");
        let tests = packages("a v1|default,std\nb v1|\nb v2|\nc v1|\n");
        assert_eq!(apart(&programs, &tests), ["a"]);
        assert_eq!(apart(&programs, &programs), [""; 0]);
    }
}
