//! What may happen to a training: a full disk, an interrupt.
#![cfg(unix)]

#[path = "../../common/tests/program/mod.rs"]
mod program;
mod squares;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use program::{program, succeeds};
use squares::{data_folder, train};

const PROGRAM: &str = env!("CARGO_BIN_EXE_lenet5-mnist");

/// In a file system of `kib` that has the files of `old` in it: runs a command, and copies what is
/// there then to `new`. Needs no rights: a name space of its own.
fn on_a_small_disk(kib: u64, [disk, old, new]: [&Path; 3], args: &[&str]) -> Command {
    let script = "mount -t tmpfs -o size=\"$0\"k tmpfs \"$1\" && cp -r \"$2\"/. \"$1\" || exit 99\n\
                  disk=$1; new=$3; shift 3\n\"$@\"\ncode=$?\ncp -r \"$disk\"/. \"$new\"; exit $code";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command.arg(kib.to_string()).args([disk, old, new]);
    command.arg(PROGRAM).args(args).stdin(Stdio::null());
    command
}

/// Files no larger than `kib`: writes fail there too, where there are no name spaces.
fn with_small_files(kib: u64, [disk, old, new]: [&Path; 3], args: &[&str]) -> Command {
    let script = "cp -r \"$2\"/. \"$1\" || exit 99\ndisk=$1; new=$3; size=$0; shift 3\n\
                  (trap '' XFSZ; ulimit -f $((2 * size)); exec \"$@\")\ncode=$?\n\
                  cp -r \"$disk\"/. \"$new\"; rm -rf \"$disk\"/*; exit $code";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(kib.to_string());
    command.args([disk, old, new]).arg(PROGRAM).args(args);
    command.stdin(Stdio::null());
    command
}

fn kib(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).unwrap();
    // Whole pages.
    files
        .map(|file| file.unwrap().metadata().unwrap().len().div_ceil(4096) * 4)
        .sum()
}

/// Wherever the space ends, what was there stays whole, the error names the file, and with more
/// space the training goes on to the same bytes.
#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (data, disk, whole) = (at("data"), at("disk"), folder.path().join("whole"));
    data_folder(&data);
    let (data, text) = (data.to_str().unwrap(), |path: &Path| {
        path.display().to_string()
    });
    let often = ["--checkpoint-seconds", "0"];
    succeeds(&train(data, &text(&whole), &often));
    let expected = fs::read(whole.join("model.bpk")).unwrap();

    // In the middle of the training, and at its end, when all files are written anew.
    let middle = folder.path().join("middle");
    program::kill_in_the_middle(&train(data, &text(&middle), &often), &text(&middle));

    let resume = ["--checkpoint-seconds", "0", "--resume"];
    let disk_text = text(&disk);
    let flags = train(data, &disk_text, &resume);
    let namespaces = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .output()
        .is_ok_and(|output| output.status.success());
    let mut failed = Vec::new();
    for (old, frees) in [(&middle, &[0, 4096][..]), (&whole, &[0, 8, 36, 64, 1024])] {
        let used = kib(old);
        for &free in frees {
            let new = at(&format!("{}-{free}", old.file_name().unwrap().display()));
            let folders = [&disk, old, &new].map(|folder| folder.as_path());
            let mut command = match namespaces {
                true => on_a_small_disk(used + free, folders, &flags),
                false => with_small_files(free, folders, &flags),
            };
            let output = command.output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_ne!(output.status.code(), Some(99), "{error}");
            let file = |name: &str| fs::read(new.join(name)).ok();
            if output.status.success() {
                assert!(file("model.bpk").unwrap() == expected);
                continue;
            }
            let name = error.split(&disk_text).nth(1);
            let name = name.unwrap_or_else(|| panic!("no file of the run in {error:?}"));
            let name = name
                .trim_start_matches('/')
                .split(['\'', ':'])
                .next()
                .unwrap();
            assert!(!error.contains("panicked"), "{error}");
            failed.push(name.to_string());
            let left = fs::read_dir(&new)
                .unwrap()
                .map(|file| file.unwrap().file_name());
            let left: Vec<String> = left.map(|name| name.to_string_lossy().into()).collect();
            assert!(!left.iter().any(|name| name.ends_with(".tmp")), "{left:?}");
            // With space enough, the same command goes on from what is there.
            succeeds(&train(data, &text(&new), &resume));
            assert!(file("model.bpk").unwrap() == expected, "after {error}");
        }
    }
    // Otherwise the test would have tested nothing.
    for file in ["checkpoint.bpk", "model.bpk", "report."] {
        let writes = failed.iter().any(|name| name.contains(file));
        assert!(writes, "{file} is not in {failed:?}");
    }
}

/// Ctrl-C leaves a checkpoint, soon.
#[test]
fn an_interrupt_leaves_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    data_folder(&data);
    let out = folder.path().join("out");
    let (data, text) = (data.to_str().unwrap(), out.to_str().unwrap());
    // No checkpoint of its own accord.
    let flags = train(data, text, &["--checkpoint-seconds", "9999"]);
    let mut child = program(&flags)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !out.exists() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    let sent = Instant::now();
    while child.try_wait().unwrap().is_none() {
        // A promise, not a timing: a batch takes a hundredth of it here.
        assert!(sent.elapsed() < Duration::from_secs(5), "still running");
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{error}");
    assert!(error.contains("a checkpoint is in"), "{error}");
    assert!(out.join("float-checkpoint.bpk").exists());
    succeeds(&train(data, text, &["--resume"]));
}
