//! Running an example as a user does. Tests of an example take this file in by its path, and name
//! their program in a constant `PROGRAM` beside it.
// Every test binary uses its own part of this module.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::PROGRAM;

pub fn program(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).stdin(Stdio::null());
    command
}

pub fn run(args: &[&str]) -> Output {
    program(args).output().expect("the program starts")
}

/// The program does its work; what it prints.
pub fn succeeds(args: &[&str]) -> String {
    let output = run(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The program fails, and says `expected`.
pub fn refuses(args: &[&str], expected: &str) {
    let output = run(args);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{args:?} succeeds");
    assert!(
        error.contains(expected),
        "{args:?} says {error:?}, not {expected:?}"
    );
    assert!(!error.contains("panicked"), "{args:?} panics: {error}");
}

/// Kills the program as soon as its run in `out` has a checkpoint of the quantization, so
/// somewhere in the middle.
pub fn kill_in_the_middle(args: &[&str], out: &str) {
    kill_once_there_is(args, &Path::new(out).join("checkpoint.bpk"));
}

/// Kills the program as soon as it has made a file.
pub fn kill_once_there_is(args: &[&str], file: &Path) {
    let mut child = program(args).stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !file.exists() && start.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A number of the line of results, the last one.
pub fn result(text: &str, key: &str) -> f64 {
    let result = text.lines().last().unwrap();
    let mut fields = result.split(' ');
    let value = fields.find_map(|field| field.strip_prefix(key));
    value.unwrap().parse().unwrap()
}
