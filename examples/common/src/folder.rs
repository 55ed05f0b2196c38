//! The folder that a command writes to: made, checked, held, and cleared of what a killed run left
//! half-written.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::job::{CHECKPOINT, FLOAT, FLOAT_CHECKPOINT};
use crate::{Failure, at};

/// A folder that no other process of this kind writes to as long as this is there.
#[derive(Debug)]
pub(crate) struct Folder {
    /// What was made for it, the outermost first.
    made: Vec<PathBuf>,
    /// Held where the system can lock a folder.
    _lock: Option<File>,
}

impl Folder {
    /// Makes the output folder of a run, or checks that there is a run to resume in it.
    ///
    /// # Errors
    /// If there is none, a new run would write into a folder that has something in it, another process
    /// writes there, or nobody can.
    pub fn of_run(out: &Path, resume: bool) -> Result<Self, Failure> {
        let begun = [FLOAT_CHECKPOINT, FLOAT, CHECKPOINT]
            .iter()
            .any(|name| out.join(name).exists());
        if resume && !begun {
            return Err(refused(out, "there is no run to resume"));
        }
        let error = "exists already; choose another folder, or --resume the run in it";
        Self::open(out, resume, error)
    }

    /// Makes the output folder of a command that does its work at once.
    ///
    /// # Errors
    /// If it has something in it, another process writes there, or nobody can.
    pub fn empty(out: &Path) -> Result<Self, Failure> {
        Self::open(out, false, "exists already; choose another folder")
    }

    fn open(out: &Path, may_be_full: bool, is_full: &str) -> Result<Self, Failure> {
        if out.exists() && !out.is_dir() {
            return Err(refused(out, "exists already, and is not a folder"));
        }
        let missing = out.ancestors().filter(|path| !path.as_os_str().is_empty());
        let mut made: Vec<PathBuf> = missing
            .take_while(|path| !path.exists())
            .map(Path::to_path_buf)
            .collect();
        made.reverse();
        let mut folder = Self { made, _lock: None };
        std::fs::create_dir_all(out)
            .map_err(|error| refused(out, format!("cannot be made: {error}")))?;
        folder._lock = lock(out)?;
        clear(out)?;
        if !may_be_full && !is_empty(out) {
            return Err(refused(out, is_full));
        }
        writable(&out.join("writable.json"))
            .map_err(|error| refused(out, format!("cannot be written: {error}")))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    /// Takes what was made for nothing away. Folders with something in them cannot be removed so.
    fn drop(&mut self) {
        for folder in self.made.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn refused(out: &Path, reason: impl std::fmt::Display) -> Failure {
    format!("--out {}: {reason}", out.display()).into()
}

/// Takes hold of a folder; nothing where the system or the disk has no locks.
fn lock(out: &Path) -> Result<Option<File>, Failure> {
    let Ok(folder) = File::open(out) else {
        return Ok(None);
    };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(refused(
            out,
            "another run is writing to it; wait for its end",
        )),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Whether a file can be written whole or not at all, in its folder. Nothing of it stays.
///
/// # Errors
/// If it cannot.
pub fn writable(file: &Path) -> std::io::Result<()> {
    let aside = aside(file);
    std::fs::write(&aside, b"")?;
    std::fs::remove_file(aside)
}

/// What a file is called as long as it is being written.
pub(crate) fn aside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    file.with_file_name(name)
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
