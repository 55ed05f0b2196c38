//! What a resumed run shares with the one that it continues, and what it leaves alone.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use example_testing::{Program, holds};

use super::lenet;
use super::page::{json, report};

/// The files of a folder, with their bytes and the times that they were written.
fn files(folder: &str) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| {
            let file = entry.unwrap().path();
            let written = fs::metadata(&file).unwrap().modified().unwrap();
            (file.clone(), fs::read(file).unwrap_or_default(), written)
        })
        .collect();
    files.sort();
    files
}

/// A run that is finished stays as it is: its report with its time, and everything else.
#[test]
fn a_finished_run_stays_as_it_is() {
    let lenet = lenet();
    let flags = ["--epoch-batches", "1"];
    let printed = lenet.trains("out", &flags);
    let before = files(&lenet.at("out"));
    let copy = lenet.at("copy.json");
    let again = ["--epoch-batches", "1", "--resume", "--json", &copy];
    let text = lenet.trains("out", &again);
    assert_eq!(files(&lenet.at("out")), before);
    holds(&text, "finished before");
    assert_eq!(text.lines().last(), printed.lines().last());
    assert_eq!(lenet.read("copy.json"), lenet.read("out/report.json"));

    // Without its model it is not finished.
    let model = lenet.read("out/model.bpk");
    fs::remove_file(lenet.at("out/model.bpk")).unwrap();
    lenet.trains("out", &again);
    assert!(lenet.read("out/model.bpk") == model);

    let flags = ["--epoch-batches", "1", "--bits", "0.6,0.4"];
    let sweep = |more: &[&str]| lenet.training("sweep", "swept", &[&flags[..], more].concat());
    lenet.succeeds(&sweep(&[]));
    let points = json(&lenet, "swept/sweep.json")["points"].take();
    let [first, second] = ["swept/0.6-bits", "swept/0.4-bits"].map(|name| lenet.at(name));
    let before = [files(&first), files(&second)];
    lenet.succeeds(&sweep(&["--resume"]));
    assert_eq!([files(&first), files(&second)], before);
    assert_eq!(json(&lenet, "swept/sweep.json")["points"], points);
}

/// The time of a run that was killed is that of all its processes.
#[test]
fn time_before_a_stop_counts() {
    let lenet = lenet();
    let often = ["--checkpoint-seconds", "0"];
    lenet.kill_in_the_middle("out", &often);
    lenet.trains("out", &["--resume"]);
    let report = report(&lenet, "out");
    let timings = report["timings"].as_object().unwrap().values();
    let kinds = ["forward_backward", "optimizer", "evaluation"];
    let steps = timings.flat_map(|timing| kinds.map(|kind| timing[kind].as_f64().unwrap()));
    let (all, steps) = (report["seconds"].as_f64().unwrap(), steps.sum::<f64>());
    assert!(all > steps, "{all} in all, {steps} in steps");
}

/// The lines of an error between its first and its last.
fn differences(program: &Program, command: &str, flags: &[&str]) -> Vec<String> {
    let training = program.training(command, "out", flags);
    let output = program.command(&training).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let lines: Vec<&str> = error.lines().collect();
    let [first, inner @ .., last] = &lines[..] else {
        panic!("{error}");
    };
    let out = program.at("out");
    let start = format!("error: {out}");
    assert!(first.starts_with(&start), "{error}");
    assert!(
        first.ends_with("belongs to another run; what differs, there → here:"),
        "{error}"
    );
    assert_eq!(
        *last,
        "give what that run was given, or choose another --out"
    );
    inner.iter().map(|line| line.trim().to_string()).collect()
}

/// A resume with other flags is refused; the error lists them with their values, and nothing else.
#[test]
fn other_flags_are_listed_with_their_values() {
    // Without flags of its own.
    let lenet = Program::new(env!("CARGO_BIN_EXE_lenet5-mnist"));
    let data = lenet.at("data");
    example_testing::mnist::folder(&data);
    let flags = [
        ["--preset", "quick"],
        ["--epoch-batches", "1"],
        ["--data-dir", &data],
    ];
    lenet.trains("out", &flags.concat());
    let before = files(&lenet.at("out"));
    let other = |more: &[&str]| {
        let kept = flags.iter().filter(|[flag, _]| !more.contains(flag));
        let kept = kept.flatten().copied();
        let flags: Vec<&str> = kept
            .chain(more.iter().copied())
            .chain(["--resume"])
            .collect();
        differences(&lenet, "train", &flags)
    };
    assert_eq!(other(&["--seed", "2"]), ["--seed: 1 → 2"]);
    assert_eq!(
        other(&[
            "--batch-size",
            "60",
            "--epoch-batches",
            "2",
            "--shards",
            "1"
        ]),
        [
            "--batch-size: 128 → 60",
            "--epoch-batches: 1 → 2",
            "--shards: 2 → 1"
        ]
    );
    assert_eq!(
        other(&["--act-bits", "2"]),
        ["--act-bits: none → 2", "--shards: 2 → 1"]
    );
    // Levers and the target are not those of the float network, whose checkpoint is read first.
    assert_eq!(
        other(&["--target-bits", "0.4", "--deflate", "--distill", "0.5"]),
        [
            "--deflate: none → yes",
            "--distill: none → 0.5",
            "--target-bits: 0.5 → 0.4"
        ]
    );
    assert_eq!(
        other(&["--target-bytes", "30000", "--prune-pace", "cubic"]),
        [
            "--prune-pace: constant → cubic",
            "--target-bits: 0.5 → none",
            "--target-bytes: none → 30000"
        ]
    );
    assert_eq!(
        other(&["--preset", "short"]),
        ["--preset: quick → short", "--target-bits: 0.5 → 0.365"]
    );
    let float = lenet.at("out/float.bpk");
    let found = other(&["--float", &float]);
    assert!(
        found[0].starts_with("--float: none → a file with checksum "),
        "{found:?}"
    );
    // Another image, of the same size.
    let labels = lenet.at("data/t10k-labels-idx1-ubyte");
    let mut bytes = fs::read(&labels).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(labels, bytes).unwrap();
    let found = other(&[]);
    assert!(
        found.len() == 1 && found[0].starts_with("data: data ("),
        "{found:?}"
    );
    assert_eq!(
        files(&lenet.at("out")),
        before,
        "nothing of the run changed"
    );
}

#[test]
fn other_flags_of_a_sweep_are_listed_too() {
    let lenet = lenet();
    let sweep = |bits: &str, rounds: &str, more: &[&str]| {
        let flags = [
            "--epoch-batches",
            "1",
            "--bits",
            bits,
            "--next-rounds",
            rounds,
        ];
        [
            &flags.map(String::from)[..],
            &more.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ]
        .concat()
    };
    let swept = sweep("0.6,0.4", "1", &[]);
    let swept: Vec<&str> = swept.iter().map(String::as_str).collect();
    lenet.succeeds(&lenet.training("sweep", "out", &swept));
    let other = |bits: &str, rounds: &str, more: &[&str]| {
        let flags = sweep(bits, rounds, more);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        differences(&lenet, "sweep", &[&flags[..], &["--resume"]].concat())
    };
    // Before the first target, which is another one, is trained.
    assert_eq!(other("0.5,0.4", "1", &[]), ["--bits: 0.6,0.4 → 0.5,0.4"]);
    assert!(!lenet.exists("out/0.5-bits"), "nothing was trained");
    assert_eq!(other("0.6,0.4", "2", &[]), ["--next-rounds: 1 → 2"]);
    assert_eq!(
        other("0.6,0.4", "1", &["--biases", "f16"]),
        ["--biases: none → f16"]
    );
    let more: Vec<String> = sweep("0.6,0.4,0.3", "1", &["--resume"]);
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    lenet.succeeds(&lenet.training("sweep", "out", &more));
    assert!(
        lenet.exists("out/0.3-bits/report.json"),
        "another target may follow"
    );
}

/// The times that are said after each epoch are those of the whole job, guessed as long as something
/// that is left was never timed.
#[test]
fn the_time_that_is_left_is_that_of_the_whole_job() {
    let lenet = lenet();
    let text = lenet.trains("out", &["--epoch-batches", "2"]);
    let etas = |text: &str| -> Vec<(bool, String)> {
        let lines = text.lines().filter(|line| line.starts_with("epoch "));
        let eta = lines.map(|line| line.split("ETA ").nth(1).unwrap().to_string());
        eta.map(|eta| (eta.starts_with('~'), eta)).collect()
    };
    let found = etas(&text);
    let epochs = text.lines().filter(|line| line.contains("epoch ")).count();
    assert_eq!(found.len(), epochs);
    // Twelve float epochs, then three rounds of three basis, two coordinate epochs and one pruning
    // epoch; the STE phase is not timed before they are done.
    for (number, (is_guess, eta)) in found.iter().enumerate() {
        assert_eq!(*is_guess, number < 12 + 3 * 6, "epoch {number}: ETA {eta}");
    }

    // What was timed before is known to a process that resumes.
    let flags = ["--epoch-batches", "2", "--checkpoint-seconds", "0"];
    lenet.kill_in_the_middle("killed", &flags);
    let text = lenet.trains("killed", &[&flags[..], &["--resume"]].concat());
    assert!(
        !text.contains("lr 2.00e-3"),
        "float epochs are not repeated: {text}"
    );
    assert!(etas(&text).iter().any(|(is_guess, _)| !is_guess), "{text}");
}
