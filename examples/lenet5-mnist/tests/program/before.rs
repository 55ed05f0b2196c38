//! What is checked before there is any work, and what is said of it.

use std::fs;
use std::process::Stdio;

use example_testing::{TRAINING, holds};

use super::lenet;

#[test]
fn flags_stand_under_their_headings() {
    let lenet = lenet();
    // All of them, in this order.
    let has = |command: &str, expected: &[(&str, &str)]| {
        lenet.has_flags(command, expected);
        let found = lenet.headings(command);
        let order = found.iter().map(|(heading, _)| heading.as_str());
        assert!(
            order.eq(expected.iter().map(|(heading, _)| *heading)),
            "{command}"
        );
    };
    let options = "--out --resume --checkpoint-seconds --json --device --help";
    let data = "--data-dir --download";
    let training = format!("--preset --shards {TRAINING}");
    let levers = "--distill --distill-temperature --prune-pace --prune-epochs --recovery-steps \
                  --recovery --auto-grouping --coordinates --biases --bias-bits --deflate";
    let mut expected = [
        ("Options", options),
        ("Data", data),
        ("Training", &training),
        ("Network", "--act-bits"),
        ("Levers", levers),
        ("Target", "--target-bits --target-bytes"),
    ];
    has("train", &expected);
    expected[5] = ("Targets", "--bits --bytes --next-rounds");
    has("sweep", &expected);
    let options = "--float --out --batches --batch-size --max-bits --lr --seed --device --help";
    has("sensitivity", &[("Options", options), ("Data", data)]);
    has(
        "eval",
        &[("Options", "--model --device --help"), ("Data", data)],
    );
}

/// `eval` needs no other files than the two of the test images.
#[test]
fn evaluation_needs_the_test_images_alone() {
    let lenet = lenet();
    lenet.trains("out", &["--epoch-batches", "1"]);
    let [model, data] = ["out/model.bpk", "data"].map(|name| lenet.at(name));
    let eval = ["eval", "--model", &model, "--data-dir", &data];
    let expected = lenet.succeeds(&eval);
    for kind in ["images-idx3", "labels-idx1"] {
        fs::remove_file(format!("{data}/train-{kind}-ubyte.gz")).unwrap();
    }
    assert_eq!(lenet.succeeds(&eval), expected);
    holds(&expected, "on 60 test images");
    lenet.refuses_to_train("other", &[], "train-images-idx3-ubyte");
}

#[test]
fn files_that_are_no_models_are_named_for_what_they_are() {
    let lenet = lenet();
    lenet.trains("out", &["--epoch-batches", "1"]);
    let [model, data, bad] = ["out/model.bpk", "data", "bad.bpk"].map(|name| lenet.at(name));
    let packed = lenet.read("out/model.bpk");
    let html = b"<!DOCTYPE html>\n<html><body>404: Not Found</body></html>";
    let safetensors = b"\x10\0\0\0\0\0\0\0{\"__metadata__\"}";
    let inspect = ["inspect", "--model", &bad];
    for (bytes, expected) in [
        (&b""[..], "an empty file"),
        (html, "an HTML page"),
        (safetensors, "a safetensors file"),
        (
            b"\xde\xad\xbe\xef\0\0\0\0\0\0\0",
            "of an unknown kind (its first bytes are [de, ad, be, ef])",
        ),
        (b"{\"model\": 1}", "JSON"),
        (b"PK\x03\x04archive/data.pkl", "a ZIP archive"),
        (&packed[..3], "the first 3 bytes of a burnpack file"),
        (&lenet.read("out/float.bpk"), "a burnpack file of 8 tensors"),
        (
            &lenet.read("out/checkpoint.bpk"),
            "the checkpoint of a training",
        ),
    ] {
        fs::write(&bad, bytes).unwrap();
        let expected = format!("bad.bpk is not a packed model: this is {expected}");
        lenet.refuses(&inspect, &expected);
        lenet.refuses(&["time", "--model", &model, "--model", &bad], &expected);
        lenet.refuses(&["eval", "--model", &bad, "--data-dir", &data], &expected);
    }
    lenet.refuses(&["inspect", "--model", &data], "data: Is a directory");
    // The same where another kind of file is wanted.
    fs::write(&bad, html).unwrap();
    let expected = "--float FILE: not a float LeNet5 of these flags: this is an HTML page";
    let expected = expected.replace("FILE", &bad);
    lenet.refuses_to_train("other", &["--float", &bad], &expected);
    let expected = expected
        .replace(&bad, &model)
        .replace("an HTML page", "a packed model");
    lenet.refuses_to_train("other", &["--float", &model], &expected);
    assert!(!lenet.exists("other"), "nothing is left behind");
    fs::write(lenet.at("out/checkpoint.bpk"), html).unwrap();
    let resume = ["--epoch-batches", "1", "--resume"];
    lenet.refuses_to_train(
        "out",
        &resume,
        "checkpoint.bpk: Validation error: not a burnpack file: this is an HTML page",
    );
}

/// Numbers that nothing can be calculated with.
#[test]
fn numbers_out_of_range_are_refused() {
    let lenet = lenet();
    // Flags are read before files.
    let [model, float, other] = ["model.bpk", "float.bpk", "other"].map(|name| lenet.at(name));
    let time = ["time", "--model", &model];
    let measure = ["sensitivity", "--float", &float, "--out", &other];
    let train = ["train", "--out", &other];
    let sweep = ["sweep", "--out", &other];
    for (command, flag, values) in [
        (&time[..], "--seconds", "nan,inf,-1,1e999"),
        (&time, "--batch", "0,-1,4294967295,99999999999"),
        (&measure, "--lr", "nan,inf,0,-1"),
        (&measure, "--batches", "0"),
        (&measure, "--batch-size", "0,65537"),
        (&measure, "--max-bits", "0,9"),
        (&train, "--target-bits", "nan,inf,-inf,0,-1"),
        (&train, "--target-bytes", "-1,nan"),
        (&train, "--seed", "-1,1.5,18446744073709551616"),
        (&train, "--batch-size", "0,4294967295"),
        (&train, "--epoch-batches", "0,4294967296"),
        (&train, "--checkpoint-seconds", "-1,nan"),
        (&train, "--shards", "0,65"),
        (&train, "--act-bits", "0,5,nan"),
        (&train, "--prune-epochs", "0,65536"),
        (&train, "--recovery-steps", "-1,65536"),
        (&sweep, "--bits", "nan,inf,0"),
        (&sweep, "--bytes", "-1"),
    ] {
        for value in values.split(',') {
            // With `=`, as a minus may begin a flag.
            let flag = format!("{flag}={value}");
            let args: Vec<&str> = command.iter().copied().chain([flag.as_str()]).collect();
            let expected = flag.split('=').next().unwrap();
            lenet.refuses(&args, expected);
        }
    }
    for (flags, expected) in [
        ("--distill=nan", "weight of a distillation must not be NaN"),
        (
            "--distill=-0.1",
            "weight of a distillation must not be -0.1",
        ),
        ("--distill=0.5 --distill-temperature=nan", "must not be NaN"),
        ("--distill=0.5 --distill-temperature=inf", "must not be inf"),
        ("--distill=0.5 --distill-temperature=0", "must not be 0"),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        lenet.refuses_to_train("other", &flags, expected);
    }
    assert!(!lenet.exists("other"), "nothing is left behind");
}

/// Where files cannot be written is known before the work.
#[test]
fn files_that_cannot_be_written_are_refused_before_the_work() {
    let lenet = lenet();
    let [data, model, absent, inside, float] = [
        "data",
        "new/out/model.bpk",
        "no/such/a.json",
        "new/dir/a.json",
        "out/float.bpk",
    ]
    .map(|name| lenet.at(name));
    let kept = lenet.at("data/t10k-images-idx3-ubyte");
    for (json, expected) in [
        (
            &absent,
            "a.json: cannot be written: No such file or directory",
        ),
        (
            &inside,
            "a.json: cannot be written: No such file or directory",
        ),
        (&data, "data: cannot be written: "),
        (&model, "model.bpk: cannot be written: a name for tensors"),
        (
            &format!("{kept}/a.json"),
            "a.json: cannot be written: Not a directory",
        ),
    ] {
        let flags = ["--json", json];
        for command in ["train", "sweep"] {
            let more = if command == "sweep" {
                &["--bits", "0.5"][..]
            } else {
                &[]
            };
            let training = lenet.training(command, "new/out", &[&flags[..], more].concat());
            lenet.refuses(&training, expected);
        }
        assert!(!lenet.exists("new"), "nothing is left behind");
    }
    // In the run's own folder, which is not there yet.
    let own = lenet.at("out/copy.json");
    lenet.trains("out", &["--epoch-batches", "1", "--json", &own]);
    assert_eq!(lenet.read("out/copy.json"), lenet.read("out/report.json"));

    let measure = |out: &str| {
        let args = [
            "sensitivity",
            "--data-dir",
            &data,
            "--float",
            &float,
            "--out",
            out,
        ];
        args.map(String::from)
    };
    lenet.refuses(&measure(&kept), "is not a folder");
    lenet.refuses(
        &measure(&format!("{kept}/out")),
        "cannot be made: Not a directory",
    );
    lenet.refuses(&measure(&lenet.at("out")), "exists already");
    lenet.refuses_to_train(&kept, &[], "is not a folder");
    // A file in the place of a later target's folder.
    let sweep = lenet.training("sweep", "swept", &["--bits", "0.6,0.4"]);
    let [swept, second] = ["swept", "swept/0.4-bits"].map(|name| lenet.at(name));
    fs::create_dir(swept).unwrap();
    fs::write(second, "in the way").unwrap();
    lenet.refuses(&sweep, "0.4-bits is not a folder");
}

/// A folder that is mounted to be read only, which holds for root too.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_refused_before_the_work() {
    use std::process::Command;

    let lenet = lenet();
    let tried = Command::new("unshare").args(["-rm", "true"]).output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return;
    }
    let (out, training) = (lenet.at("out"), lenet.training("train", "out", &[]));
    fs::create_dir(&out).unwrap();
    let mut command = Command::new("unshare");
    let script = r#"mount -t tmpfs -o ro none "$0" && exec "$@""#;
    command.args(["-rm", "sh", "-c", script, &out]);
    let program = lenet.command(&training);
    command.arg(program.get_program()).args(program.get_args());
    let output = command.stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    holds(
        &error,
        &format!("--out {out}: cannot be written: Read-only file system"),
    );
    assert!(output.stdout.is_empty(), "nothing was done");
}
