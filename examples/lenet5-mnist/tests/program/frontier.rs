//! `sweep`, `sensitivity` and what starts from a float network.

use std::fs;

use example_testing::{Program, holds, result};
use serde_json::Value;

use super::lenet;
use super::page::{json, numbers, shows};

/// The float network of a run gives the same model again, and what a bit less costs.
#[test]
fn a_float_network_is_where_others_start() {
    let lenet = lenet();
    lenet.trains("first", &[]);
    let [float, packed] = ["first/float.bpk", "first/model.bpk"].map(|name| lenet.at(name));
    let text = lenet.trains("second", &["--float", &float]);
    assert!(!text.contains("float training"), "{text}");
    let model = |out: &str| lenet.read(&format!("{out}/model.bpk"));
    assert!(
        model("first") == model("second"),
        "from the same float network"
    );
    let text = lenet.trains("third", &["--float", &float, "--auto-grouping"]);
    holds(&text, "modelled loss");
    assert!(result(&text, "packed_acc=") > 50.0, "{text}");
    assert!(model("first") != model("third"), "with other groups");

    let data = lenet.at("data");
    let measure = |out: &str, float: &str, batches: &str| {
        let mut args = vec!["sensitivity", "--data-dir", &data, "--float", float];
        let out = lenet.at(out);
        args.extend(["--out", &out, "--batches", batches, "--batch-size", "50"]);
        args.into_iter().map(String::from).collect::<Vec<_>>()
    };
    let text = lenet.succeeds(&measure("sensitivity", &float, "2"));
    // Four layers at six bits to none.
    holds(&text, "28 of 28 losses measured");
    let measured = json(&lenet, "sensitivity/sensitivity.json");
    let weights = measured["weights"].as_array().unwrap();
    assert_eq!(weights.len(), 28);
    let html = lenet.text("sensitivity/sensitivity.html");
    for figure in ["measured", "predicted"] {
        let rows = numbers(&html, figure);
        assert_eq!(rows.len(), 4, "{figure}");
        for (row, weights) in rows.iter().zip(weights.chunks(7)) {
            assert_eq!(weights[0]["path"], format!("{}.weight", row[0]));
            for (shown, weight) in row[1..].iter().zip(weights) {
                // Nine places at most.
                shows(shown, number(&weight[figure]), 1e-9);
            }
        }
    }
    let markdown = lenet.text("sensitivity/sensitivity.md");
    holds(&markdown, "fc1.weight");

    lenet.refuses(&measure("sensitivity", &float, "2"), "exists already");
    for (float, batches, expected) in [
        (packed.as_str(), "2", "not a float LeNet5"),
        ("no/such/file.bpk", "2", "no/such/file.bpk"),
        (&float, "0", "--batches"),
    ] {
        lenet.refuses(&measure("other", float, batches), expected);
    }
    lenet.refuses_to_train("other", &["--float", &packed], "not a float LeNet5");
    assert!(!lenet.exists("other"), "nothing is left behind");
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// The targets that a sweep has reached, without their times.
fn points(program: &Program, out: &str) -> Vec<Value> {
    let mut sweep = json(program, &format!("{out}/sweep.json"));
    let points = sweep["points"].as_array_mut().unwrap();
    for point in &mut *points {
        point["seconds"].take();
    }
    std::mem::take(points)
}

/// A sweep, its table and its page; killed and resumed, the same.
#[test]
fn a_sweep_goes_down_its_targets() {
    let lenet = lenet();
    let mut flags = vec!["--bits", "0.6,0.4,0.3", "--next-rounds", "1", "--deflate"];
    flags.extend(["--coordinates", "f16", "--auto-grouping"]);
    let sweep = |out: &str, more: &[&str]| {
        let flags = [&flags[..], more].concat();
        lenet.training("sweep", out, &flags)
    };
    let text = lenet.succeeds(&sweep("whole", &[]));
    holds(&text, "sweep.html");
    let reached = points(&lenet, "whole");
    assert_eq!(reached.len(), 3);
    let targets = [("0.6-bits", 0.6), ("0.4-bits", 0.4), ("0.3-bits", 0.3)];
    for (point, (name, target)) in reached.iter().zip(targets) {
        assert_eq!(point["folder"], name);
        let bits = number(&point["paper_bits"]);
        // A group of 400 of the 430,500 weights crosses the target.
        assert!(
            bits <= target + 1e-9 && bits > target - 0.002,
            "{bits} at {target}"
        );
        let model = format!("whole/{name}/model.bpk");
        let bytes = lenet.read(&model).len() as u64;
        assert_eq!(bytes, point["file_bytes"].as_u64().unwrap());
        let [model, data] = [&model, "data"].map(|name| lenet.at(name));
        let text = lenet.succeeds(&["eval", "--data-dir", &data, "--model", &model]);
        let accuracy = format!("accuracy {:.2} %", number(&point["test"]));
        holds(&text, &accuracy);
        assert!(
            number(&point["validation"]) > 50.0,
            "ten kinds are easily told apart"
        );
        assert!(lenet.exists(&format!("whole/{name}/report.html")));
    }
    let html = lenet.text("whole/sweep.html");
    for (figure, key) in [
        ("frontier-bits", "paper_bits"),
        ("frontier-bytes", "file_bytes"),
    ] {
        let rows = numbers(&html, figure);
        // The paper's point and the float network follow.
        assert_eq!(rows.len(), 5, "{rows:?}");
        for (row, point) in rows.iter().zip(&reached) {
            shows(
                &row[1].replace(['B', ',', ' '], ""),
                number(&point[key]),
                0.0,
            );
            assert_eq!(row[2], format!("{:.2}", number(&point["test"])));
        }
    }
    // The source of the paper's point.
    holds(&html, "Qu et al.");
    let table = lenet.text("whole/sweep.md");
    holds(&table, "0.3-bits");

    let [whole, file, page] =
        ["whole", "whole/sweep.json", "whole/sweep.html"].map(|name| lenet.at(name));
    fs::remove_file(page).unwrap();
    let again = ["report", "--run", &whole];
    let mut newer = json(&lenet, "whole/sweep.json");
    let sweep_json = newer.to_string();
    newer["version"] = 2.into();
    fs::write(&file, newer.to_string()).unwrap();
    lenet.refuses(
        &again,
        "another version: this program reads version 1, found 2",
    );
    fs::write(&file, sweep_json).unwrap();
    lenet.succeeds(&again);
    assert!(lenet.text("whole/sweep.html") == html, "drawn again");

    // In the second target, so that the first must be kept.
    let often = sweep("killed", &["--checkpoint-seconds", "0"]);
    lenet.kill_once_there_is("killed/0.4-bits/checkpoint.bpk", &often);
    assert!(
        !lenet.exists("killed/0.3-bits"),
        "it was killed in the middle"
    );
    let kept = lenet.read("killed/0.6-bits/report.json");
    assert_eq!(points(&lenet, "killed").len(), 1);
    lenet.succeeds(&sweep("killed", &["--checkpoint-seconds", "0", "--resume"]));
    for (name, _) in targets {
        let [a, b] = ["whole", "killed"].map(|out| lenet.read(&format!("{out}/{name}/model.bpk")));
        assert!(a == b, "{name}, killed and resumed");
    }
    assert!(
        kept == lenet.read("killed/0.6-bits/report.json"),
        "not evaluated again"
    );
    assert_eq!(reached, points(&lenet, "killed"));

    let mut other = vec!["--bits", "0.6,0.35", "--next-rounds", "1", "--deflate"];
    other.extend(["--seed", "2", "--resume"]);
    let other = lenet.training("sweep", "killed", &other);
    lenet.refuses(&other, "belongs to another run");
    lenet.refuses(&sweep("whole", &[]), "exists already");
}

#[test]
fn targets_that_cannot_be_are_refused() {
    let lenet = lenet();
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
        (&["--bits", "0.5,nan"], "--bits"),
        (&[], "--bits <LIST>"),
    ] {
        lenet.refuses(&lenet.training("sweep", "out", flags), expected);
    }
    assert!(!lenet.exists("out"), "nothing is left behind");
}

/// What was reached before a target failed is there, with its table; the run goes on from it.
#[test]
fn finished_targets_are_kept() {
    let lenet = lenet();
    let mut flags = vec!["--bits", "0.6,0.4", "--next-rounds", "1"];
    flags.extend(["--epoch-batches", "1", "--resume"]);
    let resumed = lenet.training("sweep", "out", &flags);
    // A folder in the place of the second target's model, of a run that has just begun.
    let [second, float] = ["out/0.4-bits/model.bpk", "out/float.bpk"].map(|name| lenet.at(name));
    fs::create_dir_all(&second).unwrap();
    fs::write(float, "to be written").unwrap();
    lenet.refuses(&resumed, "model.bpk");
    let first = lenet.read("out/0.6-bits/model.bpk");
    assert_eq!(points(&lenet, "out").len(), 1);
    assert!(lenet.exists("out/sweep.html") && lenet.exists("out/sweep.md"));

    fs::remove_dir(second).unwrap();
    lenet.succeeds(&resumed);
    assert!(first == lenet.read("out/0.6-bits/model.bpk"));
    assert_eq!(points(&lenet, "out").len(), 2);
}
