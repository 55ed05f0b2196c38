//! Where what a program prints goes, and where it does not.
#![cfg(unix)]

use std::fs::OpenOptions;
use std::process::{Output, Stdio};

use example_testing::Program;

use super::lenet;

/// Runs to the end while nobody reads what is printed, as behind `head`.
fn unread(program: &Program, args: &[String]) -> Output {
    let mut command = program.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    child.wait_with_output().unwrap()
}

/// A training goes on to the same model, everything else ends quietly.
#[test]
fn nobody_needs_to_read() {
    let lenet = lenet();
    let few = ["--epoch-batches", "1"];
    lenet.trains("whole", &few);
    let [whole, model, data] = ["whole", "whole/model.bpk", "data"].map(|name| lenet.at(name));
    let inspect = ["inspect", "--model", &model, "--json"];
    for args in [
        &inspect[..],
        &inspect[..3],
        &["eval", "--model", &model, "--data-dir", &data],
        &["time", "--model", &model, "--seconds", "0"],
        &["report", "--run", &whole],
    ] {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let output = unread(&lenet, &args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && error.is_empty(),
            "{args:?}: {error}"
        );
    }
    let output = unread(&lenet, &lenet.training("train", "unread", &few));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && error.is_empty(), "{error}");
    assert!(lenet.read("unread/model.bpk") == lenet.read("whole/model.bpk"));
    assert!(lenet.exists("unread/report.json"));
}

/// A log on a full disk ends no training, but the exit code says that it is not whole.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_of_the_log_ends_no_training() {
    let lenet = lenet();
    let mut command = lenet.command(&lenet.training("train", "out", &["--epoch-batches", "1"]));
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("not all of the output is written"),
        "{error}"
    );
    assert!(lenet.exists("out/model.bpk") && lenet.exists("out/report.json"));
}

/// `--json /dev/stdout` writes where the output goes, and does not replace it.
#[cfg(target_os = "linux")]
#[test]
fn the_report_may_go_to_the_output() {
    let lenet = lenet();
    let flags = ["--epoch-batches", "1", "--json", "/dev/stdout"];
    let training = lenet.training("train", "out", &flags);
    let text = lenet.succeeds(&training);
    let report = lenet.text("out/report.json");
    assert!(text.contains(&report), "{text}");

    let log = std::fs::File::create(lenet.at("log")).unwrap();
    let resumed = [&training[..], &["--resume".to_string()]].concat();
    let status = lenet.command(&resumed).stdout(log).status().unwrap();
    assert!(status.success());
    let text = lenet.text("log");
    assert!(
        text.starts_with("data: ") && text.contains(&report),
        "{text}"
    );
    assert!(
        text.lines().last().unwrap().starts_with("result: "),
        "{text}"
    );
}
