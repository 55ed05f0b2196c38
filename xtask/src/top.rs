//! What may lie in the repository's top folder.

use std::path::Path;

use crate::validate::{entries, read};

const ALLOWED: [&str; 8] = [
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "crates",
    "deny.toml",
    "examples",
    "tests",
    "xtask",
];

/// Whether nothing else lies there but files whose names begin with a dot, and what git ignores.
pub fn check(root: &Path) -> Result<(), String> {
    let ignored = read(&root.join(".gitignore"))?;
    let mut names = Vec::new();
    for entry in entries(root)? {
        let name = entry.file_name().unwrap_or_default();
        names.push(name.to_string_lossy().into_owned());
    }
    let strange = strange(&names, &ignored);
    if strange.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} does not belong in the top folder; there are: {}",
        strange.join(", "),
        ALLOWED.join(", ")
    ))
}

/// The names that do not belong there. Of the lines of `.gitignore` those count that name something
/// at the top: `/target`.
fn strange<'a>(names: &'a [String], ignored: &str) -> Vec<&'a str> {
    let ignored: Vec<&str> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('/'))
        .map(|name| name.trim_end_matches('/'))
        .collect();
    names
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with('.'))
        .filter(|name| !ALLOWED.contains(name) && !ignored.contains(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_named() {
        let names = ["Cargo.toml", ".ci", "a.whl", "crates", "target", "runs"];
        let names = names.map(String::from);
        assert_eq!(strange(&names, "/target\n/runs/\n"), ["a.whl"]);
        assert_eq!(strange(&names, "runs\n"), ["a.whl", "target", "runs"]);
    }
}
