//! Where a run comes from: command, versions, machine.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one needs to make a result again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Origin {
    pub command: String,
    /// The versions of the packages that compute.
    pub versions: BTreeMap<String, String>,
    pub seed: u64,
    pub data: String,
    pub machine: String,
}

impl Origin {
    /// The origin of what this process makes.
    pub fn new(seed: u64, data: &str) -> Self {
        Self {
            command: command(),
            versions: versions(),
            seed,
            data: data.into(),
            machine: machine(),
        }
    }
}

/// The command line, as a shell takes it, without the program's folder.
fn command() -> String {
    let mut args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let name = program.rsplit(std::path::is_separator).next();
    let words = std::iter::once(name.unwrap_or_default().to_string()).chain(args);
    let words: Vec<String> = words.map(|word| quoted(&word).into_owned()).collect();
    words.join(" ")
}

/// A word of a shell's command line.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''")).into()
}

/// Versions of what computes, as the workspace's lock file has them.
fn versions() -> BTreeMap<String, String> {
    const LOCK: &str = include_str!("../../../Cargo.lock");
    const PACKAGES: [&str; 4] = ["burn-alq", "multibit", "burn", "burn-flex"];
    let version = |package: &str| {
        let head = format!("name = \"{package}\"\nversion = \"");
        let (_, rest) = LOCK.split_once(&head)?;
        Some(rest.split_once('"')?.0.to_string())
    };
    let versions = PACKAGES.map(|package| Some((package.to_string(), version(package)?)));
    versions.into_iter().flatten().collect()
}

/// The processor and the threads that a run can use.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or(std::env::consts::ARCH, |name| {
        name.trim_start_matches([' ', '\t', ':'])
    });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {threads} threads")
}

/// The most memory that the process has had, where the system tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_cut_them() {
        assert_eq!(quoted("--out"), "--out");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
    }

    #[test]
    fn versions_are_found() {
        let versions = versions();
        assert_eq!(versions.len(), 4);
        assert_eq!(versions["burn-alq"], env!("CARGO_PKG_VERSION"));
    }
}
