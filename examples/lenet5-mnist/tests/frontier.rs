//! `sweep`, `sensitivity` and what starts from a float network, as a user meets them.

mod page;
#[path = "../../common/tests/program/mod.rs"]
mod program;
mod squares;

use std::fs;
use std::path::Path;

use serde_json::Value;

use program::{kill_once_there_is, refuses, result, succeeds};
use squares::data_folder;

const PROGRAM: &str = env!("CARGO_BIN_EXE_lenet5-mnist");

/// A folder with data, and the names of others in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        data_folder(&folder.path().join("data"));
        Self(folder)
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    fn exists(&self, name: &str) -> bool {
        self.0.path().join(name).exists()
    }
}

/// The command with data and a short training.
fn command<'a>(command: &'a str, data: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![command, "--data-dir", data, "--out", out];
    args.extend(["--preset", "quick", "--batch-size", "50"]);
    args.extend(more);
    args
}

fn bytes(file: String) -> Vec<u8> {
    fs::read(&file).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn json(file: String) -> Value {
    serde_json::from_slice(&bytes(file)).unwrap()
}

/// The float network of a run gives the same model again, and what a bit less costs.
#[test]
fn a_float_network_is_where_others_start() {
    let folder = Folder::new();
    let data = folder.at("data");
    let [first, second, third] = ["first", "second", "third"].map(|name| folder.at(name));
    succeeds(&command("train", &data, &first, &[]));
    let float = format!("{first}/float.bpk");
    let text = succeeds(&command("train", &data, &second, &["--float", &float]));
    assert!(!text.contains("float training"), "{text}");
    let model = |out: &str| bytes(format!("{out}/model.bpk"));
    assert!(
        model(&first) == model(&second),
        "from the same float network"
    );
    let grouped = ["--float", &float, "--auto-grouping"];
    let text = succeeds(&command("train", &data, &third, &grouped));
    assert!(text.contains("modelled loss"), "{text}");
    assert!(result(&text, "packed_acc=") > 50.0, "{text}");
    assert!(model(&first) != model(&third), "with other groups");

    let out = folder.at("sensitivity");
    let mut measure = vec!["sensitivity", "--data-dir", &data, "--float", &float];
    measure.extend(["--out", &out, "--batches", "2", "--batch-size", "50"]);
    let text = succeeds(&measure);
    // Four layers at six bits to none.
    assert!(text.contains("28 of 28 losses measured"), "{text}");
    let measured = json(format!("{out}/sensitivity.json"));
    let weights = measured["weights"].as_array().unwrap();
    assert_eq!(weights.len(), 28);
    let html = fs::read_to_string(format!("{out}/sensitivity.html")).unwrap();
    for figure in ["measured", "predicted"] {
        let rows = page::numbers(&html, figure);
        assert_eq!(rows.len(), 4, "{figure}");
        for (row, weights) in rows.iter().zip(weights.chunks(7)) {
            assert_eq!(
                format!("{}.weight", row[0]),
                weights[0]["path"].as_str().unwrap()
            );
            for (shown, weight) in row[1..].iter().zip(weights) {
                let (shown, value): (f64, _) =
                    (shown.parse().unwrap(), weight[figure].as_f64().unwrap());
                // Four digits are shown, nine places at most.
                assert!(
                    (shown - value).abs() <= 1e-3 * value.abs() + 1e-9,
                    "{shown}, {value}"
                );
            }
        }
    }
    assert!(
        fs::read_to_string(format!("{out}/sensitivity.md"))
            .unwrap()
            .contains("fc1.weight")
    );

    refuses(&measure, "exists already");
    let other = folder.at("other");
    let replace = |from: &str, to: &str| -> Vec<String> {
        let args = measure
            .iter()
            .map(|&arg| if arg == from { to } else { arg });
        args.map(|arg| {
            if arg == out {
                other.clone()
            } else {
                arg.into()
            }
        })
        .collect()
    };
    let packed = format!("{first}/model.bpk");
    for (from, to, expected) in [
        (float.as_str(), packed.as_str(), "not a float LeNet5"),
        (&float, "no/such/file.bpk", "no/such/file.bpk"),
        ("2", "0", "--batches"),
    ] {
        let args = replace(from, to);
        refuses(
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
            expected,
        );
    }
    refuses(
        &command("train", &data, &other, &["--float", &packed]),
        "not a float LeNet5",
    );
    assert!(!folder.exists("other"), "nothing is left behind");
}

/// A sweep, its table and its page; killed and resumed, the same.
#[test]
fn a_sweep_goes_down_its_targets() {
    let folder = Folder::new();
    let data = folder.at("data");
    let [whole, killed] = ["whole", "killed"].map(|name| folder.at(name));
    let mut flags = vec!["--bits", "0.6,0.4,0.3", "--next-rounds", "1", "--deflate"];
    flags.extend(["--coordinates", "f16", "--auto-grouping"]);
    let text = succeeds(&command("sweep", &data, &whole, &flags));
    assert!(text.contains("sweep.html"), "{text}");
    let sweep = json(format!("{whole}/sweep.json"));
    let points = sweep["points"].as_array().unwrap();
    assert_eq!(points.len(), 3);
    let number = |value: &Value| value.as_f64().unwrap();
    for (point, (name, target)) in
        points
            .iter()
            .zip([("0.6-bits", 0.6), ("0.4-bits", 0.4), ("0.3-bits", 0.3)])
    {
        assert_eq!(point["folder"], name);
        let bits = number(&point["paper_bits"]);
        // A group of 400 of the 430,500 weights crosses the target.
        assert!(
            bits <= target + 1e-9 && bits > target - 0.002,
            "{bits} at {target}"
        );
        let model = format!("{whole}/{name}/model.bpk");
        assert_eq!(
            bytes(model.clone()).len() as u64,
            point["file_bytes"].as_u64().unwrap()
        );
        let text = succeeds(&["eval", "--data-dir", &data, "--model", &model]);
        let accuracy = format!("accuracy {:.2} %", number(&point["test"]));
        assert!(text.contains(&accuracy), "{accuracy} in {text}");
        assert!(
            number(&point["validation"]) > 50.0,
            "ten kinds are easily told apart"
        );
        assert!(folder.exists(&format!("whole/{name}/report.html")));
    }
    let html = fs::read_to_string(format!("{whole}/sweep.html")).unwrap();
    for (figure, key) in [
        ("frontier-bits", "paper_bits"),
        ("frontier-bytes", "file_bytes"),
    ] {
        let rows = page::numbers(&html, figure);
        // The paper's point and the float network follow.
        assert_eq!(rows.len(), 5, "{rows:?}");
        for (row, point) in rows.iter().zip(points) {
            let shown: f64 = row[1].replace(['B', ',', ' '], "").parse().unwrap();
            let value = number(&point[key]);
            // Four digits of bits are shown, all of bytes.
            assert!((shown - value).abs() <= 1e-3 * value, "{shown}, {value}");
            assert_eq!(row[2], format!("{:.2}", number(&point["test"])));
        }
    }
    assert!(
        html.contains("Qu et al."),
        "the source of the paper's point"
    );
    let table = fs::read_to_string(format!("{whole}/sweep.md")).unwrap();
    assert!(table.contains("0.3-bits"), "{table}");

    fs::remove_file(format!("{whole}/sweep.html")).unwrap();
    let again = ["report", "--run", &whole];
    let mut newer = sweep.clone();
    newer["version"] = 2.into();
    fs::write(format!("{whole}/sweep.json"), newer.to_string()).unwrap();
    refuses(
        &again,
        "another version: this program reads version 1, found 2",
    );
    fs::write(format!("{whole}/sweep.json"), sweep.to_string()).unwrap();
    succeeds(&again);
    assert!(
        fs::read_to_string(format!("{whole}/sweep.html")).unwrap() == html,
        "drawn again"
    );

    // In the second target, so that the first must be kept.
    let often = [&flags[..], &["--checkpoint-seconds", "0"]].concat();
    let second = Path::new(&killed).join("0.4-bits/checkpoint.bpk");
    kill_once_there_is(&command("sweep", &data, &killed, &often), &second);
    assert!(
        !folder.exists("killed/0.3-bits"),
        "it was killed in the middle"
    );
    let kept = bytes(format!("{killed}/0.6-bits/report.json"));
    assert_eq!(
        json(format!("{killed}/sweep.json"))["points"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let resumed = [&often[..], &["--resume"]].concat();
    succeeds(&command("sweep", &data, &killed, &resumed));
    for name in ["0.6-bits", "0.4-bits", "0.3-bits"] {
        let [a, b] = [&whole, &killed].map(|out| bytes(format!("{out}/{name}/model.bpk")));
        assert!(a == b, "{name}, killed and resumed");
    }
    assert!(
        kept == bytes(format!("{killed}/0.6-bits/report.json")),
        "not evaluated again"
    );
    let points = |out: &str| {
        let mut sweep = json(format!("{out}/sweep.json"));
        for point in sweep["points"].as_array_mut().unwrap() {
            point["seconds"].take();
        }
        sweep["points"].take()
    };
    assert_eq!(points(&whole), points(&killed));

    let other = [
        "--bits",
        "0.6,0.35",
        "--next-rounds",
        "1",
        "--deflate",
        "--seed",
        "2",
        "--resume",
    ];
    refuses(
        &command("sweep", &data, &killed, &other),
        "belongs to another run",
    );
    refuses(&command("sweep", &data, &whole, &flags), "exists already");
}

#[test]
fn targets_that_cannot_be_are_refused() {
    let folder = Folder::new();
    let (data, out) = (folder.at("data"), folder.at("out"));
    for (flags, expected) in [
        (
            &["--bits", "0.4,0.5"][..],
            "--bits: targets must fall, but 0.5 comes after 0.4",
        ),
        (
            &["--bytes", "9000,9000"],
            "--bytes: targets must fall, but 9000 comes after 9000",
        ),
        (
            &["--bits", "7,0.5"],
            "7-bits: the target of 7 bits per weight is not below the start",
        ),
        (
            &["--bits", "0.5,0.00001"],
            "0.00001-bits: the target of 0.00001 bits per weight cannot",
        ),
        (&["--bits", "0.5", "--bytes", "9000"], "cannot be used with"),
        (&["--bits", "0.5", "--target-bits", "0.4"], "--target-bits"),
        (&["--bits", "many"], "--bits"),
        (&[], "--bits <LIST>"),
    ] {
        refuses(&command("sweep", &data, &out, flags), expected);
    }
    assert!(!folder.exists("out"), "nothing is left behind");
}

/// What was reached before a target failed is there, with its table; the run goes on from it.
#[test]
fn finished_targets_are_kept() {
    let folder = Folder::new();
    let (data, out) = (folder.at("data"), folder.at("out"));
    let flags = [
        "--bits",
        "0.6,0.4",
        "--next-rounds",
        "1",
        "--epoch-batches",
        "1",
    ];
    let resumed = [&flags[..], &["--resume"]].concat();
    // A file in the place of the second target's folder, of a run that has just begun.
    fs::create_dir(&out).unwrap();
    fs::write(format!("{out}/0.4-bits"), "in the way").unwrap();
    fs::write(format!("{out}/float.bpk"), "to be written").unwrap();
    refuses(&command("sweep", &data, &out, &resumed), "0.4-bits");
    let first = bytes(format!("{out}/0.6-bits/model.bpk"));
    assert_eq!(
        json(format!("{out}/sweep.json"))["points"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert!(folder.exists("out/sweep.html") && folder.exists("out/sweep.md"));

    fs::remove_file(format!("{out}/0.4-bits")).unwrap();
    succeeds(&command("sweep", &data, &out, &resumed));
    assert!(first == bytes(format!("{out}/0.6-bits/model.bpk")));
    assert_eq!(
        json(format!("{out}/sweep.json"))["points"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}
