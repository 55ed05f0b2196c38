//! What reports are made of.

use std::path::Path;

use serde::Serialize;

/// Of an odd number of values the one in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The processor's name.
pub fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    match name {
        Some(name) => name.trim_start_matches([' ', '\t', ':']).into(),
        None => std::env::consts::ARCH.into(),
    }
}

/// Refuses a file without a folder for it, before anything is measured.
pub fn check_folder(file: &Path) -> Result<(), String> {
    match file.parent() {
        Some(folder) if !folder.is_dir() => {
            Err(format!("--json: there is no folder {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a result as JSON, aside and then in its place.
pub fn write(result: &impl Serialize, path: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(result).map_err(|error| error.to_string())?;
    let aside = path.with_extension("tmp");
    std::fs::write(&aside, text + "\n")
        .and_then(|()| std::fs::rename(&aside, path))
        .map_err(|error| format!("{}: {error}", path.display()))
}
