//! The program as a user runs it.

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use multibit::cpu::Arithmetic;
use multibit::file::{Coding, PackedFile};
use multibit::runtime::Plan;
use multibit::{Grouping, PackedWeight};
use serde_json::Value;
use support::{BODY, Parts, command, error, every_step, lenet, prints, refuses, without_chain};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&prints(args, 0)).unwrap()
}

#[test]
fn inspect_shows_what_a_file_holds() {
    let lenet = lenet();
    let shown = prints(&["inspect", text(&lenet)], 0);
    for part in [
        "model: lenet5",
        "name: LeNet5",
        "input: [1, 28, 28], (raw / 255 - [0.1307]) / [0.3081], channels first",
        "labels: 0, 1, 2",
        "  10 linear fc2.weight",
        "| fc1.weight   | [800, 500]     | subchannelwise(2) |",
        "conv1.bias: [20] f32",
        "7523 in the file, deflate",
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let found = json(&["inspect", text(&lenet), "--json"]);
    assert_eq!(found["layers"][2]["path"], "fc1.weight");
    assert_eq!(found["layers"][2]["shape"], serde_json::json!([800, 500]));
    assert_eq!(found["weights"], 430500);
    assert_eq!(found["input"]["divisor"], 255.0);
    assert_eq!(found["chain"].as_array().unwrap().len(), 10);
    let steps = prints(&["inspect", text(&every_step(Coding::Plain))], 0);
    assert!(steps.contains("in bitwise arithmetic"), "{steps}");
}

#[test]
fn report_adds_up() {
    for path in [lenet(), every_step(Coding::Plain), without_chain()] {
        let found = json(&["report", text(&path), "--json"]);
        let number = |key: &str| found[key].as_f64().unwrap();
        let layers = found["stored_layers"].as_array().unwrap().iter();
        let stored: f64 = layers.map(|bytes| bytes.as_f64().unwrap()).sum();
        let all = stored + number("stored_others") + number("frame_bytes");
        assert_eq!(all, fs::metadata(&path).unwrap().len() as f64);
        let times = number("times_smaller") * all / number("float_bytes");
        assert!((times - 1.0).abs() < 1e-12, "{times}");
        let groups = |value: &Value| -> u64 {
            let counts = value.as_array().unwrap().iter();
            counts.map(|count| count.as_u64().unwrap()).sum()
        };
        let layers = found["layers"].as_array().unwrap().iter();
        let of_layers: u64 = layers.map(|layer| groups(&layer["group_bits"])).sum();
        assert_eq!(groups(&found["group_bits"]), of_layers);
    }
    let text = prints(&["report", text(&lenet())], 0);
    for part in ["| paper bits per weight ", "952, 36, 12", "229.2x the file"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// Two weights and a tensor by the names of a product's parts are one weight in reports.
#[test]
fn a_product_is_one_layer() {
    let mut parts = Parts::new();
    let factor = |shape: [usize; 2]| {
        let grouping = Grouping::subchannelwise(&shape, 1).unwrap();
        let [codes, ones] = [shape[0] * shape[1], shape[1]].map(|count| vec![1; count]);
        let alphas = vec![0.5; shape[1]];
        PackedWeight::pack(&shape, grouping, 1, &codes, &alphas, &ones).unwrap()
    };
    for (part, shape) in [("first", [96, 5]), ("second", [5, 64])] {
        let path = format!("fc.weight.product.{part}");
        parts.weights.push((path, factor(shape), None));
    }
    let scale = "fc.weight.product.scale".into();
    parts.tensors.push((scale, vec![96], vec![1.0; 96]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("product.bpk");
    fs::write(&file, parts.file()).unwrap();

    let found = json(&["report", text(&file), "--json"]);
    let layers = found["layers"].as_array().unwrap();
    assert_eq!(layers.len(), parts.weights.len() - 1);
    let layer = layers.last().unwrap();
    assert_eq!(layer["path"], "fc.weight");
    assert_eq!(layer["grouping"], "product, rank 5");
    // 96 + 5 rows of words, coordinates and widths, and the scales.
    let stored = found["stored_layers"].as_array().unwrap();
    assert_eq!(stored.len(), layers.len());
    assert_eq!(stored.last().unwrap(), &layer["bytes"]);
    let sum: u64 = stored.iter().map(|bytes| bytes.as_u64().unwrap()).sum();
    let rest = ["stored_others", "frame_bytes"].map(|key| found[key].as_u64().unwrap());
    let all = sum + rest.iter().sum::<u64>();
    assert_eq!(all, fs::metadata(&file).unwrap().len());
    let shown = prints(&["inspect", text(&file)], 0);
    assert!(shown.contains("| fc.weight "), "{shown}");
}

#[test]
fn verify_says_what_is_whole_and_what_it_takes() {
    let lenet = lenet();
    let said = prints(&["verify", text(&lenet)], 0);
    for part in [
        "whole    container and directory\nwhole    conv1.weight\n",
        "chain: runs in 15040 bytes beside the file, gives 10 scores",
        "is whole: 7523 bytes, deflate",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let bytes = fs::read(&lenet).unwrap();
    let file = PackedFile::read(&bytes).unwrap();
    let found = json(&["verify", text(&lenet), "--json"]);
    let plan = Plan::new(&file).unwrap().bytes();
    assert_eq!(found["chain"]["runs"]["bytes"], plan);
    assert_eq!(found["inflated_bytes"], file.inflated_bytes());

    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.bpk");
    let mut bytes = Parts::new().file();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let said = prints(&["verify", text(&damaged)], 1);
    let parts: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("damaged"))
        .collect();
    assert_eq!(parts.len(), 1, "{said}");
    assert!(parts[0].ends_with("wrong checksum, the file is damaged"));
    assert!(said.contains("damaged.bpk is not whole"), "{said}");
    let said = prints(&["verify", text(&damaged), "--json"], 1);
    let found: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(found["whole"], false);
    let said = prints(&["verify", text(&without_chain())], 0);
    assert!(
        said.contains("none     chain: the file holds no chain"),
        "{said}"
    );
}

#[test]
fn diff_of_one_layer() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.bpk");
    let mut parts = Parts::new();
    parts.change(0, |codes, _, widths| {
        let group = widths.iter().position(|&width| width > 0).unwrap();
        codes[9 * group] ^= 1;
    });
    fs::write(&other, parts.file()).unwrap();
    let first = every_step(Coding::Deflate);
    let said = prints(&["diff", text(&first), text(&other)], 1);
    let rows: Vec<&str> = said
        .lines()
        .filter(|line| line.starts_with("| weight"))
        .collect();
    assert_eq!(rows.len(), 1, "{said}");
    assert!(
        rows[0].starts_with(&format!("| {} ", parts.weights[0].0)),
        "{said}"
    );
    assert!(
        said.ends_with(" weights and tensors are the same\n"),
        "{said}"
    );
    assert!(prints(&["diff", text(&first), text(&first)], 0).starts_with("16 of 16 "));
    let found = prints(&["diff", text(&first), text(&other), "--json"], 1);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["entries"][0]["change"]["weight"]["signs"], 1);
    assert_eq!(found["entries"][1]["change"], "none");
}

/// Raw images that differ.
fn images(size: usize, count: usize) -> Vec<u8> {
    let pixel = |i: usize| (i * 37 + i / size * 11) as u8;
    (0..size * count).map(pixel).collect()
}

/// The scores in JSON, as f32.
fn scores(found: &Value) -> Vec<Vec<f32>> {
    let score = |score: &Value| score.as_f64().unwrap() as f32;
    let inputs = found["inputs"].as_array().unwrap().iter();
    inputs
        .map(|input| {
            input["scores"]
                .as_array()
                .unwrap()
                .iter()
                .map(score)
                .collect()
        })
        .collect()
}

/// What the runtime gives for raw images.
fn expected(bytes: &[u8], raw: &[u8], arithmetic: Option<Arithmetic>) -> Vec<Vec<f32>> {
    let file = PackedFile::read(bytes).unwrap();
    let file = match arithmetic {
        Some(arithmetic) => file.with_arithmetic(arithmetic),
        None => file,
    };
    let plan = Plan::new(&file).unwrap();
    let run = |raw: &[u8]| {
        let (mut buffer, mut scores) = (vec![0; plan.words()], vec![0.0; plan.scores()]);
        plan.run_raw(raw, &mut buffer, &mut scores).unwrap();
        scores
    };
    raw.chunks(plan.input().len()).map(run).collect()
}

#[test]
fn run_gives_the_scores_of_the_runtime_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    for (model, size) in [(lenet(), 784), (every_step(Coding::Plain), 72)] {
        let bytes = fs::read(&model).unwrap();
        let raw = images(size, 3);
        let [u8s, f32s] = ["u8", "f32"].map(|name| folder.path().join(name));
        fs::write(&u8s, &raw).unwrap();
        let run = ["run", text(&model), "--json", "--input", text(&u8s)];
        let with = |more: &[&str]| scores(&json(&[&run[..], more].concat()));
        let whole = expected(&bytes, &raw, None);
        assert_eq!(with(&[]), whole);
        assert_eq!(with(&["--isa", "portable"]), whole);
        let int8 = expected(&bytes, &raw, Some(Arithmetic::Int8));
        assert_eq!(with(&["--arithmetic", "int8"]), int8);
        assert_ne!(int8, whole);

        // As values, and from the standard input.
        let file = PackedFile::read(&bytes).unwrap();
        let input = file.about().input.as_ref().unwrap();
        let values = raw.chunks(size).flat_map(|raw| {
            let value = |place| input.value(place, |place| f32::from(raw[place]));
            (0..size).map(value).collect::<Vec<f32>>()
        });
        let values: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        fs::write(&f32s, &values).unwrap();
        let run = ["run", text(&model), "--json", "--input", text(&f32s)];
        assert_eq!(
            scores(&json(&[&run[..], &["--format", "f32"]].concat())),
            whole
        );
        let args = ["run", text(&model), "--json", "--input", "-"];
        let mut child = command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&raw).unwrap();
        let output = child.wait_with_output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(scores(&found), whole);
    }
}

#[test]
fn run_prints_the_best_labels() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    let raw = images(72, 2);
    fs::write(&input, &raw).unwrap();
    let model = every_step(Coding::Plain);
    let said = prints(
        &["run", text(&model), "--input", text(&input), "--top", "2"],
        0,
    );
    let scores = expected(&fs::read(&model).unwrap(), &raw, None);
    let mut expected = String::new();
    for (number, scores) in (1..).zip(scores) {
        let mut ranked: Vec<(f32, &str)> = scores.into_iter().zip(["a", "b", "c", "d"]).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        expected += &format!("input {number}\n");
        for (score, label) in &ranked[..2] {
            expected += &format!("  {label}  {score}\n");
        }
    }
    assert_eq!(said, expected);
}

#[test]
fn what_is_no_whole_input_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input.raw");
    let model = lenet();
    let run = ["run", text(&model), "--input", text(&input)];
    refuses(&run, &["input.raw: No such file"]);
    for size in [0, 1, 783, 785, 784 * 3 + 1] {
        fs::write(&input, vec![0; size]).unwrap();
        let says = format!("input.raw holds {size} bytes, which is no whole number of inputs");
        let takes = "model.bpk takes [1, 28, 28], as --format u8 784 bytes each";
        refuses(&run, &[&says, takes]);
    }
    fs::write(&input, vec![0; 784]).unwrap();
    let as_f32 = [&run[..], &["--format", "f32"]].concat();
    refuses(&as_f32, &["as --format f32 3136 bytes each"]);
    let mut values = vec![0; 2 * 3136];
    values[3136 + 8..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&input, values).unwrap();
    refuses(&as_f32, &["input.raw: value 786 is NaN"]);
    let model = without_chain();
    let run = ["run", text(&model), "--input", text(&input)];
    refuses(
        &run,
        &["packed_plain.bpk does not run: the file holds no chain"],
    );
    let model = lenet();
    let run = [
        "run",
        text(&model),
        "--input",
        text(&input),
        "--arithmetic",
        "bitwise",
    ];
    refuses(
        &run,
        &["step 1 of the chain, conv2d: bitwise arithmetic takes"],
    );
}

#[test]
fn files_that_are_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.bpk");
    let good = every_step(Coding::Plain);
    let plain = fs::read(&good).unwrap();
    let mut newer = plain.clone();
    newer[BODY + 4] = 9;
    let mut damaged = plain.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (bytes, says) in [
        (&b""[..], "is not a packed model: this is an empty file"),
        (b"<html>", "is not a packed model: this is an HTML page"),
        (
            b"PK\x03\x04",
            "is not a packed model: this is a ZIP archive",
        ),
        (&plain[..5], "the first 5 bytes of a burnpack file"),
        (&plain[..plain.len() / 2], "the file has another length"),
        (&newer, "format version 9, but this program reads up to 1"),
        (&damaged, "wrong checksum, the file is damaged"),
    ] {
        fs::write(&bad, bytes).unwrap();
        for command in ["inspect", "report"] {
            refuses(&[command, text(&bad)], &["bad.bpk", says]);
        }
        refuses(&["diff", text(&good), text(&bad)], &["bad.bpk", says]);
        refuses(&["diff", text(&bad), text(&good)], &["bad.bpk", says]);
        refuses(&["run", text(&bad), "--input", "-"], &["bad.bpk", says]);
        let said = prints(&["verify", text(&bad)], 1);
        assert!(
            said.starts_with("damaged  ") || said.contains("\ndamaged  "),
            "{said}"
        );
    }
    let absent = folder.path().join("absent.bpk");
    for command in ["inspect", "report", "verify"] {
        refuses(&[command, text(&absent)], &["absent.bpk: No such file"]);
        refuses(&[command, text(folder.path())], &["directory"]);
    }
}

/// A file may come from anyone: no text of it moves the cursor.
#[test]
fn texts_of_a_file_are_no_orders_to_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.bpk");
    let mut parts = Parts::new();
    parts.about.name = "\x1b[2Jgone\nwhole    all".into();
    parts.weights[0].0 = "a\x1b]0;b\u{9b}c".into();
    for label in &mut parts.about.labels {
        *label = "\r\x07label".into();
    }
    fs::write(&file, parts.file()).unwrap();
    let input = folder.path().join("input");
    fs::write(&input, [0; 72]).unwrap();
    let model = every_step(Coding::Plain);
    for args in [
        &["inspect", text(&file)][..],
        &["report", text(&file)],
        &["verify", text(&file)],
        &["run", text(&file), "--input", text(&input)],
        &["diff", text(&file), text(&model)],
    ] {
        let output = command(args).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let order = said.chars().find(|sign| sign.is_control() && *sign != '\n');
        assert_eq!(order, None, "{said:?}");
        assert!(!said.contains("\nwhole    all"), "{said}");
    }
}

#[test]
fn help_names_defaults_and_codes() {
    let said = prints(&["run", "--help"], 0);
    for part in [
        "[default: u8]",
        "[default: 5]",
        "--arithmetic",
        "--isa",
        "standard input",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let said = prints(&["--help"], 0);
    for part in [
        "inspect",
        "verify",
        "diff",
        "report",
        "run",
        "Exit code: 0; 1 if",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    refuses(&["inspect"], &["<FILE>"]);
    refuses(
        &["run", "a", "--input", "b", "--format", "i16"],
        &["u8, f32"],
    );
}

/// As behind `head`, and with a log on a full disk.
#[cfg(unix)]
#[test]
fn nobody_needs_to_read() {
    let lenet = lenet();
    let changed = every_step(Coding::Plain);
    for (args, code) in [
        (&["inspect", text(&lenet)][..], 0),
        (&["report", text(&lenet), "--json"], 0),
        (&["verify", text(&lenet)], 0),
        (&["diff", text(&lenet), text(&changed)], 1),
    ] {
        let mut child = command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert_eq!(error(&output), "");
        #[cfg(target_os = "linux")]
        {
            let full = fs::OpenOptions::new()
                .write(true)
                .open("/dev/full")
                .unwrap();
            let output = command(args)
                .stdout(full)
                .stderr(Stdio::piped())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?}");
            assert!(
                error(&output).contains("standard output: No space left"),
                "{args:?}"
            );
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn names_need_not_be_utf_8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(OsStr::from_bytes(b"m\xff.bpk"));
    fs::copy(lenet(), &file).unwrap();
    let input = folder.path().join(OsStr::from_bytes(b"i\xfe"));
    fs::write(&input, images(784, 1)).unwrap();
    for command in ["inspect", "report", "verify"] {
        prints(&[OsStr::new(command), file.as_os_str()], 0);
    }
    let run = [
        OsStr::new("run"),
        file.as_os_str(),
        OsStr::new("--input"),
        input.as_os_str(),
    ];
    assert!(prints(&run, 0).starts_with("input 1\n"));
    prints(&[OsStr::new("diff"), file.as_os_str(), file.as_os_str()], 0);
}
