//! The board, emulated.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Failure;

/// Where the firmware looks for its model; `memory.x` says it too.
const MODEL: usize = 0x10_0000;

/// From the model's length to its file, so that sections lie on their boundaries.
const BEFORE_FILE: usize = 64;

/// A board with a firmware in its flash.
pub struct Board {
    firmware: PathBuf,
    /// Where the debugger finds and leaves files.
    folder: PathBuf,
}

/// What a run leaves.
pub struct Found {
    /// The exit code.
    pub code: i32,
    /// What the firmware has written on the debugger's console.
    pub text: String,
    /// A record for each image: its scores, and the instructions that they took.
    pub scores: Vec<u8>,
}

impl Board {
    pub fn new(firmware: &Path) -> Result<Self, Failure> {
        let name = firmware.display();
        let firmware = firmware
            .canonicalize()
            .map_err(|error| format!("{name}: {error}"))?;
        let folder = std::env::temp_dir().join(format!("multibit-mcu-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self { firmware, folder })
    }

    /// Starts it with a model in flash and images in the debugger's file.
    pub fn run(&self, model: &[u8], images: &[u8]) -> Result<Found, Failure> {
        let mut flash = vec![0; BEFORE_FILE];
        flash[..4].copy_from_slice(&u32::try_from(model.len())?.to_le_bytes());
        flash.extend(model);
        std::fs::write(self.folder.join("flash.bin"), flash)?;
        std::fs::write(self.folder.join("images.bin"), images)?;
        let scores = self.folder.join("scores.bin");
        std::fs::write(&scores, [])?;
        let program = "qemu-system-arm";
        let output = Command::new(program)
            .current_dir(&self.folder)
            .args(["-machine", "mps2-an500", "-display", "none"])
            .args(["-serial", "none", "-monitor", "none"])
            // A nanosecond an instruction: the board's timer counts them.
            .args(["-icount", "shift=0"])
            .args(["-semihosting-config", "enable=on,target=native"])
            .args([
                "-device",
                &format!("loader,file=flash.bin,addr={MODEL:#x},force-raw=on"),
            ])
            .arg("-kernel")
            .arg(&self.firmware)
            .output()
            .map_err(|error| format!("{program}: {error}; Debian's package {program} has it"))?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        Ok(Found {
            code: code.ok_or_else(|| format!("{program} was killed: {text}"))?,
            scores: std::fs::read(scores)?,
            text,
        })
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // Files of a temporary folder: what cannot be removed does no harm.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
