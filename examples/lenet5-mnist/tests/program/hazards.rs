//! What may happen to a training: a full disk, an interrupt, a second one in the same folder.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::lenet;

/// In a file system of `kib` that has the files of a folder in it: runs a program there, and copies
/// what is there then to another folder. Needs no rights: a name space of its own.
const ON_A_SMALL_DISK: &str = r#"
mount -t tmpfs -o size="$0"k tmpfs "$1" && cp -r "$2"/. "$1" || exit 99
disk=$1; new=$3; shift 3
"$@"
code=$?
cp -r "$disk"/. "$new"; exit $code
"#;

/// Files no larger than `kib`: writes fail there too, where there are no name spaces.
const WITH_SMALL_FILES: &str = r#"
cp -r "$2"/. "$1" || exit 99
disk=$1; new=$3; size=$0; shift 3
(trap '' XFSZ; ulimit -f $((2 * size)); exec "$@")
code=$?
cp -r "$disk"/. "$new"; rm -rf "$disk"/*; exit $code
"#;

/// What runs in a name space of its own.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount"]);
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
    let lenet = lenet();
    let often = ["--checkpoint-seconds", "0"];
    lenet.trains("whole", &often);
    let expected = lenet.read("whole/model.bpk");
    // In the middle of the training, and at its end, when all that it makes is still to be written.
    lenet.kill_in_the_middle("middle", &often);
    for name in ["model.bpk", "report.json", "report.md", "report.html"] {
        fs::remove_file(lenet.at(&format!("whole/{name}"))).unwrap();
    }

    let resume = ["--checkpoint-seconds", "0", "--resume"];
    let disk = lenet.at("disk");
    fs::create_dir(&disk).unwrap();
    let training = lenet.command(&lenet.training("train", "disk", &resume));
    let tried = unshare().arg("true").output();
    let namespaces = tried.is_ok_and(|output| output.status.success());
    let mut failed = Vec::new();
    for (name, frees) in [("middle", &[0, 4096][..]), ("whole", &[0, 8, 36, 64, 1024])] {
        let old = lenet.at(name);
        let used = kib(Path::new(&old));
        for &free in frees {
            let out = format!("{name}-{free}");
            let new = lenet.at(&out);
            fs::create_dir(&new).unwrap();
            let (mut command, script, size) = if namespaces {
                let mut command = unshare();
                command.arg("sh");
                (command, ON_A_SMALL_DISK, used + free)
            } else {
                (Command::new("sh"), WITH_SMALL_FILES, free)
            };
            command.args(["-c", script, &size.to_string(), &disk, &old, &new]);
            command
                .arg(training.get_program())
                .args(training.get_args());
            command.stdin(Stdio::null());
            let output = command.output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_ne!(output.status.code(), Some(99), "{error}");
            let model = format!("{out}/model.bpk");
            if output.status.success() {
                assert!(lenet.read(&model) == expected);
                continue;
            }
            let name = error.split(&disk).nth(1);
            let name = name.unwrap_or_else(|| panic!("no file of the run in {error:?}"));
            let name = name.trim_start_matches('/');
            let name = name.split(['\'', ':']).next().unwrap();
            assert!(!error.contains("panicked"), "{error}");
            failed.push(name.to_string());
            for file in fs::read_dir(&new).unwrap() {
                let name = file.unwrap().file_name();
                assert!(!name.to_string_lossy().ends_with(".tmp"), "{name:?}");
            }
            // With space enough, the same command goes on from what is there.
            lenet.trains(&out, &resume);
            assert!(lenet.read(&model) == expected, "after {error}");
        }
    }
    // Otherwise the test would have tested nothing.
    for file in ["checkpoint.bpk", "model.bpk", "report."] {
        let writes = failed.iter().any(|name| name.contains(file));
        assert!(writes, "{file} is not in {failed:?}");
    }
}

/// Sends a signal to a program.
fn send(signal: &str, child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([signal, &id]).status();
    assert!(sent.unwrap().success());
}

/// Whether whoever started this process has it and its children ignore a signal.
fn is_ignored(signal: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// What asks a training to end leaves a checkpoint, soon.
#[test]
fn an_interrupt_leaves_a_checkpoint() {
    let lenet = lenet();
    let signals = [("-HUP", 1), ("-INT", 2), ("-TERM", 15)];
    let (mut sent_any, first) = (false, if cfg!(target_os = "linux") { 0 } else { 1 });
    for (signal, number) in &signals[first..] {
        // As under `nohup`: programs keep to it, see below.
        if is_ignored(*number) {
            continue;
        }
        sent_any = true;
        let out = format!("out{signal}");
        // No checkpoint of its own accord.
        let flags = ["--checkpoint-seconds", "9999", "--epoch-batches", "2"];
        let flags = lenet.training("train", &out, &flags);
        let mut child = lenet.once_there_is(&out, &flags);
        send(signal, &child);
        let sent = Instant::now();
        while child.try_wait().unwrap().is_none() {
            // A promise, not a timing: a batch takes a hundredth of it here.
            assert!(sent.elapsed() < Duration::from_secs(5), "still running");
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{signal}: {error}");
        assert!(error.contains("a checkpoint is in"), "{error}");
        assert!(lenet.exists(&format!("{out}/float-checkpoint.bpk")));
    }
    assert!(sent_any, "this process ignores every signal");
    lenet.trains("out-TERM", &["--resume", "--epoch-batches", "2"]);
}

/// A training in the background goes on where a terminal's end is to be ignored, as `nohup` has it.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_is_to_be_ignored_is() {
    let lenet = lenet();
    let training = lenet.command(&lenet.training("train", "out", &["--epoch-batches", "1"]));
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" HUP INT; exec "$0" "$@""#]);
    command
        .arg(training.get_program())
        .args(training.get_args());
    let mut child = lenet.once_it_made("out", &mut command);
    send("-HUP", &child);
    send("-INT", &child);
    assert!(child.wait().unwrap().success());
    assert!(lenet.exists("out/report.json"));
}

/// Only one training writes to a folder; another one is refused, and changes nothing.
#[cfg(target_os = "linux")]
#[test]
fn two_trainings_do_not_share_a_folder() {
    let lenet = lenet();
    let training = lenet.training("train", "out", &["--epoch-batches", "4"]);
    let mut child = lenet.once_there_is("out/float-checkpoint.bpk", &training);
    let expected = "another run is writing to it";
    lenet.refuses_to_train("out", &[], expected);
    lenet.refuses_to_train("out", &["--resume"], expected);
    assert!(
        child.try_wait().unwrap().is_none(),
        "the test came too late"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    // What held it is gone with it.
    lenet.refuses_to_train("out", &[], "exists already");
}
