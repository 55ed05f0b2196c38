//! The folder of a training.

use std::fmt::Display;
use std::path::Path;

use example_common::{Failure, at, write_aside};

/// What a training was begun with.
const SETTINGS: &str = "settings.txt";

/// Begins a training in a folder, or goes on with the one that is there; `settings` are what must be the
/// same then, a line each.
///
/// # Errors
/// If the folder holds a training and `resume` does not ask for it, it is one with other settings, or
/// the folder cannot be written.
pub fn open_folder(path: &Path, settings: &str, resume: bool) -> Result<(), Failure> {
    let refused = |reason: &dyn Display| -> Failure {
        format!("--checkpoint {}: {reason}", path.display()).into()
    };
    let file = path.join(SETTINGS);
    match std::fs::read_to_string(&file) {
        Ok(_) if !resume => {
            let reason = "holds a training; go on with it by --resume, or choose another folder";
            Err(refused(&reason))
        }
        Ok(found) if found != settings => {
            let pairs = found.lines().zip(settings.lines());
            let differ = pairs.into_iter().find(|(found, asked)| found != asked);
            let (found, asked) = differ.unwrap_or((&found, settings));
            Err(refused(&format!(
                "holds a training with {found}, not with {asked}"
            )))
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(path).map_err(|error| refused(&error))?;
            write_aside(&file, settings.as_bytes())
        }
        Err(error) => Err(at(&file, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_training_goes_on_with_its_own_settings_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run");
        let open = |settings: &str, resume| open_folder(&path, settings, resume);
        open("seed 1\nsteps 20\n", true).unwrap();
        open("seed 1\nsteps 20\n", true).unwrap();
        let error = open("seed 1\nsteps 20\n", false).unwrap_err().to_string();
        assert!(error.contains("run: holds a training; go on"), "{error}");
        let error = open("seed 1\nsteps 30\n", true).unwrap_err().to_string();
        assert!(
            error.contains("with steps 20, not with steps 30"),
            "{error}"
        );
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = open_folder(&folder.path().join("file"), "", true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("file"), "{error}");
    }
}
