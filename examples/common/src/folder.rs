//! The folder of a run: made, checked, and cleared of what a killed run left half-written.

use std::path::Path;

use crate::job::{CHECKPOINT, FLOAT, FLOAT_CHECKPOINT};
use crate::{Failure, at};

/// Makes the output folder, or checks that there is a run to resume in it.
///
/// # Errors
/// If there is none, or a new run would write into a folder that has something in it.
pub(crate) fn prepare(out: &Path, resume: bool) -> Result<(), Failure> {
    let error = |reason: String| -> Failure { format!("--out {}: {reason}", out.display()).into() };
    let begun = [FLOAT_CHECKPOINT, FLOAT, CHECKPOINT]
        .iter()
        .any(|name| out.join(name).exists());
    if out.is_dir() {
        clear(out)?;
    }
    if resume && !begun {
        return Err(error("there is no run to resume".into()));
    }
    if !resume && out.exists() && !is_empty(out) {
        return Err(error(
            "exists already; choose another folder, or --resume the run in it".into(),
        ));
    }
    std::fs::create_dir_all(out).map_err(|source| error(format!("cannot be made: {source}")))
}

/// Removes what was being written when a run was killed. Every file of a run is written under
/// another name, which starts with its own and ends with `.tmp`, and then renamed.
///
/// # Errors
/// If such a file cannot be removed.
pub(crate) fn clear(out: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| at(out, error);
    for entry in std::fs::read_dir(out).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let of_a_run = [".bpk.", ".md.", ".html.", ".json."];
        if name.ends_with(".tmp") && of_a_run.iter().any(|kind| name.contains(kind)) {
            std::fs::remove_file(entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}
