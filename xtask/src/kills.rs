//! Kills trainings at random times, lets them resume, and compares what they end in.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{cargo, root, step};

const HELP: &str = "\
Usage: cargo xtask kills [--count N] [--seed N]

Trains a small network to the end, then N times (100) kills the same training with SIGKILL at a random
time, resumes it, and compares the packed file byte for byte; a third of the resumed ones are killed
once more. Half of the trainings are a loop of their own (vgg-cifar10), half run in Burn's Learner
(the example `learner` of burn-alq).
";

/// A training that can be killed.
struct Program {
    name: &'static str,
    path: PathBuf,
    /// Arguments before the folder.
    args: &'static [&'static str],
    /// What continues a run whose folder is there.
    resume: &'static [&'static str],
    /// Whether a run that goes on removes what was written in part; Burn's Learner does not.
    clears: bool,
}

impl Program {
    fn command(&self, folder: &Path, log: &Path) -> Result<Command, String> {
        let log = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.path);
        command.args(self.args).arg(folder);
        if has_begun(folder) {
            command.args(self.resume);
        }
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        Ok(command)
    }

    fn finish(&self, folder: &Path, log: &Path) -> Result<(), String> {
        let status = self.command(folder, log)?.status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                let text = fs::read_to_string(log).unwrap_or_default();
                Err(format!("{} ends with {status}: {text}", self.name))
            }
            Err(error) => Err(format!("{}: {error}", self.path.display())),
        }
    }

    /// What the training was doing when it was killed; nothing, if it came to its end before.
    fn kill_after(
        &self,
        time: Duration,
        folder: &Path,
        log: &Path,
    ) -> Result<Option<String>, String> {
        let mut child = self.command(folder, log)?.spawn();
        let child = child
            .as_mut()
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        std::thread::sleep(time);
        let failed = |error: std::io::Error| format!("{}: {error}", self.name);
        if child.try_wait().map_err(failed)?.is_some() {
            return Ok(None);
        }
        child.kill().map_err(failed)?;
        child.wait().map_err(failed)?;
        Ok(Some(last_phase(
            &fs::read_to_string(log).unwrap_or_default(),
        )))
    }
}

/// Whether there is anything to resume: a killed training may have written a file in part.
fn has_begun(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .any(|name| !is_partial(&name.to_string_lossy()))
}

/// Whether a file of this name is one that is written, then renamed.
fn is_partial(name: &str) -> bool {
    name.ends_with(".tmp")
}

const PHASES: [&str; 6] = ["float", "basis", "coordinate", "prune", "ste", "evaluation"];

fn last_phase(log: &str) -> String {
    let mut words = log.split_whitespace().rev();
    let phase = words.find(|word| PHASES.contains(word));
    phase.unwrap_or("start").to_string()
}

/// Uniform numbers, the same for the same seed (Steele et al., 2014: SplitMix64).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The packed file and the names of all files in a folder of a finished training.
fn outcome(folder: &Path) -> Result<(Vec<u8>, Vec<String>), String> {
    let file = folder.join("model.bpk");
    let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut names: Vec<String> = fs::read_dir(folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    Ok((bytes, names))
}

pub fn kills(args: &[String]) -> Result<(), String> {
    let (mut count, mut seed) = (100, 1);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let number = || {
            args.as_slice()
                .first()
                .and_then(|text| text.parse::<u64>().ok())
        };
        match (arg.as_str(), number()) {
            ("--help" | "-h", _) => {
                print!("{HELP}");
                return Ok(());
            }
            ("--count", Some(number)) => count = number,
            ("--seed", Some(number)) => seed = number,
            _ => {
                return Err(format!(
                    "kills: {arg} is no argument with a number\n\n{HELP}"
                ));
            }
        }
        args.next();
    }
    let folder = root().join("target/kills");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let programs = programs()?;
    let mut wholes = Vec::new();
    for program in &programs {
        let out = folder.join(program.name);
        let start = Instant::now();
        program.finish(&out, &out.with_extension("log"))?;
        wholes.push((outcome(&out)?, start.elapsed()));
        println!(
            "{}: {:.1} s without a kill",
            program.name,
            start.elapsed().as_secs_f64()
        );
    }
    let mut random = Random(seed);
    let mut killed: BTreeMap<(&str, String), u64> = BTreeMap::new();
    let mut done = 0;
    while done < count {
        let (program, (whole, time)) = programs
            .iter()
            .zip(&wholes)
            .nth(done as usize % 2)
            .expect("two programs");
        let out = folder.join(format!("{}-{done}", program.name));
        let log = out.with_extension("log");
        let after = time.mul_f64(random.uniform());
        let Some(phase) = program.kill_after(after, &out, &log)? else {
            // It was quicker this time; the next is killed earlier, or later.
            let _ = fs::remove_dir_all(&out);
            continue;
        };
        let mut note = format!("{:.2} s ({phase})", after.as_secs_f64());
        *killed.entry((program.name, phase)).or_default() += 1;
        if random.uniform() < 1.0 / 3.0 {
            let after = time.mul_f64(random.uniform() / 2.0);
            if let Some(phase) = program.kill_after(after, &out, &log)? {
                note += &format!(", again after {:.2} s ({phase})", after.as_secs_f64());
            }
        }
        program.finish(&out, &log)?;
        let (bytes, mut names) = outcome(&out)?;
        names.retain(|name| program.clears || !is_partial(name));
        let (expected, expected_names) = whole;
        if bytes != *expected {
            return Err(format!(
                "{}: killed after {note}: another file",
                out.display()
            ));
        }
        if names != *expected_names {
            return Err(format!(
                "{}: killed after {note}: {names:?} instead of {expected_names:?}",
                out.display()
            ));
        }
        done += 1;
        println!(
            "{done}/{count} {} killed after {note}: the same file",
            program.name
        );
        let _ = fs::remove_dir_all(&out);
        let _ = fs::remove_file(&log);
    }
    for ((program, phase), times) in &killed {
        println!("{program}: killed {times} times in {phase}");
    }
    println!("{count} of {count} ended in the same bytes");
    Ok(())
}

/// Builds both.
fn programs() -> Result<[Program; 2], String> {
    let mut command = cargo();
    command.args(["build", "--release", "--bin", "vgg-cifar10"]);
    step(&root(), command.args(["--example", "learner"]))?;
    let release = root().join("target/release");
    Ok([
        Program {
            name: "loop",
            path: release.join("vgg-cifar10"),
            args: &[
                "train",
                "--fake-data",
                "--preset",
                "quick",
                "--width",
                "0.0625",
                "--checkpoint-seconds",
                "0",
                "--out",
            ],
            resume: &["--resume"],
            clears: true,
        },
        Program {
            name: "learner",
            path: release.join("examples/learner"),
            args: &[],
            resume: &[],
            clears: false,
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_phase_is_found() {
        assert_eq!(last_phase(""), "start");
        let log = "epoch 1/9  float  lr 1\nepoch 2/9  basis 1  lr 2  loss 0.3\n";
        assert_eq!(last_phase(log), "basis");
        assert_eq!(
            last_phase(&format!("{log}evaluation on 6 images")),
            "evaluation"
        );
    }
}
